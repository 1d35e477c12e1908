import errno
import fcntl
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor, nn

import underfire as uf
from support.toy_photos import (
    BROKEN,
    MEAN,
    MISCLASSIFIED,
    MODEL_OPTIONS,
    SIZE,
    STD,
    found,
    leftovers,
    one_thread,
    rows_of,
    toy_classifier,
    toy_plan,
    write_photos,
)
from support.toys import relu_net
from underfire import metrics
from underfire.attacks.perturbations import Flow, Linf
from underfire.auditing.locks import holding
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import AuditPlan, Shard, Unit
from underfire.auditing.rows import read_rows
from underfire.auditing.run import open_run
from underfire.auditing.runner import AuditOutcome, run_audit
from underfire.auditing.unit import Event, noise, save_and_read
from underfire.cli import cli
from underfire.diagnostics.model_checks import ModelCheck
from underfire.errors import InputError, ShortageError
from underfire.images import Photo, PhotoSet, decode, find_photos, read_png
from underfire.models import folded
from underfire.models.classifier import Classifier
from underfire.report import build_report

EPS = 8 / 255


def run(photos: Path, out: Path, plan: AuditPlan | None = None, **options: Any) -> AuditOutcome:
    return run_audit(plan or toy_plan(), found(photos), toy_classifier(), out, **options)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    outcome = run(photos, out, command="underfire audit …")
    assert outcome == AuditOutcome(out, photos=5, skipped=1, parts=3, finished_parts=3)
    assert outcome.finished
    return out


def facts(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return content


def test_every_photo_meets_every_condition_and_every_interpreter(whole: Path) -> None:
    seen = Counter((row.image_id, row.condition, row.interpreter) for row in rows_of(whole))
    attacked = [f"photo-{i}.png" for i in (0, 1, 2, 4)]
    conditions = ("none", "noise", "pgd", "adv2-grad", "adv2-cam")
    expected = {(name, c, i) for name in attacked for c in conditions for i in ("grad", "cam")}
    expected |= {(MISCLASSIFIED, "none", i) for i in ("grad", "cam")}
    assert set(seen) == expected
    assert set(seen.values()) == {1}


def test_what_the_columns_promise(whole: Path) -> None:
    for row in rows_of(whole):
        assert (row.eps, row.seed, row.label_given) == (EPS, 0, True)
        assert row.target not in (row.label, row.clean_prediction)
        assert row.excluded == ("misclassified" if row.image_id == MISCLASSIFIED else None)
        if row.attack == "none":
            assert (row.l1, row.iou_50, row.linf, row.success, row.steps, row.passes) == (0, 1, 0, False, 0, 0)
        else:
            assert 0 < row.linf <= EPS + 1e-6
            assert row.l2 > 0
            assert row.success == (row.prediction == row.target)
        if row.attack in ("pgd", "adv2"):
            assert (row.steps, row.passes >= 16) == (16, True)
        assert (row.source != "-") == (row.attack == "adv2")
        assert (row.stuck is None) == (row.nll_first is None) == (row.attack not in ("pgd", "adv2"))
        assert (row.gap_first is None) == (row.gap_kept is None) == (row.attack != "adv2")
        if row.trace is not None:
            assert row.trace.prediction.kept == pytest.approx(-math.log(row.confidence), abs=1e-3)


def test_some_attacks_on_the_toy_succeed_and_some_fail(whole: Path) -> None:
    rows = [row for row in rows_of(whole) if row.attack in ("pgd", "adv2")]
    assert 0 < sum(row.success_8bit for row in rows) < len(rows)


def test_rows_say_what_the_saved_images_and_maps_show(whole: Path) -> None:
    classifier = toy_classifier()
    interpreters = make_interpreters(("grad", "cam"), classifier)
    keys = {photo["image_id"]: photo["key"] for photo in facts(whole)["photos"]}
    for row in rows_of(whole):
        folder = whole / "artifacts" / keys[row.image_id]
        names = ("benign", "benign" if row.attack == "none" else row.condition)
        benign, x = (read_png(folder / f"{name}.png")[None] for name in names)
        assert metrics.linf(x, benign).item() <= EPS + 1e-6
        probabilities = classifier.probabilities(x)[0]
        assert row.confidence_8bit == pytest.approx(float(probabilities[row.target]), abs=1e-6)
        if row.attack != "none":
            assert row.success_8bit == (int(probabilities.argmax()) == row.target)
        interpreter = next(i for i in interpreters if i.name == row.interpreter)
        seen_class = row.label if row.attack in ("none", "noise") else row.target
        benign_map = interpreter(benign, torch.tensor([row.label]))
        saved_map = interpreter(x, torch.tensor([seen_class]))
        assert row.l1_8bit == pytest.approx(float(metrics.l1(saved_map, benign_map)), abs=1e-5)
        maps = load_file(folder / "maps.safetensors")
        assert torch.allclose(maps[f"none/{row.interpreter}"], benign_map[0], atol=1e-5)
        stored = maps[f"{row.condition}/{row.interpreter}"][None]
        assert row.l1 == pytest.approx(float(metrics.l1(stored, benign_map)), abs=1e-5)


def test_the_model_is_prepared_once_for_all_attacks(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Classifier] = []
    prepare = folded._prepared

    def counted(classifier: Classifier) -> Classifier:
        made.append(classifier)
        return prepare(classifier)

    monkeypatch.setattr(folded, "_prepared", counted)
    counts = []
    for attacks in (("pgd",), ("pgd", "adv2")):
        made.clear()
        plan = replace(toy_plan(), attacks=attacks, steps=2)
        run_audit(plan, found(photos), toy_classifier(), tmp_path / "-".join(attacks))
        counts.append(len(made))
    assert counts[0] == counts[1] > 0


def test_run_json_describes_the_run(whole: Path, photos: Path) -> None:
    run_json = facts(whole)
    assert run_json["finished"] is True
    assert run_json["command"] == "underfire audit …"
    assert run_json["config"]["steps"] == {"pgd": 16, "adv2-grad": 16, "adv2-cam": 16}
    assert run_json["config"]["passes"] is None
    assert run_json["threat_model"] == {
        "norm": "linf",
        "eps": EPS,
        "unit": "pixel values of [0, 1]",
        "bounds": [0.0, 1.0],
    }
    model = run_json["model"]
    assert (model["name"], model["input_size"], model["resize"]) == ("support.toys:relu_net", [SIZE, SIZE], SIZE)
    assert model["fingerprint"] == toy_classifier().fingerprint()
    (skipped,) = run_json["skipped"]
    assert skipped["name"] == BROKEN
    assert "not an image" in skipped["reason"]
    first = run_json["photos"][0]
    assert first["key"] == f"00000-{first['sha256'][:8]}"
    assert Path(first["file"]) == (photos / "photo-0.png").resolve()
    assert [photo["image_id"] for photo in run_json["photos"]] == [f"photo-{i}.png" for i in range(5)]


def test_the_model_is_checked_once_and_the_outcome_is_kept(whole: Path) -> None:
    checks = facts(whole)["model_checks"]
    assert [entry["check"] for entry in checks] == list(ModelCheck)
    assert not any(entry["fired"] for entry in checks)
    by_name = {entry["check"]: entry["of"] for entry in checks}
    assert (by_name["no_gradient"], by_name["randomised"]) == (4, 8)  # the photos that are attacked, and the patterns


def test_a_run_without_a_photo_to_attack_is_checked_on_patterns(photos: Path, tmp_path: Path) -> None:
    only = PhotoSet(tuple(p for p in found(photos).photos if p.image_id == MISCLASSIFIED), ())
    run_audit(toy_plan(), only, toy_classifier(), tmp_path / "run")
    assert {entry["of"] for entry in facts(tmp_path / "run")["model_checks"]} == {0, 4}


class NoisyOn8Bit(nn.Module):
    """Draws noise for images of whole grey levels, which the test patterns are not; for all of them if ``always``."""

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        self.net, self.always = toy_classifier().module, always

    def forward(self, x: Tensor) -> Tensor:
        levels = 255 * (x * STD[0] + MEAN[0])
        whole = ((levels - levels.round()).abs() < 1e-2).flatten(1).all(dim=1)[:, None]
        logits: Tensor = self.net(x)
        return logits + (whole | self.always) * 1e-2 * torch.randn_like(logits)


@pytest.mark.parametrize("always", [True, False], ids=["always", "on photos alone"])
def test_a_model_that_draws_is_refused_and_leaves_nothing(always: bool, photos: Path, tmp_path: Path) -> None:
    drawing = Classifier(NoisyOn8Bit(always=always), mean=MEAN, std=STD, input_size=SIZE)
    assert drawing.is_random == always
    with pytest.raises(InputError, match="attack_draws"):
        uf.audit(drawing, found(photos), interpreters=["grad"], out=tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_same_rows_whatever_the_batch_size(whole: Path, photos: Path, tmp_path: Path) -> None:
    for size in (1, 5):
        run(photos, tmp_path / str(size), replace(toy_plan(), batch_size=size))
        assert rows_of(tmp_path / str(size)) == rows_of(whole)


def test_shards_in_one_directory_make_the_whole(whole: Path, photos: Path, tmp_path: Path) -> None:
    first = run(photos, tmp_path / "run", shard=Shard(1, 2))
    assert (first.finished, first.finished_parts, facts(tmp_path / "run")["finished"]) == (False, 2, False)
    second = run(photos, tmp_path / "run", shard=Shard(2, 2))
    assert (second.finished, facts(tmp_path / "run")["finished"]) == (True, True)
    assert rows_of(tmp_path / "run") == rows_of(whole)


def test_shards_in_directories_of_their_own_make_the_whole(whole: Path, photos: Path, tmp_path: Path) -> None:
    rows: list[SimpleNamespace] = []
    for index in (1, 2):
        run(photos, tmp_path / str(index), shard=Shard(index, 2))
        rows += rows_of(tmp_path / str(index))
    assert sorted(rows, key=lambda row: row.image_id) == sorted(rows_of(whole), key=lambda row: row.image_id)


class StopAfter:
    """Presses Ctrl-C after so many events."""

    def __init__(self, events: int) -> None:
        self.left = events

    def started(self, plan: AuditPlan, todo: Sequence[Unit], finished: int) -> None:
        pass

    def advanced(self, event: Event) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("events", [3, 8])
def test_what_was_stopped_goes_on_with_the_same_rows(events: int, whole: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(photos, out, listener=StopAfter(events))
    assert leftovers(out) == []
    parts = {path: path.stat().st_mtime_ns for path in (out / "rows").glob("*")} if events >= 6 else {}
    assert len(parts) == (events >= 6)
    assert facts(out)["finished"] is False
    assert run(photos, out).finished
    assert {path: path.stat().st_mtime_ns for path in parts} == parts
    assert rows_of(out) == rows_of(whole)


def test_a_finished_run_is_left_alone(whole: Path, photos: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file() and path.name != ".lock"}
    assert run(photos, whole).finished
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_leftovers_of_a_killed_process_are_swept(whole: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(photos, out, listener=StopAfter(6))
    key = facts(out)["photos"][4]["key"]
    (out / "artifacts" / f".{key}.4242").mkdir()
    (out / "rows" / ".part-00002.parquet.4242.tmp").write_bytes(b"PAR1")
    (out / ".run.json.4242.tmp").write_bytes(b"{")
    (out / "artifacts" / key).mkdir()
    (out / "artifacts" / key / "stale.png").write_bytes(b"")
    run(photos, out)
    assert leftovers(out) == []
    assert not (out / "artifacts" / key / "stale.png").exists()
    assert rows_of(out) == rows_of(whole)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": 1}, "a run with seed '0', but '1' is given now"),
    "steps": ({"steps": 9}, "a run with steps pgd 16, adv2-grad 16, adv2-cam 16, but pgd 9"),
    "passes": (
        {"steps": None, "passes": 33},
        "a run with steps pgd 16, adv2-grad 16, adv2-cam 16, but unset is given now",
    ),
    "interpreters": ({"interpreters": ("cam",)}, "a run with interpreters grad,cam, but cam is given now"),
    "limit": ({"limit": 3}, "a run with limit unset, but '3' is given now"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_run_of_another_configuration_is_refused_by_name(name: str, whole: Path, photos: Path) -> None:
    change, sentence = REFUSED[name]
    with pytest.raises(InputError, match=sentence):
        run(photos, whole, replace(toy_plan(), **change))


def test_other_weights_are_refused(whole: Path, photos: Path) -> None:
    other = Classifier(relu_net(seed=1), mean=0.5, std=0.25, input_size=SIZE, name="support.toys:relu_net")
    with pytest.raises(InputError, match="other weights or preprocessing"):
        run_audit(toy_plan(), found(photos), other, whole)


def test_another_version_is_refused(whole: Path, photos: Path, tmp_path: Path) -> None:
    old = facts(whole) | {"underfire_version": "0.0.1"}
    (tmp_path / "run.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match=r"underfire_version 0\.0\.1"):
        run(photos, tmp_path)


def test_other_photos_are_refused(whole: Path, photos: Path, tmp_path: Path) -> None:
    everything = found(photos)
    with pytest.raises(InputError, match="has 5 photos, but 4"):
        run_audit(toy_plan(), replace(everything, photos=everything.photos[:-1]), toy_classifier(), whole)
    swapped = replace(everything, photos=everything.photos[::-1])
    with pytest.raises(InputError, match=r"'photo-0\.png' is 'photo-4\.png' now"):
        run_audit(toy_plan(), swapped, toy_classifier(), whole)
    changed = write_photos(tmp_path / "set")
    (changed / "photo-2.png").write_bytes((changed / "photo-1.png").read_bytes())
    with pytest.raises(InputError, match=r"photo-2\.png' has changed"):
        run(changed, whole)


def test_another_number_of_threads_is_refused(whole: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(facts(whole) | {"threads": 99}))
    with pytest.raises(InputError, match=r"begun with 99 threads, and this has \d+; set OMP_NUM_THREADS=99"):
        run(photos, tmp_path)


def test_other_names_of_classes_are_refused(whole: Path, photos: Path) -> None:
    names = [f"kind {index}" for index in range(10)]
    other = Classifier(relu_net(), mean=MEAN, std=STD, input_size=SIZE, class_names=names, name="support.toys:relu_net")
    with pytest.raises(InputError, match="other names of classes"):
        run_audit(toy_plan(), found(photos), other, whole)


def test_a_photo_that_is_listed_twice_is_audited_once(photos: Path, tmp_path: Path) -> None:
    doubled = tmp_path / "set"
    doubled.mkdir()
    (doubled / "good.png").write_bytes((photos / "photo-0.png").read_bytes())
    (doubled / "manifest.csv").write_text("file_name,label\ngood.png,\ngood.png,\n")
    for _ in range(2):  # begun, and gone on with
        outcome = run(doubled, tmp_path / "run")
        assert (outcome.photos, outcome.skipped, outcome.finished) == (1, 1, True)


@pytest.mark.parametrize("bad", [b"", b"not an image"])
def test_a_bad_photo_and_a_good_one_of_the_same_name(bad: bytes, photos: Path, tmp_path: Path) -> None:
    for name, content in (("a", bad), ("b", (photos / "photo-0.png").read_bytes())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(content)
    classifier = toy_classifier()
    sources = find_photos([tmp_path / "a", tmp_path / "b"], class_names=classifier.class_names)
    for _ in range(2):
        outcome = run_audit(toy_plan(), sources, classifier, tmp_path / "run")
        assert (outcome.photos, outcome.skipped, outcome.finished) == (1, 1, True)


def test_names_that_are_no_utf8_go_through_the_command_line(photos: Path, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        Path(os.fsdecode(folder)).mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    picture = folder + b"/good-\xfe.png"
    Path(os.fsdecode(picture)).write_bytes((photos / "photo-0.png").read_bytes())
    out = folder + b"/run"
    options = ("--interpreters", "cam", "--attacks", "pgd", "--steps", "2", "--out", out)
    command: list[str | bytes] = ["audit", picture, *MODEL_OPTIONS, *options]
    ended = subprocess.run(
        [sys.executable, "-m", "underfire", *command],
        cwd=Path(__file__).parents[1],  # the model's module is there
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    with one_thread():
        gone_on_with = CliRunner().invoke(cli, list(map(os.fsdecode, command)))
    assert gone_on_with.exit_code == 0, gone_on_with.output
    directory = Path(os.fsdecode(out))
    (photo,) = facts(directory)["photos"]
    assert os.fsencode(photo["file"]) == os.path.realpath(picture)
    assert photo["image_id"] == r"good-\udcfe.png"
    assert {row.image_id for row in read_rows(directory)} == {r"good-\udcfe.png"}
    assert r"caf\udce9" in (directory / "report.html").read_text(encoding="utf-8")  # in the command line
    assert r"caf\udce9/run/report.html" in ended.stdout


def test_a_photo_without_a_target_is_excluded_where_targets_are_given(photos: Path, tmp_path: Path) -> None:
    plan = replace(toy_plan(), targets="given", attacks=("pgd",))
    first, *others = (photo for photo in found(photos).photos if photo.image_id != BROKEN)
    some = PhotoSet((replace(first, target=None), *others), ())
    run_audit(plan, some, toy_classifier(), tmp_path / "run")
    rows = [row for row in rows_of(tmp_path / "run") if row.image_id == first.image_id]
    assert [(row.attack, row.excluded, row.target == row.label) for row in rows] == [
        ("none", "no target given", True)
    ] * 2
    assert {row.attack for row in rows_of(tmp_path / "run")} == {"none", "noise", "pgd"}
    with pytest.raises(InputError, match=r"has 'photo-0\.png' without a target; drop --strict"):
        run_audit(plan, some, toy_classifier(), tmp_path / "run", strict=True)
    with pytest.raises(InputError, match=r"'photo-0\.png' has no target"):
        run_audit(plan, some, toy_classifier(), tmp_path / "strict", strict=True)
    none = PhotoSet(tuple(replace(photo, target=None) for photo in some.photos), ())
    with pytest.raises(InputError, match="no photo has a target; targets 'given' needs"):
        run_audit(plan, none, toy_classifier(), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_photos_may_move_between_two_sessions(whole: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    moving = write_photos(tmp_path / "here")
    with pytest.raises(KeyboardInterrupt):
        run(moving, out, listener=StopAfter(6))
    run(moving.rename(tmp_path / "there"), out)
    assert rows_of(out) == rows_of(whole)


def test_a_limit_counts_the_photos_that_can_be_used(photos: Path, tmp_path: Path) -> None:
    plan = replace(toy_plan(), limit=2)
    assert run(photos, tmp_path / "run", plan).photos == 2
    assert {row.image_id for row in rows_of(tmp_path / "run")} == {"photo-0.png", "photo-1.png"}
    assert run(photos, tmp_path / "run", plan).finished


def test_the_target_may_be_given_and_may_be_the_label_already(photos: Path, tmp_path: Path) -> None:
    classifier = toy_classifier()
    given = run(photos, tmp_path / "given", replace(toy_plan(), targets="given", attacks=("pgd",)))
    assert given.finished
    labels = {row.image_id: (row.label, row.target) for row in rows_of(tmp_path / "given")}
    assert all(goal == (label + 2) % 10 for name, (label, goal) in labels.items() if name != MISCLASSIFIED)
    label, _ = labels["photo-0.png"]
    run(photos, tmp_path / "one", replace(toy_plan(), targets=classifier.class_names[label], attacks=("pgd",)))
    excluded = {row.image_id: row.excluded for row in rows_of(tmp_path / "one")}
    assert excluded["photo-0.png"] == "already the target"


def test_without_labels_the_models_own_prediction_is_taken(photos: Path, tmp_path: Path) -> None:
    unlabelled = PhotoSet(tuple(replace(photo, label=None) for photo in found(photos).photos), ())
    run_audit(replace(toy_plan(), attacks=("pgd",)), unlabelled, toy_classifier(), tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert not any(row.label_given or row.excluded for row in rows)
    assert all(row.label == row.clean_prediction for row in rows)


def test_a_photo_is_decoded_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For its inspection; the checks of the model and the parts take what was kept."""
    seen: list[bytes] = []
    real = decode.decode

    def counted(data: bytes) -> Any:
        seen.append(data)
        return real(data)

    monkeypatch.setattr(decode, "decode", counted)
    run(photos, tmp_path / "run")
    assert len(seen) == len(set(seen)) == 6


def test_want_of_memory_ends_an_audit_and_loses_no_photo(
    whole: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = (photos / "photo-2.png").read_bytes()

    def short(data: bytes) -> Any:
        if data == third:
            raise MemoryError
        return real(data)

    real = decode.decode
    with monkeypatch.context() as patch:
        patch.setattr(decode, "decode", short)
        with pytest.raises(ShortageError, match=r"photo-2.png' cannot be read for now"):
            run(photos, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        command = ["explain", str(photos), *MODEL_OPTIONS, "--interpreters", "grad", "--out", str(tmp_path / "maps")]
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 2
        assert "photo-2.png' cannot be read for now" in result.output
    run(photos, tmp_path / "run")
    assert rows_of(tmp_path / "run") == rows_of(whole)


def test_strict_refuses_what_would_be_skipped_and_leaves_nothing(whole: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'broken\.png' cannot be used: the file is not an image"):
        run(photos, tmp_path / "run", strict=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"a run without 'broken\.png'"):
        run(photos, whole, strict=True)


def test_no_photo_at_all_is_refused_and_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    only = PhotoSet((Photo(BROKEN, photos / BROKEN, None, None),), ())
    with pytest.raises(InputError, match=r"no photo to audit.*'broken\.png'"):
        run_audit(toy_plan(), only, toy_classifier(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "quoted"),
    [
        ("notes.txt", "mine", "holds 'notes.txt'"),
        ("run.json", "{", "is damaged"),
        ("run.json", "[]", "is damaged"),
    ],
)
def test_a_directory_of_something_else_is_refused(
    name: str, content: str, quoted: str, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=quoted):
        run(photos, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


HOLDER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from underfire.auditing.locks import holding
with holding(Path(sys.argv[1]), [1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_part_that_another_process_works_on_is_refused(photos: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(out / ".lock")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process is working on part 1"):
            run(photos, out)
        assert run(photos, out, shard=Shard(1, 2)).finished_parts == 2  # the parts 0 and 2 are free
    finally:
        holder.kill()
        holder.communicate()
    assert run(photos, out).finished  # a lock dies with its process
    assert rows_of(out) == rows_of(whole)


def test_a_file_system_without_locks_is_not_taken_for_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)), holding(tmp_path / ".lock", [0]):
        pass


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_lock_that_the_disk_refuses_is_no_file_to_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: str, _: int) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr("underfire.files._open_without_waiting", refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as raised, holding(tmp_path / ".lock", [0]):
        pass
    assert raised.value.errno == number
    assert raised.value.filename == str(tmp_path / ".lock")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_stands_in_the_place_of_the_lock_is_to_be_deleted(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / ".lock")
    with pytest.raises(InputError, match="delete it"), holding(tmp_path / ".lock", [0]):
        pass


class Overflowing(nn.Module):
    """The toy, with NaN for every photo that is darker than another."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.net = relu_net()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits.where(x.mean(dim=(1, 2, 3), keepdim=False)[:, None] > self.threshold, torch.nan)


def test_a_number_that_is_none_stops_with_the_name_of_the_photo(photos: Path, tmp_path: Path) -> None:
    listed = found(photos).photos
    means = {p.image_id: float(read_png(p.path).mean()) for p in listed if p.image_id != BROKEN}
    darkest, second = sorted(means, key=lambda name: means[name])[:2]
    # The grey image that the constructor tries is brighter than that.
    threshold = (means[darkest] + means[second]) / 2
    assert threshold < 0.5
    broken = Classifier(Overflowing(threshold), input_size=SIZE)
    with pytest.raises(InputError, match=f"photo '{darkest}'"):
        run_audit(toy_plan(), found(photos), broken, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("perturbation", "eps"), [("l2", 1.0), ("flow", 0.5)])
def test_other_perturbations_are_kept_named_and_reported(
    perturbation: str, eps: float, photos: Path, tmp_path: Path
) -> None:
    plan = replace(toy_plan(), perturbation=perturbation, eps=eps, attacks=("pgd", "adv2"), interpreters=("cam",))
    assert run(photos, tmp_path / "run", plan).finished
    threats = facts(tmp_path / "run")["threat_model"]
    assert (threats["norm"], threats["eps"]) == (perturbation, eps)
    for row in rows_of(tmp_path / "run"):
        assert (row.perturbation, row.eps) == (perturbation, eps)
        assert (row.used == 0) == (row.attack == "none")
        assert row.used <= eps * (1 + 1e-6)
        if perturbation == "l2":
            assert row.used == pytest.approx(row.l2, rel=1e-4, abs=1e-6)
    page = build_report(open_run(tmp_path / "run")).read_text(encoding="utf-8")
    said = {"l2": "no longer than 1 (L2 norm", "flow": "With no pixel moved by more than 0.5 pixels"}
    assert said[perturbation] in page
    assert "1/255" not in page


def test_stadv_has_rows_and_a_budget_of_its_own(photos: Path, tmp_path: Path) -> None:
    plan = replace(toy_plan(), attacks=("pgd", "stadv"), interpreters=("cam",))
    assert run(photos, tmp_path / "run", plan).finished
    stadv = [row for row in rows_of(tmp_path / "run") if row.attack == "stadv"]
    assert len(stadv) == 4
    for row in stadv:
        assert (row.source, row.perturbation, row.eps) == ("cam", "flow", Flow().eps)
        assert 0 < row.used <= 1 + 1e-6
        assert row.passes >= 16
    threats = facts(tmp_path / "run")["threat_model"]
    assert (threats["norm"], threats["eps"], threats["stadv_eps"]) == ("linf", EPS, 1.0)
    page = build_report(open_run(tmp_path / "run")).read_text(encoding="utf-8")
    assert "StAdv on CAM" in page
    assert "By moving pixels instead, attacks made" in page


def test_noise_is_of_full_size_and_belongs_to_the_photo() -> None:
    x = torch.full((2, 3, 4, 4), 0.5)
    noisy, used = noise(x, Linf(EPS), seed=0, keys=["a", "b"])
    assert torch.allclose((noisy - x).abs(), torch.tensor(EPS))
    assert torch.allclose(used, torch.tensor(EPS))
    assert not torch.equal(noisy[0], noisy[1])
    assert torch.equal(noise(x[:1], Linf(EPS), seed=0, keys=["b"])[0][0], noisy[1])
    assert noise(torch.ones(1, 3, 4, 4), Linf(EPS), seed=0, keys=["a"])[0].max() == 1


def test_an_image_outside_the_budget_is_our_mistake_and_stops_the_run(tmp_path: Path) -> None:
    benign = torch.full((1, 3, 4, 4), 100 / 255)
    with pytest.raises(RuntimeError, match="outside the budget"):
        save_and_read(benign + 0.1, benign, Linf(EPS), [tmp_path / "x.png"])


@pytest.mark.slow
def test_ray_gives_the_same_rows(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    assert run(photos, tmp_path / "run", engine="ray").finished
    with one_thread():
        run(photos, tmp_path / "local")
        assert run(photos, tmp_path / "run").finished  # run.json says one thread, too
    assert rows_of(tmp_path / "run") == rows_of(tmp_path / "local")
    assert len(read_rows(tmp_path / "run")) == len(read_rows(tmp_path / "local"))


def test_without_ray_the_engine_says_what_to_install(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'underfire\[ray\]'"):
        run(photos, tmp_path / "run", engine="ray")
    assert not (tmp_path / "run").exists()


class _BreaksLater(nn.Module):
    broken = False

    def __init__(self) -> None:
        super().__init__()
        self.net = relu_net()

    def forward(self, x: Tensor) -> Tensor:
        if self.broken:
            raise ValueError("boom")
        logits: Tensor = self.net(x)
        return logits


def test_a_model_that_fails_on_the_way_names_the_photos_and_keeps_the_finished_parts(
    photos: Path, tmp_path: Path
) -> None:
    model = _BreaksLater()
    classifier = Classifier(model, mean=MEAN, std=STD, input_size=SIZE)

    def advanced(event: Event) -> None:
        model.broken = event.condition is None

    listener = SimpleNamespace(started=lambda *_: None, advanced=advanced)
    with pytest.raises(InputError, match=r"ValueError: boom; that was on photo 'photo-2\.png'"):
        run_audit(toy_plan(), found(photos), classifier, tmp_path / "run", listener=listener)
    assert {row.image_id for row in rows_of(tmp_path / "run")} == {"photo-0.png", "photo-1.png"}
    model.broken = False
    assert run_audit(toy_plan(), found(photos), classifier, tmp_path / "run").finished


def test_a_misclassified_photo_of_a_model_with_two_classes_is_excluded(photos: Path, tmp_path: Path) -> None:
    net = relu_net()
    net.head.weight.data, net.head.bias.data = net.head.weight.data[:2], net.head.bias.data[:2]
    classifier = Classifier(net, mean=MEAN, std=STD, input_size=SIZE)
    listed = [photo for photo in found(photos).photos if photo.image_id != BROKEN][:3]
    x = torch.stack([read_png(photo.path) for photo in listed])
    classes = classifier.probabilities(x).argmax(dim=1).tolist()
    labels = [1 - classes[0], *classes[1:]]
    labelled = PhotoSet(tuple(replace(p, label=c) for p, c in zip(listed, labels, strict=True)), ())
    plan = replace(toy_plan(), interpreters=("cam",), attacks=("pgd",), steps=2)
    assert run_audit(plan, labelled, classifier, tmp_path / "run").finished
    planned = facts(tmp_path / "run")["photos"]
    assert [photo["excluded"] for photo in planned] == ["misclassified", None, None]
    assert [photo["target"] for photo in planned] == [1 - c for c in labels]


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ("all", {"benign.png", "noise.png", "pgd.png", "adv2-cam.png", "adv2-grad.png", "maps.safetensors"}),
        ("adversarial", {"pgd.png", "adv2-cam.png", "adv2-grad.png"}),
        ("none", set()),
    ],
)
def test_artifacts_stay_by_choice_and_rows_are_the_same(
    photos: Path, whole: Path, tmp_path: Path, keep: Any, left: set[str]
) -> None:
    with one_thread():
        outcome = run(photos, tmp_path / "run", keep=keep)
    assert outcome.finished
    assert rows_of(tmp_path / "run") == rows_of(whole)
    folders = [
        {path.name for path in folder.iterdir()}
        for folder in (tmp_path / "run" / "artifacts").iterdir()
        if MISCLASSIFIED not in folder.name
    ]
    assert max(folders, key=len, default=set()) == left
    assert all(left_of <= left for left_of in folders)
    assert leftovers(tmp_path / "run") == []
    assert build_report(open_run(tmp_path / "run")).is_file()
