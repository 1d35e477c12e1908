"""The networks of random weights that other packages' relevance is compared on."""

from types import ModuleType

import torch
from torch import Tensor, nn

from support.toys import CLASSES, fill, images, relu_net

SIZE, MEAN, STD = 32, 0.5, 0.25
CELL = 8  # recorded are sums of relevance over squares of so many pixels
CONVOLUTIONAL = ("toy", "resnet", "vgg", "vgg with norms")


def pictures() -> tuple[Tensor, Tensor]:
    """Images (3, 3, 32, 32) in [0, 1] and a class for each."""
    return images(3, SIZE, dtype=torch.float64), torch.tensor([0, 3, 7])


def convolutional(name: str, torchvision: ModuleType) -> nn.Module:
    """A network in float64 and evaluation mode.

    Its batch norms add nothing to variances: Zennit's canonisers leave that in the norm that they make an identity.
    """
    models = torchvision.models
    if name == "toy":
        net: nn.Module = relu_net()
    elif name == "resnet":
        net = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)
    else:
        plan = [8, "M", 16, "M", 16, 24, "M"]
        trunk = models.vgg.make_layers(plan, batch_norm=name == "vgg with norms")
        head = (nn.Linear(96, 24), nn.ReLU(True), nn.Dropout(), nn.Linear(24, CLASSES))
        net = nn.Sequential(trunk, nn.AdaptiveAvgPool2d(2), nn.Flatten(), *head)
    if name != "toy":
        fill(net, 1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    return net.double().eval()


def cells(relevance: Tensor) -> Tensor:
    """Sums (N, 4, 4) over channels and squares of relevance (N, C, 32, 32)."""
    return nn.functional.avg_pool2d(relevance.sum(dim=1), CELL) * CELL**2
