"""What was measured of an image is kept by what it shows, and only what is missing is measured."""

import json
from pathlib import Path

import pytest
import torch

from support.toy_photos import toy_classifier
from support.toys import images
from underfire.auditing.names import make_interpreters
from underfire.errors import InputError, NonFiniteError
from underfire.evaluation.detectors import MEAN_MAP, SQUEEZING, CandidateDetector, SignalValues
from underfire.evaluation.signals import SignalCache, SignalExtractor
from underfire.interpreters import SmoothGrad
from underfire.seeding import content_key

CAM, GRAD = INTERPRETERS = make_interpreters(("cam", "grad"), toy_classifier())
ONE, OTHER, BOTH = CandidateDetector((CAM,)), CandidateDetector((GRAD,)), CandidateDetector((CAM, GRAD))
X = images(3, 32, seed=4)
NAMES = ("a", "b", "c")


def extractor(*candidates: CandidateDetector) -> SignalExtractor:
    return SignalExtractor(INTERPRETERS, candidates, seed=0)


def values(
    folder: Path, some: SignalExtractor, x: torch.Tensor = X, *, said: list[str] | None = None
) -> list[SignalValues]:
    notes = [] if said is None else said
    return SignalCache(folder, some, notes.append).values(x, names=NAMES[: len(x)], what="measured")


def test_values_are_those_of_the_extractor_and_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some, said = extractor(ONE, BOTH), list[str]()
    expected = some.measure(X)
    assert values(tmp_path, some, said=said) == expected
    assert {path.stem for path in tmp_path.iterdir()} == {content_key(image) for image in X}
    monkeypatch.setattr(SignalExtractor, "measure", lambda *_: pytest.fail("it was measured before"))
    assert values(tmp_path, some, X[[2, 0]], said=said) == [expected[2], expected[0]]
    assert said == ["measured"]


def test_images_with_more_and_less_known_are_completed_each_for_itself(tmp_path: Path) -> None:
    values(tmp_path, extractor(ONE), X[:1])
    values(tmp_path, extractor(BOTH), X[1:2])
    whole = extractor(ONE, OTHER, BOTH, CandidateDetector((), SQUEEZING))
    assert values(tmp_path, whole) == whole.measure(X)


def test_what_others_have_measured_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = values(tmp_path, extractor(ONE))
    values(tmp_path, extractor(OTHER))
    monkeypatch.setattr(SignalExtractor, "measure", lambda *_: pytest.fail("it was measured before"))
    assert values(tmp_path, extractor(ONE)) == before


def test_mean_maps_of_different_parts_are_different_signals(tmp_path: Path) -> None:
    more = make_interpreters(("cam", "grad", "inputxgradient"), toy_classifier())
    two, three = (
        SignalExtractor(some, [CandidateDetector(some, MEAN_MAP)], seed=0, shared=False) for some in (more[:2], more)
    )
    assert not set(two.names) & set(three.names)
    values(tmp_path, two)
    assert values(tmp_path, three) == three.measure(X)


def test_what_another_interpreter_of_the_name_said_is_measured_again(tmp_path: Path) -> None:
    classifier = toy_classifier()
    plain, finer = ((SmoothGrad(classifier, samples=samples),) for samples in (2, 3))
    before = values(tmp_path, SignalExtractor(plain, [CandidateDetector(plain)], seed=0))
    other = SignalExtractor(finer, [CandidateDetector(finer)], seed=0)
    after = values(tmp_path, other)
    assert after == other.measure(X) != before


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    values(tmp_path, extractor(ONE), X[:1])
    (path,) = tmp_path.iterdir()
    for content in ("{", "{}", json.dumps({"interpreters": {}, "values": {"cam: agreed log-odds": "much"}})):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=r"cannot be read .* delete it to have it made again"):
            values(tmp_path, extractor(ONE), X[:1])


def test_the_photo_is_named_whose_number_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values(tmp_path, extractor(ONE), X[:1])

    def failing(*_: object) -> torch.Tensor:
        raise NonFiniteError("a map", 1)

    monkeypatch.setattr(SignalExtractor, "measure", failing)
    with pytest.raises(InputError, match="for photo 'c'"):  # the second of the two that are measured
        values(tmp_path, extractor(ONE))
