"""``underfire train`` from the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from support.planted import planted_classifier, write_planted
from underfire.cli import cli
from underfire.interpreters.masking.network import MaskingNetwork
from underfire.models import load_classifier

MODEL = ("--model", "support.planted:planted_net", "--input-size", "32")
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


@pytest.fixture
def aid(invoke: Invoke, photos: Path) -> Invoke:
    """Runs ``underfire train aid …`` beside ``start.safetensors``, weights of the same model."""
    assert invoke(photos, *MODEL, *QUICK, "--out", "start.safetensors").exit_code == 0
    return lambda *arguments: CliRunner().invoke(cli, ["train", "aid", *map(str, arguments)])


def test_a_training_ends_in_weights_and_a_score(invoke: Invoke, photos: Path) -> None:
    result = invoke(photos, *MODEL, *QUICK, "--out", "w.safetensors")
    assert result.exit_code == 0, result.output
    assert "Weights: w.safetensors" in result.stdout
    assert result.stdout.split()[:2] == ["loss", "clean"]
    assert "Skipped 'broken.png'" in result.stderr
    assert "5 photos to train on, 3 held out" in result.stderr
    assert "epoch 1/1" in result.stderr
    classifier = load_classifier("support.planted:planted_net", input_size=32)
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
        (("--out", "w.pt"), "'w.pt' is not named .safetensors"),
        (("--out", "nowhere/w.safetensors"), "create 'nowhere' first"),
        (("--out", "w.safetensors", "--held-out", "0"), "'0' is not a whole number"),
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
        photos, "--model", "support.planted:flat_net", "--input-size", "32", *QUICK, "--out", "w.safetensors"
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


class TestAid:
    START = ("--rts", "start.safetensors", "--attack-passes", "7")

    def test_it_ends_in_weights_that_anything_takes(self, aid: Invoke, photos: Path) -> None:
        result = aid(photos, *MODEL, *QUICK, *self.START, "--margin", "0.2", "--out", "w.safetensors")
        assert result.exit_code == 0, result.output
        assert "Weights: w.safetensors" in result.stdout
        heading = result.stdout.splitlines()[0]
        assert all(name in heading for name in ("kept", "stayed", "reached", "showed"))
        assert "showed" in result.stderr
        about = MaskingNetwork.load("w.safetensors", planted_classifier()).about
        assert about["settings"]["method"] == "adversarial interpretation training"
        plan = about["settings"]["plan"]
        assert (plan["epochs"], plan["batch_size"], plan["attack_passes"], plan["margin"]) == (1, 4, 7, 0.2)
        map_of = ("explain", str(photos / "00.png"), *MODEL, "--interpreters", "rts", "--rts", "w.safetensors")
        shown = CliRunner().invoke(cli, [*map_of, "--out", "maps"])
        assert shown.exit_code == 0, shown.output

    def test_run_again_it_has_nothing_to_do(self, aid: Invoke, photos: Path) -> None:
        first, again = (aid(photos, *MODEL, *QUICK, *self.START, "--out", "w.safetensors") for _ in range(2))
        assert again.exit_code == 0, again.output
        assert again.stdout == first.stdout
        assert "epoch" not in again.stderr

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("--rts", "gone.safetensors"), "'gone.safetensors' is no file; give weights that"),
            (("--rts", "junk.safetensors"), "'junk.safetensors' is damaged or no safetensors file"),
            (("--rts", "other.safetensors"), "'other.safetensors' holds weights for classifier 'planted'"),
            ((), "RTS needs a masking network trained for 'support.planted:planted_net', and none comes with"),
            (("--rts", "start.safetensors", "--attack-passes", "1"), "one step of an attack on rts takes 4"),
            (("--rts", "start.safetensors", "--margin", "1.5"), "margin is 1.5"),
            (("--rts", "start.safetensors", "--out", "start.safetensors"), "was trained with other settings"),
        ],
        ids=["gone", "junk", "other", "none", "passes", "margin", "over"],
    )
    def test_bad_input_ends_with_code_2(
        self, aid: Invoke, photos: Path, arguments: tuple[str, ...], sentence: str
    ) -> None:
        other = planted_classifier()
        next(other.module.parameters()).data.mul_(1.1)
        MaskingNetwork.untrained(other).save("other.safetensors", other)
        Path("junk.safetensors").write_bytes(b"junk")
        out = () if "--out" in arguments else ("--out", "w.safetensors")
        result = aid(photos, *MODEL, *QUICK, *arguments, *out)
        assert result.exit_code == 2, result.output
        assert sentence in result.stderr
        assert not Path("w.safetensors").exists()
