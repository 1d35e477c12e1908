"""Programs of TorchScript and torch.export compute what the module they were made of does."""

import warnings
from functools import partial
from pathlib import Path

import pytest
import torch

from support.toys import images, relu_net
from underfire import GRAD, PGD, Classifier, load_classifier
from underfire.errors import InputError
from underfire.models.programs import exported, torchscript


def _script(file: Path, *, freeze: bool = False, trace: bool = False) -> None:
    with warnings.catch_warnings():  # that TorchScript is old
        warnings.simplefilter("ignore")
        net = relu_net().eval()
        made = torch.jit.trace(net, images(1, 32)) if trace else torch.jit.script(net)
        torch.jit.save(torch.jit.freeze(made) if freeze else made, str(file))


def _export(file: Path, *, batch: int | None) -> None:
    shapes = ({0: torch.export.Dim("batch", min=1)},) if batch is None else None
    with torch.no_grad():
        program = torch.export.export(relu_net().eval(), (images(batch or 2, 32),), dynamic_shapes=shapes)
    torch.export.save(program, file)


@pytest.mark.parametrize("how", [{}, {"freeze": True}, {"trace": True}])
def test_torchscript(tmp_path: Path, how: dict[str, bool]) -> None:
    _script(tmp_path / "net.pt", **how)
    x = images(3, 32)
    found = torchscript("script:net.pt", str(tmp_path / "net.pt"))
    assert found.preprocessing is None
    assert torch.allclose(found.module(x), relu_net().eval()(x), atol=1e-5)


@pytest.mark.parametrize("batch", [None, 1])
def test_an_exported_program_for_any_batch(tmp_path: Path, batch: int | None) -> None:
    _export(tmp_path / "net.pt2", batch=batch)
    found = exported("export:net.pt2", str(tmp_path / "net.pt2"))
    assert found.preprocessing is not None
    assert (found.preprocessing.input_size, found.preprocessing.channels) == ((32, 32), 3)
    x = images(3, 32)
    assert torch.allclose(load_classifier(f"export:{tmp_path / 'net.pt2'}")(x), relu_net().eval()(x), atol=1e-5)


def test_an_exported_program_for_several_images(tmp_path: Path) -> None:
    _export(tmp_path / "net.pt2", batch=5)
    with pytest.raises(InputError, match=r"'export:net\.pt2' takes 5 images at a time"):
        exported("export:net.pt2", str(tmp_path / "net.pt2"))


@pytest.mark.parametrize("kind", ["script", "export"])
def test_a_program_is_attacked_as_its_module_is(tmp_path: Path, kind: str) -> None:
    (_script if kind == "script" else partial(_export, batch=None))(tmp_path / "net")
    x, target = images(2, 32), torch.tensor([3, 4])
    found = load_classifier(f"{kind}:{tmp_path / 'net'}", mean=0.5, std=0.25, input_size=32)
    itself = Classifier(relu_net(), mean=0.5, std=0.25, input_size=32)
    assert torch.allclose(found(x), itself(x), atol=1e-5)
    assert torch.allclose(GRAD(found)(x, target), GRAD(itself)(x, target), atol=1e-4)
    assert torch.allclose(PGD(found, steps=3)(x, target).x_adv, PGD(itself, steps=3)(x, target).x_adv, atol=1e-5)


@pytest.mark.parametrize("load", [torchscript, exported])
def test_files_that_are_no_programs(tmp_path: Path, load: type) -> None:
    torch.save(relu_net().state_dict(), tmp_path / "net.pt")
    (tmp_path / "text.pt").write_text("no program")
    for name in ("net.pt", "text.pt"):
        with pytest.raises(InputError, match=rf"model 'spec' cannot be loaded: .*{name}' is damaged or was not"):
            load("spec", str(tmp_path / name))
    with pytest.raises(InputError, match=r"model 'spec' cannot be loaded from .*absent\.pt': it cannot be opened"):
        load("spec", str(tmp_path / "absent.pt"))
