"""Classifiers of transformers: as the library has them, and nothing of a hostile folder is run."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from support.toys import images
from underfire import GradCAM, load_classifier
from underfire.errors import InputError
from underfire.images import builtin_photos
from underfire.images.geometry import prepared
from underfire.models import hub
from underfire.models.huggingface import huggingface

VIT = {
    "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
CONVNEXT = {"model_type": "convnext", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16]}
NAMES = {"id2label": {"0": "cat", "1": "dog", "2": "frog"}}
PREPARED: dict[str, dict[str, Any]] = {
    "vit": {"size": 32, "do_normalize": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]},
    "resnet": {"size": {"shortest_edge": 32}, "crop_pct": 0.8, "feature_extractor_type": "ConvNextFeatureExtractor"},
    "convnext": {"size": {"shortest_edge": 384}},
}


@pytest.fixture
def transformers(torchvision: ModuleType) -> ModuleType:
    found: ModuleType = pytest.importorskip("transformers")
    return found


@pytest.fixture
def saved(transformers: ModuleType, tmp_path: Path) -> Callable[..., nn.Module]:
    """Saves a network of random weights into ``tmp_path`` and returns it."""

    def save(config: dict[str, Any], processor: dict[str, Any] | None = None, **options: Any) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            settings = transformers.AutoConfig.for_model(**config)
            net = transformers.AutoModelForImageClassification.from_config(settings).eval()
        net.save_pretrained(tmp_path, **options)
        if processor is not None:
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
        made: nn.Module = net
        return made

    return save


def _load(folder: Path, **how: Any) -> Any:
    return huggingface(f"hf:{folder}", str(folder), **{"pretrained": True, "num_classes": None, **how})


# --- as the library has them --------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [VIT, RESNET, CONVNEXT], ids=lambda config: config["model_type"])
@pytest.mark.parametrize("shards", [False, True])
def test_a_folder(saved: Callable[..., nn.Module], tmp_path: Path, config: dict[str, Any], shards: bool) -> None:
    net = saved({**config, **NAMES}, PREPARED[config["model_type"]], **({"max_shard_size": "5KB"} if shards else {}))
    assert (tmp_path / "model.safetensors").exists() != shards
    found = _load(tmp_path)
    x = images(2, 32)
    assert torch.allclose(found.module.eval()(x).logits, net(x).logits, atol=1e-5)
    assert found.class_names == ("cat", "dog", "frog")


SIZES = {"height": 40, "width": 56}
PROCESSORS: list[tuple[str, dict[str, Any]]] = [
    ("vit", {"size": 32}),
    ("vit", {"size": SIZES, "do_normalize": False}),
    ("vit", {"size": SIZES, "do_rescale": False, "image_processor_type": "ViTImageProcessorFast"}),
    ("vit", {"feature_extractor_type": "ViTFeatureExtractor", "size": 48, "resample": 1}),
    ("resnet", {"size": {"shortest_edge": 40}, "crop_pct": 0.8}),
    ("convnext", {"size": {"shortest_edge": 384}}),
    ("deit", {}),
    ("clip", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}),
    ("dinov2", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "image_std": [0.1, 0.2, 0.3]}),
    ("efficientnet", {"rescale_offset": True, "rescale_factor": 1 / 127.5}),
    ("levit", {}),
    ("poolformer", {}),
    ("mobilenet_v2", {}),
    ("mobilevit", {"size": {"shortest_edge": 288}}),
    ("siglip", {}),
    ("swin", {"resample": 3}),
]


@pytest.mark.parametrize(("kind", "settings"), PROCESSORS)
def test_photos_are_prepared_as_the_library_prepares_them(
    transformers: ModuleType, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    from underfire.models.huggingface import _Config, _preprocessing

    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    found = _preprocessing(transformers, tmp_path, _Config(model_type=kind))
    assert found is not None
    with Image.open(builtin_photos().photos[4].path, formats=["JPEG"]) as image:
        photo = image.convert("RGB")
    library = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    wanted = torch.from_numpy(np.stack(library(photo)["pixel_values"]))
    pixels = torch.from_numpy(np.array(prepared(photo, found))).permute(2, 0, 1)[None]
    levels = (found.normalised(pixels / 255) - wanted).abs() * 255 * min(found.std)
    assert levels.max() < 1.01  # once it is rounded, one level may be another
    assert levels.mean() < 0.01


def test_weights_of_torch_save_and_of_half_the_bits(saved: Callable[..., nn.Module], tmp_path: Path) -> None:
    net = saved({**RESNET, **NAMES}, PREPARED["resnet"])
    (tmp_path / "model.safetensors").unlink()
    torch.save(net.half().state_dict(), tmp_path / "pytorch_model.bin")
    found = _load(tmp_path).module.eval()
    x = images(2, 32)
    assert torch.allclose(found(x).logits, net.float()(x).logits, atol=1e-5)


def test_a_checkpoint_for_other_classes_needs_no_weights(saved: Callable[..., nn.Module], tmp_path: Path) -> None:
    saved({**RESNET, **NAMES}, PREPARED["resnet"])
    (tmp_path / "model.safetensors").unlink()
    found = _load(tmp_path, pretrained=False, num_classes=5)
    assert found.module.eval()(images(2, 32)).logits.shape == (2, 5)
    assert found.class_names is None


def test_a_folder_without_a_processor_of_images(saved: Callable[..., nn.Module], tmp_path: Path) -> None:
    saved(RESNET)
    assert _load(tmp_path).preprocessing is None
    inner = {"image_processor": {"image_processor_type": "ViTImageProcessor", "size": SIZES}}
    (tmp_path / "processor_config.json").write_text(json.dumps(inner))
    assert _load(tmp_path).preprocessing.input_size == (40, 56)


# --- what is refused ----------------------------------------------------------------------------------------


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("run"),))


def test_weights_that_need_code_are_not_read(
    saved: Callable[..., nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(RESNET, PREPARED["resnet"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(_Runs()))
    with pytest.raises(InputError, match="its weights cannot be loaded"):
        _load(tmp_path)
    assert not (tmp_path / "run").exists()


def test_weights_without_a_head_are_refused(saved: Callable[..., nn.Module], tmp_path: Path) -> None:
    net = saved(RESNET, PREPARED["resnet"])
    state = {key: value for key, value in net.state_dict().items() if not key.startswith("classifier")}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"its weights have no 'classifier\..*fine-tune it first"):
        _load(tmp_path)


def test_a_configuration_that_describes_far_more_than_the_weights(
    saved: Callable[..., nn.Module], tmp_path: Path
) -> None:
    saved(VIT, PREPARED["vit"])
    (tmp_path / "config.json").write_text(json.dumps({**VIT, "hidden_size": 2**14, "intermediate_size": 2**18}))
    with pytest.raises(InputError, match=r"describes a network of \d{10,} numbers, and its weights are"):
        _load(tmp_path)


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that must not be asked for anything."""
    library = ModuleType("transformers")
    library.utils = SimpleNamespace(logging=MagicMock())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", library)


CONFIGS: list[tuple[Any, str]] = [
    ({**VIT, "auto_map": {"AutoConfig": "evil--repo"}}, "code of its own by 'auto_map'"),
    ({**VIT, "attn_implementation": "evil/kernel"}, "code of its own by 'attn_implementation'"),
    ({**VIT, "quantization_config": {"quant_method": "evil"}}, "code of its own by 'quantization_config'"),
    ({**VIT, "num_hidden_layers": 10**9}, "1e\\+09 for 'num_hidden_layers', and no network"),
    ({**VIT, "vision_config": {"depths": [[1], [10**5]]}}, "100001 for 'depths'"),
    ({**VIT, "num_block_repeats": [200, 100]}, "300 for 'num_block_repeats'"),
    ({**VIT, "image_size": 10**7}, "1e\\+07 for 'image_size'"),
    ({**VIT, "model_type": 7}, "model_type is 7, not text"),
    ({"architecture": "resnet50", "num_classes": 1000}, "name it timm:resnet50"),
    ({**VIT, "problem_type": "regression"}, "predicts a number"),
    ([1], "holds no object"),
    ("{", "it is no JSON"),
    ("[" * 40 + "]" * 40, "nested too deeply"),
    ('{"model_type": "vit", "hidden_size": 1e999}', "too large or none"),
]


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize(("config", "says"), CONFIGS)
def test_hostile_configurations(tmp_path: Path, config: Any, says: str) -> None:
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(InputError, match=rf"model 'hf:.*' cannot be loaded from .*: .*{says}"):
        _load(tmp_path)


HOSTILE: list[tuple[Any, str]] = [
    ({"auto_map": {"AutoImageProcessor": "evil.Processor"}}, "code of its own by 'auto_map'"),
    ({"size": {"height": 10**6, "width": 224}}, "size of 1000000 pixels"),
    ({"size": {"height": -1, "width": 224}}, "size of -1 pixels"),
    ({"size": {"evil": 1}}, "has 'evil', which is not known"),
    ({"size": "224"}, "no setting"),
    ({"resample": 99}, "method 99"),
    ({"resample": "bicubic"}, "resample is 'bicubic', not a whole number"),
    ({"image_mean": ["0.5"]}, "no setting"),
    ({"rescale_factor": 0}, "multiplies pixels by 0"),
    ({"crop_pct": 1e-9}, "crops to 1e-09"),
    ({"do_resize": 1}, "do_resize is 1, not true or false"),
    (["size"], "holds no object"),
]


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize(("settings", "says"), HOSTILE)
def test_hostile_processors(tmp_path: Path, settings: Any, says: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(VIT))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=says):
        _load(tmp_path)


UNKNOWN: list[tuple[str, dict[str, Any], str]] = [
    ("textnet", {}, "prepared by 'TextNetImageProcessor'"),
    ("vit", {"image_processor_type": "EvilImageProcessor"}, "cannot be used"),
    ("vit", {"do_resize": False}, "does not say which size"),
    ("bit", {"do_center_crop": False}, "does not crop photos"),
    ("deit", {"crop_size": {"height": 300, "width": 300}}, "another shape or is smaller"),
    ("vit", {"image_std": [0.0, 0.5, 0.5]}, "must be above zero"),
    ("vit", {"image_mean": [0.5, 0.5]}, "2 numbers for 3 channels"),
]


@pytest.mark.parametrize(("kind", "settings", "says"), UNKNOWN)
def test_processors_that_nothing_here_can_follow(
    transformers: ModuleType, tmp_path: Path, kind: str, settings: dict[str, Any], says: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=says):
        _load(tmp_path)


def _index(folder: Path, name: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"classifier.1.bias": name}}))


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda folder: None, "it has no weights"),
        (lambda folder: _index(folder, "../model-1.safetensors"), "weights lie in the same folder"),
        (lambda folder: _index(folder, "/etc/passwd"), "weights lie in the same folder"),
        (lambda folder: _index(folder, "model-1.safetensors"), "is missing or no file"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "names no files"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 99), "weights"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "it is an adapter"),
    ],
)
def test_weights_that_cannot_be_used(
    saved: Callable[..., nn.Module], tmp_path: Path, prepare: Callable[[Path], Any], says: str
) -> None:
    saved(RESNET, PREPARED["resnet"])
    (tmp_path / "model.safetensors").unlink()
    prepare(tmp_path)
    with pytest.raises(InputError, match=says):
        _load(tmp_path)


# --- the hub ------------------------------------------------------------------------------------------------


def test_a_hub_that_does_not_answer(transformers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "answers", lambda url: False)
    monkeypatch.chdir(tmp_path)
    for name in ("microsoft/resnet-50", "no such/name at all", "../up", "a" * 300):
        with pytest.raises(InputError, match="is no folder here and cannot be had from the Hugging Face Hub"):
            huggingface(f"hf:{name}", name, pretrained=True, num_classes=None)


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r'needs the package transformers, .* pip install "underfire\[hf\]"'):
        huggingface("hf:a/b", "a/b", pretrained=True, num_classes=None)


def test_a_classifier_of_a_folder_is_explained(saved: Callable[..., nn.Module], tmp_path: Path) -> None:
    net = saved({**RESNET, **NAMES}, {**PREPARED["resnet"], "image_mean": [0.4, 0.5, 0.6]})
    found, x = load_classifier(f"hf:{tmp_path}"), images(2, 32)
    assert (found.class_names, found.input_size, found.preprocessing.resize) == (("cat", "dog", "frog"), (32, 32), 40)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), 0.5
    assert torch.allclose(found(x), net((x - mean) / std).logits, atol=1e-5)
    assert GradCAM(found)(x, torch.tensor([0, 1])).shape == (2, 4, 4)


def test_labels_that_do_not_exclude_each_other(saved: Callable[..., nn.Module], tmp_path: Path) -> None:
    net = saved({**RESNET, **NAMES, "problem_type": "multi_label_classification"}, PREPARED["resnet"])
    found, x = load_classifier(f"hf:{tmp_path}", mean=0.0, std=1.0), images(2, 32)
    assert found.outputs == "sigmoid"
    assert torch.allclose(found.probabilities(x), net(x).logits.sigmoid(), atol=1e-5)
    assert load_classifier(f"hf:{tmp_path}", outputs="logits").outputs == "logits"
