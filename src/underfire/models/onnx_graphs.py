"""Graphs of ONNX, looked at and set right before they are converted: a file may come from anyone.

onnx2torch turns a graph into Python source and writes the names of its nodes into it as they are, so no name of the
file gets there.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from underfire.errors import InputError
from underfire.files import quoted, shortened
from underfire.models.recipe import LARGEST_SIDE

_NAME = re.compile(r"[^A-Za-z0-9_]+")
_LONGEST_NAME = 60
_FLOAT = 1  # TensorProto.FLOAT
_CHANNELS = (1, 3, 4)


def check_plain(model: Any) -> None:
    """Refuse what is not converted anyway: subgraphs, functions, sparse tensors, operators of no standard.

    Raises:
        InputError: there is some. The message is a clause, as everywhere in this file.
    """
    of_nodes = [attribute for node in model.graph.node for attribute in node.attribute]
    sparse = any(a.HasField("sparse_tensor") or a.sparse_tensors for a in of_nodes)
    if model.functions or model.graph.sparse_initializer or sparse:
        raise InputError("it has functions or sparse tensors of its own, which are not read here")
    if any(a.HasField("g") or a.graphs for a in of_nodes):
        raise InputError("an operator of it holds a graph of its own, which is not read here")
    strange = next((node for node in model.graph.node if node.domain not in ("", "ai.onnx")), None)
    if strange is not None:
        raise InputError(
            f"its operator {quoted(strange.op_type)} is of {quoted(strange.domain)}, which is not the standard of ONNX"
        )


def check_external(model: Any, folder: Path) -> None:
    """Refuse tensors that lie in other files than plain ones in ``folder``, which none of their paths may leave.

    Raises:
        InputError: a path is absolute, goes up, or leads over a link, or its file is missing or too short.
    """
    for tensor in _tensors(model):
        if not tensor.external_data and tensor.data_location != tensor.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        place = entries.get("location", "")
        parts = PurePosixPath(place).parts
        strange = not parts or ".." in parts or PurePosixPath(place).is_absolute()
        if strange or "\\" in place or "\0" in place or PureWindowsPath(place).anchor:
            raise InputError(f"it has weights in {quoted(place)}, and they may lie in its own folder only")
        path = folder
        for part in parts:
            path = path / part
            if path.is_symlink():
                raise InputError(f"it has weights in {quoted(place)}, which is a link; put the file itself there")
        if not path.is_file():
            raise InputError(f"it has weights in {quoted(place)}, which is no file beside it")
        first, length = (entries.get(key, "0") for key in ("offset", "length"))
        if not (first.isdecimal() and length.isdecimal()) or int(first) + int(length) > path.stat().st_size:
            raise InputError(f"it has weights in {quoted(place)}, beyond the end of that file")


def _tensors(model: Any) -> Iterator[Any]:
    """All tensors of a graph that `check_plain` has passed."""
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t


def rename(graph: Any) -> None:
    """Give every node and every value a name of ours; a node's tells where it came from, for ``layer=``."""
    names: dict[str, str] = {"": ""}

    def renamed(name: str) -> str:
        return names.setdefault(name, f"v{len(names)}")

    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = renamed(value.name)
    for number, node in enumerate(graph.node):
        plain = _NAME.sub("_", node.name or node.op_type).strip("_")[:_LONGEST_NAME]
        node.name = f"n{number}_{plain}"
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]


def only_input(graph: Any) -> Any:
    """The one input that is no weight: images, four dimensions of 32-bit floats."""
    weights = {tensor.name for tensor in graph.initializer}
    found = [value for value in graph.input if value.name not in weights]
    if len(found) != 1:
        raise InputError(f"it has {len(found)} inputs, and a classifier has one, for images")
    kind = found[0].type.tensor_type
    if kind.elem_type != _FLOAT or len(kind.shape.dim) != 4:
        raise InputError("its input is no batch of images in 32-bit floats, of four dimensions")
    sides = [dim.dim_value for dim in kind.shape.dim[1:] if dim.HasField("dim_value")]
    if not all(1 <= side <= LARGEST_SIDE for side in sides):
        raise InputError(f"its input has a side of {max(sides)} or of {min(sides)}, beyond 1 to {LARGEST_SIDE}")
    return found[0]


def keep_scores(graph: Any, onnx: Any) -> None:
    """Leave the scores of classes as the one output, before a last softmax, and nothing that they do not need."""
    makers = {name: node for node in graph.node for name in node.output}
    kinds = [(value, value.type.tensor_type) for value in graph.output]
    found = [value for value, kind in kinds if kind.elem_type == _FLOAT and len(kind.shape.dim) in (0, 2)]
    if len(found) != 1:
        raise InputError(f"it has {len(found)} outputs (N, K) of 32-bit floats, and a classifier has one")
    name = _before_softmax(found[0].name, makers)
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(name, _FLOAT, None))
    needed, waiting = set(), [name]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in needed:
            needed.add(node.name)
            waiting += node.input
    kept = [node for node in graph.node if node.name in needed]
    del graph.node[:]
    graph.node.extend(kept)


def _before_softmax(name: str, makers: dict[str, Any]) -> str:
    """The value that a last softmax is taken of; ``name`` where there is none."""
    at = name
    while at in makers and makers[at].op_type == "Identity":
        at = makers[at].input[0]
    if at in makers and makers[at].op_type == "Softmax" and _set(makers[at], "axis", -1) in (-1, 1):
        return str(makers[at].input[0])
    return name


def ends_in_sigmoid(graph: Any) -> bool:
    """Whether the one output is a sigmoid: of labels that don't exclude each other, or of the second of two classes."""
    name = graph.output[0].name
    return any(name in node.output and node.op_type == "Sigmoid" for node in graph.node)


def _set(node: Any, name: str, default: int) -> int:
    """The whole number that ``node`` has for the setting ``name``."""
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def channels_first(graph: Any, onnx: Any) -> int | None:
    """Have the input as (N, C, H, W), by a transposition where it is (N, H, W, C); returns C where it is said."""
    value = only_input(graph)
    dims = value.type.tensor_type.shape.dim
    if dims[1].dim_value in _CHANNELS or dims[3].dim_value not in _CHANNELS:
        return int(dims[1].dim_value) or None
    inner = "channels_last"
    for node in graph.node:
        node.input[:] = [inner if name == value.name else name for name in node.input]
    turn = onnx.helper.make_node("Transpose", [value.name], [inner], name="channels_last", perm=[0, 2, 3, 1])
    graph.node.insert(0, turn)
    height, width, channels = (type(dims[0]).FromString(dims[axis].SerializeToString()) for axis in (1, 2, 3))
    for axis, dim in zip((1, 2, 3), (channels, height, width), strict=True):
        dims[axis].CopyFrom(dim)
    return int(dims[1].dim_value)


def any_batch(graph: Any, onnx: Any) -> int | None:
    """Have the input take any number of images; returns how many it took, where that was fixed.

    Reshapes to a batch of one become such to the batch that comes: whether that is right must be tried.
    """
    dim = only_input(graph).type.tensor_type.shape.dim[0]
    if not dim.HasField("dim_value"):
        return None
    fixed = int(dim.dim_value)
    dim.dim_param = "N"
    del graph.value_info[:]
    shapes = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            shapes[node.output[0]] = node.attribute[0].t
    for number, node in enumerate(graph.node):
        if node.op_type != "Reshape" or node.input[1] not in shapes or _set(node, "allowzero", 0):
            continue
        shape = onnx.numpy_helper.to_array(shapes[node.input[1]]).copy()
        if shape.ndim == 1 and len(shape) and shape[0] == fixed:
            shape[0] = 0  # as many as come
            name = f"any_batch_{number}"
            graph.initializer.append(onnx.numpy_helper.from_array(shape, name))
            node.input[1] = name
    return fixed


def shown(error: BaseException) -> str:
    """What a library says of a file, for a sentence."""
    return shortened(" ".join(f"{type(error).__name__}: {error}".split()).rstrip("."))
