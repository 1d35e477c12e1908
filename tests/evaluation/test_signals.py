"""What is measured at once is what each detector measures by itself, to the bit, with every map computed once."""

from itertools import combinations
from typing import Any

import pytest
import torch

from support.toy_photos import toy_classifier
from support.toys import images
from underfire.auditing.names import make_interpreters
from underfire.defenses.signals import SIGNALS, Signal
from underfire.errors import NonFiniteError
from underfire.evaluation.signals import MEAN_MAP, SQUEEZING, Contender, Meter
from underfire.interpreters import CAM

CLASSIFIER = toy_classifier()
INTERPRETERS = make_interpreters(("grad", "cam", "inputxgradient"), CLASSIFIER)
CONTENDERS = (
    *(
        Contender("+".join(g.name for g in some), some)
        for size in (1, 2, 3)
        for some in combinations(INTERPRETERS, size)
    ),
    Contender(MEAN_MAP, INTERPRETERS),
    Contender(SQUEEZING, ()),
)
METER = Meter(INTERPRETERS, CONTENDERS, seed=5)
IMAGES = images(11, 32, seed=1)  # more than are measured together


@pytest.fixture(scope="module")
def values() -> torch.Tensor:
    return METER.measure(IMAGES)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.key)
def test_each_detector_finds_its_own_signals(contender: Contender, values: torch.Tensor) -> None:
    detector = contender.detector(CLASSIFIER, fpr=0.05, seed=5)
    assert torch.equal(detector.signals.measure(IMAGES), values[:, METER.columns(contender, detector)])


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_each_signal_finds_its_own_values(signal: type[Signal], values: torch.Tensor) -> None:
    detector = CONTENDERS[-3].detector(CLASSIFIER, fpr=0.05, seed=5, signals=[signal])
    columns = METER.columns(CONTENDERS[-3], detector)
    assert torch.equal(detector.signals.measure(IMAGES), values[:, columns])


def test_every_map_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, int]] = []
    compute = CAM.compute

    def counting(self: CAM, x: torch.Tensor, y: torch.Tensor, keys: tuple[str, ...]) -> torch.Tensor:
        seen.extend((image.numpy().tobytes(), int(c)) for image, c in zip(x, y, strict=True))
        return compute(self, x, y, keys)

    monkeypatch.setattr(CAM, "compute", counting)
    METER.measure(IMAGES[:2])
    assert len(seen) == len(set(seen)) >= 2 * 6  # the image and five views


def test_what_is_known_is_not_measured_again(values: torch.Tensor) -> None:
    """Of a meter that lacks one set's own columns, those alone are measured, to the same bits."""
    own = [name for name in METER.names if name.startswith("grad+cam: ")]
    rest = METER.lacking(set(METER.names) - {own[0]})
    assert list(rest.names) == own
    places = [METER.names.index(name) for name in own]
    assert torch.equal(rest.measure(IMAGES), values[:, places])
    shared = METER.lacking({name for name in METER.names if name != "grad~cam rank"})
    assert torch.equal(shared.measure(IMAGES[:2]), values[:2, : len(shared.names)])
    assert METER.lacking(METER.names).names == ()
    assert METER.lacking(()).names == METER.names


def test_the_image_is_named_whose_number_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted over all images, not over those that are measured together."""
    compute = CAM.compute
    bad = IMAGES[9]

    def failing(self: CAM, x: torch.Tensor, y: torch.Tensor, keys: tuple[str, ...]) -> torch.Tensor:
        maps = compute(self, x, y, keys)
        maps[[torch.equal(image, bad) for image in x]] = torch.nan
        return maps

    monkeypatch.setattr(CAM, "compute", failing)
    with pytest.raises(NonFiniteError) as caught:
        METER.measure(IMAGES)
    assert caught.value.index == 9


def test_no_image_has_no_row() -> None:
    assert METER.measure(IMAGES[:0]).shape == (0, len(METER.names))


def test_a_detector_that_was_not_measured_has_no_columns() -> None:
    stranger = Contender("cam+grad", (INTERPRETERS[1], INTERPRETERS[0]))
    detector: Any = stranger.detector(CLASSIFIER, fpr=0.05, seed=5)
    with pytest.raises(KeyError):
        METER.columns(stranger, detector)
