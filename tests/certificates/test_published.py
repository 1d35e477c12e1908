"""The same draws give the same certificates as published code; ``oracles/smoothing.py`` recorded its figures."""

import json

import pytest
import torch

from oracles.smoothing import (
    ALPHAS,
    COUNTS,
    DRAWS,
    FIGURES,
    GRID,
    SETTINGS,
    SIGMA,
    TOP,
    maps_of_draws,
)
from underfire import Certificate, metrics
from underfire.certificates.cells import decide_cells

RECORDED = json.loads(FIGURES.read_text(encoding="utf-8"))


def _label_alone(wrong: int, n: int, alpha: float) -> Certificate:
    counts = {"other/free": torch.tensor([wrong])}
    return Certificate("any", ("photo",), SIGMA, n, alpha, (0.0,), 0.5, 0.1, counts)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("right", "n"), COUNTS)
def test_label_radii_are_cohens(right: int, n: int, alpha: float) -> None:
    label, radius = RECORDED["cohen"][f"{right} of {n} at {alpha}"]
    found = _label_alone(n - right, n, alpha)
    assert bool(found.abstained) == (label == -1)
    assert float(found.label_radius) == pytest.approx(radius, rel=1e-9)


def test_top_cells_are_those_of_the_anchor() -> None:
    sets = ["".join(str(int(cell)) for cell in cells.flatten()) for cells in metrics.top_cells(maps_of_draws(), TOP)]
    assert sets == RECORDED["anani"]["sets"]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_sure_cells_are_those_of_the_anchor(setting: tuple[int, float, float]) -> None:
    selection, tau, alpha = setting
    tops = metrics.top_cells(maps_of_draws(), TOP)
    chosen, counts = tops[:selection].sum(dim=0), tops[selection:].sum(dim=0)
    inside, sure = decide_cells(chosen, selection, counts, DRAWS - selection, tau=tau, alpha=alpha)
    found = torch.where(sure, inside.long(), -1)
    recorded = torch.tensor(RECORDED["anani"]["certified"][str(setting)]).reshape(GRID)
    assert torch.equal(found, recorded)
    assert {-1, 0, 1} >= set(found.unique().tolist()) > {0}
