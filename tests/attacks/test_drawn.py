"""Classifiers that draw random numbers with a known law, held still, attacked and scored."""

import random
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from underfire.errors import InputError
from underfire.models.classifier import Classifier

SIZE = 16
SLOPE = 8.0


class Drawing(nn.Module):
    """Two classes; class 1 leads with probability Φ(SLOPE · (mean of the image − 1/2)), by one draw for each call."""

    def __init__(self, draw: Callable[[], Tensor | float] = lambda: torch.randn(())) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale * (SLOPE * (x.mean(dim=(1, 2, 3)) - 0.5) + self.draw())
        return torch.stack([torch.zeros_like(score), score], dim=1)


class Seesaw(nn.Module):
    """Class 1 rises with the left half in one of two draws and falls with it in the other; with the right in both."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        sign = 1.0 if torch.rand(()) < 0.5 else -1.0
        left, right = (half.mean(dim=(1, 2, 3)) - 0.5 for half in x.split(SIZE // 2, dim=3))
        score = self.scale * (20 * sign * left + 10 * right - 0.2)
        return torch.stack([torch.zeros_like(score), score], dim=1)


def classifier(module: nn.Module) -> Classifier:
    return Classifier(module, input_size=SIZE, name="drawing")


def greys(*means: float) -> Tensor:
    """Even images (N, 3, SIZE, SIZE)."""
    return torch.tensor(means, dtype=torch.float64)[:, None, None, None].expand(-1, 3, SIZE, SIZE).clone()


def _numpy() -> tuple[list[int], int]:
    """Where NumPy's global generator is."""
    state = np.random.get_state(legacy=False)["state"]
    return state["key"].tolist(), state["pos"]


def ones(n: int) -> Tensor:
    return torch.ones(n, dtype=torch.int64)


def test_a_module_that_draws_is_told_from_one_that_does_not() -> None:
    assert classifier(Drawing()).is_random
    assert not classifier(Drawing(lambda: 0.0)).is_random


def test_the_interval_of_each_image_holds_its_known_rate() -> None:
    means = (0.3, 0.5, 0.6, 0.65, 0.95)
    scores = uf.score_draws(classifier(Drawing()), greys(*means), ones(5), draws=400)
    assert scores.draws == 400
    for mean, rate in zip(means, scores.rates, strict=True):
        assert rate.low is not None
        assert rate.high is not None
        assert rate.low <= NormalDist().cdf(SLOPE * (mean - 0.5)) <= rate.high
    assert scores.succeeded.tolist() == [False, False, True, True, True]
    assert scores.rate.value == pytest.approx(sum(rate.k for rate in scores.rates) / 2000)


def test_without_draws_every_rate_is_zero_or_one() -> None:
    scores = uf.score_draws(classifier(Drawing(lambda: 0.0)), greys(0.4, 0.6), ones(2), draws=7)
    assert [rate.k for rate in scores.rates] == [0, 7]
    assert scores.frozen.tolist() == [False, True]
    assert scores.succeeded.tolist() == [False, True]


def test_what_succeeds_in_one_draw_alone_is_no_success() -> None:
    drawing, x = classifier(Drawing()), greys(0.4)  # Φ(−0.8) = 0.21
    lucky = next(s for s in range(100) if int(uf.fixed_draws(drawing, seed=s)(x).argmax()) == 1)
    scores = uf.score_draws(drawing, x, ones(1), seed=lucky)
    assert scores.frozen.tolist() == [True]
    assert scores.succeeded.tolist() == [False]
    assert scores.rates[0].high is not None
    assert scores.rates[0].high < 0.5
    (row,) = scores.rows()
    assert (row["frozen"], row["succeeded"], row["draws"]) == (True, False, 100)


def test_rates_belong_to_seed_and_key_and_not_to_the_batch() -> None:
    drawing, x = classifier(Drawing()), greys(0.45, 0.5, 0.55)
    whole = uf.score_draws(drawing, x, ones(3), draws=20, keys=("a", "b", "c"))
    one = uf.score_draws(drawing, x[1:2], ones(1), draws=20, keys=("b",))
    assert one.rates == whole.rates[1:2]
    other = uf.score_draws(drawing, x, ones(3), draws=20, keys=("a", "b", "c"), seed=1)
    assert other.rates != whole.rates


@pytest.mark.parametrize(
    "draw",
    [lambda: torch.randn(()), lambda: random.gauss(0, 1), lambda: float(np.random.randn())],
    ids=["torch", "random", "numpy"],
)
def test_a_fixed_draw_is_the_same_for_each_image_at_each_call(draw: Callable[[], Tensor | float]) -> None:
    held, x = uf.fixed_draws(classifier(Drawing(draw)), seed=3), greys(0.2, 0.5, 0.9)
    before = torch.get_rng_state(), random.getstate(), _numpy()
    logits = held(x)
    assert torch.equal(logits, held(x))
    assert torch.equal(logits[1:2], held(x[1:2]))
    noise = logits[:, 1] - SLOPE * (x.mean(dim=(1, 2, 3)) - 0.5)
    assert float(noise.max() - noise.min()) < 1e-12
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), _numpy())
    assert not held.is_random


def test_several_draws_give_the_mean_probability_and_its_gradient() -> None:
    drawing, x = classifier(Drawing()), greys(0.45, 0.6)
    held = uf.fixed_draws(drawing, draws=8, seed=5)
    x.requires_grad_(True)
    p = held(x).softmax(dim=1)[:, 1]
    (slope,) = torch.autograd.grad(p.sum(), x)
    with torch.no_grad():
        step = torch.full_like(x, 1e-6)
        rise = held.probabilities(x + step)[:, 1] - held.probabilities(x - step)[:, 1]
    assert torch.allclose(slope.sum(dim=(1, 2, 3)), rise / 2e-6, rtol=1e-6)
    many = uf.fixed_draws(drawing, draws=200, seed=5).probabilities(greys(0.5))[0, 1]
    assert float(many) == pytest.approx(0.5, abs=0.06)  # E σ(n) of a symmetric n; 4 of its deviations
    assert len({uf.fixed_draws(drawing, draws=d, seed=s).fingerprint() for d, s in ((1, 0), (2, 0), (1, 1))}) == 3


def test_labels_that_do_not_exclude_each_other_have_their_mean_probabilities() -> None:
    module = Drawing()
    labels = Classifier(module, input_size=SIZE, outputs="sigmoid")
    x = greys(0.4, 0.7)
    held = uf.fixed_draws(labels, draws=2, seed=1)
    p = held.probabilities(x)
    assert not held.decision.exclusive
    assert torch.allclose(p[:, 0], torch.full((2,), 0.5, dtype=torch.float64))  # its logit is 0 in each draw
    draws = [uf.fixed_draws(labels, seed=s).probabilities(x)[:, 1] for s in range(20)]
    assert float(p[1, 1]) > float(p[0, 1]) > float(torch.stack(draws)[:, 0].min())


def test_averaging_finds_what_holds_in_every_draw_and_one_draw_does_not() -> None:
    seesaw, x = classifier(Seesaw()), greys(0.5, 0.5)
    keys = ("a", "b")
    found = uf.attack_draws(lambda c: uf.PGD(c, eps=0.2, steps=20), seesaw, x, ones(2), draws=60, keys=keys)
    assert found.scores.succeeded.tolist() == [True, True]
    assert found.scores.frozen.tolist() == [True, True]
    alone = uf.score_draws(seesaw, found.frozen.x_adv, ones(2), draws=60, keys=keys)
    assert alone.frozen.tolist() == [True, True]  # the draw it was made for
    assert alone.succeeded.tolist() == [False, False]
    assert all(0.2 < rate.k / rate.n < 0.8 for rate in alone.rates)
    assert found.scores.frozen_rate.k == 2


def test_maps_count_where_they_are_asked_for() -> None:
    drawing, x = classifier(Drawing()), torch.rand(1, 3, SIZE, SIZE, dtype=torch.float64) * 0.2 + 0.8
    shown = uf.GRAD(uf.fixed_draws(drawing))(x, ones(1))
    options: dict[str, Any] = {"interpreters": [uf.GRAD], "draws": 10}
    # The map of a function of the mean is constant, which no goal on maps is met by.
    assert uf.score_draws(drawing, x, ones(1), target_map=shown, **options).rates[0].k == 0
    seesaw, bright = classifier(Seesaw()), greys(0.5)
    bright[..., SIZE // 2 :] = 0.9
    map_ = uf.GRAD(uf.fixed_draws(seesaw))(bright, ones(1))
    scores = uf.score_draws(seesaw, bright, ones(1), target_map=map_, **options)
    assert scores.rates[0].k == 10
    other = uf.score_draws(seesaw, bright, ones(1), target_map=1 - map_, **options)
    assert other.rates[0].k == 0


def test_one_draw_of_a_classifier_is_not_attacked() -> None:
    drawing = classifier(Drawing())
    for make in (uf.PGD, uf.Square, uf.Universal, lambda c: uf.ADV2(uf.GRAD(c))):
        with pytest.raises(InputError, match="attack_draws"):
            make(drawing)
    assert uf.PGD(uf.fixed_draws(drawing), steps=2)(greys(0.5), ones(1)).x_adv.shape == (1, 3, SIZE, SIZE)


def test_what_cannot_be_held_or_scored_is_refused() -> None:
    own, drawing, x = torch.Generator(), classifier(Drawing()), greys(0.5)
    with pytest.raises(InputError, match="generator of its own"):
        uf.fixed_draws(classifier(Drawing(lambda: torch.randn((), generator=own))))
    for call in (uf.fixed_draws, lambda c, draws: uf.score_draws(c, x, ones(1), draws=draws)):
        with pytest.raises(InputError, match="draws is 0"):
            call(drawing, draws=0)
    with pytest.raises(InputError, match="both or none"):
        uf.score_draws(drawing, x, ones(1), interpreters=[uf.GRAD])
    moved: dict[str, Any] = {"interpreters": [uf.GRAD], "averaged": 2, "draws": 2}
    with pytest.raises(InputError, match="kept/topk"):
        uf.attack_draws(lambda g: uf.MapAttack(g, steps=2), classifier(Seesaw()), x, ones(1), **moved)
