"""Who is answered, what is refused, and what is taken home."""

import hashlib
import io
import json
import socket
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import underfire as uf
from support.pictures import png_chunk
from support.studio import ORIGIN, PORT, asking, photo, toy_session, unpacked, wait, wish
from support.toy_photos import MODEL_OPTIONS, toy_classifier
from underfire import metrics
from underfire.cli import cli
from underfire.errors import InputError
from underfire.studio import server
from underfire.studio.guard import HEADERS
from underfire.studio.server import MOST_UPLOAD, listening
from underfire.studio.session import StudioSession
from underfire.studio.wish import DRAWN, MOST_PASSES


@pytest.fixture
def session() -> Iterator[StudioSession]:
    made = toy_session()
    yield made
    made.close()


def refused(answer: Any, status: int) -> str:
    """The one sentence of a refusal."""
    assert answer.status_code == status, answer.text
    told: str = answer.json()["error"]
    assert told
    assert "\n" not in told
    return told


class TestWhoIsAnswered:
    def test_the_page_and_what_it_needs(self, session: StudioSession) -> None:
        client = asking(session)
        for name in ("", "studio.js", "studio.css", "style.css", "photos/0", "options/0"):
            answer = client.get(name)
            assert answer.status_code == 200, name
            assert HEADERS.items() <= dict(answer.headers).items(), name
        assert client.get("photos/12").status_code == 422
        assert client.get("nonsense").status_code == 404
        assert client.get("../options/0").status_code == 403

    @pytest.mark.parametrize("token", ["", "a-tokem", "a-token2", "A-TOKEN", "%61-token"])
    def test_the_token_is_asked_of_each(self, session: StudioSession, token: str) -> None:
        client = asking(session, token)
        fine = token.startswith("%")  # the same, as addresses may write it
        for name in ("", "studio.js", "options/0", "news" if not fine else "studio.css", "evidence.zip"):
            answer = client.get(name)
            assert (answer.status_code != 403) == fine, name
        assert (client.post("stop").status_code == 200) == fine

    @pytest.mark.parametrize(
        "headers",
        [
            {"host": f"evil.example:{PORT}"},
            {"host": "127.0.0.1"},
            {"host": f"127.0.0.1:{PORT + 1}"},
            {"origin": "http://evil.example"},
            {"origin": f"http://127.0.0.1:{PORT + 1}"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ],
        ids=str,
    )
    def test_no_other_site_is_answered(self, session: StudioSession, headers: dict[str, str]) -> None:
        client = asking(session, **headers)
        assert client.get("options/0").status_code == 403
        assert client.post("stop").status_code == 403

    def test_what_changes_something_needs_an_origin(self, session: StudioSession) -> None:
        client = asking(session)
        del client.headers["origin"]
        assert client.get("").status_code == 200  # as a browser opens an address
        assert client.post("stop").status_code == 403
        localhost = asking(session, host=f"localhost:{PORT}", origin=f"http://localhost:{PORT}")
        assert localhost.post("stop").status_code == 200


class TestPhotos:
    def test_a_dropped_photo_is_looked_at(self, session: StudioSession) -> None:
        client = asking(session)
        dropped = client.post("photo", content=photo()).json()
        assert dropped["size"] == [40, 40]
        seen = client.post("look", json=wish(photo=None, interpreters=["cam", "grad"])).json()
        assert sorted(seen["maps"]) == ["cam", "grad"]
        assert 0 < seen["confidence"] <= 1

    def test_files_that_are_no_photos_are_refused(self, session: StudioSession) -> None:
        client = asking(session)
        large = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", bytes([0, 0, 100, 0] * 2 + [8, 2, 0, 0, 0]))
        for content in (b"", b"no picture", photo()[:-40], large, b"%!PS-Adobe\n(x) run"):
            assert "not a usable photo" in refused(client.post("photo", content=content), 422)
        assert "No photo" in refused(client.post("look", json=wish(photo=None)), 422)

    def test_a_body_is_read_no_further_than_its_limit(
        self, session: StudioSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = asking(session)
        assert MOST_UPLOAD == 32 * 2**20
        monkeypatch.setattr(server, "MOST_UPLOAD", 1000)
        read = 0

        def parts() -> Iterator[bytes]:
            nonlocal read
            for _ in range(100):
                read += 400
                yield bytes(400)

        refused(client.post("photo", content=bytes(1001)), 413)
        refused(client.post("photo", content=parts()), 413)
        refused(client.post("attack", content=b" " * (2**16 + 1)), 413)


class TestWishes:
    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"goal": "kept/kept"}, "goal"),
            ({"goal": "../../etc/passwd"}, "goal"),
            ({"interpreters": []}, "interpreters"),
            ({"interpreters": ["cam", "cam"]}, "interpreters"),
            ({"interpreters": ["os:system"]}, "os:system"),
            ({"interpreters": ["rollout"]}, "rollout"),
            ({"model": 1}, "model"),
            ({"model": "torchvision:resnet50"}, "model"),
            ({"photo": 12}, "photo"),
            ({"photo": "/etc/passwd"}, "photo"),
            ({"photo": None}, "photo"),
            ({"target": "class 99"}, "class 99"),
            ({"target": None}, "target class"),
            ({"eps": "2"}, "eps"),
            ({"perturbation": "l1"}, "perturbation 'l1' is unknown"),
            ({"perturbation": 2}, "perturbation"),
            ({"perturbation": "l2", "eps": "0"}, "eps 0 is no l2 radius"),
            ({"perturbation": "flow", "eps": "-1"}, "eps -1 is no displacement"),
            ({"eps": "0.1/255"}, "eps"),
            ({"eps": "1e99999"}, "1e99999"),
            ({"passes": 0}, "passes"),
            ({"passes": MOST_PASSES + 1}, "passes"),
            ({"passes": 1, "interpreters": ["ig"]}, "passes"),
            ({"seed": 2**63}, "9223372036854775808"),
            ({"goal": "target/led"}, "target map"),
            ({"goal": "target/led", "target_map": [256] * DRAWN**2}, "target map"),
            ({"goal": "target/led", "target_map": [7] * DRAWN**2}, "empty"),
            ({"out": "/etc"}, "out"),
        ],
        ids=str,
    )
    def test_a_bad_one_is_a_sentence_and_leaves_room_for_the_next(
        self, session: StudioSession, changes: dict[str, Any], word: str
    ) -> None:
        client = asking(session)
        assert word in refused(client.post("attack", json=wish(**changes)), 422).lower()
        assert session.news(0, 0, -1) is not None
        assert client.post("look", json=wish()).status_code == 200

    def test_what_is_no_json_is_refused(self, session: StudioSession) -> None:
        client = asking(session)
        for content in (b"", b"{", b"[]", b"NaN", b"[" * 5000, b"\xff"):
            refused(client.post("attack", content=content), 422)

    def test_a_photo_of_the_target_class_fails_in_a_sentence(self, session: StudioSession) -> None:
        client = asking(session)
        label = client.post("look", json=wish()).json()["label"]
        assert client.post("attack", json=wish(target=label)).status_code == 202
        told = wait(session)
        assert told["phase"] == "failed"
        assert label in told["message"]
        refused(client.get("evidence.zip"), 422)


class TestOneAttackAtATime:
    def test_a_second_one_is_told_so_and_stop_ends_the_first(self, session: StudioSession) -> None:
        client = asking(session)
        refused(client.get("evidence.zip"), 422)
        assert client.post("attack", json=wish(passes=MOST_PASSES, goal="kept/l1")).status_code == 202
        for path, body in (("attack", wish()), ("look", wish())):
            assert "running" in refused(client.post(path, json=body), 409)
        refused(client.post("photo", content=photo()), 409)
        wait(session, ["running"])
        while not wait(session, ["running"])["points"]:
            pass
        client.post("stop")
        told = wait(session)
        assert told["phase"] == "stopped"
        last = told["points"][-1]
        assert told["result"]["passes"] == last["passes"] < MOST_PASSES
        result = evidence(client)[0]
        assert result["result"]["stopped"]
        assert result["result"]["passes"] == last["passes"]
        assert client.post("attack", json=wish()).status_code == 202
        assert wait(session)["phase"] == "done"

    def test_stopping_nothing_is_nothing(self, session: StudioSession) -> None:
        client = asking(session)
        client.post("stop")
        assert client.post("attack", json=wish()).status_code == 202
        assert wait(session)["phase"] == "done"


def evidence(client: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    answer = client.get("evidence.zip")
    assert answer.status_code == 200
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        held = {name: packed.read(name) for name in packed.namelist()}
    return json.loads(held.pop("result.json")), held


def pixels(data: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


class TestEvidence:
    def test_every_figure_is_of_the_png_beside_it(self, session: StudioSession) -> None:
        client = asking(session)
        client.post("attack", json=wish(interpreters=["cam", "grad"], passes=40))
        assert wait(session)["phase"] == "done"
        result, held = evidence(client)
        assert result["sha256"] == {name: hashlib.sha256(content).hexdigest() for name, content in held.items()}
        clf = toy_classifier()
        benign, adversarial = pixels(held["benign.png"]), pixels(held["adversarial.png"])
        target = torch.tensor([3])
        assert float(clf.probabilities(adversarial)[0, 3]) == result["result"]["confidence"]
        assert result["result"]["label_met"] == (int(clf(adversarial).argmax()) == 3)
        assert float(metrics.linf(adversarial, benign)) == result["result"]["linf"] <= 8 / 255 + 1e-6
        label = clf(benign).argmax(dim=1)
        assert int(label) == result["photo"]["label"]["index"]
        for make in (uf.CAM, uf.GRAD):
            g = make(clf)
            maps = {kind: unpacked(held[f"maps/{kind}-{g.name}.npy"]) for kind in ("benign", "adversarial")}
            assert np.array_equal(
                maps["adversarial"], g(adversarial, target, keys=[result["photo"]["name"]])[0].numpy()
            )
            assert np.array_equal(maps["benign"], g(benign, label, keys=[result["photo"]["name"]])[0].numpy())
            told = result["result"]["from_benign_map"][g.name]
            assert told["l1"] == pytest.approx(np.abs(maps["adversarial"] - maps["benign"]).mean(), abs=1e-6)
        assert result["model"]["fingerprint"] == clf.fingerprint()
        assert result["result"]["passes"] == result["curve"][-1]["passes"] <= 40
        assert result["settings"]["eps"] == 8 / 255

    def test_it_is_the_attack_that_python_makes(self, session: StudioSession) -> None:
        client = asking(session)
        client.post("attack", json=wish(passes=30, seed=4))
        wait(session)
        result, held = evidence(client)
        clf = toy_classifier()
        x = pixels(held["benign.png"])
        attack = uf.ADV2(uf.CAM(clf), eps=8 / 255, passes=30, seed=4)
        made = attack(x, torch.tensor([3]), keys=[result["photo"]["name"]])
        saved = attack.setting.perturbation.rounded(x, made.x_adv).float() / 255
        assert torch.equal(saved, pixels(held["adversarial.png"]))

    def test_a_drawn_map_is_led_to(self, session: StudioSession) -> None:
        client = asking(session)
        drawn = np.zeros((DRAWN, DRAWN), int)
        drawn[: DRAWN // 2] = 255
        client.post("attack", json=wish(goal="kept/led", target=None, target_map=drawn.ravel().tolist(), passes=60))
        told = wait(session)
        assert told["phase"] == "done", told["message"]
        result, held = evidence(client)
        target = unpacked(held["maps/target-cam.npy"])
        height = len(target) // 2
        assert target[: height - 1].min() > 0.9
        assert target[height + 1 :].max() < 0.1
        assert told["points"][-1]["maps"]["cam"]["l1"] < told["points"][0]["maps"]["cam"]["l1"]
        assert result["result"]["from_target_map"]["cam"]["l1"] == told["result"]["distances"]["cam"]["l1"]
        assert told["benign"]["targets"].keys() == {"cam"}


def test_news_are_what_a_page_does_not_know(session: StudioSession) -> None:
    client = asking(session)
    told = session.news(0, 0, -1)
    assert told is not None
    assert session.news(*told[1:]) is None
    client.post("attack", json=wish())
    wait(session)
    news = session.news(*told[1:])
    assert news is not None
    number, count, version = news[1:]
    assert (number, count) == (1, len(news[0]["points"]))
    assert session.news(number, count, version) is None
    later = session.news(number, 1, -1)
    assert later is not None
    assert later[0]["points"] == news[0]["points"][1:]
    session.closed.set()
    assert asking(session).get("news").text == ""


class TestCommand:
    def test_a_port_in_use_is_a_sentence(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(InputError, match=str(port)):
                listening(port)
            result = CliRunner().invoke(cli, ["studio", *MODEL_OPTIONS, "--port", str(port), "--no-open"])
        assert result.exit_code == 2
        assert f"port {port}" in result.stderr

    def test_a_model_that_is_none_is_a_sentence(self) -> None:
        result = CliRunner().invoke(cli, ["studio", "--model", "nonsense", "--port", "0", "--no-open"])
        assert result.exit_code == 2

    def test_it_listens_to_this_machine_alone(self) -> None:
        with listening(0) as found:
            assert found.getsockname()[0] == "127.0.0.1"
            assert ORIGIN.startswith("http://127.0.0.1:")
