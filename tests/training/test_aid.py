"""Adversarial interpretation training, on photos where it is known what the classifier sees."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from support.planted import BLUE, RED, SIZE, planted, tinted_net, write_planted
from support.traces import untouched
from underfire.attacks import ADV2
from underfire.errors import InputError
from underfire.images import find_photos
from underfire.images.dataset import Split, drawn, read_sources, split_photos
from underfire.interpreters.masking.network import MaskingNetwork
from underfire.interpreters.rts import RTS
from underfire.models.classifier import Classifier
from underfire.training.aid import METHOD, AidLesson, AidScore, train_aid
from underfire.training.batches import Batch, random_batch, whole_batches
from underfire.training.losses import aid_loss, show_loss
from underfire.training.plan import AidPlan, RtsPlan
from underfire.training.rts import train_rts
from underfire.training.scores import Score

EPS = 0.1  # enough for a tint that outweighs a patch, far from enough to paint one
SHORT = AidPlan(epochs=2, batch_size=8, attack_eps=EPS, attack_passes=15, watched=4)


def tinted_classifier() -> Classifier:
    return Classifier(tinted_net(), input_size=SIZE, name="tinted")


class Heard:
    """A listener that remembers, and may have enough after an epoch."""

    def __init__(self, *, until: int | None = None) -> None:
        self.until, self.scores, self.steps = until, list[Any](), 0

    def began(self, epochs: int, finished: int, steps: int) -> None: ...

    def stepped(self) -> None:
        self.steps += 1

    def scored(self, epoch: int, score: Score) -> None:
        self.scores.append(score)
        if epoch == self.until:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = write_planted(tmp_path_factory.mktemp("planted") / "photos", 22)
    found = find_photos([folder], class_names=("nothing", "red", "blue")).photos
    sources, _ = read_sources(found, tinted_classifier())
    return split_photos(sources, drawn(sources, 6, 0), tinted_classifier())


@pytest.fixture(scope="module")
def start(split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that know where the planted patch is."""
    out = tmp_path_factory.mktemp("start") / "start.safetensors"
    plan = RtsPlan(epochs=30, batch_size=4, learning_rate=5e-3)
    train_rts(tinted_classifier(), split, out, plan=plan, listener=Heard())
    return out


def train(split: Split, start: Path, out: Path, plan: AidPlan, *, heard: Heard | None = None) -> MaskingNetwork:
    return train_aid(tinted_classifier(), split, start, out, plan=plan, listener=heard or Heard())


def lesson_of(start: Path, plan: AidPlan, classifier: Classifier | None = None) -> AidLesson:
    clf = tinted_classifier() if classifier is None else classifier
    return AidLesson(MaskingNetwork.load(start, clf), MaskingNetwork.load(start, clf), clf, plan)


def a_batch(split: Split, plan: AidPlan, *, epoch: int = 0) -> Batch:
    return random_batch(split.train, range(6), epoch, tinted_classifier(), plan)


def weights(path: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(path)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class TestLoss:
    PLAN = AidPlan(stay=2.0, show=3.0, margin=0.4)

    def test_what_a_map_lacks_to_being_emptier(self) -> None:
        benign = torch.full((4, 2, 2), 0.6)
        maps = torch.stack([torch.full((2, 2), value) for value in (0.6, 0.5, 0.2, 0.0)])
        torch.testing.assert_close(show_loss(maps, benign, 0.4), torch.tensor([0.4, 0.3, 0.0, 0.0]))
        fuller = torch.ones(4, 2, 2)
        torch.testing.assert_close(show_loss(fuller, benign, 0.4), torch.full((4,), 0.8))

    def test_where_nothing_lacks_the_maps_differ_by_the_margin(self) -> None:
        draw = torch.Generator().manual_seed(0)
        benign, maps = torch.rand(500, 3, 3, generator=draw), torch.rand(500, 3, 3, generator=draw) * 0.6
        enough = show_loss(maps, benign, 0.2) == 0
        assert 50 < int(enough.sum()) < 450
        assert float((benign - maps).abs().mean(dim=(1, 2))[enough].min()) >= 0.2

    def test_the_parts_by_hand(self) -> None:
        benign, before = torch.full((2, 2, 2), 0.5), torch.full((2, 2, 2), 0.7)
        found = aid_loss(benign, before, torch.full((2, 2, 2), 0.3), torch.tensor([True, False]), self.PLAN)
        torch.testing.assert_close(found, torch.tensor([2 * 0.2 + 3 * (0.4 - 0.2), 2 * 0.2]))

    def test_a_map_that_is_no_number_counts_only_where_the_attack_got_there(self) -> None:
        benign, bad = torch.full((2, 2, 2), 0.5), torch.full((2, 2, 2), torch.nan)
        found = aid_loss(benign, benign, bad, torch.tensor([True, False]), self.PLAN)
        assert found.isnan().tolist() == [True, False]

    def test_its_slope_is_that_of_finite_differences(self) -> None:
        draw = torch.Generator().manual_seed(0)
        benign, before, maps = (torch.rand(3, 4, 4, generator=draw, dtype=torch.float64) for _ in range(3))
        reached = torch.tensor([True, True, False])
        arguments = (benign.requires_grad_(), maps.requires_grad_())
        assert torch.autograd.gradcheck(lambda b, m: aid_loss(b, before, m, reached, self.PLAN), arguments)

    def test_what_empties_all_maps_alike_gains_nothing(self) -> None:
        shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
        benign, maps = torch.full((1, 2, 2), 0.5) + shift, torch.full((1, 2, 2), 0.4) + shift
        (slope,) = torch.autograd.grad(show_loss(maps, benign, 0.4).sum(), shift)
        assert float(slope) == 0


class TestLesson:
    def test_before_the_first_step_nothing_has_moved(self, split: Split, start: Path) -> None:
        """With no weight on showing, the loss is RTS's own, whatever staying weighs."""
        plan = replace(SHORT, show=0.0)
        batch = a_batch(split, plan)
        losses = [lesson_of(start, replace(plan, stay=stay)).losses(batch, 0.0) for stay in (0.0, 50.0)]
        assert torch.equal(*losses)

    def test_staying_is_the_distance_to_the_maps_before(self, split: Split, start: Path) -> None:
        batch, plans = a_batch(split, SHORT), [replace(SHORT, stay=stay) for stay in (0.0, 2.0)]
        losses = []
        for plan in plans:
            lesson = lesson_of(start, plan)
            with torch.no_grad():
                for values in lesson.network.decoder.out.parameters():
                    values[0] *= 0.05  # the map is the first channel's share
            losses.append(lesson.losses(batch, 0.0))
        old, new = (
            RTS(tinted_classifier(), network=n)
            for n in (MaskingNetwork.load(start, tinted_classifier()), lesson.network)
        )
        top = tinted_classifier()(batch.x).argmax(dim=1)
        moved = (new(batch.x, top) - old(batch.x, top)).abs().mean(dim=(1, 2))
        assert float(moved.max()) > 0.01
        torch.testing.assert_close(losses[1] - losses[0], 2 * moved, atol=1e-5, rtol=1e-4)

    def test_showing_counts_on_the_images_of_the_attack(self, split: Split, start: Path) -> None:
        batch = a_batch(split, SHORT)
        with_it, without = (lesson_of(start, replace(SHORT, show=show)) for show in (1.0, 0.0))
        top = tinted_classifier()(batch.x).argmax(dim=1)
        rts = RTS(tinted_classifier(), network=with_it.network)
        target = with_it.targets(batch, top)
        made = ADV2(rts, eps=EPS, passes=SHORT.attack_passes)(batch.x, target, label=top, keys=batch.names)
        lacks = show_loss(rts(made.x_adv, target), rts(batch.x, top), SHORT.margin).where(made.success, 0.0)
        assert bool(made.success.any())
        torch.testing.assert_close(with_it.losses(batch, 0.0) - without.losses(batch, 0.0), lacks, atol=1e-5, rtol=1e-4)

    def test_targets_are_any_other_class_and_belong_to_the_photo_the_epoch_and_the_seed(
        self, split: Split, start: Path
    ) -> None:
        lesson, top = lesson_of(start, SHORT), torch.full((6,), RED)
        drawn_ = [lesson.targets(a_batch(split, SHORT, epoch=epoch), top) for epoch in range(20)]
        assert {int(t) for targets in drawn_ for t in targets} == {0, BLUE}
        assert torch.equal(lesson.targets(a_batch(split, SHORT).first(2), top[:2]), drawn_[0][:2])
        assert not all(torch.equal(targets, drawn_[0]) for targets in drawn_)
        other = lesson_of(start, replace(SHORT, seed=1))
        assert any(
            not torch.equal(other.targets(a_batch(split, SHORT, epoch=epoch), top), drawn_[epoch])
            for epoch in range(20)
        )

    def test_the_score_of_the_weights_it_begins_with(self, split: Split, start: Path) -> None:
        lesson = lesson_of(start, SHORT)
        with torch.no_grad():
            score = lesson.score(whole_batches(split.held_out, tinted_classifier(), SHORT))
        history = MaskingNetwork.load(start, tinted_classifier()).about["history"][-1]
        assert score.stayed == 0
        assert score.area == pytest.approx(history["area"], abs=1e-5)
        assert 0 < score.reached <= 1
        assert score.showed > 0

    def test_where_no_attack_gets_there_nothing_shows(self, split: Split, start: Path) -> None:
        lesson = lesson_of(start, replace(SHORT, attack_eps=1e-4))
        with torch.no_grad():
            score = lesson.score(whole_batches(split.held_out, tinted_classifier(), SHORT))
        assert (score.reached, score.showed) == (0, 0)

    def test_no_more_photos_are_attacked_for_a_score_than_the_plan_says(self, split: Split, start: Path) -> None:
        plans = [replace(SHORT, batch_size=4, watched=watched) for watched in (2, 6, 100)]
        with torch.no_grad():
            two, six, all_ = (
                lesson_of(start, plan).score(whole_batches(split.held_out, tinted_classifier(), plan)) for plan in plans
            )
        assert six == all_
        assert two != six


@pytest.mark.slow
def test_after_it_an_attack_on_the_new_network_shows_and_benign_maps_have_stayed(
    split: Split, start: Path, tmp_path: Path
) -> None:
    """A faint tint all over can be told from a patch, however the attacker spreads it."""
    heard = Heard()
    plan = replace(SHORT, epochs=12, learning_rate=3e-3, show=6.0, stay=4.0)
    network = train(split, start, tmp_path / "w.safetensors", plan, heard=heard)
    classifier = tinted_classifier()
    x, where = planted(16, seed=9)
    keys, top = [str(i) for i in range(16)], torch.full((16,), RED)
    target = torch.full((16,), BLUE)
    gaps = {}
    for name, net in (("old", MaskingNetwork.load(start, classifier)), ("new", network)):
        rts = RTS(classifier, network=net)
        made = ADV2(rts, eps=EPS, passes=plan.attack_passes)(x, target, label=top, keys=keys)
        assert float(made.success.double().mean()) > 0.5
        gaps[name] = float((made.maps["rts"] - rts(x, top)).abs().mean(dim=(1, 2))[made.success].mean())
    maps = RTS(classifier, network=network)(x, top)
    inside = (maps * where).sum(dim=(1, 2)) / where.sum(dim=(1, 2))
    assert gaps["new"] > 1.5 * gaps["old"]
    assert float(inside.min()) > 0.5
    last = heard.scores[-1]
    assert isinstance(last, AidScore)
    assert last.stayed < 0.1


def test_an_interrupted_training_ends_in_the_same_bits(split: Split, start: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    straight, resumed = Heard(), Heard()
    train(split, start, whole, SHORT, heard=straight)
    with pytest.raises(KeyboardInterrupt):
        train(split, start, parts, SHORT, heard=Heard(until=1))
    assert not parts.exists()
    train(split, start, parts, SHORT, heard=resumed)
    assert resumed.steps == straight.steps // 2
    assert resumed.scores == straight.scores[1:]
    assert same(weights(whole), weights(parts))
    assert not same(weights(whole), weights(start))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.safetensors", "whole.safetensors"]


def test_the_file_says_how_and_from_what_it_was_made(split: Split, start: Path, tmp_path: Path) -> None:
    before = start.read_bytes()
    about = train(split, start, tmp_path / "w.safetensors", SHORT).about
    assert about["settings"]["method"] == METHOD
    assert about["settings"]["start_sha256"] == hashlib.sha256(before).hexdigest()
    assert about["settings"]["plan"]["margin"] == SHORT.margin
    assert set(about["history"][-1]) == set(AidScore.__dataclass_fields__)
    assert start.read_bytes() == before
    heard = Heard()
    train(split, start, tmp_path / "w.safetensors", SHORT, heard=heard)
    assert heard.steps == 0


def test_another_start_is_refused(split: Split, start: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "w.safetensors", tmp_path / "other.safetensors"
    train(split, start, out, SHORT)
    MaskingNetwork.untrained(tinted_classifier()).save(other, tinted_classifier())
    with pytest.raises(InputError, match=r"'.*w.safetensors' was trained with other settings"):
        train(split, other, out, SHORT)


def test_it_does_not_write_over_the_weights_that_it_begins_with(split: Split, start: Path) -> None:
    with pytest.raises(InputError, match="was trained with other settings; give another file"):
        train(split, start, start, SHORT)


def test_weights_of_another_classifier_are_refused(split: Split, tmp_path: Path) -> None:
    other, file = tinted_classifier(), tmp_path / "other.safetensors"
    next(other.module.parameters()).data.mul_(1.1)
    MaskingNetwork.untrained(other).save(file, other)
    with pytest.raises(InputError, match=r"'.*other.safetensors' holds weights for classifier 'tinted'"):
        train(split, file, tmp_path / "w.safetensors", SHORT)


def test_it_leaves_no_trace(split: Split, start: Path, tmp_path: Path) -> None:
    classifier = tinted_classifier()
    classifier.module.train()
    plan = replace(SHORT, epochs=1)
    with untouched(classifier.module):
        train_aid(classifier, split, start, tmp_path / "w.safetensors", plan=plan, listener=Heard())


def test_a_loss_that_is_no_number_names_the_photo(split: Split, start: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="training loss is not a finite number for photo"):
        train(split, start, tmp_path / "w.safetensors", replace(SHORT, learning_rate=1e30))


def test_an_encoder_of_its_own_is_kept(split: Split, tmp_path: Path) -> None:
    classifier, encoder = tinted_classifier(), tinted_classifier()
    next(encoder.module.parameters()).data.mul_(1.1)
    file, out = tmp_path / "start.safetensors", tmp_path / "w.safetensors"
    MaskingNetwork.untrained(classifier, encoder=encoder).save(file, classifier)
    plan = replace(SHORT, epochs=1)
    train_aid(classifier, split, file, out, plan=plan, listener=Heard(), encoder=encoder)
    assert MaskingNetwork.load(out, classifier, encoder=encoder).encoder is encoder


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"margin": 1.5}, "margin is 1.5"),
        ({"watched": 0}, "watched is 0"),
        ({"stay": -1.0}, "stay is -1.0"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_a_plan_is_checked(change: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        replace(SHORT, **change)  # type: ignore[arg-type]


def test_passes_that_pay_for_no_step_are_refused(split: Split, start: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one step of an attack on rts takes"):
        train(split, start, tmp_path / "w.safetensors", replace(SHORT, attack_passes=1))


def test_a_ramp_that_would_do_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"ramp is 0\.5; .* leave it 0"):
        AidPlan(ramp=0.5)
