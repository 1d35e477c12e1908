"""``underfire train rts`` from the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from training.planted import planted_classifier, write_planted
from underfire.cli import cli
from underfire.interpreters.masking.network import MaskingNetwork
from underfire.zoo import load_classifier

MODEL = ("--model", "training.planted:planted_net", "--input-size", "32")
QUICK = ("--epochs", "1", "--batch-size", "4", "--held-out", "3")
Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_planted(tmp_path_factory.mktemp("planted") / "photos", 8)
    (folder / "broken.png").write_bytes(b"not an image")
    return folder


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs ``underfire train rts …`` in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli, ["train", "rts", *map(str, arguments)])


def test_a_training_ends_in_weights_and_a_score(invoke: Invoke, photos: Path) -> None:
    result = invoke(photos, *MODEL, *QUICK, "--out", "w.safetensors")
    assert result.exit_code == 0, result.output
    assert "Weights: w.safetensors" in result.stdout
    assert result.stdout.split()[:2] == ["loss", "clean"]
    assert "Skipped 'broken.png'" in result.stderr
    assert "5 photos to train on, 3 held out" in result.stderr
    assert "epoch 1/1" in result.stderr
    classifier = load_classifier("training.planted:planted_net", input_size=32)
    about = MaskingNetwork.load("w.safetensors", classifier).about
    assert (about["settings"]["photos"], about["settings"]["held_out"]) == (5, 3)
    assert about["settings"]["plan"]["epochs"] == 1
    assert about["seconds"] > 0
    assert about["classifier"]["fingerprint"] == planted_classifier().fingerprint()


def test_run_again_it_has_nothing_to_do(invoke: Invoke, photos: Path) -> None:
    first = invoke(photos, *MODEL, *QUICK, "--out", "w.safetensors")
    again = invoke(photos, *MODEL, *QUICK, "--out", "w.safetensors")
    assert again.exit_code == 0, again.output
    assert again.stdout == first.stdout
    assert "epoch" not in again.stderr


def test_held_out_photos_may_be_named(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("00.png\n\n05.png\n", encoding="utf-8")
    result = invoke(photos, *MODEL, *QUICK[:4], "--held-out", "names.txt", "--out", "w.safetensors")
    assert result.exit_code == 0, result.output
    assert "6 photos to train on, 2 held out" in result.stderr


def test_other_settings_than_those_of_the_file_are_refused(invoke: Invoke, photos: Path) -> None:
    assert invoke(photos, *MODEL, *QUICK, "--out", "w.safetensors").exit_code == 0
    result = invoke(photos, *MODEL, *QUICK, "--seed", "1", "--out", "w.safetensors")
    assert result.exit_code == 2
    assert "'w.safetensors' was trained with other settings" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--out", "w.pt"), "--out 'w.pt' is not named .safetensors"),
        (("--out", "nowhere/w.safetensors"), "create 'nowhere' first"),
        (("--out", "w.safetensors", "--held-out", "0"), "hold at least 1 photo out"),
        (("--out", "w.safetensors", "--held-out", "100"), "0 photos are left for training and 8 are held out"),
        (("--out", "w.safetensors", "--held-out", "gone.txt"), "'gone.txt' is neither a number nor a file"),
        (("--out", "w.safetensors", "--epochs", "0"), "--epochs"),
        (("--out", "w.safetensors", "--device", "moon"), "device 'moon' cannot be used here"),
        ((), "--out"),
    ],
    ids=lambda value: "-".join(value).strip("-") if isinstance(value, tuple) else "",
)
def test_bad_input_ends_with_code_2(invoke: Invoke, photos: Path, arguments: tuple[str, ...], sentence: str) -> None:
    result = invoke(photos, *MODEL, *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_a_name_that_is_no_photo_is_refused(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("00.png\nstranger.png\n", encoding="utf-8")
    result = invoke(photos, *MODEL, "--held-out", "names.txt", "--out", "w.safetensors")
    assert result.exit_code == 2
    assert "names 'stranger.png', which is not among the photos" in result.stderr


def test_a_model_without_a_linear_head_is_refused(invoke: Invoke, photos: Path) -> None:
    result = invoke(
        photos, "--model", "training.planted:flat_net", "--input-size", "32", *QUICK, "--out", "w.safetensors"
    )
    assert result.exit_code == 2
    assert "RTS needs global average pooling and one linear layer" in result.stderr


def test_an_interrupted_training_goes_on(invoke: Invoke, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (photos, *MODEL, "--epochs", "2", "--batch-size", "4", "--held-out", "3", "--out", "w.safetensors")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("underfire.cli.training.TrainingDisplay.scored", stop)
        assert invoke(*arguments).exit_code == 130
    assert Path("w.checkpoint.safetensors").is_file()
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert "Going on after epoch 1 of 2" in result.stderr
    assert not Path("w.checkpoint.safetensors").exists()
