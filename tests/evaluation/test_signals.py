"""What is measured at once is what each detector measures by itself, to the bit, with every map computed once."""

from itertools import combinations

import pytest
import torch

from support.toy_photos import toy_classifier
from support.toys import images
from underfire.auditing.names import make_interpreters
from underfire.defenses.signals import SIGNALS, Signal
from underfire.errors import NonFiniteError
from underfire.evaluation.detectors import MEAN_MAP, SQUEEZING, CandidateDetector, FittedDetector, SignalValues
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
def values() -> list[dict[str, float]]:
    return EXTRACTOR.measure(IMAGES)


def fitted(candidate: CandidateDetector, values: list[dict[str, float]], *signals: type[Signal]) -> FittedDetector:
    clean: dict[str, SignalValues] = {str(place): line for place, line in enumerate(values)}
    return FittedDetector.fit(candidate, CLASSIFIER, clean, rates=(0.3,), seed=5, signals=signals or SIGNALS)


def table(values: list[dict[str, float]], names: tuple[str, ...]) -> torch.Tensor:
    return torch.tensor([[line[name] for name in names] for line in values], dtype=torch.float64)


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: str(candidate.name))
def test_each_detector_finds_its_own_signals(candidate: CandidateDetector, values: list[dict[str, float]]) -> None:
    made = fitted(candidate, values)
    assert torch.equal(made.detector.signals.measure(IMAGES), table(values, made.columns))
    scores = made.detector.score_samples(IMAGES)
    assert [made.output(line).score for line in values] == pytest.approx(scores.tolist(), rel=1e-12)


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_each_signal_finds_its_own_values(signal: type[Signal], values: list[dict[str, float]]) -> None:
    made = fitted(CANDIDATES[-3], values, signal)
    assert torch.equal(made.detector.signals.measure(IMAGES), table(values, made.columns))


def test_every_map_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, int]] = []
    compute = CAM.compute

    def counting(self: CAM, x: torch.Tensor, y: torch.Tensor, keys: tuple[str, ...]) -> torch.Tensor:
        seen.extend((image.numpy().tobytes(), int(c)) for image, c in zip(x, y, strict=True))
        return compute(self, x, y, keys)

    monkeypatch.setattr(CAM, "compute", counting)
    EXTRACTOR.measure(IMAGES[:2])
    assert len(seen) == len(set(seen)) >= 2 * 6  # the image and five views


def test_what_is_known_is_not_measured_again(values: list[dict[str, float]]) -> None:
    """Where one set's own signal is lacking, those of that set alone are measured, to the same bits."""
    own = [name for name in EXTRACTOR.names if name.startswith("grad+cam: ")]
    rest = EXTRACTOR.measure(IMAGES, set(EXTRACTOR.names) - {own[0]})
    assert rest == [{name: line[name] for name in own} for line in values]
    shared = EXTRACTOR.measure(IMAGES[:2], [name for name in EXTRACTOR.names if name != "grad~cam rank"])
    assert list(shared[0]) == [name for name in EXTRACTOR.names if name in shared[0]] != own
    assert shared == [{name: line[name] for name in shared[0]} for line in values[:2]]
    assert EXTRACTOR.measure(IMAGES[:2], EXTRACTOR.names) == [{}, {}]
    assert tuple(values[0]) == EXTRACTOR.names


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
    assert EXTRACTOR.measure(IMAGES[:0]) == []


def test_a_detector_that_was_not_measured_is_not_fitted(values: list[dict[str, float]]) -> None:
    with pytest.raises(KeyError):
        fitted(CandidateDetector((INTERPRETERS[1], INTERPRETERS[0])), values)
