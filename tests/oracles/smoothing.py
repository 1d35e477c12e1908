"""Records what published code certifies from given draws: python -m oracles.smoothing COHEN ANANI.

With tests on the path, pip install --no-deps statsmodels and what it imports, and copies of locuslab/smoothing (COHEN,
whose core.py is run) and of AlaaAnani/certified-attributions (ANANI, MIT, whose fast_certify is run). Its package
twosample is on no index; scipy's binomial test takes its place.
"""

import json
import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

FIGURES = Path(__file__).with_suffix(".json")
SIGMA = 0.25
COUNTS = ((60, 100), (99, 100), (100, 100), (501, 1000), (540, 1000), (600, 1000), (990, 1000), (1000, 1000))
"""Of the right label, among so many draws."""
ALPHAS = (0.05, 0.001)
SETTINGS = tuple((n0, tau, alpha) for n0 in (10, 21) for tau in (0.6, 0.75) for alpha in (0.05, 0.001))
DRAWS, GRID, TOP = 100, (7, 7), 0.2


def maps_of_draws() -> Tensor:
    """Maps (100, 7, 7) of draws: some cells are always large, some at times, most never."""
    draw = torch.Generator().manual_seed(11)
    level = torch.linspace(0, 1, 49, dtype=torch.float64)[torch.randperm(49, generator=draw)].reshape(GRID)
    return level + 0.12 * torch.randn(DRAWS, *GRID, generator=draw, dtype=torch.float64)


def _module(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _cohen(copy: Path) -> dict[str, list[float]]:
    import scipy.stats

    scipy.stats.binom_test = stats.binomtest  # its old name, which core.py imports and predict alone uses
    core = _module(copy / "code" / "core.py")
    radii = {}
    for alpha in ALPHAS:
        for right, n in COUNTS:
            smooth = core.Smooth(torch.nn.Identity(), 2, SIGMA)
            smooth._sample_noise = lambda x, num, batch, right=right, n=n: np.array([n - right, right])
            label, radius = smooth.certify(torch.zeros(1), 1, n, alpha, 1)
            radii[f"{right} of {n} at {alpha}"] = [label, float(radius)]
    return radii


def _anani(copy: Path) -> dict[str, Any]:
    def binom_test(counts: Any, draws: Any, taus: Any, alt: str) -> Any:
        tests = zip(counts, draws, taus, strict=True)
        return np.array([stats.binomtest(int(k), int(n), float(p), alternative=alt).pvalue for k, n, p in tests])

    stand_in = ModuleType("twosample")
    stand_in.binom_test = binom_test  # type: ignore[attr-defined]
    sys.modules["twosample"] = stand_in
    certify = _module(copy / "attribution_certification" / "certifier" / "fast_certify.py").fast_certify
    flat = maps_of_draws().flatten(1)
    # As its process_attributions makes sets of maps for "all_percentile": above the percentile 100 − K of a draw.
    cuts = torch.tensor(np.percentile(flat.numpy(), [100 - 100 * TOP], axis=1))
    sets = torch.stack([torch.bucketize(row, cuts[:, i]) for i, row in enumerate(flat)])
    found = {str(s): certify(sets, s[0], DRAWS, tau=s[1], alpha=s[2]).tolist() for s in SETTINGS}
    return {"sets": ["".join(map(str, row.tolist())) for row in sets], "certified": found}


def main(copies: Sequence[str]) -> None:
    """Write the figures."""
    cohen, anani = map(Path, copies)
    figures = {"cohen": _cohen(cohen), "anani": _anani(anani)}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
