"""The adaptive attack evades better than an oblivious one, and pays what is said."""

import pytest
import torch

from support.toys import images, relu_net
from underfire import ADV2, CAM, GRAD, PGD, Classifier, EnsembleDetector, InputError
from underfire.attacks.budget import warm_steps
from underfire.attacks.control import MINIMAX, NORMALIZED, SUM, Schedule, Weighting
from underfire.defenses.adaptive import AdaptiveADV2, finalists_for, late_looks, steps_for
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.signals import Pairs, Shapes, Views
from underfire.defenses.squeezing import BitDepth, FeatureSqueezing, Median
from underfire.defenses.views import Flip
from underfire.images.png import from_8bit

KEYS = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32, name="relu toy")


@pytest.fixture(scope="module")
def detector(classifier: Classifier) -> EnsembleDetector:
    return EnsembleDetector([CAM(classifier), GRAD(classifier)], fpr=0.1).fit(images(80, 32))


@pytest.fixture(scope="module")
def clean() -> torch.Tensor:
    return from_8bit((images(84, 32)[80:] * 255).round().to(torch.uint8))


def _targets(classifier: Classifier, x: torch.Tensor) -> torch.Tensor:
    return (classifier(x).argmax(dim=1) + 3) % 10


def test_it_scores_higher_than_an_oblivious_attack(
    classifier: Classifier, detector: EnsembleDetector, clean: torch.Tensor
) -> None:
    target = _targets(classifier, clean)
    oblivious = ADV2(detector.signals.interpreters, passes=200)(clean, target, keys=KEYS)
    adaptive = AdaptiveADV2(detector, passes=200)(clean, target, keys=KEYS)
    assert adaptive.success.all()
    assert adaptive.attack == "adaptive"
    assert torch.equal(adaptive.scores, detector.score_samples(adaptive.x_adv))
    assert torch.equal(adaptive.evaded, detector.predict(adaptive.x_adv) == 1)
    scores = [detector.score_samples(result.x_adv) for result in (oblivious, adaptive)]
    assert float((scores[1] > scores[0]).double().mean()) >= 0.75
    assert float(scores[1].median()) > float(scores[0].median())


@pytest.mark.parametrize("weighting", [NORMALIZED, SUM, MINIMAX], ids=lambda rule: rule.name)
def test_it_keeps_the_budget_and_pays_no_more_than_its_passes(
    classifier: Classifier, detector: EnsembleDetector, clean: torch.Tensor, weighting: Weighting
) -> None:
    attack = AdaptiveADV2(detector, eps=4 / 255, passes=120, weighting=weighting)
    result = attack(clean[:2], _targets(classifier, clean[:2]), keys=KEYS[:2])
    assert float((result.x_adv - clean[:2]).abs().max()) <= 4 / 255 + 1e-6
    torch.testing.assert_close(result.x_adv * 255, (result.x_adv * 255).round(), rtol=0, atol=1e-4)
    assert result.passes.tolist() == [result.passes[0].item()] * 2
    assert 120 - 2 * max(g.passes_per_step for g in detector.signals.interpreters) <= int(result.passes[0]) <= 120


def test_split_is_whole_to_the_bit(classifier: Classifier, detector: EnsembleDetector, clean: torch.Tensor) -> None:
    attack, target = AdaptiveADV2(detector, passes=70), _targets(classifier, clean)
    whole = attack(clean, target, keys=KEYS)
    for i, key in ((0, KEYS[0]), (3, KEYS[3])):
        row = slice(i, i + 1)
        assert torch.equal(attack(clean[row], target[row], keys=[key]).x_adv, whole.x_adv[row])


def test_the_label_counts_before_the_score(
    classifier: Classifier, detector: EnsembleDetector, clean: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector that scores the benign image highest: the finalist with the label is kept all the same."""
    target = _targets(classifier, clean)
    attack = AdaptiveADV2(detector, passes=200)
    monkeypatch.setattr(
        type(detector), "score_samples", lambda _self, x: -(x - clean).abs().double().sum(dim=(1, 2, 3))
    )
    assert len(attack.setting.finals) > 1
    assert attack(clean, target, keys=KEYS).success.all()


def test_without_views_and_region_the_image_alone_is_attacked(classifier: Classifier, clean: torch.Tensor) -> None:
    plain = EnsembleDetector([CAM(classifier), GRAD(classifier)], fpr=0.1, signals=[Pairs, Shapes]).fit(images(40, 32))
    result = AdaptiveADV2(plain, passes=100)(clean[:1], _targets(classifier, clean[:1]))
    assert int(result.passes[0]) <= 100


def test_squeezing_is_evaded_better_by_the_adaptive_attack(classifier: Classifier, clean: torch.Tensor) -> None:
    """Few levels and a wide median move a plain attack's prediction; one made through them is moved less."""
    squeezing = FeatureSqueezing(classifier, squeezers=[BitDepth(3), Median(3)], fpr=0.1).fit(images(40, 32))
    target = _targets(classifier, clean)
    oblivious = PGD(classifier, passes=200)(clean, target, keys=KEYS)
    adaptive = AdaptiveADV2(squeezing, passes=200)(clean, target, keys=KEYS)
    assert oblivious.success.all()
    assert adaptive.success.all()
    assert (squeezing.score_samples(adaptive.x_adv) > squeezing.score_samples(oblivious.x_adv)).all()
    assert float((adaptive.x_adv - clean).abs().max()) <= 8 / 255 + 1e-6
    assert 190 <= int(adaptive.passes[0]) <= 200


def test_the_parts_of_a_mean_map_are_attacked(classifier: Classifier, clean: torch.Tensor) -> None:
    parts = [CAM(classifier), GRAD(classifier)]
    detector = EnsembleDetector(MeanMap(parts), fpr=0.1).fit(images(40, 32))
    result = AdaptiveADV2(detector, passes=150)(clean[:2], _targets(classifier, clean[:2]), keys=KEYS[:2])
    assert list(result.target_maps) == ["cam", "grad"]
    assert result.success.all()
    assert int(result.passes[0]) <= 150


@pytest.mark.parametrize("passes", [60, 61, 100, 200, 1000])
def test_the_steps_are_as_many_as_the_passes_pay_for(detector: EnsembleDetector, passes: int) -> None:
    """Counted step by step: each pays one pass and, at maps, what the interpreters ask for beyond it."""
    signals = detector.signals
    steps = steps_for(passes, signals)

    def cost(count: int) -> int:
        attacks_maps = [
            step % 7 < 6 for step in range(count + 1)
        ]  # the image, five views; then the region, without maps
        mapped = sum(attacks_maps[warm_steps(count) :])
        return count + 1 + sum(g.further_passes(mapped) for g in signals.interpreters)

    left = passes - finalists_for(passes, signals) * signals.passes_per_image
    assert cost(steps) <= left < cost(steps + 1)


def test_no_image_is_no_work(detector: EnsembleDetector, clean: torch.Tensor) -> None:
    result = AdaptiveADV2(detector, passes=100)(clean[:0], torch.zeros(0, dtype=torch.int64))
    assert result.x_adv.shape[0] == 0


def test_bad_input_is_refused_in_a_sentence(classifier: Classifier, detector: EnsembleDetector) -> None:
    with pytest.raises(InputError, match=r"passes is 10; one step .* cam, grad .* so give at least that many"):
        AdaptiveADV2(detector, passes=10)
    with pytest.raises(InputError, match="give a whole number"):
        AdaptiveADV2(detector, passes=150.5)  # type: ignore[arg-type]
    squeezing = FeatureSqueezing(classifier, squeezers=[BitDepth(3)], fpr=0.1).fit(images(40, 32))
    with pytest.raises(InputError, match=r"passes is 3; one step .* squeezing and its score take 4"):
        AdaptiveADV2(squeezing, passes=3)
    with pytest.raises(InputError, match="not fitted"):
        AdaptiveADV2(EnsembleDetector(CAM(classifier)))


def test_a_view_moves_the_target_map_as_it_moves_the_image(classifier: Classifier) -> None:
    """Under a flip in every other step the map is kept in the flipped image as well as in the image."""
    mirrored = EnsembleDetector(CAM(classifier), fpr=0.1, signals=[Views([Flip()])]).fit(images(40, 32))
    clean = images(84, 32)[80:]
    result = AdaptiveADV2(mirrored, passes=300)(clean, _targets(classifier, clean), keys=KEYS)
    (cam,) = mirrored.signals.interpreters
    assert result.success.all()
    objectives = result.target_maps["cam"]
    distances = [
        float((maps - objectives).abs().mean())
        for maps in (result.maps["cam"], cam(result.x_adv.flip(3), result.target).flip(2))
    ]
    astray = float((objectives.flip(2) - objectives).abs().mean())
    assert max(distances) < astray / 2


@pytest.mark.parametrize("finalists", [0, 1, 2, 8])
@pytest.mark.parametrize("steps", [1, 2, 9, 100])
def test_late_looks_are_joint_and_late(finalists: int, steps: int) -> None:
    schedule = Schedule(steps, warm=steps // 5, first=0.1, peak=0.1, last=0.1)
    looks = late_looks(schedule, finalists)
    assert len(set(looks)) == len(looks) <= finalists
    assert all(schedule.warm <= look <= steps for look in looks)
    if finalists:
        assert looks[0] == steps
        assert steps < 32 or (min(looks) >= steps - (steps - schedule.warm) // 4 and len(looks) == finalists)
