"""Models that go wrong in one way each, as strangers' do, made by functions that a command line can name."""

from typing import Any

import torch
from torch import Tensor, nn

from support.toys import relu_net


class Odd(nn.Module):
    """A sound network with something odd in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net = relu_net()

    def forward(self, x: Tensor) -> Any:
        """Sound."""
        return self.net(x)


class WithoutGrad(Odd):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)


class Inference(Odd):
    @torch.inference_mode()
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)


class Detached(Odd):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.detach())


class Numpy(Odd):
    def forward(self, x: Tensor) -> Any:
        return super().forward(torch.from_numpy(x.detach().numpy() * 2 - 1))


class NoDerivative(Odd):
    def forward(self, x: Tensor) -> Any:
        return super().forward(_Broken.apply(x))  # type: ignore[no-untyped-call]


class _Broken(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, __: Tensor) -> Tensor:
        raise KeyError("no way back")


class OnPhotos(Odd):
    """Sound on smooth pictures, and odd where one begins with a white pixel."""

    def odd(self, x: Tensor) -> Any:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Any:
        return self.odd(x) if bool((x[:, :, 0, 0] > 1.9).all(dim=1).any()) else super().forward(x)


class Raises(OnPhotos):
    def odd(self, x: Tensor) -> Any:
        raise ValueError("boom")


class Stops(OnPhotos):
    def odd(self, x: Tensor) -> Any:
        return next(iter(()))


class Exits(OnPhotos):
    def odd(self, x: Tensor) -> Any:
        raise SystemExit(0)


class FewerClasses(OnPhotos):
    def odd(self, x: Tensor) -> Any:
        return self.net(x)[:, :4]


class FewerRows(OnPhotos):
    def odd(self, x: Tensor) -> Any:
        return self.net(x)[:1]


class Dictionary(OnPhotos):
    def odd(self, x: Tensor) -> Any:
        return {"boxes": self.net(x), "labels": self.net(x)}


class Whole(OnPhotos):
    def odd(self, x: Tensor) -> Any:
        return self.net(x).long()


class NaN(OnPhotos):
    def odd(self, x: Tensor) -> Any:
        return self.net(x) + torch.where((x[:, :1, 0, 0] > 1.9), torch.nan, 0.0)


class InPlace(Odd):
    """Changes the images it is given, where nobody else looks at them."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.mul_(0.9).add_(0.01))


class InPlaceLater(Odd):
    """Overwrites what its own backward pass needs."""

    def forward(self, x: Tensor) -> Any:
        squared = x * x
        x.add_(1)
        return super().forward(squared)
