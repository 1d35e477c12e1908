"""Signals of interpreters whose maps are known, and that they belong to the image alone."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from support.nets import poison, poisoned
from support.toys import faint_smoothgrad, images, relu_net, small_mask
from support.traces import scramble, untouched
from underfire import CAM, GRAD, Classifier, InputError, Interpreter, NonFiniteError
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.signals import SIGNALS, Agreed, Pairs, Shapes, Signal, Views
from underfire.defenses.signals.shapes import centroid, entropy
from underfire.defenses.statistics import GRID, centred_ranks, log_odds, on_grid, rank_correlations
from underfire.defenses.views import Noise, Shift
from underfire.interpreters import Aim, Task

CELLS = GRID * GRID


class Planted(Interpreter):
    """Shows what a function makes of the image and the class; counts its calls."""

    family, summary = "planted", "a map that is known"

    def __init__(self, classifier: Classifier, name: str, show: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(classifier)
        self.name, self._show = name, show
        self.calls: list[tuple[str, ...]] = []
        side = classifier.input_size
        self.grid = tuple(show(torch.zeros(1, 3, *side), torch.zeros(1).long()).shape[1:])  # type: ignore[assignment]

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        self.calls.append(keys)
        return self._show(x, y)

    def aim(self, task: Task) -> Aim:
        raise NotImplementedError


def constantly(grid: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The map ``grid`` (h, w) of every image."""
    return lambda x, y: grid.to(x.dtype).expand(len(x), *grid.shape).clone()


def brightness(x: Tensor, y: Tensor) -> Tensor:
    """The image itself, on the pixels."""
    return x.mean(dim=1)


def delta(row: int, column: int) -> Tensor:
    grid = torch.zeros(GRID, GRID)
    grid[row, column] = 1
    return grid


RAMP = torch.arange(CELLS).reshape(GRID, GRID) / CELLS


def measured(classifier: Classifier, grids: Sequence[Tensor], signal: type[Signal]) -> dict[str, float]:
    """The signals of the first toy picture, by name, for interpreters a, b, … that show ``grids``."""
    shown = [Planted(classifier, name, constantly(grid)) for name, grid in zip("abcd", grids, strict=False)]
    signals = EnsembleSignals(shown, signals=[signal])
    return dict(zip(signals.names, signals.measure(images(1, 32))[0].tolist(), strict=True))


def test_equal_maps_agree_in_everything(relu_classifier: Classifier) -> None:
    assert measured(relu_classifier, [RAMP, RAMP], Pairs) == {"a~b rank": 1, "a~b overlap": 1}
    shapes = measured(relu_classifier, [RAMP, RAMP], Shapes)
    assert shapes["a centroid"] == shapes["b centroid"] == 0


def test_opposite_maps_and_unlike_ones(relu_classifier: Classifier) -> None:
    assert measured(relu_classifier, [RAMP, 1 - RAMP], Pairs) == {"a~b rank": -1, "a~b overlap": 0}
    found = measured(relu_classifier, [RAMP, RAMP**2, 1 - RAMP], Pairs)
    assert list(found) == [f"{pair} {what}" for pair in ("a~b", "a~c", "b~c") for what in ("rank", "overlap")]
    assert list(found.values()) == [1, 1, -1, 0, -1, 0]


def test_shapes_of_a_point_and_of_an_empty_map(relu_classifier: Classifier) -> None:
    found = measured(relu_classifier, [delta(0, 0), delta(0, 27), torch.zeros(7, 7)], Shapes)
    assert found["a entropy"] == found["b entropy"] == 0
    assert found["c entropy"] == pytest.approx(math.log(CELLS), abs=1e-12)
    # Centroids (½, ½)/28, (½, 27½)/28 and (14, 14)/28: their mean is (5, 14)/28.
    assert found["a centroid"] == found["b centroid"] == pytest.approx(math.hypot(4.5, 13.5) / 28, abs=1e-12)
    assert found["c centroid"] == pytest.approx(9 / 28, abs=1e-12)


def test_a_constant_map_correlates_with_nothing_and_overlaps_by_the_empty_set(relu_classifier: Classifier) -> None:
    found = measured(relu_classifier, [torch.full((4, 4), 0.3), RAMP, torch.zeros(56, 56)], Pairs)
    assert [found[f"{pair} rank"] for pair in ("a~b", "a~c", "b~c")] == [0, 0, 0]
    assert [found[f"{pair} overlap"] for pair in ("a~b", "a~c", "b~c")] == [0, 1, 0]


def test_a_single_interpreter_has_no_pairs(relu_classifier: Classifier) -> None:
    signals = EnsembleSignals(CAM(relu_classifier), signals=[Pairs, Shapes, Agreed, Views([Noise(8)])])
    assert signals.names == (
        "cam entropy",
        "agreed log-odds",
        "noise-8: log-odds change",
        "noise-8: label kept",
        "noise-8: cam rank",
        "noise-8: cam rank by its label",
    )
    assert signals.measure(images(2, 32)).shape == (2, 6)
    with pytest.raises(InputError, match="no signal is left"):
        EnsembleSignals(CAM(relu_classifier), signals=[Pairs])


def test_signals_are_parts_of_the_whole(relu_classifier: Classifier) -> None:
    interpreters, x = [CAM(relu_classifier), GRAD(relu_classifier)], images(3, 32)
    whole = EnsembleSignals(interpreters)
    values = whole.measure(x)
    parts = [EnsembleSignals(interpreters, signals=[signal]) for signal in SIGNALS]
    assert [name for part in parts for name in part.names] == list(whole.names)
    assert len(set(whole.names)) == len(whole.names)
    assert torch.equal(torch.cat([part.measure(x) for part in parts], dim=1), values)
    backwards = EnsembleSignals(interpreters, signals=SIGNALS[::-1])
    assert backwards.names == whole.names
    with pytest.raises(InputError, match="no signal was given; give at least one of pairs, shapes, agreed, views"):
        EnsembleSignals(interpreters, signals=[])
    with pytest.raises(InputError, match="two signals have the name 'views'"):
        EnsembleSignals(interpreters, signals=[Views([Noise(8)]), Views([Noise(4)])])


def test_a_map_that_moves_with_the_picture_is_found_again_in_a_shifted_view(relu_classifier: Classifier) -> None:
    faithful = Planted(relu_classifier, "a", lambda x, y: x.mean(dim=1)[:, 2:-2, 2:-2])
    still = Planted(relu_classifier, "b", constantly(RAMP))
    signals = EnsembleSignals([faithful, still], signals=[Views([Shift(8)])])
    found = dict(zip(signals.names, signals.measure(images(1, 32))[0].tolist(), strict=True))
    assert found["shift-8: a rank"] > 0.5  # what left the picture, a quarter of each side, cannot be found again
    # The map that stays where it was is carried back by 7 of its 28 cells, which changes its order.
    moved = Shift(8).carry_back(RAMP[None].double(), (32, 32))
    wanted = rank_correlations(centred_ranks(RAMP[None].double()), centred_ranks(on_grid(moved)))
    assert found["shift-8: b rank"] == pytest.approx(float(wanted), abs=1e-12)
    uncarried = EnsembleSignals([faithful], signals=[Views([_NotCarried(8)])])
    assert found["shift-8: a rank"] > float(uncarried.measure(images(1, 32))[0, 2]) + 0.1


class _NotCarried(Shift):
    def carry_back(self, maps: Tensor, size: tuple[int, int], /) -> Tensor:
        return maps


class _Threshold(torch.nn.Module):
    """Class 1 where the picture is brighter than 0.5, by 10 nats a unit; class 2 never."""

    def forward(self, x: Tensor) -> Tensor:
        logit = 10 * (x.mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([torch.zeros_like(logit), logit, torch.full_like(logit, -30)], dim=1)


class _Darker:
    """A view that takes light away."""

    name = "darker"

    def apply(self, x: Tensor, keys: Sequence[str], /) -> Tensor:
        return (x - 0.1).clamp(0, 1)

    def carry(self, maps: Tensor, size: tuple[int, int], /) -> Tensor:
        return maps

    def carry_back(self, maps: Tensor, size: tuple[int, int], /) -> Tensor:
        return maps


def test_a_view_that_changes_the_label_is_asked_about_both_classes() -> None:
    classifier = Classifier(_Threshold(), input_size=16)
    by_class = Planted(classifier, "a", lambda x, y: torch.stack([RAMP if c == 1 else 1 - RAMP for c in y.tolist()]))
    signals = EnsembleSignals(by_class, signals=[Views([_Darker()])])
    x = torch.tensor([0.9, 0.55, 0.3]).reshape(3, 1, 1, 1).expand(3, 3, 16, 16).contiguous()
    change, kept, same, relabelled = signals.measure(x, ["ant", "bee", "cat"]).T.tolist()
    assert kept == [1, 0, 1]
    assert same == [1, 1, 1]
    assert relabelled == [1, -1, 1]
    assert change == pytest.approx([-1, -1, 1], abs=1e-4)
    assert by_class.calls == [("ant", "bee", "cat"), ("ant", "bee", "cat"), ("bee",)]


def test_every_map_is_taken_once_and_passes_are_counted(relu_classifier: Classifier) -> None:
    shown = [Planted(relu_classifier, name, brightness) for name in "ab"]
    signals = EnsembleSignals(shown, signals=[Pairs, Shapes, Agreed, Views([Noise(0.01), Noise(0.02)])])
    keys = ("ant", "bee")
    values = signals.measure(images(2, 32), keys)
    assert values[:, list(signals.names).index("noise-0.02: label kept")].tolist() == [1, 1]
    assert [g.calls for g in shown] == [[keys] * 3] * 2
    assert signals.passes_per_image == 3 * (1 + 2) + 1
    assert EnsembleSignals(shown, signals=[Pairs]).passes_per_image == 3
    assert EnsembleSignals(small_mask(relu_classifier), signals=[Shapes]).passes_per_image == 5


def test_the_agreed_part_is_shown_and_the_rest_is_blurred() -> None:
    class Corner(torch.nn.Module):
        """Class 1 by the detail of the upper left part alone."""

        def forward(self, x: Tensor) -> Tensor:
            logit = 100 * x[:, :, :12, :12].var(dim=(1, 2, 3)) - 1
            return torch.stack([torch.zeros_like(logit), logit], dim=1)

    classifier = Classifier(Corner(), input_size=32)
    x = ((torch.arange(32)[:, None] + torch.arange(32)) % 2).float().expand(1, 3, 32, 32).contiguous()
    corner, elsewhere = torch.zeros(GRID, GRID), torch.zeros(GRID, GRID)
    corner[:13, :13], elsewhere[15:, 15:] = 1, 1
    odds = [
        float(EnsembleSignals(Planted(classifier, "a", constantly(grid)), signals=[Agreed]).measure(x))
        for grid in (corner, elsewhere)
    ]
    assert odds[0] == pytest.approx(float(log_odds(classifier(x), torch.tensor([1]))), rel=0.02)
    assert odds[1] == pytest.approx(-1, abs=0.5)


def test_a_row_is_the_same_bits_in_any_batch(relu_classifier: Classifier) -> None:
    interpreters = [CAM(relu_classifier), GRAD(relu_classifier), faint_smoothgrad(relu_classifier)]
    signals, x = EnsembleSignals([*interpreters, small_mask(relu_classifier)]), images(5, 32)
    keys = tuple("abcde")
    whole = signals.measure(x, keys)
    assert whole.dtype == torch.float64
    assert bool(torch.isfinite(whole).all())
    single = torch.cat([signals.measure(x[i : i + 1], keys[i : i + 1]) for i in range(5)])
    assert torch.equal(whole, single)
    assert torch.equal(signals.measure(x.flip(0), keys[::-1]).flip(0), whole)
    assert signals.measure(x[:0]).shape == (0, len(signals.names))
    assert signals.maps(x, keys)["cam"].shape == (5, 8, 8)
    assert signals.maps(x[:0])["cam"].shape == (0, 8, 8)


def test_random_numbers_belong_to_seed_and_key(relu_classifier: Classifier) -> None:
    def noisy(seed: int, key: str | None) -> Tensor:
        signals = EnsembleSignals(CAM(relu_classifier), signals=[Views], seed=seed)
        return signals.measure(images(1, 32), None if key is None else [key])[0, :4]

    assert torch.equal(noisy(0, "ant"), noisy(0, "ant"))
    assert torch.equal(noisy(0, None), noisy(0, None))
    assert not torch.equal(noisy(0, "ant"), noisy(0, "bee"))
    assert not torch.equal(noisy(0, "ant"), noisy(1, "ant"))


def test_nothing_is_left_on_the_model() -> None:
    module = relu_net()
    scramble(module)
    classifier = Classifier(module, mean=0.5, std=0.25, input_size=32)
    signals = EnsembleSignals([CAM(classifier), GRAD(classifier)])
    x = images(2, 32).requires_grad_(True)
    with untouched(module):
        assert not signals.measure(x).requires_grad
    assert x.grad is None


def test_a_number_that_is_none_names_its_image(relu_classifier: Classifier) -> None:
    broken = poisoned(relu_net(), size=32)
    with pytest.raises(NonFiniteError, match="the classifier's output of image 2 "):
        EnsembleSignals(CAM(broken)).measure(poison(images(4, 32), 2))
    classifier = Classifier(_Threshold(), input_size=16)
    shy = Planted(classifier, "a", lambda x, y: torch.where(y == 0, math.nan, 1.0)[:, None, None].expand(-1, 4, 4))
    x = torch.tensor([0.9, 0.55]).reshape(2, 1, 1, 1).expand(2, 3, 16, 16).contiguous()
    with pytest.raises(NonFiniteError, match="the a map of image 1 "):  # the only one that changes its label
        EnsembleSignals(shy, signals=[Shapes, Views([_Darker()])]).measure(x)


def test_what_does_not_belong_together(relu_classifier: Classifier, smooth_classifier: Classifier) -> None:
    with pytest.raises(InputError, match="no interpreter was given"):
        EnsembleSignals([])
    with pytest.raises(InputError, match="is no interpreter"):
        EnsembleSignals([relu_classifier])  # type: ignore[list-item]
    with pytest.raises(InputError, match="cam, cam share a name"):
        EnsembleSignals([CAM(relu_classifier), CAM(relu_classifier)])
    with pytest.raises(InputError, match="explain different classifiers"):
        EnsembleSignals([CAM(relu_classifier), GRAD(smooth_classifier)])
    with pytest.raises(InputError, match="noise-8, noise-8 share a name"):
        EnsembleSignals(CAM(relu_classifier), signals=[Views([Noise(8), Noise(8, seed=1)])])
    with pytest.raises(InputError, match="1 keys were given for 2 images"):
        EnsembleSignals(CAM(relu_classifier)).measure(images(2, 32), ["ant"])


def test_ranks_share_ties_and_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = torch.Generator().manual_seed(0)
    a = torch.randint(0, 20, (4, CELLS), generator=draw).double()
    b = (a + torch.randint(0, 9, a.shape, generator=draw)).square()
    found = rank_correlations(centred_ranks(a), centred_ranks(b))
    wanted = [float(stats.spearmanr(p, q).statistic) for p, q in zip(a.numpy(), b.numpy(), strict=True)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-12)


def test_ranks_of_few_cells_by_hand() -> None:
    ranks = centred_ranks(torch.tensor([[[3.0, 1.0], [3.0, 2.0]], [[5.0, 5.0], [5.0, 5.0]]]).double())
    assert ranks.tolist() == [[1, -1.5, 1, -0.5], [0, 0, 0, 0]]


def test_maps_of_any_grid_come_to_one() -> None:
    fine = torch.rand(2, 56, 56, dtype=torch.float64)
    assert torch.allclose(on_grid(fine), fine.reshape(2, 28, 2, 28, 2).mean(dim=(2, 4)), atol=1e-9, rtol=0)
    same = (torch.rand(2, 28, 28) * 2**20).round() / 2**20
    assert torch.equal(on_grid(same), same.double())
    coarse = on_grid(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]))
    assert torch.equal(coarse, coarse[:, :1].expand(1, GRID, GRID))
    assert bool((coarse[0, 0].diff() >= 0).all())
    assert (float(coarse.min()), float(coarse.max())) == (0, 1)
    assert on_grid(torch.rand(1, 7, 40)).shape == (1, GRID, GRID)
    # A constant stays one, however it is rounded on the way.
    assert len(on_grid(torch.full((1, 7, 5), 0.3)).unique()) == 1
    assert len(on_grid(torch.full((1, 37, 56), 0.3)).unique()) == 1


def test_entropy_and_centroid_in_closed_form() -> None:
    halves = torch.zeros(1, 4, 4, dtype=torch.float64)
    halves[0, 0, 0], halves[0, 2, 3] = 0.2, 0.6
    share = 0.25
    assert float(entropy(halves)) == pytest.approx(-share * math.log(share) - (1 - share) * math.log(1 - share))
    assert centroid(halves)[0].tolist() == pytest.approx([(0.25 * 0.5 + 0.75 * 2.5) / 4, (0.25 * 0.5 + 0.75 * 3.5) / 4])
    assert centroid(torch.zeros(1, 4, 4, dtype=torch.float64))[0].tolist() == [0.5, 0.5]


def test_log_odds_are_exact_where_the_probability_is_one() -> None:
    odds = log_odds(torch.tensor([[60.0, 0.0, 0.0], [0.0, 1.0, 1.0]]), torch.tensor([0, 2]))
    assert odds.tolist() == pytest.approx([60 - math.log(2), 1 - math.log(1 + math.e)], abs=1e-12)
