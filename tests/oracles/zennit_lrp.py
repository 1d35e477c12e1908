"""Records what Zennit (LGPL; pip install --no-deps zennit) finds: python tests/oracles/zennit_lrp.py, in tests/."""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from oracles.subjects import CONVOLUTIONAL, MEAN, STD, cells, convolutional, pictures

FIGURES = Path(__file__).with_suffix(".json")
TINY = 1e-12  # what Zennit adds to denominators where a rule has no ε; ours divide by none that may be 0
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "epsilon gamma box": {"epsilon": 1e-6, "gamma": 0.25, "box": True},
    "gamma and epsilon": {"epsilon": 0.25, "gamma": 0.1, "box": False},
    "epsilon": {"epsilon": 0.0, "gamma": 0.0, "box": False},
}
"""Of LRP, by name."""


def zennit_relevance(net: str, setting: str, torchvision: ModuleType) -> Tensor:
    """Zennit's relevance (N, C, H, W) of the pictures for the logits of their classes."""
    composites, rules, types, canonizers, attribution = (
        import_module(f"zennit.{name}") for name in ("composites", "rules", "types", "canonizers", "attribution")
    )
    x, y = pictures()
    low, high = (torch.full((1, 3, 1, 1), (end - MEAN) / STD, dtype=x.dtype) for end in (0, 1))
    given = SETTINGS[setting]
    layers = composites.layer_map_base(TINY)
    conv = rules.Gamma(given["gamma"], stabilizer=TINY) if given["gamma"] else rules.Epsilon(TINY)
    layers += [(types.Convolution, conv), (torch.nn.Linear, rules.Epsilon(given["epsilon"] or TINY))]
    first = [(types.Convolution, rules.ZBox(low, high))] if given["box"] else []
    merge = (
        import_module("zennit.torchvision").ResNetCanonizer if net == "resnet" else canonizers.SequentialMergeBatchNorm
    )
    composite = composites.SpecialFirstLayerMapComposite(layers, first, canonizers=[merge()])

    def seed(logits: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(y, logits.shape[1]) * logits.detach()

    with attribution.Gradient(model=convolutional(net, torchvision), composite=composite) as attributor:
        found: Tensor = attributor((x - MEAN) / STD, seed)[1]
    return found


def main() -> None:
    """Write the figures."""
    torchvision = import_module("torchvision")
    figures = {
        net: {setting: cells(zennit_relevance(net, setting, torchvision)).flatten().tolist() for setting in SETTINGS}
        for net in CONVOLUTIONAL
    }
    FIGURES.write_text(json.dumps(figures) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
