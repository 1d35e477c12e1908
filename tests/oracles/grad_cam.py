"""Records what pytorch-grad-cam (MIT) finds, as unscaled maps: python -m oracles.grad_cam, with tests on the path.

pip install --no-deps grad-cam ttach, and what these import.
"""

import json
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from support.toys import images

FIGURES = Path(__file__).with_suffix(".json")
MEAN, STD, SIZE, GRID, CHANNELS = 0.5, 0.25, 16, 7, 6
NAMES = ("GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "EigenCAM")


def pictures() -> tuple[Tensor, Tensor]:
    """Images (4, 3, 16, 16) in [0, 1] and a class for each."""
    return images(4, SIZE, dtype=torch.float64), torch.tensor([0, 3, 1, 1])


def network() -> nn.Sequential:
    """A convolution with a ReLU, and a head of two layers: gradients differ from cell to cell."""
    with torch.random.fork_rng(devices=[]):
        trunk = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, stride=2), nn.ReLU())
        head = nn.Sequential(nn.Linear(CHANNELS * GRID**2, 12), nn.Tanh(), nn.Linear(12, 5))
    net = nn.Sequential(trunk, nn.Flatten(), head).double().eval()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for values in net.parameters():
            drawn = torch.randn(values.shape, generator=draw, dtype=values.dtype)
            values.copy_(2 * drawn / values[0].numel() ** 0.5)
    return net


def raw_maps(name: str) -> Tensor:
    """The maps (4, 7, 7) of the pictures, neither cut at 0 nor scaled."""
    package, targets = import_module("pytorch_grad_cam"), import_module("pytorch_grad_cam.utils.model_targets")
    net, (x, y) = network(), pictures()
    z = ((x - MEAN) / STD).requires_grad_()
    cam = getattr(package, name)(net, [net[0]])
    outputs = cam.activations_and_grads(z)
    wanted = [targets.ClassifierOutputTarget(int(c)) for c in y]
    sum(target(output) for target, output in zip(wanted, outputs, strict=True)).backward()
    (activations,), (slopes,) = (
        [values.numpy() for values in found]
        for found in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients)
    )
    found = cam.get_cam_image(z, net[0], wanted, activations, slopes, False)
    return torch.as_tensor(found, dtype=torch.float64)


def main() -> None:
    """Write the figures."""
    figures = {name: [round(value, 9) for value in raw_maps(name).flatten().tolist()] for name in NAMES}
    FIGURES.write_text(json.dumps(figures) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
