"""Models that have no weights to load."""

import torch
import torchvision

from underfire import Classifier


def resnet50() -> Classifier:
    """A ResNet-50 with random weights: a step costs what it costs, whatever the weights are."""
    torch.manual_seed(0)
    module = torchvision.models.resnet50(weights=None)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Classifier(module, mean=mean, std=std, input_size=224, name="ResNet-50, random weights")
