"""``underfire detect`` from the command line."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from PIL import Image
from rich.console import Console
from torch import Tensor

from support.nets import waves
from support.toy_photos import BROKEN, MODEL_OPTIONS, toy_classifier
from support.toys import images
from underfire import CAM, GRAD, EnsembleDetector, MaskingNetwork, NonFiniteError
from underfire.cli import cli
from underfire.cli.progress import PhotosDisplay
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.images import save_png

COUNT = 24
FIT = (*MODEL_OPTIONS, "--interpreters", "grad,cam", "--fpr", "0.2")
Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clean photos, a copy of one under another name, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos") / "clean"
    folder.mkdir()
    for index, picture in enumerate(images(COUNT, 32)):
        save_png(picture, folder / f"{index:02}.png")
    (folder / "copy.png").write_bytes((folder / "03.png").read_bytes())
    (folder / BROKEN).write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """The clean photos as they are read."""
    return (255 * images(COUNT, 32)).round() / 255


@pytest.fixture(scope="module")
def fitted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("fitted") / "d.safetensors"
    result = CliRunner().invoke(cli, ["detect", "fit", str(photos), *FIT, "--out", str(file)])
    assert result.exit_code == 0, result.output
    return file


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs ``underfire detect …`` in a directory of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *arguments: CliRunner().invoke(cli, ["detect", *map(str, arguments)])


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever measures a photo fails the test."""

    def refuse(*_: object) -> Tensor:
        raise AssertionError("a photo was measured")

    monkeypatch.setattr(EnsembleSignals, "measure", refuse)


def test_a_fit_is_that_of_python(invoke: Invoke, photos: Path, pixels: Tensor) -> None:
    result = invoke("fit", photos, *FIT, "--seed", "3", "--out", "d.safetensors")
    assert result.exit_code == 0, result.output
    assert f"Skipped '{BROKEN}'" in result.stderr
    assert "Skipped 'copy.png': it shows the same as '03.png'" in result.stderr
    assert [path.name for path in Path().iterdir()] == ["d.safetensors"]
    classifier = toy_classifier()
    detector = EnsembleDetector([GRAD(classifier), CAM(classifier)], fpr=0.2, seed=3).fit(pixels)
    detector.save("python.safetensors")
    assert Path("d.safetensors").read_bytes() == Path("python.safetensors").read_bytes()
    low, high = detector.fpr_interval_
    passes = detector.signals.passes_per_image
    assert result.stdout.splitlines() == [
        "24 photos: 12 say what is usual, 12 set the threshold. A photo is flagged if its score is below "
        f"{detector.threshold_:.4g}.",
        f"False-positive rate: at most 20 %, as named, on average over such photos; of this very threshold from "
        f"{100 * low:.2g} % to {100 * high:.2g} % (95 % interval).",
        f"Passes for a photo: {passes}",
        "Detector: d.safetensors",
    ]
    assert f"24 photos, grad, cam: about {passes} passes for each" in result.stderr
    assert "photo 16/24" in result.stderr
    assert "photo 24/24" in result.stderr


def test_strange_photos_are_flagged_with_reasons_and_pictures(invoke: Invoke, photos: Path, fitted: Path) -> None:
    strange = waves(1, amplitude=0.3, period=7.0)
    save_png(strange[0], Path("strange.png"))
    result = invoke("score", fitted, "strange.png", photos / "00.png", photos / BROKEN, *MODEL_OPTIONS, "--out", "out")
    assert result.exit_code == 0, result.output
    assert f"Skipped '{BROKEN}'" in result.stderr
    classifier = toy_classifier()
    detector = EnsembleDetector.load(fitted, classifier)
    x = torch.stack([strange[0], images(1, 32)[0]]).mul(255).round() / 255
    explained = detector.explain(x)
    assert [found.flagged for found in explained] == [True, False]
    header, *rows, end, where = result.stdout.splitlines()
    assert header.split() == ["photo", "class", "score", "flagged", "what", "speaks", "most", "against", "it"]
    lines: list[str] = []
    for name, prediction, found in zip(("strange.png", "00.png"), classifier(x).argmax(dim=1), explained, strict=True):
        told = [
            f"{reason.name} {reason.value:.3g}, clean photos {reason.usual:.3g} ± {reason.spread:.2g}"
            for reason in found.reasons[:3]
        ]
        flagged = "yes" if found.flagged else "no"
        lines += [f"{name} {classifier.class_names[int(prediction)]} {found.score:.4g} {flagged} {told[0]}", *told[1:]]
    assert [" ".join(row.split()) for row in rows] == lines
    assert end.startswith("1 of 2 photos flagged")
    assert "20 %" in end
    assert where == "Scores and pictures: out"
    assert sorted(path.name for path in Path("out").glob("[!.]*")) == ["scores.parquet", "strange.png"]

    table = pq.read_table("out/scores.parquet")
    assert "command" in json.loads(table.schema.metadata[b"underfire.detect"])
    for row, found in zip(table.to_pylist(), explained, strict=True):
        assert (row["score"], row["threshold"], row["flagged"]) == (found.score, found.threshold, found.flagged)
        assert row["picture"] == ("strange.png" if found.flagged else None)
        for reason in found.reasons:
            assert row[reason.name] == reason.value
            assert row[f"{reason.name}: contribution"] == reason.contribution

    sheet = np.asarray(Image.open("out/strange.png"))
    side = 160  # 32 pixels, five times as large
    assert sheet.shape == (16 + side, 3 * side + 2 * 4, 3)
    shown = (255 * x[0]).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(sheet[16::5, :side:5], shown)
    grad, cam = (sheet[16:, start : start + side] for start in (side + 4, 2 * side + 8))
    assert not np.array_equal(grad, cam)
    assert (sheet[:16].min(axis=(0, 2)) < 128).any()  # names


def test_a_score_does_not_depend_on_name_or_company(invoke: Invoke, photos: Path, fitted: Path) -> None:
    for out, names in (("one", ["copy.png"]), ("all", [""])):
        result = invoke("score", fitted, *(photos / name for name in names), *MODEL_OPTIONS, "--out", out)
        assert result.exit_code == 0, result.output
    assert pq.read_schema("one/scores.parquet").equals(pq.read_schema("all/scores.parquet"))  # flagged or not
    (alone,) = pq.read_table("one/scores.parquet").to_pylist()
    rows = {row["image_id"]: row["score"] for row in pq.read_table("all/scores.parquet").to_pylist()}
    assert len(rows) == COUNT + 1
    assert rows["03.png"] == rows["copy.png"] == alone["score"]


def test_scores_are_never_laid_among_those_of_another_call(invoke: Invoke, photos: Path, fitted: Path) -> None:
    Path("out").mkdir()
    Path("out/scores.parquet").write_bytes(b"as it was")
    result = invoke("score", fitted, photos / "00.png", *MODEL_OPTIONS, "--out", "out")
    assert result.exit_code == 2
    assert "--out 'out' holds the scores of another call; give another folder." in result.stderr
    assert [path.read_bytes() for path in Path("out").iterdir()] == [b"as it was"]


def test_the_limit_counts_photos_that_can_be_used(invoke: Invoke, photos: Path, fitted: Path) -> None:
    result = invoke("score", fitted, photos / BROKEN, photos, *MODEL_OPTIONS, "--limit", "2")
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[1:7:3]] == ["00.png", "01.png"]
    assert " of 2 photos flagged" in result.stdout
    assert list(Path().iterdir()) == []


@pytest.mark.usefixtures("unmeasured")
def test_too_few_photos_are_refused_before_any_is_measured(invoke: Invoke, photos: Path) -> None:
    result = invoke("fit", photos, *FIT[:-2], "--out", "d.safetensors")
    assert result.exit_code == 2
    assert "24 clean photos are too few for a false-positive rate of 0.05" in result.stderr
    assert "give at least 37, or a higher rate" in result.stderr
    assert list(Path().iterdir()) == []


def test_an_interrupted_fit_leaves_nothing(invoke: Invoke, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PhotosDisplay, "advanced", stop)
    result = invoke("fit", photos, *FIT, "--out", "d.safetensors")
    assert result.exit_code == 130
    assert "Interrupted. Nothing was written." in result.stderr
    assert list(Path().iterdir()) == []


def test_a_number_that_is_none_is_named_with_its_photo(
    invoke: Invoke, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        raise NonFiniteError("the grad map", 3)

    monkeypatch.setattr(EnsembleSignals, "measure", broken)
    result = invoke("fit", photos, *FIT, "--out", "d.safetensors")
    assert result.exit_code == 2
    assert "the grad map is not a finite number for photo '03.png'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--out", "d.pt"), "'d.pt' is not named .safetensors"),
        (("--out", "nowhere/d.safetensors"), "create 'nowhere' first"),
        (("--out", "d.safetensors", "--fpr", "5"), "a false-positive rate of 5.0 is not in (0, 1)"),
        (("--out", "d.safetensors", "--fpr", "nan"), "'nan' is not a number"),
        (("--out", "d.safetensors", "--interpreters", "gard"), "did you mean 'grad'?"),
        (("--out", "d.safetensors", "--interpreters", "rts"), "`underfire train rts`"),
        (("--out", "d.safetensors", "--limit", "0"), "--limit"),
        ((), "--out"),
    ],
    ids=lambda value: "-".join(value).strip("-") if isinstance(value, tuple) else "",
)
@pytest.mark.usefixtures("unmeasured")
def test_bad_input_ends_with_code_2(invoke: Invoke, photos: Path, arguments: tuple[str, ...], sentence: str) -> None:
    result = invoke("fit", photos, *MODEL_OPTIONS, *arguments)
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr


@pytest.mark.usefixtures("unmeasured")
def test_a_detector_of_another_model_and_files_that_are_none_are_refused(
    invoke: Invoke, photos: Path, fitted: Path
) -> None:
    other = (
        "--model",
        "support.toys:relu_net",
        "--input-size",
        "32",
        "--mean",
        "0.4,0.4,0.4",
        "--std",
        "0.25,0.25,0.25",
    )
    mine, its = toy_classifier().fingerprint()[:12], "'support.toys:relu_net' ("
    cases = [
        ((fitted, photos, *other), (f"({mine})", its, "fit the detector again")),
        (("gone.safetensors", photos, *MODEL_OPTIONS), ("'gone.safetensors' is no file",)),
        ((photos / "00.png", photos, *MODEL_OPTIONS), ("is damaged or no detector's file",)),
        ((fitted, photos / BROKEN, *MODEL_OPTIONS), ("none of the files given is a photo that can be used",)),
        ((fitted, photos, *MODEL_OPTIONS, "--rts", "w.safetensors"), ("given for rts, and it is not among grad, cam",)),
    ]
    for arguments, sentences in cases:
        result = invoke("score", *arguments)
        assert result.exit_code == 2, result.output
        for sentence in sentences:
            assert sentence in result.stderr
    assert list(Path().iterdir()) == []


def test_weights_of_rts_are_named_again(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    classifier, weights = toy_classifier(), tmp_path / "rts.safetensors"
    MaskingNetwork.untrained(classifier).save(weights, classifier)
    options = (*MODEL_OPTIONS, "--interpreters", "rts", "--fpr", "0.5", "--limit", "10")
    result = invoke("fit", photos, *options, "--rts", weights, "--out", "d.safetensors")
    assert result.exit_code == 0, result.output
    scored = invoke("score", "d.safetensors", photos, *MODEL_OPTIONS, "--limit", "1", "--rts", weights)
    assert scored.exit_code == 0, scored.output
    without = invoke("score", "d.safetensors", photos, *MODEL_OPTIONS, "--limit", "1")
    assert without.exit_code == 2
    assert "`underfire train rts`" in without.stderr


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_tells_the_time_that_is_left(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("underfire.cli.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    with PhotosDisplay(Console(file=stream, force_terminal=terminal, width=100), 40) as display:
        for second in (10.0, 20.0, 45.0, 50.0):
            now[0] = second
            display.advanced(10)
    if terminal:
        assert "photo 40/40" in stream.getvalue()
    else:
        assert stream.getvalue().splitlines() == [
            "photo 10/40, 0:10 elapsed, about 0:30 left",
            "photo 30/40, 0:45 elapsed, about 0:15 left",
            "photo 40/40, 0:50 elapsed, about 0:00 left",
        ]


def test_a_detector_names_no_code(invoke: Invoke, fitted: Path, photos: Path) -> None:
    Path("evil.py").write_text("open('ran', 'w').close()\n", encoding="utf-8")
    with safetensors.safe_open(fitted, "pt") as file:
        about = json.loads(file.metadata()["underfire"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    for name in ("evil:Go", "./evil.py:Go", "all", "\x1b]0;a\x07"):
        about["settings"]["interpreters"] = {name: {}}
        Path("d.safetensors").write_bytes(safetensors.torch.save(tensors, metadata={"underfire": json.dumps(about)}))
        result = invoke("score", "d.safetensors", photos, *MODEL_OPTIONS)
        assert result.exit_code == 2, result.output
        assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    assert not Path("ran").exists()
