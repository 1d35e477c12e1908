"""Models in files of others' formats: graphs of ONNX, folders of transformers. Each where its library is installed."""

import importlib
import importlib.util
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzz.case import Case, Kinds, Originals
from fuzz.mutate import NUMBERS, TEXTS, as_json, spoilt_bytes, spoilt_json
from support.stand_ins import torchvision_operators

_PREPARED = ("--mean", "0.5", "--std", "0.25", "--interpreters", "grad", "--out", "maps")

_PLAIN = tuple(text.encode("utf-8", "replace").decode() for text in TEXTS)
"""Texts that protocol buffers can hold."""

_CODE = 'training"), __import__("evil"), getattr(self, "training'
_NAMES = (_CODE, "../x", "class", "", "a\nimport evil", "x.y", *_PLAIN)

_PLACES = ("../outside/thesis", "/etc/passwd", "link", "evil.py", "absent", ".", "a/../weights", "weights\0", *_PLAIN)

_CONFIG = {
    "model_type": "resnet", "embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "num_channels": 3,
    "id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}, "hidden_act": "relu",
    "layer_type": "basic", "architectures": ["ResNetForImageClassification"],
}  # fmt: skip

_PROCESSOR = {
    "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}, "crop_pct": 0.875, "resample": 3,
    "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4],
}  # fmt: skip

_ADDED = (
    {"auto_map": {"AutoModelForImageClassification": "evil.Net", "AutoImageProcessor": "evil.Processor"}},
    {"attn_implementation": "evil/kernel"}, {"quantization_config": {"quant_method": "bitsandbytes"}},
    {"model_type": "timm_wrapper"}, {"model_type": "evil"}, {"num_labels": 10**9}, {"torch_dtype": "evil"},
    {"model_type": "vit", "image_size": 10**6}, {"depths": [200, 200]}, {"problem_type": "regression"},
)  # fmt: skip


def graph(draw: Random, home: Path, originals: Originals) -> Case:
    """A file of ONNX for ``--model``: its fields changed, its weights elsewhere, or its bytes."""
    onnx: Any = importlib.import_module("onnx")
    model, how = _toy(onnx), draw.choice(("names", "fields", "places", "bytes"))
    if how == "names":
        for node in model.graph.node:
            node.name = draw.choice(_NAMES)
    elif how == "fields":
        _change(draw, onnx, model.graph)
    elif how == "places":
        (home / "link").symlink_to("../outside/thesis")
        tensor = draw.choice(model.graph.initializer)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", draw.choice(_PLACES)), ("offset", "0"), ("length", draw.choice(("4", "-1")))):
            tensor.external_data.add(key=key, value=value)
    data = model.SerializeToString()
    (home / "net.onnx").write_bytes(spoilt_bytes(draw, data)[0] if how == "bytes" else data)
    return Case(f"onnx: {how}", (("explain", str(originals.photo), "--model", "onnx:net.onnx", *_PREPARED),))


def _toy(onnx: Any) -> Any:
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    numbers = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(numbers.normal(size=(4, 3, 3, 3)).astype(np.float32), "conv"),
        onnx.numpy_helper.from_array(np.array([1, 4]), "shape"),
        onnx.numpy_helper.from_array(numbers.normal(size=(4, 3)).astype(np.float32), "head"),
    ]
    nodes = [
        node("Conv", ["x", "conv"], ["a"]), node("Relu", ["a"], ["b"]), node("GlobalAveragePool", ["b"], ["c"]),
        node("Reshape", ["c", "shape"], ["d"]), node("MatMul", ["d", "head"], ["e"]), node("Softmax", ["e"], ["f"]),
    ]  # fmt: skip
    inputs, outputs = [value("x", 1, [1, 3, 32, 32])], [value("f", 1, [1, 3])]
    made = onnx.helper.make_graph(nodes, "toy", inputs, outputs, weights)
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)


def _change(draw: Random, onnx: Any, graph: Any) -> None:
    for _ in range(draw.choice((1, 1, 2))):
        node, tensor = draw.choice(graph.node), draw.choice(graph.initializer)
        dim = draw.choice(graph.input[0].type.tensor_type.shape.dim)
        size = draw.choice((0, 1, -1, 2, 2**31, 2**40, 2**62))
        change = draw.choice(("operator", "wires", "dims", "input", "twice", "drop", "shape"))
        if change == "operator":
            node.op_type = draw.choice(("If", "Tile", "Resize", "Identity", "Sigmoid", "Evil"))
        elif change == "wires" and node.input:
            node.input[0] = draw.choice(("f", "x", "conv", "", "absent"))
        elif change == "dims":
            tensor.dims[0] = size
        elif change == "input":
            dim.dim_value = size
        elif change == "twice":
            graph.node.append(node)
        elif change == "drop":
            graph.node.remove(node)
        elif change == "shape":
            graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.array([size, -1]), "shape"))


def folder(draw: Random, home: Path, originals: Originals) -> Case:
    """A folder of transformers for ``--model``: one of its configurations changed, or its weights."""
    transformers: Any = importlib.import_module("transformers")
    config = transformers.AutoConfig.for_model(**_CONFIG)
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(home / "net")
    contents: dict[str, Any] = {"config.json": _CONFIG, "preprocessor_config.json": _PROCESSOR}
    name = draw.choice(("config.json", "config.json", "preprocessor_config.json", "model.safetensors", "index"))
    if name in contents:
        contents[name], how = spoilt_json(draw, contents[name])
        if draw.random() < 0.3 and isinstance(contents[name], dict):
            contents[name] |= draw.choice(_ADDED)
    weights = home / "net" / "model.safetensors"
    if name == "model.safetensors":
        data, how = spoilt_bytes(draw, weights.read_bytes())
        weights.write_bytes(data)
    elif name == "index":
        how = draw.choice((*_PLACES, *map(str, NUMBERS), "model.safetensors.1"))
        weights.rename(weights.with_name("model.safetensors.1"))
        places = {"weight_map": {"classifier.1.weight": how}}
        weights.with_name("model.safetensors.index.json").write_text(json.dumps(places))
    for file, content in contents.items():
        (home / "net" / file).write_bytes(as_json(content))
    return Case(f"{name}: {how}", (("explain", str(originals.photo), "--model", "hf:net", *_PREPARED),))


def _installed(kinds: Kinds, *packages: str) -> Kinds:
    there = all(importlib.util.find_spec(package) is not None for package in packages)
    if there:
        torchvision_operators()
    return kinds if there else {}


SOURCES: Kinds = {
    **_installed({"onnx": graph}, "onnx", "onnx2torch", "torchvision"),
    **_installed({"transformers": folder}, "transformers", "torchvision"),
}
