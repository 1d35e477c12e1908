"""Models that take their photos, or give their answers, in other ways than most."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from support.toys import images
from underfire import load_run
from underfire.auditing.condition import NONE, PGD
from underfire.auditing.plan import ModelSettings
from underfire.cli import cli
from underfire.images import load_photo, read_png, save_png


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


GREY = ["--input-size", "28", "--mean", "0.1307", "--std", "0.3081"]
QUICK = ["--steps", "4", "--eps", "51/255"]


def test_a_grey_model_of_two_classes_is_audited(photos: str) -> None:
    """From photos in colour to pictures, report and figures."""
    options = ["--model", "support.answers:grey", *GREY, "--interpreters", "grad,cam,ig", *QUICK]
    result = underfire("audit", photos, *options, "--out", "run")
    assert result.exit_code == 0, result.output
    run = load_run("run", model=ModelSettings("support.answers:grey"))
    assert run.picture_shape == (1, 28, 28)
    pictures = sorted(Path("run").rglob("*.png"))
    modes = set()
    for path in pictures:
        with Image.open(path) as picture:
            modes.add((picture.mode, picture.size))
    assert modes == {("L", (28, 28))}
    assert len(pictures) == 2 * len(run.facts.attacked_under)
    assert {photo.target for photo in run.photos} <= {0, 1}
    assert all(photo.target == 1 - photo.label for photo in run.photos)
    assert run.page.stat().st_size > 10_000
    classifier = run.classifier()
    (first, _) = run.photos
    benign = read_png(run.picture(first, NONE))[None]
    assert torch.equal(benign, load_photo(first.file, classifier.preprocessing).pixels[None] / 255)
    again = next(row for row in run.records if row.photo.image_id == first.image_id)
    assert again.answer.clean_confidence == pytest.approx(float(classifier.probabilities(benign)[0, first.label]))
    for command in (["explain", f"{photos}/a.png"], ["attack", f"{photos}/a.png", "--target-class", str(first.target)]):
        made = underfire(*command, "--model", "support.answers:grey", *GREY, "--out", command[0])
        assert made.exit_code == 0, made.output


def test_a_picture_of_a_grey_run_in_colour_is_refused(photos: str) -> None:
    options = ["--model", "support.answers:grey", *GREY, "--interpreters", "grad", "--attacks", "pgd", *QUICK]
    assert underfire("audit", photos, *options, "--out", "run").exit_code == 0
    save_png(images(1, 28)[0], next(Path("run").rglob("benign.png")))
    result = underfire("report", "run")
    assert result.exit_code == 2
    assert "colour type 2 where 8 and 0 are expected" in result.stderr


def test_photos_are_refused_by_a_model_of_four_channels(photos: str) -> None:
    for command in ("audit", "explain"):
        result = underfire(command, photos, "--model", "support.answers:four", "--input-size", "28", "--out", "run")
        assert result.exit_code == 2
        assert "this one takes 4: give it tensors" in result.stderr
    assert not Path("run").exists()


def test_one_logit_is_audited_as_two_classes(photos: str) -> None:
    options = ["--model", "support.answers:one_logit", "--input-size", "28", "--interpreters", "grad,cam", *QUICK]
    result = underfire("audit", photos, *options, "--out", "run")
    assert result.exit_code == 0, result.output
    run = load_run("run")
    assert (run.facts.model.num_classes, {row.interpreter for row in run.records}) == (2, {"grad", "cam"})
    assert run.summary.attack(PGD) is not None


def test_labels_of_their_own_are_audited(photos: str) -> None:
    """Label and target are seen or not, each by itself."""
    options = ["--model", "support.answers:labels", "--input-size", "28", "--outputs", "sigmoid"]
    options += ["--interpreters", "grad,cam", "--steps", "20", "--eps", "77/255"]
    result = underfire("audit", photos, *options, "--out", "run")
    assert result.exit_code == 0, result.output
    run = load_run("run", model=ModelSettings("support.answers:labels"))
    classifier = run.classifier()
    assert (classifier.outputs, facts("run")["plan"]["model"]["outputs"]) == ("sigmoid", "sigmoid")
    attacked = {row.photo.image_id for row in run.records if row.condition == PGD}
    for photo in run.photos:
        p = classifier.probabilities(read_png(run.picture(photo, NONE))[None])[0]
        assert photo.label == int(p.argmax())
        assert (photo.excluded is None) == bool(p[photo.label] > 0.5 >= p[photo.target])
        assert (photo.image_id in attacked) == (photo.excluded is None)
    assert attacked
    successes = []
    for row in run.records:
        if row.condition == PGD:
            photo = next(photo for photo in run.photos if photo.image_id == row.photo.image_id)
            p = classifier.probabilities(read_png(run.picture(photo, PGD))[None])[0, photo.target]
            assert row.saved.confidence == pytest.approx(float(p), abs=1e-5)
            assert row.saved.success == bool(p > 0.5)
            successes.append(row.saved.success)
    assert any(successes)
    for command in (["explain", photos], ["attack", f"{photos}/a.png", "--target-class", str(run.photos[0].target)]):
        made = underfire(*command, *options[:6], "--out", command[0])
        assert made.exit_code == 0, made.output


@pytest.mark.parametrize(
    "command",
    [
        ["study", "bound", "photos"],
        ["detect", "fit", "photos", "--out", "d.safetensors"],
        ["train", "rts", "photos", "--held-out", "2", "--out", "r.safetensors"],
    ],
)
def test_what_is_not_defined_for_labels_of_their_own_is_refused(photos: str, command: list[str]) -> None:
    for name, picture in enumerate(images(4, 48, seed=2)):
        save_png(picture, Path(photos) / f"{name}.png")
    options = ["--model", "support.answers:labels", "--input-size", "28", "--outputs", "sigmoid"]
    result = underfire(*command, *options)
    assert result.exit_code == 2, result.output
    assert "defined for classes that exclude each other" in result.stderr
