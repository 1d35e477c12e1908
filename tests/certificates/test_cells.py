"""The certificate of a fixed class's cells, on a toy whose cells have known chances."""

import math

import pytest
import torch
from scipy import special, stats
from torch import Tensor

import underfire as uf
from support.smoothing import SIGMA, SIZE, CoupledMap, FixedMap, plane
from underfire.certificates.cells import decide_cells


class _Pixels(FixedMap):
    """The red pixels themselves: a cell is among the top ones where its pixel is."""

    name = "pixels"

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        return x[:, 0]


def _image(top: float) -> Tensor:
    """Three of sixteen red pixels by ``top`` above the rest."""
    x = torch.full((1, 3, SIZE, SIZE), 0.5, dtype=torch.float64)
    x[0, 0, 1, 1:] += top
    return x


def test_cells_far_apart_are_all_sure() -> None:
    classifier, _, y = plane(0.1)
    found = uf.certify_cells(_Pixels(classifier), _image(10 * SIGMA), y, sigma=SIGMA)
    assert found.radius == pytest.approx(SIGMA * special.ndtri(0.75))
    assert torch.equal(found.sure_in, found.benign)
    assert torch.equal(found.sure_out, ~found.benign)
    assert int(found.benign.sum()) == 3
    assert found.iou.tolist() == [1.0]


def test_cells_that_noise_exchanges_are_free() -> None:
    classifier, _, y = plane(0.1)
    found = uf.certify_cells(_Pixels(classifier), _image(1e-3), y, sigma=SIGMA)
    assert not found.sure_in.any()
    assert found.iou.tolist() == [0.0]
    assert torch.equal(found.free, ~found.sure_out)


def test_the_iou_is_the_least_that_free_cells_allow() -> None:
    shape = (1, 2, 3)
    benign = torch.tensor([1, 1, 1, 0, 0, 0]).bool().reshape(shape)
    sure_in = torch.tensor([1, 0, 0, 1, 0, 0]).bool().reshape(shape)
    sure_out = torch.tensor([0, 1, 0, 0, 0, 1]).bool().reshape(shape)
    found = uf.CellCertificate(0.1, sure_in, sure_out, benign)
    worst = 1.0
    for free in range(4):  # each of the two free cells in or out
        shown = sure_in.clone()
        shown[0, 0, 2], shown[0, 1, 1] = bool(free & 1), bool(free & 2)
        worst = min(worst, float((benign & shown).sum() / (benign | shown).sum()))
    assert found.iou.tolist() == [pytest.approx(worst)]
    nothing = torch.zeros(shape).bool()
    assert uf.CellCertificate(0.1, nothing, ~nothing, nothing).iou.tolist() == [1.0]


def test_cells_are_sure_from_the_count_on_that_the_binomial_law_says() -> None:
    counts = torch.arange(91)
    chosen = torch.full_like(counts, 10)
    inside, sure = decide_cells(chosen, 10, counts, 90, tau=0.75, alpha=0.001)
    assert bool(inside.all())
    expected = stats.binom.sf(counts - 1, 90, 0.75) <= 0.001 / 91
    assert sure.tolist() == expected.tolist()
    outside, sure = decide_cells(0 * chosen, 10, 90 - counts, 90, tau=0.75, alpha=0.001)
    assert not outside.any()
    assert sure.tolist() == expected.tolist()


def test_split_is_whole() -> None:
    classifier, _, y = plane(0.1)
    x, keys = torch.cat([_image(0.05), _image(0.2)]), ["a", "b"]
    g = _Pixels(classifier)
    whole = uf.certify_cells(g, x, y.repeat(2), sigma=SIGMA, keys=keys)
    part = uf.certify_cells(g, x[1:], y, sigma=SIGMA, keys=keys[1:], batch_size=3)
    assert torch.equal(whole.sure_in[1:], part.sure_in)
    assert torch.equal(whole.sure_out[1:], part.sure_out)


def test_draws_that_depend_on_each_other_are_refused() -> None:
    classifier, x, y = plane(0.1)
    with pytest.raises(uf.InputError, match="depend on each other"):
        uf.certify_cells(CoupledMap(classifier), x, y)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tau": 0.5},
        {"tau": 1.0},
        {"top": 0.0},
        {"samples": 0},
        {"selection": 0},
        {"alpha": math.nan},
        {"sigma": -1.0},
        {"tau": "0.7"},
        {"top": None},
        {"samples": "9"},
        {"alpha": "0.1"},
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    classifier, x, y = plane(0.1)
    with pytest.raises(uf.InputError):
        uf.certify_cells(FixedMap(classifier), x, y, **wrong)  # type: ignore[arg-type]
