"""The table of architectures tells a right map from a wrong one, and takes up where it stopped."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architectures import __main__ as command
from benchmarks.architectures.by_hand import BY_HAND
from benchmarks.architectures.measure import measured
from benchmarks.architectures.zoo import Architecture
from underfire.interpreters import ALL, HiResCAM, LayerCAM

LIMIT = 60


def _net() -> nn.Module:
    grid = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU())
    return nn.Sequential(*grid, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


NET = Architecture(_net, 32, "3", "first", "6")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return measured("net", NET, {}, limit=LIMIT)


def test_maps_of_a_plain_network_are_those_by_hand(found: dict[str, Any]) -> None:
    cells = found["interpreters"]
    assert {name for name, cell in cells.items() if cell["map"] == "right"} == set(BY_HAND)
    assert {cell["map"] for cell in cells.values()} <= {"right", "made", "refused"}  # refused: it has no attention
    assert {cell["attack"] for cell in cells.values() if cell["map"] != "refused"} == {"done"}
    assert found["features"] == "`3`, 8×8 channels first"


def test_a_map_at_another_layer_is_wrong_and_what_is_known_is_not_measured_again(found: dict[str, Any]) -> None:
    known = {"interpreters": {name: cell for name, cell in found["interpreters"].items() if name != "gradcam"}}
    again = measured("net", replace(NET, tap="1"), known, limit=LIMIT)["interpreters"]
    assert again.pop("gradcam")["map"] == "wrong"
    assert again == known["interpreters"]


class _ScaleFree(nn.Module):
    """A head that does not read how large a cell is, so that no cell times its gradient is more than rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(4 * 8 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.read(F.normalize(x, dim=1).flatten(1))
        return logits


def test_a_map_of_rounding_is_refused_and_would_be_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Architecture(lambda: nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), _ScaleFree()), 32, "0")
    known: dict[str, dict[str, object]] = {
        "interpreters": {kind.name: {} for kind in ALL if kind not in (HiResCAM, LayerCAM)}
    }
    for found in ("refused", "noise"):
        cells = measured("net", net, known, limit=LIMIT)["interpreters"]
        assert (cells["hirescam"]["map"], cells["layercam"]["map"]) == (found, "right")
        monkeypatch.setattr("underfire.interpreters.hirescam._cancel", lambda *_: False)


def test_the_page_counts_and_gives_reasons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "architectures", dict)
    refused = {"map": "refused", "attack": None, "reason": "It has none.", "difference": None, "seconds": 0.0}
    right = {"map": "right", "attack": "done", "reason": None, "difference": 0.0, "seconds": 1.0}
    for name, cells in {"a": {"grad": right, "cam": refused}, "b": {"grad": right, "cam": refused}}.items():
        result = {"name": name, "size": 32, "features": "`3`", "interpreters": cells}
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    page = CliRunner().invoke(command.main, [str(tmp_path)]).output
    assert "2 architectures, 2 interpreters" in page
    assert (
        "Maps: 2 right, 0 made, 0 empty, 2 refused, 0 wrong, 0 noise, 0 failed. Attacks: 2 done, 0 refused, 0 failed."
        in page
    )
    assert page.count("refused (1)") == 2
    assert page.endswith("1. It has none.\n")
