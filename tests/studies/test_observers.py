"""Observer models on the images of an audit: what they see is worked out by hand, or with its own parts."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from support.made_runs import made_run, planned_otherwise
from support.snapshots import check_snapshot
from support.toy_photos import MEAN, SIZE, STD, found, toy_classifier, toy_plan, write_photos
from support.toys import relu_net
from underfire import metrics
from underfire.auditing.condition import NONE, Condition
from underfire.auditing.run import Run, read_run
from underfire.auditing.runner import run_audit
from underfire.errors import InputError
from underfire.images import read_png
from underfire.interpreters import CAM, RTS, MaskingNetwork
from underfire.models.classifier import Classifier
from underfire.studies.observers import Distance, Observation, Observer, observe, observers_of, resizing
from underfire.studies.source import attacked, quiet
from underfire.studies.transfer import Observed, TransferRecord, observed, transfer_study

ON_CAM = Condition.on("adv2", "cam")


def other_classifier(*, size: int = SIZE, seed: int = 1) -> Classifier:
    """Nearly the toy classifier, so that it agrees with it on most benign images."""
    net = relu_net()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.01 * float(weight.abs().mean()))
    return Classifier(net, mean=MEAN, std=STD, input_size=size, name="other")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("observers")
    run_audit(toy_plan(), found(write_photos(folder / "photos")), toy_classifier(), folder / "run")
    return read_run(folder / "run")


def seen_by(
    prediction: Mapping[str, int], *, near: str | None = None, photos: int = 10, right: int | None = None
) -> tuple[Run, list[Observation]]:
    """Observations of a made run: predictions by condition, and maps that move by 0.3, by 0.03 under ``near``."""
    run = made_run(photos=photos)
    found = []
    for index, photo in enumerate(run.photos):
        for condition in ("none", "noise", "pgd", "adv2-cam", "adv2-grad"):
            gap = Distance(0.03 if condition == near else 0.3, 0.5)
            by_map = {"label": gap, "target": Distance(0.2, 0.4), "seen": Distance(0.1, 0.6)}
            moves: dict[str, Any] = dict.fromkeys(("cam", "grad"), by_map)
            says = prediction.get(condition, photo.label)
            if condition == "none" and right is not None and index >= right:
                says = 5
            found.append(
                Observation(photo.image_id, Condition.parse(condition), says, {} if condition == "none" else moves)
            )
    return run, found


def looked(run: Run, found: list[Observation]) -> tuple[Observed, dict[tuple[str, str, str | None], TransferRecord]]:
    other = Observer("other", toy_classifier(), (CAM(toy_classifier()),), ())
    grads = replace(other, interpreters=(*other.interpreters, _named("grad")))
    seen = observed(run, grads, found)
    return seen, {(str(record.condition), record.map, record.compared): record for record in seen.records}


def _named(name: str) -> Any:
    interpreter = CAM(toy_classifier())
    interpreter.name = name
    return interpreter


def test_labels_are_counted_over_photos_that_are_seen_rightly() -> None:
    run, found = seen_by({"pgd": 2, "adv2-cam": 7}, right=8)
    seen, lines = looked(run, found)
    assert (seen.photos, seen.right) == (10, 8)
    pgd, cam, grad = (lines[condition, "-", None] for condition in ("pgd", "adv2-cam", "adv2-grad"))
    assert [(line.n, line.reached.value, line.lost.value) for line in (pgd, cam, grad)] == [
        (8, 1, 1),
        (8, 0, 1),
        (8, 0, 0),
    ]


def test_the_map_of_the_target_class_is_what_is_seen_only_where_the_label_transferred() -> None:
    run, found = seen_by({"pgd": 2})
    _, lines = looked(run, found)
    assert lines["pgd", "cam", "seen"].l1.value == pytest.approx(0.1)
    assert ("adv2-cam", "cam", "seen") not in lines
    assert lines["adv2-cam", "cam", "label"].l1.value == pytest.approx(0.3)
    assert lines["adv2-cam", "cam", "target"].l1.value == pytest.approx(0.2)


def test_a_planted_transfer_between_classifiers_is_found_and_no_other() -> None:
    run, found = seen_by({}, near="adv2-cam")
    _, lines = looked(run, found)
    verdicts = {(condition, name): line.verdict for (condition, name, _), line in lines.items() if line.verdict}
    assert verdicts == {
        ("adv2-cam", "cam"): "kept",
        ("adv2-cam", "grad"): "transfers",
        ("adv2-grad", "grad"): "not kept",
        ("adv2-grad", "cam"): "does not transfer",
    }


def test_maps_are_those_that_its_own_interpreters_draw(run: Run, tmp_path: Path) -> None:
    (other,) = observers_of(run, [other_classifier()])
    found = {(s.image_id, s.condition): s for s in observe(run, other, tmp_path, note=quiet)}
    for photo in attacked(run.photos):
        x = torch.stack([read_png(run.picture(photo, name)) for name in (NONE, ON_CAM)])
        logits = other.classifier(x)
        assert found[photo.image_id, NONE].prediction == int(logits[0].argmax())
        observation = found[photo.image_id, ON_CAM]
        assert observation.prediction == int(logits[1].argmax())
        maps = CAM(other.classifier)
        label, target = (maps(x, torch.full((2,), c)) for c in (photo.label, photo.target))
        moves = observation.moves["cam"]
        assert moves["label"].l1 == pytest.approx(float(metrics.l1(label[1:], label[:1])))
        assert moves["target"].l1 == pytest.approx(float(metrics.l1(target[1:], target[:1])))
        assert moves["seen"].l1 == pytest.approx(float(metrics.l1(target[1:], label[:1])))
        assert moves["seen"].iou_50 == pytest.approx(float(metrics.iou(target[1:], label[:1])))


def test_what_was_seen_is_not_looked_at_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (other,) = observers_of(run, [other_classifier()])
    first = observe(run, other, tmp_path, note=quiet)
    kept = next(tmp_path.rglob("*.json"))
    kept.unlink()
    said: list[str] = []
    assert observe(run, other, tmp_path, note=said.append) == first
    assert len(said) == 1
    kept.write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="delete it"):
        observe(run, other, tmp_path, note=quiet)
    (changed,) = observers_of(run, [other_classifier(seed=2)])
    assert observe(run, changed, tmp_path, note=quiet) != first


def test_other_weights_of_an_interpreter_are_looked_at_anew(run: Run, tmp_path: Path) -> None:
    classifier = other_classifier()

    def observer(seed: int) -> Observer:
        network = MaskingNetwork.untrained(classifier, seed=seed)
        return Observer("other", classifier, (RTS(classifier, network=network),), ())

    said: list[str] = []
    first, again, others = (observe(run, observer(seed), tmp_path, note=said.append) for seed in (0, 0, 1))
    assert first == again
    assert others != first
    assert len(said) == 2 * len(attacked(run.photos))


def test_another_input_size_is_resized_and_told(run: Run, tmp_path: Path) -> None:
    study = transfer_study(run, [other_classifier(size=48)], work=tmp_path)
    assert {row["model"] for row in study.table.to_pylist()} == {"support.toys:relu_net", "other"}
    assert "of other, map of the label" in study.figure
    assert resizing(run, other_classifier(size=48)) == "resized from 32 × 32 to 48 × 48 pixels"
    assert resizing(run, other_classifier()) == "as they are, 32 × 32"
    check_snapshot(__file__, "transfer-observer", study.words.split("\n\n")[-1])


def test_one_that_sees_nothing_rightly_is_not_fooled(run: Run, tmp_path: Path) -> None:
    blind = Classifier(relu_net(5), mean=MEAN, std=STD, input_size=SIZE, name="blind")
    for weight in blind.module.parameters():
        weight.data.zero_()
    with torch.no_grad():
        list(blind.module.parameters())[-1][7] = 1.0  # it says class 7 of everything
    assert all(photo.label != 7 for photo in run.photos)
    study = transfer_study(run, [blind], work=tmp_path)
    assert {row["n"] for row in study.table.to_pylist() if row["model"] == "blind"} == {0}
    check_snapshot(__file__, "transfer-nothing-to-fool", study.words.split("\n\n")[-1])


def test_two_of_one_name_are_told_apart(run: Run, tmp_path: Path) -> None:
    study = transfer_study(run, [other_classifier(), other_classifier(seed=2)], work=tmp_path)
    assert {row["model"] for row in study.table.to_pylist()} == {"support.toys:relu_net", "other", "other (2)"}


def test_what_cannot_look_is_refused(run: Run) -> None:
    with pytest.raises(InputError, match="is the audited one"):
        observers_of(run, [toy_classifier()])
    other = other_classifier()
    strangers = Classifier(
        relu_net(), mean=MEAN, std=STD, input_size=48, class_names=[f"other {i}" for i in range(10)], name="strangers"
    )
    with pytest.raises(InputError, match="classes that are not the 10 of the audited model"):
        observers_of(run, [other, strangers])
    masks_only = planned_otherwise(run, interpreters=("mask",))
    with pytest.raises(InputError, match=r"none of the run's interpreters: mask \(each of its maps takes 150 passes\)"):
        observers_of(masks_only, [other])


def test_an_interpreter_that_it_cannot_have_is_left_out(run: Run) -> None:
    wider = planned_otherwise(run, interpreters=("cam", "mask", "rts"))
    (other,) = observers_of(wider, [other_classifier()])
    assert [interpreter.name for interpreter in other.interpreters] == ["cam"]
    assert [left.split(" ")[0] for left in other.left_out] == ["mask", "rts"]
