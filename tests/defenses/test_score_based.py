"""The score-based attack raises scores, keeps label and budget, and takes no more queries than it may."""

import pytest
import torch

from support.toys import images, relu_net
from underfire import CAM, PGD, Classifier, EnsembleDetector, InputError
from underfire.attacks.perturbations import Linf
from underfire.defenses.score_based import ScoreSearch
from underfire.defenses.squeezing import FeatureSqueezing
from underfire.errors import NonFiniteError
from underfire.images.png import from_8bit

KEYS = ("a", "b", "c", "d")
CLASSIFIER = Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32, name="relu toy")


@pytest.fixture(scope="module")
def detector() -> EnsembleDetector:
    return EnsembleDetector(CAM(CLASSIFIER), fpr=0.1).fit(images(80, 32))


@pytest.fixture(scope="module")
def clean() -> torch.Tensor:
    return from_8bit((images(84, 32)[80:] * 255).round().to(torch.uint8))


@pytest.fixture(scope="module")
def target(clean: torch.Tensor) -> torch.Tensor:
    return (CLASSIFIER(clean).argmax(dim=1) + 3) % 10


@pytest.fixture(scope="module")
def attacked(clean: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    result = PGD(CLASSIFIER, passes=30)(clean, target)
    assert result.success.all()
    return from_8bit(Linf().rounded(clean, result.x_adv))


def test_scores_rise_while_label_and_budget_hold(
    detector: EnsembleDetector, clean: torch.Tensor, attacked: torch.Tensor, target: torch.Tensor
) -> None:
    before = detector.score_samples(attacked)
    assert (before < detector.threshold_).all()
    found = ScoreSearch(detector, passes=1000, start=attacked)(clean, target, keys=KEYS)
    assert torch.equal(found.scores, detector.score_samples(found.x_adv))
    assert torch.equal(found.evaded, detector.predict(found.x_adv) == 1)
    assert found.attack == "score-based"
    assert found.trace.maps is None
    torch.testing.assert_close(found.trace.prediction.kept, -found.confidence.log(), rtol=1e-4, atol=1e-4)
    assert (found.scores > before).all()
    assert (CLASSIFIER(found.x_adv).argmax(dim=1) == target).all()
    assert Linf().contains(clean, found.x_adv).all()
    assert torch.equal(found.x_adv, from_8bit((found.x_adv * 255).round().to(torch.uint8)))
    price = detector.signals.passes_per_image
    assert (found.passes <= 1000).all()
    assert (found.passes % price == 0).all()
    unfinished = found.scores < detector.threshold_
    assert (found.passes[unfinished] == 1000 // price * price).all()


def test_more_passes_are_no_worse(
    detector: EnsembleDetector, clean: torch.Tensor, attacked: torch.Tensor, target: torch.Tensor
) -> None:
    few, many = (
        ScoreSearch(detector, passes=passes, start=attacked)(clean, target, keys=KEYS).scores for passes in (100, 1000)
    )
    assert float(many.mean()) > float(few.mean())


def test_a_planted_way_past_the_detector_is_found(clean: torch.Tensor) -> None:
    """A detector that minds nothing but how far the upper left is from the benign photo: windows there undo that."""
    squeezing = FeatureSqueezing(CLASSIFIER, fpr=0.1).fit(images(40, 32))
    corner = (slice(None), slice(None), slice(0, 16), slice(0, 16))
    changed = clean.clone()
    changed[corner] = (clean[corner] + 8 / 255).clamp(max=1)

    def minding(x: torch.Tensor) -> torch.Tensor:
        apart = [(image[None] - clean)[corner].abs().mean(dim=(1, 2, 3)).min() for image in x]
        return squeezing.threshold_ + 4 / 255 - torch.stack(apart).double()

    squeezing.score_samples = minding  # type: ignore[assignment, method-assign]
    assert (minding(changed) < squeezing.threshold_).all()
    found = ScoreSearch(squeezing, passes=5000, start=changed)(clean, CLASSIFIER(changed).argmax(dim=1))
    assert (found.scores >= squeezing.threshold_).all()


def test_what_is_not_flagged_or_has_not_the_label_is_left_alone(
    detector: EnsembleDetector, clean: torch.Tensor, attacked: torch.Tensor, target: torch.Tensor
) -> None:
    price = detector.signals.passes_per_image
    own = CLASSIFIER(clean).argmax(dim=1)
    passing = detector.predict(clean) == 1
    assert passing.any()
    unflagged = ScoreSearch(detector, passes=200, start=clean)(clean, own)
    assert torch.equal(unflagged.x_adv[passing], clean[passing])
    assert (unflagged.passes[passing] == price).all()
    unreached = ScoreSearch(detector, passes=200, start=attacked)(clean, own)
    assert torch.equal(unreached.x_adv, attacked)
    assert (unreached.passes == price).all()


def test_split_is_whole_to_the_bit(
    detector: EnsembleDetector, clean: torch.Tensor, attacked: torch.Tensor, target: torch.Tensor
) -> None:
    whole = ScoreSearch(detector, start=attacked, passes=100, seed=3)(clean, target, keys=KEYS)
    for i, key in ((0, KEYS[0]), (3, KEYS[3])):
        row = slice(i, i + 1)
        search = ScoreSearch(detector, start=attacked[row], passes=100, seed=3)
        assert torch.equal(search(clean[row], target[row], keys=[key]).x_adv, whole.x_adv[row])
    other = ScoreSearch(detector, passes=100, seed=4, start=attacked)(clean, target, keys=KEYS)
    assert not torch.equal(other.x_adv, whole.x_adv)


def test_images_come_back_in_whole_levels_even_if_nothing_is_found(
    detector: EnsembleDetector, clean: torch.Tensor, target: torch.Tensor
) -> None:
    raw = PGD(CLASSIFIER, passes=30)(clean, target).x_adv
    found = ScoreSearch(detector, passes=26, start=raw)(clean, target).x_adv
    torch.testing.assert_close(found * 255, (found * 255).round(), rtol=0, atol=1e-4)
    assert Linf().contains(clean, found).all()


def test_the_image_is_named_whose_score_is_none(
    detector: EnsembleDetector,
    clean: torch.Tensor,
    attacked: torch.Tensor,
    target: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted over the batch, though the first image has its way and asks no more."""
    asked = []
    score = EnsembleDetector.score_samples

    def failing(self: EnsembleDetector, x: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        if len(asked) == 2:
            assert len(x) == 3
            raise NonFiniteError("a map", 1)
        return score(self, x)

    monkeypatch.setattr(EnsembleDetector, "score_samples", failing)
    own = CLASSIFIER(clean[:1]).argmax(dim=1)  # a label that the attacked image has not
    wanted = torch.cat([own, target[1:]])
    with pytest.raises(NonFiniteError) as caught:
        ScoreSearch(detector, passes=200, start=attacked)(clean, wanted)
    assert caught.value.index == 2


def test_no_image_is_no_work(detector: EnsembleDetector, clean: torch.Tensor) -> None:
    found = ScoreSearch(detector, passes=100, start=clean[:0])(clean[:0], torch.zeros(0, dtype=torch.int64))
    assert found.x_adv.shape[0] == 0


def test_bad_input_is_refused_in_a_sentence(
    detector: EnsembleDetector, clean: torch.Tensor, target: torch.Tensor
) -> None:
    with pytest.raises(InputError, match="passes is 20; a search takes two queries of 13 at least"):
        ScoreSearch(detector, passes=20)
    with pytest.raises(InputError, match="not fitted"):
        ScoreSearch(EnsembleDetector(CAM(CLASSIFIER)))
    with pytest.raises(InputError, match="not in whole grey levels"):
        ScoreSearch(detector)(clean + 0.4 / 255, target)
    with pytest.raises(InputError, match="image to start from is not within"):
        ScoreSearch(detector, start=(clean + 0.1).clamp(0, 1))(clean, target)
    with pytest.raises(InputError, match="2 images to start from for 4 benign ones"):
        ScoreSearch(detector, start=clean[:2])(clean, target)
