"""``--layer``: which activation is read, from the command line to run.json."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from support.toy_photos import MODEL_OPTIONS
from support.toys import images
from underfire.cli import cli
from underfire.images import save_png

TOKENS = ("--model", "support.layouts:token_net", *MODEL_OPTIONS[2:])


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("photos") / "a.png"
    save_png(images(1, 32)[0], file)
    return file


def test_an_audit_reads_it_and_keeps_it(photo: Path, tmp_path: Path) -> None:
    command = [
        "audit",
        str(photo),
        *TOKENS,
        "--interpreters",
        "gradcam",
        "--steps",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    result = CliRunner().invoke(cli, [*command, "--layer", "blocks.0"])
    assert result.exit_code == 0, result.output
    run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert run["plan"]["model"]["layer"] == run["config"]["layer"] == "blocks.0"
    again = CliRunner().invoke(cli, [*command, "--layer", "blocks.1"])
    assert again.exit_code == 2
    assert "layer" in again.stderr


@pytest.mark.parametrize("command", [["explain"], ["attack", "--target-class", "1", "--interpreter", "gradcam"]])
def test_one_that_is_no_picture_is_refused(command: list[str], photo: Path, tmp_path: Path) -> None:
    options = (*TOKENS, "--layer", "blocks.2", "--out", str(tmp_path / "out"))
    result = CliRunner().invoke(cli, [command[0], str(photo), *command[1:], *options])
    assert result.exit_code == 2
    assert "no picture: the logits do not depend on its cells" in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
