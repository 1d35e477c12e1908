"""What every signal promises, one of a user's own included, and that files of detectors made before are still read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from support.toys import images
from underfire import CAM, GRAD, Classifier, EnsembleDetector, InputError, Interpreter
from underfire.attacks.transforms import Cycle, identity
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.evaluator import CachedEvaluator
from underfire.defenses.signals import SIGNALS, Signal, SignalInput, Views
from underfire.defenses.views import Flip

KEYS = ("ant", "bee", "cat")


class Peak(Signal):
    """Where the brightest cell of each map is, as a share of the height: a signal of a user's own."""

    name: ClassVar[str] = "peak"
    depends_on_set: ClassVar[bool] = False

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def settings(self) -> dict[str, Any]:
        return {"peak weight": self.weight}

    def names(self, interpreters: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{name} peak" for name in interpreters)

    def measure(self, given: SignalInput) -> Tensor:
        rows = [maps.flatten(1).argmax(dim=1) // maps.shape[2] / maps.shape[1] for maps in given.maps.values()]
        return self.weight * torch.stack(rows, dim=1).double()


every_signal = pytest.mark.parametrize("kind", [*SIGNALS, Peak], ids=lambda kind: kind.name)


@pytest.fixture
def interpreters(relu_classifier: Classifier) -> list[Interpreter]:
    return [CAM(relu_classifier), GRAD(relu_classifier)]


@every_signal
def test_names_and_values_are_as_many_and_rows_belong_to_images(
    kind: type[Signal], interpreters: list[Interpreter]
) -> None:
    signal, x = kind.default((32, 32), 3), images(3, 32)
    for watched in (interpreters, interpreters[:1]):
        names = signal.names([g.name for g in watched])
        values = signal.measure(SignalInput.of(watched, x, KEYS))
        assert len(set(names)) == len(names)
        assert values.shape == (3, len(names))
        assert values.dtype == torch.float64
        assert bool(torch.isfinite(values).all())
        alone = [signal.measure(SignalInput.of(watched, x[i : i + 1], KEYS[i : i + 1])) for i in range(3)]
        assert torch.equal(torch.cat(alone), values)


@every_signal
def test_a_value_that_depends_on_no_set_is_the_same_in_any(kind: type[Signal], interpreters: list[Interpreter]) -> None:
    signal, x = kind.default((32, 32), 3), images(3, 32)
    whole, part = (
        dict(zip(signal.names([g.name for g in some]), signal.measure(SignalInput.of(some, x, KEYS)).T, strict=True))
        for some in (interpreters, interpreters[1:])
    )
    same = all(name in whole and torch.equal(whole[name], values) for name, values in part.items())
    assert same or kind.depends_on_set


@every_signal
def test_passes_are_those_that_are_run(kind: type[Signal], interpreters: list[Interpreter]) -> None:
    class Counting(CachedEvaluator):
        passes = 0

        def logits(self, classifier: Classifier, x: Tensor) -> Tensor:
            self.passes += len(x)
            return super().logits(classifier, x)

        def maps(self, interpreter: Any, x: Tensor, classes: Tensor, keys: Sequence[str]) -> Tensor:
            self.passes += len(x) * interpreter.passes_per_map
            return super().maps(interpreter, x, classes, keys)

    signal = Views([Flip()]) if kind is Views else kind.default((32, 32), 3)
    evaluator, x = Counting(), images(1, 32)
    x = (x + x.flip(3)) / 2  # a flip keeps its label
    given = SignalInput.of(interpreters, x, KEYS[:1], evaluator)
    before = evaluator.passes
    signal.measure(given)
    assert evaluator.passes - before == signal.passes(interpreters)


@every_signal
def test_what_the_attacker_sees_is_differentiable(kind: type[Signal], interpreters: list[Interpreter]) -> None:
    x = images(2, 32)
    goals = {g.name: g(x, torch.tensor([1, 2])) for g in interpreters}
    transforms = kind.default((32, 32), 3).transforms(goals, 7)
    cycle = Cycle(transforms, KEYS[:2])
    for step, transform in enumerate(transforms, start=1):
        batch = cycle(x, torch.arange(2), step)
        assert batch.images.shape == x.shape
        assert batch.maps == transform.maps
        assert bool((batch.pull_back(torch.ones_like(x)) != 0).any())
    assert cycle(x, torch.arange(2), 0).images is identity(x, torch.arange(2), 0).images is x


def test_a_signal_of_ones_own_takes_part_and_is_restored(
    tmp_path: Path, interpreters: list[Interpreter], relu_classifier: Classifier
) -> None:
    signals: list[Signal | type[Signal]] = [Peak(0.5), *SIGNALS[:2]]
    detector = EnsembleDetector(interpreters, fpr=0.3, signals=signals).fit(images(12, 32))
    assert detector.signals.names[-2:] == ("cam peak", "grad peak")  # behind those of the table
    detector.save(tmp_path / "d.safetensors")
    with pytest.raises(InputError, match="'peak' is no signal of this package; make the detector with yours"):
        EnsembleDetector.load(tmp_path / "d.safetensors", relu_classifier)
    with pytest.raises(InputError, match="fitted with other settings"):
        EnsembleDetector(interpreters, fpr=0.3, signals=[Peak, *SIGNALS[:2]]).restore(tmp_path / "d.safetensors")
    again = EnsembleDetector(interpreters, fpr=0.3, signals=signals).restore(tmp_path / "d.safetensors")
    assert torch.equal(again.score_samples(images(2, 32)), detector.score_samples(images(2, 32)))


def test_settings_and_names_are_those_of_files_of_format_1(relu_classifier: Classifier) -> None:
    detector = EnsembleDetector(CAM(relu_classifier), signals=[SIGNALS[1], Views([Flip()])])
    assert {name: part for name, part in detector.settings().items() if name != "interpreters"} == {
        "groups": {"pairs": False, "shapes": True, "agreed": False, "views": True},
        "views": [["Flip", {}]],
    }
    assert list(detector.settings()["groups"]) == ["pairs", "shapes", "agreed", "views"]
    assert detector.signals.names == (
        "cam entropy",
        "flip: log-odds change",
        "flip: label kept",
        "flip: cam rank",
        "flip: cam rank by its label",
    )
    assert EnsembleDetector(CAM(relu_classifier), signals=[SIGNALS[0], SIGNALS[1]]).settings()["views"] == []


def test_two_names_of_one_value_are_refused(relu_classifier: Classifier) -> None:
    class Copy(Peak):
        name: ClassVar[str] = "copy"

    with pytest.raises(InputError, match="two signals have the name 'cam peak'"):
        EnsembleSignals(CAM(relu_classifier), signals=[Peak, Copy])
