"""Distances against closed forms and their laws, intervals against published values and simulation."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy import stats as scipy_stats
from torch import Tensor

from underfire.metrics import (
    center_shift,
    iou,
    iou_top,
    is_constant,
    kendall,
    l1,
    l2,
    linf,
    mass_center,
    pearson,
    spearman,
    ssim,
    topk,
)
from underfire.stats import Estimate, Share, bootstrap_mean, bootstrap_paired, clopper_pearson, wilson

MEASURES = [l1, iou, iou_top, topk, pearson, spearman, kendall, ssim, center_shift]

# Multiples of 1/8 are exact in float32, so laws hold without a tolerance; few values make ties common.
eighths = st.integers(0, 8).map(lambda k: k / 8)


@st.composite
def map_batches(draw: st.DrawFn, how_many: int) -> tuple[Tensor, ...]:
    n, h, w = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    cells = st.lists(eighths, min_size=n * h * w, max_size=n * h * w)
    return tuple(torch.tensor(draw(cells)).view(n, h, w) for _ in range(how_many))


def grid(*rows: list[float]) -> Tensor:
    return torch.tensor([rows])


# --- maps ---------------------------------------------------------------------------------------------------


def test_l1_is_the_mean_per_map() -> None:
    a = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])
    b = torch.stack([torch.tensor([[0.0, 1.0], [0.5, 0.5]]), torch.ones(2, 2)])
    assert l1(a, b).tolist() == [0.5, 0.0]


@given(map_batches(3))
def test_l1_is_a_metric(maps: tuple[Tensor, ...]) -> None:
    a, b, c = (m.double() for m in maps)
    assert torch.equal(l1(a, b), l1(b, a))
    assert torch.equal(l1(a, b) == 0, (a == b).all(dim=2).all(dim=1))
    assert (l1(a, c) <= l1(a, b) + l1(b, c) + 1e-12).all()


def test_iou_counts_cells_at_the_threshold() -> None:
    a = grid([0.5, 1.0], [0.0, 0.0])
    b = grid([0.5, 0.0], [0.5, 0.49])
    assert iou(a, b).tolist() == pytest.approx([1 / 3])
    assert iou(a, b, threshold=0.51).tolist() == [0.0]
    assert iou(a, b, threshold=0.25).tolist() == [0.25]


def test_empty_union_is_agreement_and_one_empty_map_is_not() -> None:
    empty, full = torch.zeros(1, 3, 3), torch.ones(1, 3, 3)
    assert iou(empty, empty).tolist() == [1.0]
    assert iou(empty, full).tolist() == [0.0]


def test_iou_top_takes_the_largest_cells() -> None:
    a = torch.arange(10.0).view(1, 2, 5)  # its two largest: cells 8 and 9
    b = a.roll(1, dims=2)  # cells 5..9 moved by one: 9 is now at 5, 8 at 9
    assert iou_top(a, b).tolist() == pytest.approx([1 / 3])
    assert iou_top(a, a * 100 - 7).tolist() == [1.0]


def test_iou_top_lets_ties_in_together() -> None:
    a = grid([1.0, 0.5, 0.5, 0.5, 0.0])  # share 0.4 of 5 cells is 2; the second largest is 0.5, three times
    b = grid([1.0, 0.9, 0.0, 0.0, 0.0])
    assert iou_top(a, b, share=0.4).tolist() == [0.5]


def test_iou_top_of_a_rectified_map_is_its_positive_cells_only() -> None:
    a, b = torch.zeros(1, 5, 4), torch.zeros(1, 5, 4)  # 4 cells asked for, one positive, at different places
    a[0, 0, 0] = b[0, 4, 3] = 1
    assert iou_top(a, b).tolist() == [0.0]


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_iou_top_of_constant_maps(level: float) -> None:
    constant, other = torch.full((1, 4, 5), level), torch.rand(1, 4, 5)
    assert iou_top(constant, torch.zeros(1, 4, 5)).tolist() == [1.0]
    assert iou_top(constant, other).tolist() == [0.0]


def test_topk_asks_how_much_of_the_second_map_is_left() -> None:
    a = torch.arange(10.0).view(1, 2, 5)  # its two largest: cells 8 and 9
    assert topk(a, a.roll(1, dims=2)).tolist() == [0.5]  # 9 is now at 5, 8 at 9
    # Ties let three in against two: 2 of 3 of the second's are in the first, 2 of 2 of the first's in the second.
    tied, two = grid([1.0, 0.5, 0.5, 0.2, 0.0]), grid([1.0, 0.9, 0.0, 0.0, 0.0])
    assert topk(two, tied, share=0.4).tolist() == pytest.approx([2 / 3])
    assert topk(tied, two, share=0.4).tolist() == [1.0]


correlations = pytest.mark.parametrize(
    ("measure", "oracle"),
    [
        (pearson, lambda a, b: scipy_stats.pearsonr(a, b).statistic),
        (spearman, lambda a, b: scipy_stats.spearmanr(a, b).statistic),
        (kendall, lambda a, b: scipy_stats.kendalltau(a, b).statistic),
    ],
)


@correlations
@given(maps=map_batches(2))
def test_correlations_are_those_of_scipy(
    measure: Callable[..., Tensor], oracle: Callable[..., float], maps: tuple[Tensor, Tensor]
) -> None:
    a, b = (m.double() for m in maps)
    for one, other, value in zip(a, b, measure(a, b).tolist(), strict=True):
        if not is_constant(torch.stack([one, other])).any():
            assert value == pytest.approx(oracle(one.flatten().numpy(), other.flatten().numpy()), abs=1e-12)


@correlations
def test_correlations_by_hand(measure: Callable[..., Tensor], oracle: Callable[..., float]) -> None:
    a = grid([0.0, 1.0], [2.0, 3.0])
    assert measure(a, a).tolist() == pytest.approx([1.0])
    assert measure(a, -a).tolist() == pytest.approx([-1.0])
    b = grid([0.0, 1.0], [3.0, 2.0])  # one pair of six out of order, two ranks off by one
    assert measure(a, b).tolist() == pytest.approx([{kendall: 4 / 6}.get(measure, 0.8)])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_size_of_values_decides_no_correlation(scale: float) -> None:
    a, b = (torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for measure in (pearson, spearman, kendall):
        assert torch.allclose(measure(a * scale, b), measure(a, b), atol=1e-6)


agreement = pytest.mark.parametrize("measure", [topk, pearson, spearman, kendall])


@agreement
@pytest.mark.parametrize("level", [0.0, 0.1, 1.0])
def test_a_constant_map_agrees_with_a_constant_map_alone(measure: Callable[..., Tensor], level: float) -> None:
    constant, other = torch.full((1, 4, 5), level), torch.rand(1, 4, 5)
    assert is_constant(torch.cat([constant, other])).tolist() == [True, False]
    assert measure(constant, torch.ones(1, 4, 5)).tolist() == [1.0]
    assert measure(constant, other).tolist() == [0.0]
    assert measure(other, constant).tolist() == [0.0]


def ssim_by_hand(a: "np.ndarray[Any, Any]", b: "np.ndarray[Any, Any]", window: tuple[int, int]) -> float:
    """The formula, window by window, in numpy."""
    found = []
    for i in range(a.shape[0] - window[0] + 1):
        for j in range(a.shape[1] - window[1] + 1):
            p, q = (m[i : i + window[0], j : j + window[1]].ravel() for m in (a, b))
            covariance = np.cov(p, q)
            likeness = (2 * p.mean() * q.mean() + 1e-4) / (p.mean() ** 2 + q.mean() ** 2 + 1e-4)
            found.append(likeness * (2 * covariance[0, 1] + 9e-4) / (covariance[0, 0] + covariance[1, 1] + 9e-4))
    return float(np.mean(found))


@pytest.mark.parametrize(("shape", "window"), [((7, 7), (7, 7)), ((12, 9), (7, 7)), ((4, 9), (4, 7))])
def test_ssim_is_its_formula(shape: tuple[int, int], window: tuple[int, int]) -> None:
    a, b = torch.rand(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = [ssim_by_hand(p.numpy(), q.numpy(), window) for p, q in zip(a, b, strict=True)]
    assert ssim(a, b).tolist() == pytest.approx(expected, abs=1e-12)
    assert ssim(a, a).tolist() == pytest.approx([1.0] * 3)
    assert torch.allclose(ssim(a, b), ssim(b, a), rtol=0, atol=1e-12)


def test_ssim_of_constant_maps_is_that_of_their_levels() -> None:
    half, one = torch.full((1, 8, 8), 0.5), torch.ones(1, 8, 8)
    assert ssim(half, half).tolist() == pytest.approx([1.0])
    assert ssim(half, one).tolist() == pytest.approx([(2 * 0.5 + 1e-4) / (1.25 + 1e-4)])
    assert float(ssim(half * 0, torch.rand(1, 8, 8))) < 0.01
    assert ssim(half[:, :1, :1], one[:, :1, :1]).isfinite().all()


def test_ssim_is_scikit_images() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    a, b = torch.rand(2, 56, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).numpy()
    expected = metrics.structural_similarity(a, b, data_range=1.0)
    assert ssim(*(torch.from_numpy(m)[None] for m in (a, b))).item() == pytest.approx(expected, abs=1e-12)


@given(map_batches(1))
def test_the_centre_of_mass_is_scipys(maps: tuple[Tensor]) -> None:
    (a,) = (m.double() for m in maps)
    assume(bool((a.sum(dim=(1, 2)) > 0).all()))
    sides = torch.tensor(a.shape[1:])
    expected = torch.tensor([ndimage.center_of_mass(one.numpy()) for one in a], dtype=torch.float64)
    assert torch.allclose(mass_center(a), (expected + 0.5) / sides, rtol=0, atol=1e-12)


def test_the_centre_of_a_map_that_shows_nothing_is_the_middle() -> None:
    maps = torch.stack([torch.zeros(3, 5), torch.full((3, 5), 0.25)])
    assert torch.allclose(mass_center(maps), torch.full((2, 2), 0.5))
    corner = torch.zeros(2, 3, 5)
    corner[:, 0, 0] = 1
    assert center_shift(maps, corner).tolist() == center_shift(corner, maps).tolist() == [0.0, 0.0]


def test_the_shift_of_the_centre_is_a_share_of_the_diagonal() -> None:
    a, b = torch.zeros(1, 6, 8), torch.zeros(1, 6, 8)
    a[0, 1, 1], b[0, 4, 5] = 0.5, 1  # three cells down, four to the right, of a diagonal of ten
    assert center_shift(a, b).tolist() == pytest.approx([0.5])
    assert center_shift(a, a).tolist() == [0.0]


def test_the_centre_has_a_gradient() -> None:
    maps = torch.rand(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) + 0.1
    assert torch.autograd.gradcheck(mass_center, maps.requires_grad_(True))


def test_a_negative_cell_has_no_mass() -> None:
    with pytest.raises(ValueError, match="negative"):
        mass_center(torch.full((1, 2, 2), -0.1))


overlaps = pytest.mark.parametrize("overlap", [iou, iou_top])


@overlaps
@given(maps=map_batches(2))
def test_overlap_is_a_similarity(overlap: Callable[..., Tensor], maps: tuple[Tensor, Tensor]) -> None:
    a, b = maps
    assert ((overlap(a, b) >= 0) & (overlap(a, b) <= 1)).all()
    assert torch.equal(overlap(a, b), overlap(b, a))
    assert (overlap(a, a) == 1).all()


@pytest.mark.parametrize("measure", [l1, iou, iou_top, topk, pearson, spearman, kendall])
@given(maps=map_batches(2), seed=st.integers(0, 99))
def test_maps_do_not_couple_and_position_does_not_matter(
    measure: Callable[..., Tensor], maps: tuple[Tensor, Tensor], seed: int
) -> None:
    a, b = maps
    alone = torch.cat([measure(a[i : i + 1], b[i : i + 1]) for i in range(len(a))])
    assert torch.equal(measure(a, b), alone)
    order = torch.randperm(a[0].numel(), generator=torch.Generator().manual_seed(seed))
    shuffled = [m.flatten(1)[:, order].view(m.shape) for m in (a, b)]
    assert torch.allclose(measure(*shuffled), measure(a, b), rtol=0, atol=1e-6)


@pytest.mark.parametrize("measure", [*MEASURES, linf, l2])
def test_measures_give_one_number_per_item(measure: Callable[..., Tensor]) -> None:
    batch = torch.rand(4, 3, 5)
    assert measure(batch, batch).shape == (4,)
    assert measure(batch[:0], batch[:0]).shape == (0,)


def test_distances_of_images() -> None:
    x0 = torch.zeros(2, 3, 2, 2)
    x = x0.clone()
    x[0, 0, 0, 0], x[0, 2, 1, 1] = 0.3, -0.4
    assert linf(x, x0).tolist() == pytest.approx([0.4, 0.0])
    assert l2(x, x0).tolist() == pytest.approx([0.5, 0.0])


maps = torch.rand(2, 3, 3)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("a", "b", "complaint"),
    [
        (maps, torch.rand(2, 3, 4), r"\(2, 3, 3\) and \(2, 3, 4\)"),
        (maps, torch.rand(1, 3, 3), "shapes differ"),  # would broadcast silently
        (maps[0], maps[0], r"maps are \(N, h, w\)"),
        (maps, maps > 0.5, "torch.bool"),
        ((maps * 255).byte(), maps, "torch.uint8"),
        (maps, torch.full((2, 3, 3), math.nan), "NaN"),
        (torch.full((2, 3, 3), math.inf), maps, "infinite"),
        (maps[:, :0], maps[:, :0], r"\(2, 0, 3\)"),
    ],
)
def test_bad_maps_are_refused(measure: Callable[..., Tensor], a: Tensor, b: Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        measure(a, b)


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.1, math.nan])
def test_bad_thresholds_and_shares_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        iou(maps, maps, threshold=bad)
    with pytest.raises(ValueError, match="share"):
        iou_top(maps, maps, share=bad)
    with pytest.raises(ValueError, match="share"):
        topk(maps, maps, share=bad)


# --- intervals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 1998, table I, method 3 (score interval, no continuity correction)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(k: int, n: int, low: float, high: float) -> None:
    rate = wilson(k, n)
    assert rate.value == k / n
    assert rate.low == pytest.approx(low, abs=6e-5)
    assert rate.high == pytest.approx(high, abs=6e-5)


@pytest.mark.parametrize("p", [0.001, 0.01, 0.2, 0.5, 0.93, 0.9995])
def test_the_exact_interval_holds_the_rate_at_least_as_often_as_it_says(p: float) -> None:
    n = 60
    shares = [clopper_pearson(k, n) for k in range(n + 1)]
    within = [k for k, s in enumerate(shares) if s.low is not None and s.high is not None and s.low <= p <= s.high]
    assert sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in within) >= 0.95
    assert shares[0].high == pytest.approx(1 - 0.025 ** (1 / n))  # (1 − p)ⁿ = α/2


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_share_and_mirrors(share: tuple[int, int]) -> None:
    k, n = share
    rate, mirror = wilson(k, n), wilson(n - k, n)
    assert rate.low is not None
    assert rate.high is not None
    assert 0 <= rate.low <= k / n <= rate.high <= 1
    assert mirror.low == pytest.approx(1 - rate.high)
    assert mirror.high == pytest.approx(1 - rate.low)


def test_wilson_widens_with_the_level() -> None:
    narrow, wide = wilson(3, 10, level=0.5), wilson(3, 10, level=0.99)
    assert narrow.low is not None
    assert wide.low is not None
    assert wide.low < narrow.low


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (0, -1)])
def test_wilson_refuses_what_is_no_share(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{k} of {n}"):
        wilson(k, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_bad_levels_are_refused(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        wilson(1, 2, level)
    with pytest.raises(ValueError, match="level"):
        bootstrap_mean([1.0, 2.0], level)


def test_figures_of_nothing_are_valid_json() -> None:
    assert wilson(0, 0) == Share(None, None, None, 0, 0)
    assert bootstrap_mean([]) == Estimate(None, None, None, 0)
    assert bootstrap_mean([0.25]) == Estimate(0.25, None, None, 1)
    json.dumps([asdict(wilson(0, 0)), asdict(bootstrap_mean([]))], allow_nan=False)


values = st.lists(st.floats(-10, 10), min_size=2, max_size=12)


@settings(max_examples=50)
@given(values)
def test_bootstrap_stays_within_the_data_and_holds_the_mean(data: list[float]) -> None:
    mean = bootstrap_mean(data, resamples=200)
    assert mean.value is not None
    assert mean.low is not None
    assert mean.high is not None
    assert min(data) <= mean.low <= mean.value <= mean.high <= max(data)


def test_bootstrap_of_equal_values_has_no_width() -> None:
    assert bootstrap_mean([0.1] * 7) == Estimate(0.1, 0.1, 0.1, 7)


def test_bootstrap_repeats_and_leaves_the_global_generator_alone() -> None:
    data = torch.rand(30, generator=torch.Generator().manual_seed(1)).tolist()
    state = torch.random.get_rng_state()
    assert bootstrap_mean(data) == bootstrap_mean(data)
    assert bootstrap_mean(data, seed=1) != bootstrap_mean(data, seed=2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_bootstrap_does_not_depend_on_the_size_of_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = torch.rand(30, generator=torch.Generator().manual_seed(1)).tolist()
    whole = bootstrap_mean(data)
    monkeypatch.setattr("underfire.stats._CHUNK", 77)
    assert bootstrap_mean(data) == whole


def test_bootstrap_of_many_normal_values_is_the_normal_interval() -> None:
    data = torch.randn(2000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mean = bootstrap_mean(data.tolist(), resamples=4000)
    half = 1.96 * data.std().item() / math.sqrt(2000)
    assert mean.value == pytest.approx(data.mean().item())
    assert mean.low == pytest.approx(data.mean().item() - half, abs=0.08 * half)
    assert mean.high == pytest.approx(data.mean().item() + half, abs=0.08 * half)


def test_bootstrap_of_few_values_is_as_wide_as_the_t_interval() -> None:
    # Quantiles of the normal law: symmetric, and on no lattice that would round the interval's ends.
    data = torch.tensor([NormalDist().inv_cdf((i + 0.5) / 10) for i in range(10)], dtype=torch.float64)
    mean = bootstrap_mean(data.tolist(), resamples=50_000)
    assert mean.low is not None
    assert mean.high is not None
    assert mean.high - mean.low == pytest.approx(2 * 2.2622 * data.std().item() / math.sqrt(10), rel=0.02)


@pytest.mark.parametrize("n", [8, 20])
def test_bootstrap_covers_the_truth_as_often_as_it_says(n: int) -> None:
    """A plain percentile interval covers the mean of 8 normal values 88 times in 100."""
    generator = torch.Generator().manual_seed(4)
    covered = 0
    for _ in range(500):
        mean = bootstrap_mean(torch.randn(n, generator=generator).tolist(), resamples=1000)
        assert mean.low is not None
        assert mean.high is not None
        covered += mean.low <= 0 <= mean.high
    assert 0.92 <= covered / 500 <= 0.98


def test_pairs_are_tighter_than_their_parts() -> None:
    b = torch.linspace(0, 1, 20).tolist()
    a = [value + 0.1 for value in b]
    paired = bootstrap_paired(a, b)
    assert paired.value == pytest.approx(0.1)
    assert paired.low == pytest.approx(0.1)
    assert paired.high == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: bootstrap_mean([1.0, math.nan]), "nan"),
        (lambda: bootstrap_mean([1.0, 2.0], resamples=0), "resamples"),
        (lambda: bootstrap_paired([1.0], [1.0, 2.0]), "1 and 2"),
    ],
)
def test_bad_values_are_refused(call: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        call()
