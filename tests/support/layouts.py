"""Small networks that keep the picture in each layout there is, and Grad-CAM of them by hand."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.interpreters.maps import min_max

CLASSES, WIDTH = 5, 16


class Attention(nn.Module):
    """Self-attention over tokens, fused or by hand; its keys and its weights pass through modules of their own."""

    def __init__(self, *, fused: bool, heads: int = 2) -> None:
        super().__init__()
        self.fused, self.heads = fused, heads
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k_norm, self.weights_drop = nn.Identity(), nn.Dropout(0.1)

    def forward(self, z: Tensor) -> Tensor:
        n, t, _ = z.shape
        q, k, v = self.qkv(z).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        k = self.k_norm(k)
        if self.fused:
            read = F.scaled_dot_product_attention(q, k, v)
        else:
            read = self.weights_drop((q @ k.transpose(-1, -2) / k.shape[-1] ** 0.5).softmax(dim=-1)) @ v
        out: Tensor = self.out(read.transpose(1, 2).reshape(n, t, WIDTH))
        return out


class Block(nn.Module):
    """As in a vision transformer."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = Attention(fused=fused)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, z: Tensor) -> Tensor:
        z = z + self.attn(self.norm1(z))
        out: Tensor = z + self.mlp(self.norm2(z))
        return out


class TokenNet(nn.Module):
    """Patches of 8×8 pixels, ``prefix`` learnt tokens before them, blocks; the head reads the first ones, or a mean."""

    def __init__(self, *, prefix: int = 1, pooled: bool = False, fused: bool = True, depth: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 8, stride=8)
        self.prefix = nn.Parameter(torch.randn(1, prefix, WIDTH))
        self.blocks = nn.Sequential(*(Block(fused=fused) for _ in range(depth)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        z = self.patch(x).flatten(2).transpose(1, 2)
        z = self.norm(self.blocks(torch.cat([self.prefix.expand(z.shape[0], -1, -1), z], dim=1)))
        count = self.prefix.shape[1]
        read = z[:, count:] if self.pooled else z[:, : min(count, 2)]
        logits: Tensor = self.head(read.mean(dim=1))
        return logits


class ChannelsLast(nn.Module):
    """(N, h, w, C) from the patches of 4×4 pixels on; the head reads the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.mix = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patch(x).permute(0, 2, 3, 1)
        logits: Tensor = self.head(self.norm(z + self.mix(z)).mean(dim=(1, 2)))
        return logits


class ChannelsFirst(nn.Module):
    """Convolutions and a head of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, WIDTH, 3, 2, 1), nn.Tanh(), nn.Conv2d(WIDTH, WIDTH, 3, 2, 1), nn.Tanh())
        self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(x).mean(dim=(2, 3)))
        return logits


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """``make()``, whose weights are always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


def gradcam_by_hand(net: nn.Module, layer: str, cells: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Grad-CAM (N, h, w) of a layer whose output ``cells`` turns into (N, C, h, w), one image at a time."""
    maps = []
    for image, c in zip(x, y, strict=True):
        seen: list[Tensor] = []
        handle = net.get_submodule(layer).register_forward_hook(lambda *call, seen=seen: seen.append(call[2]))
        logits = net(image[None])
        handle.remove()
        (gradient,) = torch.autograd.grad(logits[0, int(c)], seen[-1])
        picture, slope = cells(seen[-1].detach()), cells(gradient)
        maps.append((slope.mean(dim=(2, 3), keepdim=True) * picture).sum(dim=1)[0])
    return min_max(torch.stack(maps))


def tokens_as(grid: tuple[int, int], prefix: int) -> Callable[[Tensor], Tensor]:
    """Tokens (N, prefix + h·w, C) as (N, C, h, w)."""
    h, w = grid

    def cells(z: Tensor) -> Tensor:
        return z[:, prefix : prefix + h * w].reshape(len(z), h, w, -1).permute(0, 3, 1, 2)

    return cells


def last_first(z: Tensor) -> Tensor:
    """(N, h, w, C) as (N, C, h, w)."""
    return z.permute(0, 3, 1, 2)


LAYOUTS: Mapping[str, tuple[Callable[[], nn.Module], str, Callable[[tuple[int, int]], Callable[[Tensor], Tensor]], int]]
LAYOUTS = {
    "channels first": (ChannelsFirst, "trunk", lambda _: lambda z: z, 4),
    "channels last": (ChannelsLast, "norm", lambda _: last_first, 4),
    "a class token": (TokenNet, "blocks.1", lambda grid: tokens_as(grid, 1), 8),
    "a class token, attention by hand": (lambda: TokenNet(fused=False), "blocks.1", lambda grid: tokens_as(grid, 1), 8),
    "two prefix tokens": (lambda: TokenNet(prefix=2), "blocks.1", lambda grid: tokens_as(grid, 2), 8),
    "five prefix tokens": (lambda: TokenNet(prefix=5), "blocks.1", lambda grid: tokens_as(grid, 5), 8),
    "the mean of tokens": (lambda: TokenNet(prefix=0, pooled=True), "norm", lambda grid: tokens_as(grid, 0), 8),
    "the mean beside a token": (lambda: TokenNet(pooled=True), "norm", lambda grid: tokens_as(grid, 1), 8),
}
"""By name: a network, the layer in which the picture is found, its cells on a grid as (N, C, h, w), pixels a cell."""


def token_net() -> nn.Module:
    """A small vision transformer that reads a class token."""
    return seeded(TokenNet)
