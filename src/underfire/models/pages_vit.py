"""A small vision transformer that says which way up a page lies; its weights come with the package."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.images.preprocessing import Preprocessing
from underfire.models.checkpoints import load_checkpoint
from underfire.models.recipe import Recipe

PAGES_VIT = "pages-vit"

WEIGHTS = Path(__file__).parent / "weights" / "pages-vit.safetensors"
"""How they were made, and what they are worth, is in the README beside them."""

CLASSES = ("0", "90", "180", "270")
"""By how many degrees the page is turned clockwise."""

PREPROCESSING = Preprocessing(input_size=(128, 128), resize=128, mean=(0.5,) * 3, std=(0.25,) * 3, crop="squash")

_SIDE, _PATCH = 128, 16  # pixels


class _Block(nn.Module):
    """Attention and a perceptron, each after a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        n, t, width = tokens.shape
        qkv = self.qkv(self.norm1(tokens)).reshape(n, t, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        seen = F.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.proj(seen.transpose(1, 2).reshape(n, t, width))
        mixed: Tensor = tokens + self.mlp(self.norm2(tokens))
        return mixed


class PagesViT(nn.Module):
    """A vision transformer with a class token: (N, 3, 128, 128) to logits (N, ``num_classes``).

    Args:
        num_classes: how many logits.
        width, depth, heads: numbers per token, blocks, and heads of attention in each.
    """

    def __init__(self, num_classes: int = len(CLASSES), *, width: int = 96, depth: int = 4, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, _PATCH, stride=_PATCH)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + (_SIDE // _PATCH) ** 2, width))
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, ``num_classes``) of normalised images."""
        cells = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), cells], dim=1) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


def pages_vit(pretrained: bool, num_classes: int | None) -> Recipe:
    """The network with the weights of the package if ``pretrained``, or else without any and of so many classes."""
    module = PagesViT(len(CLASSES) if pretrained or num_classes is None else num_classes)
    if pretrained:
        load_checkpoint(module, WEIGHTS)
    return Recipe(module, PREPROCESSING, CLASSES if num_classes is None else None)
