"""Image classifiers of transformers, from the Hugging Face Hub or a folder: files of others, read as data.

What config.json and preprocessor_config.json say is checked before the library sees any of it: code of their own is
refused, numbers are bounded, and a network is never larger than its file of weights.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from underfire.choices import Interpolation, Outputs
from underfire.decoding import decoded, plain_json
from underfire.errors import InputError
from underfire.files import quoted, read_regular_file, shortened
from underfire.images.preprocessing import Preprocessing
from underfire.models.archives import check_archive
from underfire.models.class_names import MAX_FILE_BYTES, read_class_names
from underfire.models.hub import hugging_face, weights_only
from underfire.models.recipe import LARGEST_SIDE, Recipe, import_optional
from underfire.plugins import described

_CONFIG = "config.json"
_PROCESSOR = "preprocessor_config.json"
_WITHIN_PROCESSOR = "processor_config.json"
"""Where newer versions keep what the processor of images is, under ``image_processor``."""

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SAFE_PATTERNS = [_CONFIG, _PROCESSOR, _WITHIN_PROCESSOR, "model*.safetensors", "model.safetensors.index.json"]
_OTHER_PATTERNS = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]

_CODE = ("auto_map", "custom_pipelines", "quantization_config", "attn_implementation", "_attn_implementation")
"""Settings that would have the library load or choose code by a name in the file."""

_LARGEST_NUMBER = 2**20
_MOST_LAYERS = 256
"""Of a kind, in all stages."""
_LARGER_THAN_FILE = 4
"""Times the bytes of its weights that a network in 32 bits may take; the file may have 8 bits for each."""

_INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By the numbers that Pillow has for them."""

_PLAIN = frozenset(
    f"{name}ImageProcessor"
    for name in (
        *("Beit", "Bit", "CLIP", "DeiT", "EfficientNet", "MobileNetV1", "MobileNetV2", "MobileViT", "Pvt"),
        *("Segformer", "Siglip", "ViT"),
    )
)
"""Processors that resize to ``size`` and then, if they do, crop the centre of ``crop_size``."""

_SCALED = {"ConvNextImageProcessor", "LevitImageProcessor", "PoolFormerImageProcessor"}
"""Processors that resize to more than ``size``, by a share of their own."""


@dataclass(frozen=True)
class _Config:
    """What is read of config.json; the rest is the library's."""

    model_type: str | None = None
    architecture: str | None = None
    """Of timm, whose models have no ``model_type``."""
    problem_type: str | None = None
    num_channels: int = 3


@dataclass(frozen=True)
class _Size:
    height: int | None = None
    width: int | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None

    def __post_init__(self) -> None:
        for side in asdict(self).values():
            if side is not None and not 1 <= side <= LARGEST_SIDE:
                raise ValueError(f"it has a size of {side} pixels, and sizes are from 1 to {LARGEST_SIDE}")

    @property
    def whole(self) -> tuple[int, int] | None:
        """(height, width), where both are given."""
        return None if self.height is None or self.width is None else (self.height, self.width)


@dataclass(frozen=True)
class _Processor:
    """How images are prepared, in the words of preprocessor_config.json; ``None`` for the default of its kind."""

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None
    do_resize: bool | None = None
    size: _Size | int | None = None
    resample: int | None = None
    crop_pct: float | None = None
    do_center_crop: bool | None = None
    crop_size: _Size | int | None = None
    do_rescale: bool | None = None
    rescale_factor: float | None = None
    rescale_offset: bool | None = None
    do_normalize: bool | None = None
    image_mean: tuple[float, ...] | float | None = None
    image_std: tuple[float, ...] | float | None = None
    include_top: bool | None = None
    """Of EfficientNet: the standard deviation is divided by once more."""
    do_flip_channel_order: bool | None = None
    do_pad: bool | None = None

    def __post_init__(self) -> None:
        if self.resample is not None and not 0 <= self.resample < len(_INTERPOLATIONS):
            raise ValueError(f"it resizes by method {self.resample}, and Pillow has 0 to {len(_INTERPOLATIONS) - 1}")
        if self.crop_pct is not None and not 0.1 <= self.crop_pct <= 1:
            raise ValueError(f"it crops to {self.crop_pct:g} of the side, and that is a share from 0.1 to 1")
        if self.rescale_factor is not None and not self.rescale_factor > 0:
            raise ValueError(f"it multiplies pixels by {self.rescale_factor:g}, and that is a number above 0")

    @property
    def kind(self) -> str:
        """The name of the class, whatever it computes with."""
        return (self.image_processor_type or "").removesuffix("Pil").removesuffix("Fast")


def huggingface(spec: str, name: str, pretrained: bool, num_classes: int | None) -> Recipe:
    """The image classifier of transformers in the folder ``name``, or of that name on the Hugging Face Hub.

    Args:
        spec: as the user wrote it.
        name: a folder, else the name of a repository, as ``microsoft/resnet-50``.
        pretrained: whether its weights are loaded.
        num_classes: of a network for other weights; ``None`` for as many as it was configured for.

    Raises:
        InputError: it is not there, needs code of its own, is damaged, or prepares images as nothing here can.
    """
    transformers = import_optional("transformers", spec, extra="hf")
    folder = Path(name) if os.path.isdir(name) else _downloaded(spec, name, weights=pretrained)  # noqa: PTH112 - any text
    try:
        plain = _read(folder / _CONFIG)
        config = _checked(plain)
        if num_classes is not None and not pretrained:
            plain = {key: value for key, value in plain.items() if key not in ("id2label", "label2id")}
            plain["num_labels"] = num_classes
        with _quiet(transformers):
            preprocessing = _preprocessing(transformers, folder, config)
            module = _network(transformers, plain, folder, pretrained=pretrained)
    except (InputError, ValueError) as error:
        raise InputError(f"model '{spec}' cannot be loaded from {quoted(folder)}: {error}.") from error
    names = read_class_names(folder / _CONFIG) if isinstance(plain.get("id2label"), dict) else None
    outputs: Outputs | None = "sigmoid" if config.problem_type == "multi_label_classification" else None
    return Recipe(module, preprocessing, names, outputs)


def _downloaded(spec: str, name: str, *, weights: bool) -> Path:
    """The folder of the hub's files in its cache."""
    hub = import_optional("huggingface_hub", spec, extra="hf")
    patterns = _SAFE_PATTERNS if weights else [pattern for pattern in _SAFE_PATTERNS if pattern.endswith("config.json")]
    with hugging_face():
        try:
            folder = Path(hub.snapshot_download(name, allow_patterns=patterns))
            if weights and not _files_of(folder, _WEIGHTS[0]):
                folder = Path(hub.snapshot_download(name, allow_patterns=_OTHER_PATTERNS))
        except Exception as error:  # of the network, of the hub, of the name
            offline = hub.constants.HF_HUB_OFFLINE
            why = "it does not answer or is not to be asked, and its cache has no copy" if offline else described(error)
            raise InputError(
                f"model '{spec}' is no folder here and cannot be had from the Hugging Face Hub ({shortened(why)}); give"
                " the folder of a copy, or check the name."
            ) from error
    return folder


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in the file; a clause says what it is otherwise."""
    try:
        found = plain_json(read_regular_file(path, limit=MAX_FILE_BYTES))
    except InputError as error:
        raise InputError(f"{path.name} cannot be used, {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path.name} holds no object")
    return found


def _picked(kind: type[Any], plain: dict[str, Any], name: str) -> Any:
    """The fields of ``kind`` among ``plain``; others are not ours."""
    known = {field.name for field in fields(kind)}
    return decoded(kind, {key: value for key, value in plain.items() if key in known and value is not None}, name)


def _checked(plain: dict[str, Any]) -> _Config:
    """What config.json says, if it is a classifier's that transformers itself has the code of."""
    config: _Config = _picked(_Config, plain, _CONFIG)
    code = next((key for key in _CODE if plain.get(key) is not None), None)
    if code is not None:
        raise InputError(f"{_CONFIG} asks for code of its own by {code!r}, which is never loaded")
    if config.model_type == "timm_wrapper" or (config.model_type is None and config.architecture is not None):
        raise InputError(f"it is a model of timm; name it timm:{shortened(config.architecture or 'NAME')}")
    if config.problem_type == "regression":
        raise InputError("it predicts a number, not a class")
    _check_numbers(plain.items())
    return config


def _check_numbers(items: Iterable[tuple[str, Any]]) -> None:
    """Refuse numbers that would make a network of any size; what is nested is looked at, too."""
    for key, value in items:
        if isinstance(value, dict) and key not in ("id2label", "label2id"):
            _check_numbers(value.items())
        found = list(_numbers_in(value if isinstance(value, list) else [value]))
        in_all = any(word in key for word in ("layer", "depth", "block", "stage", "repeat"))
        size = sum(found) if in_all else max([*found, len(found)])
        if size > (_MOST_LAYERS if in_all else _LARGEST_NUMBER):
            raise InputError(f"{_CONFIG} has {size:g} for {quoted(key)}, and no network is so large")


def _numbers_in(values: list[Any]) -> Iterator[float]:
    """The sizes of the numbers in a list of lists."""
    for value in values:
        if isinstance(value, list):
            yield from _numbers_in(value)
        elif isinstance(value, int | float):
            yield abs(value)


def _network(transformers: ModuleType, plain: dict[str, Any], folder: Path, *, pretrained: bool) -> nn.Module:
    if (folder / "adapter_config.json").exists():
        raise InputError("it is an adapter for another model; merge it into that one and save the whole")
    auto = transformers.AutoModelForImageClassification
    try:
        config = transformers.AutoConfig.for_model(**plain)
        with torch.device("meta"):
            needed = sum(value.numel() for value in auto.from_config(config).state_dict().values())
    except Exception as error:  # whatever a configuration of a stranger's makes the library do
        raise InputError(f"transformers cannot make the network ({shortened(described(error))})") from error
    files = _weights(folder) if pretrained else ()
    _check_extent(needed, sum(file.stat().st_size for file in files) if files else None)
    if not files:
        made: nn.Module = auto.from_config(config)
        return made.float()
    return _loaded(auto, config, folder, safe=files[0].suffix == ".safetensors")


def _check_extent(numbers: int, file_bytes: int | None) -> None:
    most = 2**34 if file_bytes is None else 2**20 + _LARGER_THAN_FILE * file_bytes
    if 4 * numbers > most:
        have = "" if file_bytes is None else f", and its weights are {file_bytes} bytes"
        raise InputError(f"{_CONFIG} describes a network of {numbers} numbers{have}")


def _weights(folder: Path) -> tuple[Path, ...]:
    """The files that the library will read; those of ``torch.save`` are looked at before."""
    files: tuple[Path, ...] = next(filter(None, (_files_of(folder, name) for name in _WEIGHTS)), ())
    if not files:
        raise InputError(f"it has no weights, {' or '.join(_WEIGHTS)}")
    for file in files:
        if not file.is_file():
            raise InputError(f"{quoted(file.name)} is missing or no file")
        if file.suffix == ".bin":
            try:
                check_archive(file)
            except InputError as error:
                raise InputError(f"{file.name} {error}") from error
    return files


def _files_of(folder: Path, name: str) -> tuple[Path, ...]:
    """The file ``name`` of weights, or the files that its index names."""
    if (folder / name).exists():
        return (folder / name,)
    index = folder / f"{name}.index.json"
    if not index.exists():
        return ()
    places = _read(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError(f"{index.name} names no files")
    stem = Path(name).stem
    for place in places.values():
        if not isinstance(place, str) or Path(place).name != place or not place.startswith(stem):
            raise InputError(f"{index.name} names {quoted(str(place))}; weights lie in the same folder")
    return tuple(folder / place for place in sorted(set(places.values())))


def _loaded(auto: Any, config: Any, folder: Path, *, safe: bool) -> nn.Module:
    try:
        with weights_only():
            module, told = auto.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=safe,
                weights_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # of files that are damaged or do not fit, whatever the library raises
        raise InputError(f"its weights cannot be loaded ({shortened(described(error))})") from error
    lacking = sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))
    if lacking:
        raise InputError(
            f"its weights have no {quoted(lacking[0])}, or of another shape: it was not trained to tell these"
            " classes apart; fine-tune it first"
        )
    network: nn.Module = module
    return network.float()


@contextlib.contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """What the library would print about the files is ours to say."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


def _preprocessing(transformers: ModuleType, folder: Path, config: _Config) -> Preprocessing | None:
    """What the processor of images does, or ``None`` where the folder has none."""
    if (folder / _PROCESSOR).exists():
        plain: Any = _read(folder / _PROCESSOR)
    elif (folder / _WITHIN_PROCESSOR).exists():
        plain = _read(folder / _WITHIN_PROCESSOR).get("image_processor")
    else:
        return None
    if not isinstance(plain, dict):
        raise InputError(f"{_WITHIN_PROCESSOR} has no processor of images")
    if plain.get("auto_map") is not None:
        raise InputError(f"{_PROCESSOR} asks for code of its own by 'auto_map', which is never loaded")
    given: _Processor = _picked(_Processor, plain, _PROCESSOR)
    return _prepared(_with_defaults(transformers, given, config), config)


def _with_defaults(transformers: ModuleType, given: _Processor, config: _Config) -> _Processor:
    """``given`` with what the library has for the fields that it leaves open."""
    with tempfile.TemporaryDirectory() as empty:  # the library reads files only, and gets no more than was checked
        Path(empty, _CONFIG).write_text(json.dumps({"model_type": config.model_type}))
        Path(empty, _PROCESSOR).write_text(json.dumps(_without_none(asdict(given))))
        try:
            made = transformers.AutoImageProcessor.from_pretrained(
                empty, backend="pil", local_files_only=True, trust_remote_code=False
            )
            plain = json.loads(made.to_json_string())
        except Exception as error:  # an unknown kind, or settings that it cannot have
            raise InputError(f"{_PROCESSOR} cannot be used ({shortened(described(error))})") from error
    found: _Processor = _picked(_Processor, _without_none(plain), _PROCESSOR)
    return replace(found, image_processor_type=type(made).__name__)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def _prepared(how: _Processor, config: _Config) -> Preprocessing:
    if how.kind not in _PLAIN | _SCALED or how.do_pad:
        padding = " with padding" if how.do_pad else ""
        raise InputError(
            f"its images are prepared by {quoted(how.kind)}{padding}, as photos here are not; write a function that"
            " returns the network, and prepare the images yourself"
        )
    frame, size, squash = _extent(how)
    factor = 255 * (how.rescale_factor if how.do_rescale and how.rescale_factor else 1.0)
    offset = 1.0 if how.do_rescale and how.rescale_offset else 0.0
    mean, std = (_numbers(how.image_mean), _numbers(how.image_std)) if how.do_normalize else ((0.0,), (1.0,))
    if how.include_top:
        std = tuple(first * again for first, again in zip(std, _numbers(how.image_std), strict=True))
    short = min(range(2), key=lambda axis: size[axis])
    return Preprocessing(
        input_size=size,
        resize=frame[short],
        mean=tuple((value + offset) / factor for value in mean),
        std=tuple(value / factor for value in std),
        interpolation=_INTERPOLATIONS[2 if how.resample is None else how.resample],
        crop="squash" if squash else "center",
        channels=config.num_channels,
        bgr=bool(how.do_flip_channel_order),
    )


def _extent(how: _Processor) -> tuple[tuple[int, int], tuple[int, int], bool]:
    """What photos are resized to and what of it is seen, both (height, width), and whether they are squashed.

    Where they are not, the first stands for its short side.
    """
    size = _Size(shortest_edge=how.size) if isinstance(how.size, int) else how.size
    crop = _Size(how.crop_size, how.crop_size) if isinstance(how.crop_size, int) else how.crop_size
    if not how.do_resize or size is None or size.longest_edge is not None:
        raise InputError(f"{_PROCESSOR} does not say which size photos are resized to")
    seen = crop.whole if how.do_center_crop and crop is not None else None
    side = size.shortest_edge or (size.height if size.height == size.width else None)
    if how.kind == "ConvNextImageProcessor" and side is not None:
        if side >= 384:
            return (side, side), (side, side), True
        return _square(int(side / (how.crop_pct or 1))), (side, side), False
    if how.kind == "PoolFormerImageProcessor" and side is not None and how.crop_pct is not None:
        return _square(int(side / how.crop_pct)), seen or (side, side), False
    if how.kind == "LevitImageProcessor" and size.shortest_edge is not None:
        return _square(int(256 / 224 * size.shortest_edge)), seen or (size.shortest_edge,) * 2, False
    if size.whole is not None:
        frame, seen = size.whole, seen or size.whole
        if frame[0] * seen[1] != frame[1] * seen[0] or frame[0] < seen[0]:
            raise InputError(f"{_PROCESSOR} crops {seen} of {frame}, which has another shape or is smaller")
        return frame, seen, True
    if size.shortest_edge is None or seen is None or size.shortest_edge < min(seen):
        raise InputError(f"{_PROCESSOR} does not crop photos from what they are resized to, and a network has one size")
    return _square(size.shortest_edge), seen, False


def _square(side: int) -> tuple[int, int]:
    return side, side


def _numbers(given: tuple[float, ...] | float | None) -> tuple[float, ...]:
    if given is None:
        raise InputError(f"{_PROCESSOR} normalises by nothing")
    return given if isinstance(given, tuple) else (given,)
