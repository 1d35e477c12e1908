import copy
import io
import os
import pickle
import zipfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from support.toys import ReluNet, images, relu_net
from underfire.errors import InputError
from underfire.models.checkpoints import load_checkpoint

Write = Callable[[dict[str, Tensor], Path], Any]


def _safetensors(state: dict[str, Tensor], path: Path) -> None:
    safetensors.torch.save_file(state, path)


def _beside_an_optimizer(state: dict[str, Tensor], path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}}, path)


def _prefixed(prefix: str) -> Write:
    return lambda state, path: torch.save({prefix + key: value for key, value in state.items()}, path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.safetensors", _safetensors),
        ("a.pt", torch.save),
        ("a.th", _beside_an_optimizer),
        ("b.pt", lambda state, path: torch.save({"model": state}, path)),
        ("c.pt", lambda state, path: torch.save({"model_state_dict": state, "loss": 0.5}, path)),
        ("d.pt", _prefixed("module.")),
        ("e.pt", _prefixed("_orig_mod.")),
        ("f.pt", _prefixed("module._orig_mod.")),
        ("old.pt", lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False)),
        ("half.pt", lambda state, path: torch.save({k: v.double() for k, v in state.items()}, path)),
    ],
)
def test_every_form_of_checkpoint_gives_the_same_outputs(tmp_path: Path, name: str, write: Write) -> None:
    trained, fresh = relu_net(seed=1).eval(), relu_net(seed=2).eval()
    path = tmp_path / name
    write(trained.state_dict(), path)
    load_checkpoint(fresh, path)
    x = images(2, 32)
    assert torch.equal(fresh(x), trained(x))


def _trained_and_fresh() -> tuple[ReluNet, ReluNet]:
    return relu_net(seed=1), relu_net(seed=2)


def _nested(state: dict[str, Tensor], **others: Any) -> dict[str, Any]:
    return {"epoch": 3, "args": Namespace(lr=0.1, name="run", layers=[1, 2]), **others, "state_dict": state}


def _renamed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


TRAINED = relu_net(seed=1).state_dict()
OTHER = relu_net(seed=3).state_dict()

SCRIPTS: dict[str, object] = {
    "Lightning": _nested(_renamed(TRAINED, "model."), hyper_parameters={"lr": 0.1}),
    "Lightning with the weights of its loss": _nested(_renamed(TRAINED, "model.") | {"loss.weight": torch.ones(10)}),
    "Lightning, compiled": {"state_dict": _renamed(TRAINED, "model._orig_mod.")},
    "a part compiled": {key.replace("features.", "features._orig_mod."): v for key, v in TRAINED.items()},
    "of any name": {"state_dict": _renamed(TRAINED, "student.backbone.")},
    "EMA of timm": {"state_dict_ema": TRAINED, "epoch": 3},
    "trained before its mean": {"state_dict": TRAINED, "state_dict_ema": OTHER},
    "trained before the teacher": {"teacher": OTHER, "model": _renamed(TRAINED, "module.")},
    "DeiT": {"model": TRAINED, "args": Namespace(lr=0.1, data=None), "optimizer": {"state": {0: {"step": 1}}}},
    "net": {"net": TRAINED, "acc": 93.1},
    "two keys deep": {"checkpoint": {"weights_of_mine": TRAINED}},
    "a model and what is not for it": {"model": TRAINED, "head": {"weight": torch.ones(3)}},
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_training_scripts_write_is_found(script: str, tmp_path: Path) -> None:
    torch.save(SCRIPTS[script], tmp_path / "a.ckpt")
    trained, fresh = _trained_and_fresh()
    load_checkpoint(fresh, tmp_path / "a.ckpt")
    x = images(2, 32)
    assert torch.equal(fresh.eval()(x), trained.eval()(x))


def test_two_of_which_none_is_the_likelier_are_refused_by_name(tmp_path: Path) -> None:
    state = _renamed(TRAINED, "student.") | _renamed(OTHER, "other.")
    says = _refused(relu_net(), {"state_dict": state}, tmp_path)
    assert "weights for the model under 'state_dict/student.' and 'state_dict/other.'; save" in says


def test_a_prefix_that_only_some_keys_have_stays(tmp_path: Path) -> None:
    state = {key if key.startswith("head") else f"module.{key}": value for key, value in TRAINED.items()}
    assert "keys not in the model: module.features.0.weight" in _refused(relu_net(), state, tmp_path)


def _odd(key: str, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return {**TRAINED, key: change(TRAINED[key])}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.to("meta"), "without values (on the device 'meta')"),
        (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "quantised"),
        (lambda w: w.to_sparse(), "sparse (sparse_coo)"),
        (lambda w: w.to(torch.complex64), "complex"),
        (lambda w: (100 * w).to(torch.int8), "of integers (torch.int8)"),
        (lambda w: w > 0, "of integers (torch.bool)"),
    ],
)
def test_tensors_of_another_kind_are_refused_by_name(
    change: Callable[[Tensor], Tensor], says: str, tmp_path: Path
) -> None:
    assert f"has a tensor 'head.weight' that is {says}, and" in _refused(
        relu_net(), _odd("head.weight", change), tmp_path
    )


def test_a_counter_may_have_been_made_a_float_but_not_a_fraction(tmp_path: Path) -> None:
    key = "features.1.num_batches_tracked"
    assert f"'{key}' that is of torch.float32" in _refused(relu_net(), _odd(key, lambda n: n + 0.5), tmp_path)
    torch.save(_odd(key, lambda n: n + 3.0), tmp_path / "a.pt")
    load_checkpoint(relu_net(), tmp_path / "a.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_rounded(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.save({k: v.to(dtype) if v.is_floating_point() else v for k, v in TRAINED.items()}, tmp_path / "a.pt")
    net = relu_net(seed=2)
    load_checkpoint(net, tmp_path / "a.pt")
    assert torch.equal(net.head.weight, TRAINED["head.weight"].to(dtype).float())


def _rezipped(path: Path, change: Callable[[zipfile.ZipFile, zipfile.ZipInfo, bytes], None]) -> None:
    """Writes the parts of a file of torch.save anew."""
    with zipfile.ZipFile(path) as archive:
        parts = [(part, archive.read(part)) for part in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for part, data in parts:
            change(archive, part, data)


def _says(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(relu_net(), path)
    return str(caught.value)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.save(TRAINED, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_a_small_file_that_unpacks_to_much_is_refused_unread(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deflate(archive: zipfile.ZipFile, part: zipfile.ZipInfo, data: bytes) -> None:
        more = bytes(50 * 2**20) if part.filename.endswith("/data/0") else b""
        archive.writestr(part.filename, data + more, compress_type=zipfile.ZIP_DEFLATED)

    _rezipped(saved, deflate)
    assert saved.stat().st_size < 2**20
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    assert "is compressed, which torch.save never does" in _says(saved)


def test_a_pickle_of_too_many_or_too_deep_things_is_refused_unread(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    deep, wide = b"\x80\x02}" + b")" + b"\x85" * 10**6 + b"K\x01s.", b"\x80\x02]" + b"]a" * 10**6 + b"."
    saved.write_bytes(deep)  # as in a file from before torch 1.6
    assert "lists more than any network has tensors" in _says(saved)
    torch.save(TRAINED, saved)
    _rezipped(saved, lambda a, part, data: a.writestr(part.filename, wide if part.filename[-4:] == ".pkl" else data))
    assert "lists more than any network has tensors" in _says(saved)


def test_parts_that_are_one_and_the_same_bytes_are_refused(saved: Path) -> None:
    """The list of parts names one part under many names."""
    data = saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        parts, start = archive.infolist(), archive.start_dir
    big = max(parts, key=lambda part: part.file_size)
    forged: Any = zipfile.ZipFile(io.BytesIO(), "w")  # whose list of parts is made by hand
    with forged:
        for index in range(200):
            twin = copy.copy(big)
            twin.filename = twin.orig_filename = f"a/data/{index:03}"
            forged.filelist.append(twin)
        forged.start_dir = start
        forged.fp.write(bytes(start))
        forged._didModify = True
        forged._write_end_record()
        forged.fp.seek(start)
        ending = forged.fp.read()
        forged._didModify = False
    saved.write_bytes(data[:start] + ending)
    assert "has parts that overlap" in _says(saved)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data + bytes(30),
        lambda data: data[:-2] + b"\x05\x00hello",  # a comment, which may hide a second list of parts
        lambda data: b"PK\x03\x04" + data,  # all places in the file are wrong by four
    ],
)
def test_a_file_with_two_readings_is_refused(spoil: Callable[[bytes], bytes], saved: Path) -> None:
    saved.write_bytes(spoil(saved.read_bytes()))
    assert "is damaged or was not written by torch.save" in _says(saved)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_a_text_longer_than_any_is_damaged(zipped: bool, tmp_path: Path) -> None:
    pickled, path = b"\x80\5\x8d" + b"\xff" * 7 + b"\x7f.", tmp_path / "net.pt"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("net/data.pkl", pickled)
    else:
        path.write_bytes(pickled)
    assert "is damaged or was not written by torch.save" in _says(path)


def test_a_file_far_larger_than_the_model_is_refused_unread(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with saved.open("r+b") as file:
        file.truncate(2**30 + 1)  # sparse
    assert f"has {2**30 + 1} bytes, and the model's weights " in _says(saved)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_program_of_torchscript_is_told_from_weights(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(relu_net().eval(), images(2, 32)), tmp_path / "a.pt")
    assert "is a program of TorchScript, which is code; if you trust it, it is a model itself, script:FILE" in _says(
        tmp_path / "a.pt"
    )


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("a.pt", "a.safetensors"):
        os.mkfifo(tmp_path / name)
        assert "is not a file" in _says(tmp_path / name)


def test_a_file_from_before_batch_norm_counted_its_batches_still_fits(tmp_path: Path) -> None:
    trained, fresh = relu_net(seed=1), relu_net(seed=2)
    state = {key: value for key, value in trained.state_dict().items() if "num_batches_tracked" not in key}
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(state, path)
    load_checkpoint(fresh, path)
    assert torch.equal(fresh.head.weight, trained.head.weight)


class Harmful:
    """Creates a file when it is unpickled by a reader that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _raw_pickle(protocol: int) -> Callable[[object, Path], object]:
    return lambda data, path: path.write_bytes(pickle.dumps(data, protocol=protocol))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize(
    ("write", "says"),
    [
        (torch.save, r"evil\.pt' needs to run code \(\w+\.mkdir\).*safetensors"),
        (_raw_pickle(2), r"evil\.pt' needs to run code \(\w+\.mkdir\).*safetensors"),
        (_raw_pickle(4), r"evil\.pt' is damaged or was not written by torch.save"),
    ],
    ids=["torch.save", "pickle 2", "pickle 4"],
)
def test_a_pickle_that_runs_code_is_refused_and_its_code_not_run(
    tmp_path: Path, write: Callable[[object, Path], object], says: str
) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "evil.pt"
    write({"head.weight": Harmful(trace)}, path)
    with pytest.raises(InputError, match=says):
        load_checkpoint(relu_net(), path)
    assert not trace.exists()


def test_a_whole_module_is_refused_with_its_class(tmp_path: Path) -> None:
    path = tmp_path / "module.pt"
    torch.save(relu_net(), path)
    with pytest.raises(InputError, match=r"needs to run code \(support.toys.ReluNet\).*state_dict\(\)"):
        load_checkpoint(relu_net(), path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a{suffix}"
    (torch.save if suffix == ".pt" else _safetensors)(relu_net().state_dict(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=f"a{suffix}' is damaged"):
        load_checkpoint(relu_net(), path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"hello, I am a text\n", b"\x89PNG\r\n\x1a\n" + bytes(100), b"\x80\x04."])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
def test_something_else_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"a{suffix}' is damaged"):
        load_checkpoint(relu_net(), path)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.pt' does not exist"):
        load_checkpoint(relu_net(), tmp_path / "nothing.pt")
    with pytest.raises(InputError, match="is not a file"):
        load_checkpoint(relu_net(), tmp_path)


def _refused(net: nn.Module, content: object, tmp_path: Path) -> str:
    path = tmp_path / "a.pt"
    torch.save(content, path)
    with pytest.raises(InputError) as caught:
        load_checkpoint(net, path)
    return str(caught.value)


def test_keys_that_do_not_fit_are_counted_and_the_first_named(tmp_path: Path) -> None:
    state = relu_net().state_dict()
    says = _refused(relu_net(), {k: v for k, v in state.items() if k != "head.bias"}, tmp_path)
    assert "1 key missing: head.bias." in says
    says = _refused(relu_net(), {**state, "a": state["head.bias"], "b": state["head.bias"]}, tmp_path)
    assert "2 keys not in the model: a, b." in says
    says = _refused(relu_net(), {f"{k}.net": v for k, v in state.items()}, tmp_path)
    # 14 tensors, of which the two counters of batch norm are not missed
    assert f"{len(state) - 2} keys missing: " in says
    assert f"{len(state)} keys not in the model: features.0.weight.net, " in says
    assert says.endswith(", ….")


def test_another_number_of_classes_is_told_by_the_shapes(tmp_path: Path) -> None:
    net = ReluNet()
    net.head = nn.Linear(16, 3)
    says = _refused(relu_net(), net.state_dict(), tmp_path)
    assert "2 keys of another shape: head.weight (3×16 in the file, 10×16 in the model), head.bias (3 in" in says


def test_content_that_is_no_state_dict(tmp_path: Path) -> None:
    assert "a Tensor where a state_dict() is needed" in _refused(relu_net(), torch.ones(3), tmp_path)
    assert "a dict where" in _refused(relu_net(), {}, tmp_path)
    assert "a int under 'epoch'" in _refused(relu_net(), {"epoch": 3}, tmp_path)
