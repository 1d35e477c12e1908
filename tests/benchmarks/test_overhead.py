"""What counts as a pass of the model: every outermost call and every derivative, once."""

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from benchmarks import overhead
from benchmarks.overhead import Memory, Passes, main


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no")


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock moves on by one whenever it is read."""
    clock = itertools.count()
    monkeypatch.setattr(time, "process_time", lambda: float(next(clock)))


@pytest.mark.usefixtures("ticks")
def test_nested_modules_count_once_and_derivatives_count() -> None:
    passes, module, x = Passes(), nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.ReLU()), torch.ones(1, 2)
    with passes.counted():
        y = module(x.requires_grad_())
        assert passes.seconds == 1
        torch.autograd.grad(y.sum(), x)
        assert passes.seconds == 2
        with pytest.raises(RuntimeError, match="no"):
            nn.Sequential(Failing())(x)
        assert passes.seconds == 3
        module(x)
        assert passes.seconds == 4
    module(x)
    torch.autograd.grad(x.sum(), x)
    assert passes.seconds == 4


def test_growth_is_of_the_last_quarter_over_the_second() -> None:
    memory = Memory()
    memory.parts = [1, 900, 100, 100, 700, 3, 150, 150]
    assert memory.growth == 1.5


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def measured(classifier: object, photos: Path | None, settings: dict[str, Any]) -> overhead.Measured:
        asked.update(settings, photos=photos)
        memory = Memory()
        memory.parts = [2**20] * 8
        return overhead.Measured(photos=4, seconds=10.0, passes=9.6, wall=11.0, memory=memory)

    monkeypatch.setattr(overhead, "measured", measured)
    monkeypatch.setattr(overhead, "load_classifier", lambda model, input_size: None)
    printed = CliRunner().invoke(main, [str(tmp_path), "--interpreters", "cam,grad", "--limit", "7"])
    assert printed.exit_code == 0, printed.output
    assert (asked["photos"], asked["interpreters"], asked["limit"]) == (tmp_path, ["cam", "grad"], 7)
    assert "0.040 | at most 0.05 |    met |" in printed.output
    assert "0.100" in printed.output
    assert "1.000 | at most 1.05 |    met |" in printed.output
