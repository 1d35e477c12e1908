"""`underfire study`: a run or photos in, a study and a chapter of the report out; one sentence for bad input."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from support.toy_photos import BROKEN, MODEL_OPTIONS, SPEC, write_photos
from support.toys import images
from underfire.cli import cli
from underfire.images import save_png
from underfire.studies.study import read

FAST = ("--interpreters", "grad,cam", "--steps", "4", "--batch-size", "2")
OTHER = f"{SPEC} input-size=48 mean=0.5,0.5,0.5 std=0.25,0.25,0.25"
Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audited") / "run"
    result = CliRunner().invoke(cli, ["audit", str(photos), *MODEL_OPTIONS, *FAST, "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    for index, picture in enumerate(images(10, 32, seed=9)):
        save_png(picture, folder / f"{index}.png")
    return folder


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs ``underfire study …`` in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli, ["study", *map(str, arguments)])


def test_a_run_gets_a_chapter(invoke: Invoke, run: Path) -> None:
    page = run / "report.html"
    assert "The paper’s discussion" not in page.read_text(encoding="utf-8")
    result = invoke("transfer", run, "--onto", OTHER)
    assert result.exit_code == 0, result.output
    assert "Observation 7 is not decided at this n." in result.stdout
    assert f"Report: {page}" in result.stdout
    assert "photo 4 of 4" in result.stderr
    (found,) = read(run / "studies")
    text = page.read_text(encoding="utf-8")
    assert "The paper’s discussion, tested" in text
    assert found.study.title in text
    again = invoke("transfer", run, "--onto", OTHER)
    assert "photo 4 of 4" not in again.stderr
    assert read(run / "studies")[0].study.table.equals(found.study.table)


def test_elsewhere_the_report_is_left_alone(invoke: Invoke, run: Path, tmp_path: Path) -> None:
    before = (run / "report.html").read_bytes()
    result = invoke("transfer", run, "--out", tmp_path / "elsewhere")
    assert result.exit_code == 0, result.output
    assert "Report:" not in result.stdout
    assert (run / "report.html").read_bytes() == before
    assert len(read(tmp_path / "elsewhere")) == 1


def test_photos_are_audited_first_and_only_once(invoke: Invoke, photos: Path) -> None:
    command = ("transfer", photos, *MODEL_OPTIONS, *FAST, "--limit", "2", "--out", "here")
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    (found,) = read(Path("here"))
    parts = {path: path.stat().st_mtime_ns for path in Path("here/run/rows").iterdir()}
    assert parts
    again = invoke(*command)
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in Path("here/run/rows").iterdir()} == parts
    assert read(Path("here"))[0].study.table.equals(found.study.table)


def test_another_classifier_is_refused_before_an_audit(invoke: Invoke, photos: Path) -> None:
    Path("names.txt").write_text("".join(f"thing {index}\n" for index in range(10)), encoding="utf-8")
    result = invoke("transfer", photos, *MODEL_OPTIONS, *FAST, "--onto", f"{OTHER} class-names=names.txt")
    assert result.exit_code == 2
    assert "classes that are not the 10 of the audited model" in result.stderr
    assert not Path("underfire-study").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{run}", "--eps", "4/255"), "settings of its own; leave --eps out"),
        (("{run}", "--interpreters", "ig"), "with interpreters of its own; 'ig' is none of them"),
        (("{run}", "--limit", "2"), "leave --limit out"),
        (("{run}", "{photos}"), "give it alone"),
        (("{run}", "--onto", "efficientnet-lite9"), "efficientnet-lite9"),
        (("{run}", "--onto", f"{SPEC} weights=x"), "'weights=x' in"),
        (("{run}", "--onto", f"{SPEC} input-size=big"), "'big' is not a size"),
        (("{run}", "--onto", f"{SPEC} 'checkpoint=x"), "names no model"),
        (("{run}", "--onto", f"{SPEC} {OTHER.partition(' ')[2].replace('48', '32')}"), "is the audited one"),
        (("nowhere",), "nowhere"),
    ],
)
def test_bad_input_is_one_sentence(
    invoke: Invoke, run: Path, photos: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = sorted(run.rglob("*"))
    result = invoke("transfer", *(text.format(run=run, photos=photos) for text in arguments))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    said = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        ("transfer", ("--attacks", "pgd"), "attacks 'pgd' have no attack on an interpreter"),
        ("transfer", ("--attacks", "adv2"), "attacks 'adv2' have no pgd among them to compare with"),
        ("bound", ("--attacks", "pgd"), "attacks 'pgd' have no attack on an interpreter"),
        ("frontier", ("--attacks", "pgd,adv2"), "--attacks cannot be given: this study runs PGD and ADV²"),
        ("gap", ("--attacks", "stadv"), "--attacks cannot be given: this study runs PGD and ADV²"),
        ("frontier", ("--eps", "4/255"), "--eps cannot be given: this study grows along eps"),
        ("frontier", ("--along", "passes", "--passes", "9"), "--passes cannot be given: this study grows along passes"),
        ("frontier", ("--along", "passes", "--steps", "9"), "--steps cannot be given: this study grows along passes"),
    ],
)
def test_what_cannot_count_or_serve_is_refused_before_anything_is_done(
    invoke: Invoke, photos: Path, study: str, options: tuple[str, ...], message: str
) -> None:
    result = invoke(study, photos, *MODEL_OPTIONS, *options)
    assert result.exit_code == 2, result.output
    (said,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in said
    assert not Path("underfire-study").exists()


def test_bound_needs_no_pgd(invoke: Invoke, photos: Path) -> None:
    result = invoke("bound", photos, *MODEL_OPTIONS, *FAST, "--attacks", "adv2", "--limit", "1")
    assert result.exit_code == 0, result.output


def test_files_that_cannot_be_used_are_told(invoke: Invoke, photos: Path, run: Path) -> None:
    quick = (*MODEL_OPTIONS, *FAST, "--limit", "2")
    audited = invoke("transfer", photos, *quick)
    assert "1 file skipped; run.json and the report say why." in audited.stdout
    anew = invoke("gap", photos, *quick, "--aims", "random-patch")
    assert anew.stderr.count(f"Skipped '{BROKEN}': ") == 1
    assert "1 file could not be used." in anew.stdout
    grid = ("--along", "weight", "--grid", "0.5,0.9")
    of_run = invoke("frontier", run, *MODEL_OPTIONS, "--limit", "1", *grid, "--out", "elsewhere")
    assert "1 file could not be used." in of_run.stdout


@pytest.mark.parametrize("study", ["bound", "frontier", "gap"])
def test_every_study_of_a_run_joins_its_report(invoke: Invoke, run: Path, study: str) -> None:
    options = {"frontier": ("--grid", "2/255,4/255"), "gap": ("--aims", "random-patch"), "bound": ()}[study]
    unnamed = invoke(study, run, "--limit", "2", *options)
    assert (unnamed.exit_code, f"name them yourself: --model '{SPEC}'" in unnamed.stderr) == (2, True)
    result = invoke(study, run, "--model", SPEC, "--limit", "2", *options)
    assert result.exit_code == 0, result.output
    assert (run / "studies" / f"{study}.parquet").is_file()
    assert f'id="study-{study}"' in (run / "report.html").read_text(encoding="utf-8")


def test_an_unfinished_run_is_refused(invoke: Invoke, run: Path, tmp_path: Path) -> None:
    half = shutil.copytree(run, tmp_path / "half")
    (half / "rows" / "part-00001.parquet").unlink()
    for study in ("transfer", "bound", "frontier", "gap", "defense"):
        result = invoke(study, half, *(("--clean", run) if study == "defense" else ()))
        assert result.exit_code == 2
        assert "is unfinished" in result.stderr


def test_defence_joins_the_report_of_its_run(invoke: Invoke, run: Path, clean: Path) -> None:
    options = ("--clean", clean, "--fpr", "0.2", "--set", "grad,cam", "--set", "cam", "--passes", "40", "--limit", "2")
    result = invoke("defense", run, *MODEL_OPTIONS, *options)
    assert result.exit_code == 0, result.output
    assert "Against an adaptive attacker" in result.stdout
    assert "adaptive attack 2 of 4 (cam), 8/255, 40 passes: photo 2 of 2" in result.stderr
    assert "oblivious attack on all maps, 8/255, 40 passes: photo 2 of 2" in result.stderr
    assert 'id="study-defense"' in (run / "report.html").read_text(encoding="utf-8")
    (found,) = [saved for saved in read(run / "studies") if saved.study.name == "defense"]
    assert found.study.table["detector"].to_pylist()[:2] == ["cam", "grad+cam"]
    again = invoke("defence", run, *MODEL_OPTIONS, *options)  # by its old name
    assert again.exit_code == 0, again.output
    assert "photo 2 of 2" not in again.stderr
    grids = ("--eps-grid", "4/255", "--passes-grid", "50", "--score-search", "60")
    grown = invoke("defense", run, *MODEL_OPTIONS, *options, *grids)
    assert grown.exit_code == 0, grown.output
    (found,) = [saved for saved in read(run / "studies") if saved.study.name == "defense"]
    assert "search" in found.study.table["kind"].to_pylist()
    spent = {line["under"] for line in found.study.table.to_pylist() if line["kind"] == "resources"}
    assert spent == {f"adaptive, {text}" for text in ("4/255, 40 passes", "8/255, 40 passes", "8/255, 50 passes")}


def test_defence_of_photos_audits_them_first(invoke: Invoke, photos: Path, clean: Path) -> None:
    quick = (*MODEL_OPTIONS, "--interpreters", "cam", "--passes", "40", "--limit", "2", "--out", "here")
    result = invoke("defense", photos, *quick, "--clean", clean, "--fpr", "0.2")
    assert result.exit_code == 0, result.output
    assert Path("here/run/run.json").is_file()
    (found,) = read(Path("here"))
    assert found.study.table["n"].to_pylist()[0] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Missing option '--clean'"),
        (("--clean", "{clean}"), "10 clean photos can be used, too few for a false-positive rate of 0.05"),
        (("--clean", "{clean}", "--fpr", "2"), "2.0 is not in (0, 1)"),
        (("--clean", "nowhere", "--fpr", "0.2"), "nowhere"),
        (("--clean", "{clean}", "--fpr", "0.2", "--set", "kam"), "'kam' is unknown; did you mean 'cam'?"),
        (("--clean", "{clean}", "--fpr", "0.2", "--set", "cam,cam"), "names 'cam' twice"),
        (("--clean", "{clean}", "--fpr", "0.2", "--set", "rts"), "rts"),
        (("--clean", "{clean}", "--fpr", "0.2", "--budget", "2"), "a budget of 2 passes is below"),
        (("--clean", "{clean}", "--fpr", "0.2", "--passes-grid", "50,x"), "'50,x' is no list of numbers of passes"),
        (
            ("--clean", "{clean}", "--fpr", "0.2", "--passes-grid", "3"),
            "passes is 3; one step of an attack on a detector",
        ),
        (("--clean", "{clean}", "--fpr", "0.2", "--score-search", "5"), "passes is 5; a search takes two queries"),
        (("--clean", "{clean}", "--fpr", "0.2", "--eps-grid", "4/255,x"), "'x'"),
        (("--clean", "{clean}", "--fpr", "0.2", "--eps-grid", "4/255,400/255"), "eps 1.56863 is not in (0, 1]"),
        (("--clean", "{clean}", "--fpr", "0.2", "--extra-attacks", "l2"), "'l2' is not NAME=DIR"),
        (
            ("--clean", "{clean}", "--fpr", "0.2", "--extra-attacks", "l2=nowhere"),
            "--extra-attacks 'nowhere' is no folder",
        ),
        (
            ("--clean", "{clean}", "--fpr", "0.2", "--extra-attacks", "a={run}", "--also", "a={run}"),
            "--extra-attacks 'a' is given twice",
        ),
    ],
)
@pytest.mark.parametrize("source", ["run", "photos"])
def test_a_defence_that_cannot_be_is_refused_before_anything_is_done(
    invoke: Invoke, run: Path, photos: Path, clean: Path, source: str, options: tuple[str, ...], message: str
) -> None:
    before = sorted(run.rglob("*"))
    named = (run, *MODEL_OPTIONS) if source == "run" else (photos, *MODEL_OPTIONS, *FAST)
    result = invoke("defense", *named, *(text.format(run=run, clean=clean) for text in options))
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    (said,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in said
    assert sorted(run.rglob("*")) == before
    assert not Path("underfire-study").exists()
