"""Records Quantus' (LGPL) MaxSensitivity and LocalLipschitzEstimate: python -m oracles.quantus_sensitivity.

With tests on the path, and pip install --no-deps quantus, and what it imports.
"""

import json
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from support.toys import images, relu_net
from underfire import CAM, Classifier
from underfire.seeding import generator

FIGURES = Path(__file__).with_suffix(".json")
RADIUS, SAMPLES, KEYS = 0.02, 20, ("a", "b", "c")
CELL = 4
"""Quantus asks for maps of the size of the image: a cell is so many pixels wide, and norms so many times larger."""


def subject() -> tuple[CAM, Tensor, Tensor]:
    """CAM on a toy, images (3, 3, 32, 32) and their predictions."""
    classifier = Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32)
    x = images(len(KEYS), 32)
    return CAM(classifier), x, classifier(x).argmax(dim=1)


def points_of(x: Tensor, samples: int = SAMPLES) -> Tensor:
    """The random points (S, N, C, H, W) of which `underfire.sensitivity` with seed 0 and `KEYS` is made."""
    draws = [generator(0, key, "sensitivity") for key in KEYS]
    shares = torch.stack(
        [torch.stack([2 * torch.rand(x.shape[1:], generator=draw) - 1 for draw in draws]) for _ in range(samples)]
    )
    return (x + RADIUS * shares).clamp(0, 1)


def _figures(name: str) -> list[float]:
    """Of the metric ``name``, at the points above in place of its own."""
    g, x, y = subject()
    points, calls = points_of(x).flatten(2).numpy(), count()

    def explain(inputs: Any, targets: Any, **_: Any) -> Any:
        maps = g(torch.as_tensor(inputs), torch.as_tensor(targets))
        return maps.repeat_interleave(CELL, dim=1).repeat_interleave(CELL, dim=2)[:, None].numpy()

    metric = getattr(import_module("quantus"), name)(
        nr_samples=SAMPLES,
        abs=False,
        normalise=False,
        perturb_func=lambda **_: points[next(calls)],
        disable_warnings=True,
    )
    module = g.classifier.module.eval()
    found = metric(model=module, x_batch=x.numpy(), y_batch=y.numpy(), explain_func=explain, device="cpu")
    return [float(value) for value in np.asarray(found)]


if __name__ == "__main__":
    names = ("MaxSensitivity", "LocalLipschitzEstimate")
    FIGURES.write_text(json.dumps({name: _figures(name) for name in names}, indent=1) + "\n", encoding="utf-8")
