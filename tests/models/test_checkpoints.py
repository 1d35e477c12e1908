import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from support.toys import ReluNet, images, relu_net
from underfire.errors import InputError
from underfire.models.checkpoints import load_checkpoint, read_state_dict

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


def test_a_prefix_that_only_some_keys_have_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, path)
    assert list(read_state_dict(path)) == ["module.a", "b"]


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
    says = _refused(relu_net(), {f"net.{k}": v for k, v in state.items()}, tmp_path)
    # 14 tensors, of which the two counters of batch norm are not missed
    assert f"{len(state) - 2} keys missing: " in says
    assert f"{len(state)} keys not in the model: net.features.0.weight, " in says
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
