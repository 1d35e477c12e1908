"""Records what LXT finds in torchvision's ViT: python tests/oracles/lxt_attn_lrp.py, in tests/.

LXT (pip install --no-deps lxt zennit) patches torchvision's classes for the whole process, so that tests run it in none
of theirs. Its own patches let no relevance through the softmax in vision transformers ("values"); with the rules that
it has for language models the projected queries, keys and values get a quarter, a quarter and a half ("softmax").
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from oracles.subjects import MEAN, STD, cells, pictures
from support.toys import CLASSES

FIGURES = Path(__file__).with_suffix(".json")
SETTINGS = {"values": False, "softmax": True}
"""Whether relevance goes through the softmax, by name."""


def vision_transformer(torchvision: ModuleType) -> nn.Module:
    """torchvision's vit_b_16 made smaller, with random weights, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: nn.Module = torchvision.models.VisionTransformer(
            image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=CLASSES
        )
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.3)
    return net.double().eval()


def _quartered(divided: Callable[[Tensor, int], Tensor]) -> Callable[..., Any]:
    """``nn.MultiheadAttention.forward`` for self-attention in the batch's first dimension, with LXT's uniform rule."""

    def forward(self: nn.MultiheadAttention, query: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        projected = nn.functional.linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (z.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for z in projected.chunk(3, dim=2))
        q, k, v = divided(q, 4), divided(k, 4), divided(v, 2)
        weights = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(dim=3)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2)), None

    return forward


def _patched() -> Callable[[Tensor, int], Tensor]:
    """Patch torch's modules as LXT's map for torchvision's ViT says; LXT's ``divide_gradient``."""
    stub: Any = ModuleType("lxt.efficient.models")  # the maps, which need a transformers of before version 5
    stub.get_default_map = None
    sys.modules["lxt.efficient.models"] = stub
    patches = import_module("lxt.efficient.patches")
    patches.patch_method(patches.non_linear_forward, nn.GELU, keep_original=True)
    patches.patch_method(patches.layer_norm_forward, nn.LayerNorm)
    patches.patch_method(patches.cp_multi_head_attention_forward, nn.MultiheadAttention, keep_original=True)
    divided: Callable[[Tensor, int], Tensor] = patches.divide_gradient
    return divided


def main() -> None:
    """Write the figures."""
    torchvision = import_module("torchvision")
    net = vision_transformer(torchvision)
    divided = _patched()
    x, y = pictures()
    figures = {}
    for setting, softmax in SETTINGS.items():
        if softmax:
            nn.MultiheadAttention.forward = _quartered(divided)  # type: ignore[method-assign]
        z = ((x - MEAN) / STD).requires_grad_()
        net(z).gather(1, y[:, None]).sum().backward()
        assert z.grad is not None
        figures[setting] = cells((z * z.grad).detach()).flatten().tolist()
    FIGURES.write_text(json.dumps(figures) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
