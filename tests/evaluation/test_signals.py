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
from underfire.evaluation.detectors import MEAN_MAP, SQUEEZING, CandidateDetector
from underfire.evaluation.signals import SignalExtractor
from underfire.interpreters import CAM

CLASSIFIER = toy_classifier()
INTERPRETERS = make_interpreters(("grad", "cam", "inputxgradient"), CLASSIFIER)
CANDIDATES = (
    *(CandidateDetector(some) for size in (1, 2, 3) for some in combinations(INTERPRETERS, size)),
    CandidateDetector(INTERPRETERS, MEAN_MAP),
    CandidateDetector((), SQUEEZING),
)
EXTRACTOR = SignalExtractor(INTERPRETERS, CANDIDATES, seed=5)
IMAGES = images(11, 32, seed=1)  # more than are measured together


@pytest.fixture(scope="module")
def values() -> torch.Tensor:
    return EXTRACTOR.measure(IMAGES)


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: str(candidate.name))
def test_each_detector_finds_its_own_signals(candidate: CandidateDetector, values: torch.Tensor) -> None:
    detector = candidate.detector(CLASSIFIER, fpr=0.05, seed=5)
    assert torch.equal(detector.signals.measure(IMAGES), values[:, EXTRACTOR.columns(candidate, detector)])


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_each_signal_finds_its_own_values(signal: type[Signal], values: torch.Tensor) -> None:
    detector = CANDIDATES[-3].detector(CLASSIFIER, fpr=0.05, seed=5, signals=[signal])
    columns = EXTRACTOR.columns(CANDIDATES[-3], detector)
    assert torch.equal(detector.signals.measure(IMAGES), values[:, columns])


def test_every_map_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, int]] = []
    compute = CAM.compute

    def counting(self: CAM, x: torch.Tensor, y: torch.Tensor, keys: tuple[str, ...]) -> torch.Tensor:
        seen.extend((image.numpy().tobytes(), int(c)) for image, c in zip(x, y, strict=True))
        return compute(self, x, y, keys)

    monkeypatch.setattr(CAM, "compute", counting)
    EXTRACTOR.measure(IMAGES[:2])
    assert len(seen) == len(set(seen)) >= 2 * 6  # the image and five views


def test_what_is_known_is_not_measured_again(values: torch.Tensor) -> None:
    """Of a meter that lacks one set's own columns, those alone are measured, to the same bits."""
    own = [name for name in EXTRACTOR.names if name.startswith("grad+cam: ")]
    rest = EXTRACTOR.lacking(set(EXTRACTOR.names) - {own[0]})
    assert list(rest.names) == own
    places = [EXTRACTOR.names.index(name) for name in own]
    assert torch.equal(rest.measure(IMAGES), values[:, places])
    shared = EXTRACTOR.lacking({name for name in EXTRACTOR.names if name != "grad~cam rank"})
    assert torch.equal(shared.measure(IMAGES[:2]), values[:2, : len(shared.names)])
    assert EXTRACTOR.lacking(EXTRACTOR.names).names == ()
    assert EXTRACTOR.lacking(()).names == EXTRACTOR.names


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
        EXTRACTOR.measure(IMAGES)
    assert caught.value.index == 9


def test_no_image_has_no_row() -> None:
    assert EXTRACTOR.measure(IMAGES[:0]).shape == (0, len(EXTRACTOR.names))


def test_a_detector_that_was_not_measured_has_no_columns() -> None:
    stranger = CandidateDetector((INTERPRETERS[1], INTERPRETERS[0]))
    detector: Any = stranger.detector(CLASSIFIER, fpr=0.05, seed=5)
    with pytest.raises(KeyError):
        EXTRACTOR.columns(stranger, detector)
