"""Models that take their photos, or give their answers, in other ways than most."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from support.toys import images
from underfire.cli import cli
from underfire.images import save_png


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two photos that are wider than high, in the folder "photos" of the current directory."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name, picture in zip(("a.png", "b.png"), images(2, 48, seed=1), strict=True):
        save_png(picture[:, :32], Path("photos") / name)
    return "photos"


def underfire(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def facts(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))
    return found


def test_a_run_tells_how_photos_become_inputs(photos: str) -> None:
    options = ["--model", "support.toys:relu_net", "--input-size", "32", "--mean", "1/2", "--std", "64/255", "--bgr"]
    options += ["--crop", "squash", "--interpolation", "nearest", "--interpreters", "grad", "--steps", "1"]
    result = underfire("audit", photos, *options, "--out", "run")
    assert result.exit_code == 0, result.output
    told = facts("run")["model"]["preprocessing"]
    assert told == {
        "input_size": [32, 32],
        "resize": 32,
        "mean": [0.5],
        "std": [64 / 255],
        "interpolation": "nearest",
        "crop": "squash",
        "channels": 3,
        "bgr": True,
    }
    settings = facts("run")["plan"]["model"]
    assert (settings["crop"], settings["interpolation"], settings["bgr"]) == ("squash", "nearest", True)
    assert underfire("audit", photos, *options, "--out", "run").exit_code == 0
    otherwise = underfire("audit", photos, *options, "--crop", "center", "--out", "run")
    assert otherwise.exit_code == 2
    assert "crop 'squash', but 'center' is given now" in otherwise.stderr
