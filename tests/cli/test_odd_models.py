"""Models that go wrong: one sentence that names the photo and exit code 2, whichever command meets it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from support.toy_photos import MODEL_OPTIONS
from support.toys import images
from underfire.cli import cli
from underfire.images import save_png

MARKED = "marked.png"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos, of which the second begins with a white pixel."""
    folder = tmp_path_factory.mktemp("photos")
    pictures = images(2, 32, seed=1)
    pictures[1, :, 0, 0] = 1
    for picture, name in zip(pictures, ("a.png", MARKED), strict=True):
        save_png(picture, folder / name)
    return folder


COMMANDS = {
    "audit": ("--interpreters", "grad", "--attacks", "pgd", "--steps", "2"),
    "explain": ("--interpreters", "grad"),
    "attack": ("--interpreter", "grad", "--target-class", "3", "--steps", "2"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        *((name, "the model has no gradient: it works") for name in ("WithoutGrad", "Inference", "Detached", "Numpy")),
        ("NoDerivative", "the model has no gradient: taking it fails with KeyError: 'no way back'"),
        ("InPlaceLater", "the model has no gradient: taking it fails with RuntimeError: one of the variables needed"),
        ("Raises", "fails with ValueError: boom; that was on photo 'marked.png'."),
        ("Stops", "fails with StopIteration; that was on photo 'marked.png'."),
        ("Exits", "fails with SystemExit: 0; that was on photo 'marked.png'."),
        ("FewerClasses", "before, it returned (2, 10); that was on photo 'marked.png'."),
        ("FewerRows", "returned (1, 10) for 2 images; before, it returned (2, 10); that was on photo 'marked.png'."),
        ("Dictionary", "returned dict of 'boxes', 'labels' for 2 images"),
        ("Whole", "returned (2, 10) of torch.int64 for 2 images"),
        ("NaN", "is not a finite number for photo 'marked.png'"),
    ],
)
def test_one_sentence(
    model: str, sentence: str, command: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = photos / MARKED if command == "attack" else photos
    options = ("--model", f"support.odd_models:{model}", *MODEL_OPTIONS[2:], *COMMANDS[command])
    result = CliRunner().invoke(cli, [command, str(source), *options])
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert "photo 'marked.png'" in errors[0] or "photo 'a.png'" in errors[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_that_changes_its_input_changes_nothing_else(
    command: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--model", "support.odd_models:InPlace", *MODEL_OPTIONS[2:], *COMMANDS[command])
    result = CliRunner().invoke(cli, [command, str(photos / "a.png"), *options])
    assert result.exit_code == 0, result.output
