"""underfire certify on the toy: figures, stops, shards, and folders that are not its own."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import underfire as uf
from auditing.test_engines import FakeRay
from support.toy_photos import MISCLASSIFIED, MODEL_OPTIONS, one_thread, toy_classifier, write_photos
from underfire.auditing.certificate_folder import read_certificates
from underfire.auditing.plan import PlannedPhoto
from underfire.cli import certify as certify_command
from underfire.cli import cli
from underfire.images import read_png

OPTIONS = (*MODEL_OPTIONS, "--interpreters", "cam,grad", "--sigma", "0.1,0.3", "--samples", "24", "--radii", "0,0.1")
MORE = ("--targets", "given", "--batch-size", "8")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


def certify(photos: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(cli, ["certify", str(photos / "manifest.csv"), *OPTIONS, *MORE, "--out", str(out), *more])


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    done = certify(photos, out)
    assert done.exit_code == 0, done.output
    return out


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def rows(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(out / "certificates.parquet").to_pylist()
    return found


def test_rows_are_what_the_call_counts(photos: Path, whole: Path) -> None:
    table = rows(whole)
    names = [f"photo-{i}.png" for i in range(5) if f"photo-{i}.png" != MISCLASSIFIED]
    assert len(table) == len(names) * 2 * 2 * 4  # interpreters, σ, goals
    assert {row["image_id"] for row in table} == set(names)
    classifier = toy_classifier()
    x = torch.stack([read_png(photos / name) for name in names])
    y = classifier.probabilities(x).argmax(dim=1)
    for g in (uf.CAM(classifier), uf.GRAD(classifier)):
        found = uf.certify(
            g, x, y, sigma=0.3, samples=24, radii=[0.0, 0.1], alpha=0.001 / 8, target=(y + 2) % 10, keys=names,
            goals=["other/free", "other/kept", "target/kept", "kept/topk"],
        )  # fmt: skip
        for row in table:
            if (row["interpreter"], row["sigma"]) == (g.name, 0.3):
                place = names.index(row["image_id"])
                assert row["count"] == int(found.counts[row["goal"]][place])
                assert row["rates"] == pytest.approx(found.rate[row["goal"]][place].tolist(), rel=1e-12)
                assert row["radius_10"] == pytest.approx(float(found.radius(row["goal"], queries=10)[place]))
                assert row["label_radius"] == pytest.approx(float(found.label_radius[place]))
                assert (row["abstained"], row["censored"]) == (
                    bool(found.abstained[place]),
                    bool(found.censored[place]),
                )
                assert row["alpha"] == 0.001


def test_cells_share_the_chance_of_a_wrong_figure(photos: Path, tmp_path: Path) -> None:
    assert certify(photos, tmp_path, "--alpha", "0.4", "--limit", "1").exit_code == 0
    table = [row for row in rows(tmp_path) if row["goal"] == "other/free"]
    classifier = toy_classifier()
    x = read_png(photos / table[0]["image_id"])[None]
    y = classifier.probabilities(x).argmax(dim=1)
    for row in table:
        (g,) = (g for g in (uf.CAM(classifier), uf.GRAD(classifier)) if g.name == row["interpreter"])
        cells = uf.certify_cells(g, x, y, sigma=row["sigma"], samples=24, alpha=0.4 / 8, keys=[row["image_id"]])
        assert row["cells_in"] == int(cells.sure_in.sum())
        assert row["cells_out"] == int(cells.sure_out.sum())


def test_a_part_that_no_draws_can_have_counted_is_refused_in_a_sentence(photos: Path, tmp_path: Path) -> None:
    assert certify(photos, tmp_path, "--limit", "1").exit_code == 0
    (part,) = (tmp_path / "photos").iterdir()
    whole = part.read_text()
    counts = json.loads(whole)["found"][0]["counts"]
    for change in ({"counts": counts | {"other/kept": 25}}, {"counts": {"other/free": 0}}, {"sigma": 0.2}):
        value = json.loads(whole)
        value["found"][0].update(change)
        part.write_text(json.dumps(value))
        refused = certify(photos, tmp_path, "--limit", "1")
        assert refused.exit_code == 2
        assert "cannot be read" in refused.output


def test_json_and_parquet_say_the_same_and_every_photo_has_a_picture_of_its_cells(whole: Path) -> None:
    table = rows(whole)
    assert json.loads((whole / "certificates.json").read_text()) == {"certificates": table}
    pictures = list((whole / "pictures").iterdir())
    assert len(pictures) == 4
    assert Image.open(pictures[0], formats=["PNG"]).width == 5 * 160 + 4 * 4  # the photo, and two σ of two interpreters
    for row in table:
        cells = row["cells_in"] + row["cells_out"] + row["cells_free"]
        assert cells == 64


def test_it_goes_on_where_it_was_stopped(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped amid the second photo, whose picture is drawn by then."""
    draw, seen = certify_command._Pictures.draw, []

    def stopping(*facts: Any) -> None:
        draw(*facts)
        seen.append(facts)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(certify_command._Pictures, "draw", stopping)
        stopped = certify(photos, tmp_path)
    assert stopped.exit_code == 130
    kept = list((tmp_path / "photos").iterdir())
    assert len(kept) == 1
    written = kept[0].stat().st_mtime_ns
    assert certify(photos, tmp_path).exit_code == 0
    assert kept[0].stat().st_mtime_ns == written
    assert content(tmp_path) == content(whole)


def test_shards_make_the_whole(photos: Path, whole: Path, tmp_path: Path) -> None:
    first = certify(photos, tmp_path, "--shard", "2/2")
    assert "2 of 4 photos are there" in first.output
    assert len(rows(tmp_path)) == len(rows(whole)) / 2
    assert "This shard" not in certify(photos, tmp_path, "--shard", "1/2").output
    assert content(tmp_path) == content(whole)


@pytest.mark.parametrize("more", [[], ["--no-shared-disk"]])
def test_a_cluster_makes_the_same_and_what_a_lost_worker_had_goes_to_another(
    more: list[str], photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay(Counter({"photo-1.png": 2}))
    monkeypatch.setitem(sys.modules, "ray", ray)
    done = certify(photos, tmp_path, "--engine", "ray", *more)
    assert done.exit_code == 0, done.output
    assert content(tmp_path) == content(whole)
    assert (ray.made, ray.dead) == (2 + 2, 2)


def test_a_photo_that_loses_all_its_workers_is_named(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay(Counter({"photo-1.png": 9})))
    given_up = certify(photos, tmp_path, "--engine", "ray")
    assert given_up.exit_code == 2
    assert "3 workers of Ray were lost over 'photo-1.png'" in given_up.output
    assert certify(photos, tmp_path).exit_code == 0
    assert content(tmp_path) == content(whole)


def test_an_address_without_the_engine_is_refused(photos: Path, tmp_path: Path) -> None:
    refused = certify(photos, tmp_path / "new", "--ray-address", "127.0.0.1:1")
    assert refused.exit_code == 2
    assert "is for the engine 'ray'" in refused.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--samples", "25"], "samples is 24 there and 25 here"),
        (["--sigma", "0.1"], "sigmas is [0.1, 0.3] there and [0.1] here"),
        (["--interpreters", "cam"], "interpreters is "),
        (["--seed", "1"], "seed is "),
        (["--goals", "kept/led"], "goal 'kept/led' needs a map"),
        (["--sigma", "0.1,0.1"], "sigma '0.1,0.1'"),
        (["--alpha", "2"], "alpha is"),
    ],
)
def test_other_settings_are_refused_in_a_sentence(photos: Path, whole: Path, more: list[str], said: str) -> None:
    before = content(whole)
    refused = certify(photos, whole, *more)
    assert refused.exit_code == 2
    assert said in refused.output
    assert content(whole) == before


def test_what_no_certificate_takes_leaves_no_folder(photos: Path, tmp_path: Path) -> None:
    for more in (["--alpha", "0"], ["--sigma", "0"], ["--samples", "0"], ["--radii", "0,-1"], ["--goals", "other"]):
        assert certify(photos, tmp_path / "new", *more).exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_things_is_left_alone(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    refused = certify(photos, tmp_path)
    assert refused.exit_code == 2
    assert "'letter.txt' but no certificates" in refused.output
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_what_reaches_no_draw_and_what_abstains_are_said(whole: Path, photos: Path) -> None:
    output = certify(photos, whole).output
    abstained = {row["image_id"] for row in rows(whole) if row["sigma"] == 0.3 and row["abstained"]}
    assert f"σ = 0.3: {len(abstained)} of 4 photos abstain" in output


def planned(photos: Path, names: list[str]) -> list[PlannedPhoto]:
    classifier = toy_classifier()
    labels = classifier.probabilities(torch.stack([read_png(photos / name) for name in names])).argmax(dim=1).tolist()
    return [
        PlannedPhoto(
            name, name, sha256((photos / name).read_bytes()).hexdigest(), "", label, True, (label + 2) % 10, None
        )
        for name, label in zip(names, labels, strict=True)
    ]


def test_a_folder_is_read_as_it_was_counted(photos: Path, whole: Path) -> None:
    names = sorted({row["image_id"] for row in rows(whole)})
    found = read_certificates(whole, planned(photos, names), toy_classifier().fingerprint())
    assert [(one.interpreter, one.sigma) for one in found.certificates] == list(product(("cam", "grad"), (0.1, 0.3)))
    for row in rows(whole):
        (one,) = (c for c in found.certificates if (c.interpreter, c.sigma) == (row["interpreter"], row["sigma"]))
        place = one.keys.index(row["image_id"])
        assert one.rate[row["goal"]][place].tolist() == row["rates"]
        assert float(one.radius(row["goal"])[place]) == row["radius_1"]
        assert bool(one.abstained[place]) == row["abstained"]
