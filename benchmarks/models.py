"""Models that have no weights to load: a step costs what it costs, whatever the weights are."""

import importlib

import torch

from benchmarks.stand_ins import importable
from underfire import Classifier


def resnet50() -> Classifier:
    """timm's ResNet-50 with random weights."""
    return _random("resnet50", "ResNet-50, random weights", zero_init_last=False)


def vit_small() -> Classifier:
    """timm's ViT-S/16 with random weights."""
    return _random("vit_small_patch16_224", "ViT-S/16, random weights")


def vit_base() -> Classifier:
    """timm's ViT-B/16 with random weights."""
    return _random("vit_base_patch16_224", "ViT-B/16, random weights")


def _random(architecture: str, name: str, **options: bool) -> Classifier:
    importable()
    timm = importlib.import_module("timm")
    torch.manual_seed(0)
    module = timm.create_model(architecture, pretrained=False, **options)
    test = timm.data.resolve_model_data_config(module)
    return Classifier(module, mean=test["mean"], std=test["std"], input_size=test["input_size"][1:], name=name)
