import json
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import underfire.cli
from support.toy_photos import BROKEN, MISCLASSIFIED, MODEL_OPTIONS, rows_of, toy_classifier, write_photos
from underfire.auditing.rows import read_rows
from underfire.cli import cli, main
from underfire.cli.pictures import file_stems
from underfire.cli.progress import clock
from underfire.interpreters import MaskingNetwork

FAST = ("--interpreters", "grad,cam", "--steps", "16", "--batch-size", "2")
Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs ``underfire …`` in a directory of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *arguments: CliRunner().invoke(cli, list(map(str, arguments)))


def here() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


def test_an_audit_ends_in_a_summary_and_a_report(invoke: Invoke, photos: Path) -> None:
    result = invoke("audit", photos, *MODEL_OPTIONS, *FAST, "--out", "run")
    assert result.exit_code == 0, result.output
    assert "1 file skipped" in result.stdout
    assert "4 of 5 photos could be attacked; the others were misclassified (1)." in result.stdout
    for name in ("grad", "cam"):
        assert any(line.startswith(f"{name}  ") for line in result.stdout.splitlines())
    assert "Report: run/report.html" in result.stdout
    assert "part 3/3" in result.stderr
    assert "Warning" not in result.stderr
    assert "left" in result.stderr
    assert Path("run/report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    summary = json.loads(Path("run/summary.json").read_text(encoding="utf-8"))
    assert summary["photos"]["attacked"] == 4
    config = json.loads(Path("run/run.json").read_text(encoding="utf-8"))["config"]
    assert (config["eps"], config["targets"], config["limit"]) == (8 / 255, "random", None)


def test_what_makes_an_audit_worthless_is_printed(invoke: Invoke, photos: Path) -> None:
    model = ("--model", "support.toys:quantised_net", *MODEL_OPTIONS[2:])
    result = invoke(
        "audit", photos, *model, "--interpreters", "cam", "--attacks", "pgd", "--steps", "3", "--out", "run"
    )
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == 2
    assert "the loss had no gradient in any pixel of the benign photo" in warnings[0]
    assert "under PGD, the gradient was zero in every pixel" in warnings[1]
    summary = json.loads(Path("run/summary.json").read_text(encoding="utf-8"))
    (stuck,) = (sign for sign in summary["signs"] if sign["indicator"] == "zero_gradients")
    assert stuck["k"] == stuck["n"] > 0
    assert "something stands in the attacks’ way" in Path("run/report.html").read_text(encoding="utf-8")


def test_the_same_command_again_does_nothing_twice(invoke: Invoke, photos: Path) -> None:
    command = ("audit", photos, *MODEL_OPTIONS, *FAST, "--attacks", "pgd", "--out", "run")
    assert invoke(*command).exit_code == 0
    rows = read_rows(Path("run"))
    again = invoke(*command)
    assert again.exit_code == 0
    assert "3 of 3 parts are there already" in again.stderr
    assert read_rows(Path("run")) == rows


def test_shards_leave_the_gates_to_the_last_one(invoke: Invoke, photos: Path) -> None:
    command = ("audit", photos, *MODEL_OPTIONS, *FAST, "--out", "run", "--fail-if", "asr>0.01")
    first = invoke(*command, "--shard", "1/2")
    assert first.exit_code == 0
    assert "2 of 3 parts are there" in first.stdout
    assert "gates were not checked" in first.stderr
    second = invoke(*command, "--shard", "2/2")
    assert second.exit_code == 1
    assert "Gate failed: asr>0.01" in second.stderr


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one audit is made, whose gates differ."""
    return tmp_path_factory.mktemp("gated") / "run"


@pytest.mark.parametrize(("gates", "code"), [((), 0), (("asr>1",), 0), (("asr>1", "l1<1"), 1), (("asr>=0.1",), 1)])
def test_gates_decide_between_0_and_1(
    gates: tuple[str, ...], code: int, invoke: Invoke, photos: Path, gated: Path
) -> None:
    options = [part for gate in gates for part in ("--fail-if", gate)]
    result = invoke("audit", photos, *MODEL_OPTIONS, "--interpreters", "cam", "--steps", 16, "--out", gated, *options)
    assert result.exit_code == code, result.output
    assert result.stderr.count("Gate failed") == code


BAD_USAGE: list[tuple[tuple[str, ...], str]] = [
    (("--eps", "8"), "for 8-bit units write 8/255"),
    (("--perturbation", "l1"), "'l1'"),
    (("--perturbation", "flow", "--eps", "0"), "eps 0 is no displacement"),
    (("--perturbation", "l2", "--preset", "authors"), "'authors' is for the perturbation 'linf'"),
    (("--eps", "0"), "eps 0 is not in (0, 1]"),
    (("--eps", "-1/255"), "eps -0.00392"),
    (("--eps", "1/0"), "'1/0'"),
    (("--eps", "eight"), "'eight'"),
    (("--steps", "0"), "'0' is not a whole number from 1"),
    (("--steps", "many"), "'many'"),
    (("--passes", "1e99999999"), "'1e99999999' is not a whole number"),
    (("--passes", "9", "--steps", "7"), "steps 7 and passes 9 are both given; give one of them"),
    (("--limit", "0"), "'0'"),
    (("--batch-size", "-2"), "'-2'"),
    (("--batch-size", "9" * 100_000), "…' is not a whole number"),
    (("--seed", "x"), "'x'"),
    (("--seed", str(2**63)), "'9223372036854775808' is no seed"),
    (("--eps", "0.0039"), "0.9945 of a grey level"),
    (("--eps", "1e99999999"), "'1e99999999' is not a number"),
    (("--eps", "1e-99999999/255"), "'1e-99999999/255' is not a number"),
    (("--min-photos", "0"), "'0'"),
    (("--fail-if", "iou>1e99999999"), "'iou>1e99999999' is not a gate"),
    (("--interpreters", "cam,gard"), "'gard' is unknown; did you mean 'grad'? There are: grad, ig, cam, gradcam"),
    (("--interpreters", ""), "'' is unknown"),
    (("--interpreters", "cam,cam"), "'cam' is named twice"),
    (("--interpreters", "rts"), "`underfire train rts`"),
    (("--rts", "no-such.safetensors"), "'no-such.safetensors' are given for rts, and it is not among grad, cam"),
    (("--interpreters", "rts", "--rts", "no-such.safetensors"), "'no-such.safetensors' is no file"),
    (("--interpreters", "mask", "--attacks", "square"), "'square' asks for a map at every query"),
    (("--interpreters", "mask", "--preset", "authors"), "'authors' has no schedule for 'mask'"),
    (("--attacks", "fgsm"), "'fgsm'"),
    (("--preset", "slow"), "'slow'"),
    (("--shard", "3/2"), "'3/2'"),
    (("--shard", "first"), "'first'"),
    (("--engine", "spark"), "'spark'"),
    (("--fail-if", "iou is low"), "'iou is low'"),
    (("--targets", "zebra"), "'zebra'"),
    (("--targets", "clas 3"), "did you mean 'class 3'"),
    (("--targets", "10"), "'10'"),
    (("--device", "abacus"), "'abacus'"),
    (("--input-size", "wide"), "'wide'"),
    (("--mean", "grey"), "'grey'"),
    (("--model", "support.toys:no_such_net"), "no_such_net"),
    (("--model", "efficientnet-lite9"), "efficientnet-lite9"),
    (("--checkpoint", "no-such.safetensors"), "no-such.safetensors"),
    (("--class-names", "no-such.txt"), "no-such.txt"),
    (("--strict",), "'broken.png'"),
    (("no-such-folder",), "'no-such-folder'"),
    (("--colour", "red"), "--colour"),
]


@pytest.mark.parametrize(("options", "quoted"), BAD_USAGE)
def test_bad_usage_exits_with_2_quotes_the_input_and_leaves_nothing(
    options: tuple[str, ...], quoted: str, invoke: Invoke, photos: Path
) -> None:
    result = invoke("audit", photos, *MODEL_OPTIONS, *FAST, "--out", "run", *options)
    assert result.exit_code == 2, result.output
    assert quoted in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert here() == []


@pytest.mark.parametrize(
    ("arguments", "quoted"),
    [
        (("dance",), "'dance'"),
        (("report", "nowhere"), "'nowhere'"),
        (("report",), "DIR"),
        (("explain", "no-such.jpg", *MODEL_OPTIONS), "'no-such.jpg'"),
        (("explain", *MODEL_OPTIONS, "--class", "zebra"), "'zebra'"),
        (("explain", *MODEL_OPTIONS, __file__), "none of the 1 files"),
        (("attack", *MODEL_OPTIONS), "--target-class"),
        (("attack", *MODEL_OPTIONS, "--target-class", "11"), "'11'"),
        (("attack", __file__, *MODEL_OPTIONS, "--target-class", "1"), "test_cli.py"),
        (("attack", *MODEL_OPTIONS, "--target-class", "1", "--target-map", "disk"), "'disk'"),
        (("attack", *MODEL_OPTIONS, "--target-class", "1", "--interpreter", "lemon"), "'lemon'"),
        (("attack", *MODEL_OPTIONS, "--target-class", "1", "--interpreter", "rts"), "`underfire train rts`"),
        (("attack", *MODEL_OPTIONS, "--target-class", "1", "--rts", "x"), "'x' are given for rts"),
        (
            ("attack", *MODEL_OPTIONS, "--target-class", "1", "--interpreter", "mask", "--preset", "authors"),
            "no schedule for 'mask'",
        ),
        (("attack", *MODEL_OPTIONS, "--target-class", "1", "--passes", "9", "--steps", "7"), "steps 7 and passes 9"),
    ],
)
def test_the_other_commands_refuse_alike(arguments: tuple[str, ...], quoted: str, invoke: Invoke) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert quoted in result.stderr
    assert "Traceback" not in result.output
    assert here() == []


def test_plan_says_what_an_audit_would_take_and_attacks_nothing(invoke: Invoke, photos: Path) -> None:
    result = invoke("plan", photos, *MODEL_OPTIONS, *FAST, "--no-probe", "--out", "run")
    assert result.exit_code == 0, result.output
    assert not Path("run").exists()
    assert "5 photos in " in result.stdout
    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line}
    assert lines["none"][0] == "5"
    assert (lines["pgd"][0], lines["adv2-cam"][0]) == ("4", "4")
    total = sum(int(cells[-1]) for name, cells in lines.items() if name in ("none", "noise", "pgd") or "adv2" in name)
    checks = int(lines["Once"][-2])
    assert checks == 4 * (10 * (2 + 1) + 2 * 2)  # of 4 photos: curves of both and of chance on their grid, and two maps
    assert result.stdout.splitlines()[-1] == f"{total + checks} passes in all."


def test_a_directory_of_another_configuration_is_refused(invoke: Invoke, photos: Path) -> None:
    command = ("audit", photos, *MODEL_OPTIONS, *FAST, "--attacks", "pgd", "--out", "run")
    assert invoke(*command).exit_code == 0
    before = here()
    refused = invoke(*command, "--seed", "7")
    assert refused.exit_code == 2
    assert "'run' is a run with seed '0', but '7' is given now" in refused.stderr
    assert here() == before


def test_explain_writes_two_pictures_per_photo_and_interpreter(invoke: Invoke, photos: Path) -> None:
    result = invoke("explain", photos, *MODEL_OPTIONS, "--interpreters", "cam,ig", "--out", "maps")
    assert result.exit_code == 0, result.output
    names = {path.name for path in Path("maps").glob("[!.]*")}
    assert names == {f"photo-{i}-{m}{end}.png" for i in range(5) for m in ("cam", "ig") for end in ("", "-overlay")}
    with Image.open("maps/photo-0-cam.png") as plain, Image.open("maps/photo-0-cam-overlay.png") as overlay:
        assert (plain.mode, plain.size, overlay.mode, overlay.size) == ("L", (32, 32), "RGB", (32, 32))
        assert max(plain.tobytes()) > 200  # a map of full range, not an empty picture
    assert "photo-4.png" in result.stdout
    assert BROKEN in result.stderr


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masking network for the toy, untrained."""
    path, classifier = tmp_path_factory.mktemp("weights") / "rts.safetensors", toy_classifier()
    MaskingNetwork.untrained(classifier).save(path, classifier)
    return path


def test_what_an_audit_leaves_out_is_said_with_the_reason(invoke: Invoke, photos: Path) -> None:
    result = invoke("audit", photos, *MODEL_OPTIONS, "--attacks", "pgd", "--steps", "2", "--out", "run")
    assert result.exit_code == 0, result.output
    assert "Left out: mask (each of its maps takes 150 passes" in result.stderr
    assert "Left out: rts (RTS needs a masking network trained for 'support.toys:relu_net'" in result.stderr
    assert "each of its maps takes 150 passes" in Path("run/report.html").read_text(encoding="utf-8")


def test_weights_of_rts_make_it_take_part(invoke: Invoke, photos: Path, weights: Path) -> None:
    photo, given = photos / "photo-1.png", ("--rts", weights)
    result = invoke("audit", photo, *MODEL_OPTIONS, *given, "--attacks", "pgd", "--steps", "2", "--out", "run")
    assert result.exit_code == 0, result.output
    assert {row.interpreter for row in rows_of(Path("run"))} == {"grad", "ig", "cam", "rts"}
    result = invoke("explain", photo, *MODEL_OPTIONS, *given, "--interpreters", "all", "--out", "maps")
    assert result.exit_code == 0, result.output
    names = {path.stem for path in Path("maps").glob("[!.]*")}
    assert {f"photo-1-{name}" for name in ("grad", "ig", "cam", "gradcam", "mask", "rts")} <= names
    content = attacked(
        invoke, photo, "--target-class", target_of(photos, "photo-1.png"), "--interpreter", "rts,mask", *map(str, given)
    )
    assert [row["interpreter"] for row in content["rows"]] == ["rts", "mask"]


def test_explain_says_what_all_leaves_out(invoke: Invoke, photos: Path) -> None:
    result = invoke("explain", photos / "photo-0.png", *MODEL_OPTIONS, "--interpreters", "all", "--out", "maps")
    assert result.exit_code == 0, result.output
    assert "Left out: rts (RTS needs" in result.stderr
    assert "Left out" not in invoke("explain", photos / "photo-0.png", *MODEL_OPTIONS, "--out", "maps").stderr


def test_explain_can_be_asked_about_a_class(invoke: Invoke, photos: Path) -> None:
    photo = photos / "photo-0.png"
    for number in (1, 2):
        options = ("--interpreters", "cam", "--class", f"class {number}", "--out", f"maps{number}")
        result = invoke("explain", photo, *MODEL_OPTIONS, *options)
        assert f"class {number}" in result.stdout, result.output
    assert Path("maps1/photo-0-cam.png").read_bytes() != Path("maps2/photo-0-cam.png").read_bytes()


def attacked(invoke: Invoke, photo: Path, *options: str) -> dict[str, Any]:
    result = invoke("attack", photo, *MODEL_OPTIONS, "--steps", "40", "--eps", "16/255", "--out", "x", *options)
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(Path("x/result.json").read_text(encoding="utf-8"))
    return content | {"stdout": result.stdout}


def target_of(photos: Path, name: str) -> str:
    """A class that the photo is not."""
    lines = (photos / "manifest.csv").read_text(encoding="utf-8").splitlines()
    return next(line.split(",")[2] for line in lines if line.startswith(name))


def test_attack_saves_the_image_its_maps_and_its_rows(invoke: Invoke, photos: Path) -> None:
    target = target_of(photos, "photo-1.png")
    content = attacked(invoke, photos / "photo-1.png", "--target-class", target, "--interpreter", "cam,grad")
    names = {path.name for path in Path("x").glob("[!.]*")}
    pictures = {f"{who}-{m}{end}.png" for who in ("benign", "adversarial", "target") for m in ("cam", "grad")
                for end in ("", "-overlay")}  # fmt: skip
    assert names == pictures | {"benign.png", "adversarial.png", "result.json"}
    first, second = content["rows"]
    assert (first["source"], first["interpreter"], second["interpreter"]) == ("cam+grad", "cam", "grad")
    assert first["success_8bit"]
    assert f"The target class 'class {target}' was reached." in content["stdout"]
    assert first["linf"] <= 16 / 255 + 1e-6
    # Without another target map, the map to show is the benign one.
    assert content["target_maps"]["cam"]["l1_8bit"] == pytest.approx(first["l1_8bit"], abs=1e-6)


def test_attack_spends_the_passes_that_it_is_given(invoke: Invoke, photos: Path) -> None:
    options = ("--target-class", target_of(photos, "photo-1.png"), "--interpreter", "cam,grad", "--passes", "30")
    result = invoke("attack", photos / "photo-1.png", *MODEL_OPTIONS, *options, "--out", "x")
    assert result.exit_code == 0, result.output
    rows = json.loads(Path("x/result.json").read_text(encoding="utf-8"))["rows"]
    assert {(row["steps"], row["passes"] <= 30) for row in rows} == {(16, True)}  # 5 of them warm: 5 + 2 · (11 + 1)


@pytest.mark.parametrize("wanted", ["patch", "photo"])
def test_attack_can_aim_at_another_map(wanted: str, invoke: Invoke, photos: Path) -> None:
    aim = "patch" if wanted == "patch" else str(photos / "photo-2.png")
    options = ("--target-class", target_of(photos, "photo-1.png"), "--interpreter", "cam", "--target-map", aim)
    content = attacked(invoke, photos / "photo-1.png", *options)
    (row,) = content["rows"]
    assert row["success_8bit"]
    assert content["target_maps"]["cam"]["l1_8bit"] < row["l1_8bit"]


def test_attack_refuses_an_attack_that_leads_to_no_class(invoke: Invoke, photos: Path) -> None:
    refused = invoke("attack", str(photos / "photo-0.png"), *MODEL_OPTIONS, "--target-class", "1", "--attack", "map")
    assert refused.exit_code == 2
    assert "is for the goal kept/topk and leads to no class" in " ".join(refused.output.split())


def test_attack_refuses_the_class_that_the_photo_has(invoke: Invoke, photos: Path) -> None:
    lines = (photos / "manifest.csv").read_text(encoding="utf-8").splitlines()
    label = lines[1].split(",")[1]
    result = invoke("attack", photos / "photo-0.png", *MODEL_OPTIONS, "--target-class", label)
    assert result.exit_code == 2
    assert f"'photo-0.png' is 'class {label}' to the model already" in result.stderr


def test_report_builds_the_page_again(invoke: Invoke, photos: Path) -> None:
    invoke("audit", photos, *MODEL_OPTIONS, *FAST, "--attacks", "pgd", "--out", "run")
    page = Path("run/report.html").read_bytes()
    summary = Path("run/summary.json").read_bytes()
    Path("run/report.html").unlink()
    Path("run/summary.json").unlink()
    result = invoke("report", "run")
    assert result.stdout == "run/report.html\n"
    assert (Path("run/report.html").read_bytes(), Path("run/summary.json").read_bytes()) == (page, summary)


def test_the_budget_is_in_the_unit_of_the_perturbation(invoke: Invoke, photos: Path) -> None:
    result = invoke(
        "audit", photos, *MODEL_OPTIONS, *FAST, "--attacks", "pgd,stadv", "--perturbation", "l2", "--out", "run"
    )
    assert result.exit_code == 0, result.output
    assert {(row.attack, row.perturbation, row.eps) for row in rows_of(Path("run"))} == {
        ("none", "l2", 3.0),
        ("noise", "l2", 3.0),
        ("pgd", "l2", 3.0),
        ("stadv", "flow", 1.0),
    }


def test_one_photo_attacked_by_moving_its_pixels(invoke: Invoke, photos: Path) -> None:
    photo, options = photos / "photo-0.png", ("--target-class", "9", "--perturbation", "flow", "--eps", "1.5")
    result = invoke("attack", photo, *MODEL_OPTIONS, "--steps", "16", *options, "--out", "x")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(Path("x/result.json").read_text(encoding="utf-8"))["rows"]
    assert (row["perturbation"], row["eps"]) == ("flow", 1.5)
    assert 0 < row["used"] <= 1.5 + 1e-5


def test_built_in_photos_have_no_labels_for_a_model_of_other_classes(invoke: Invoke) -> None:
    result = invoke("audit", *MODEL_OPTIONS, *FAST, "--attacks", "pgd", "--limit", "2", "--out", "run")
    assert result.exit_code == 0, result.output
    rows = rows_of(Path("run"))
    assert {row.image_id for row in rows} == {"00_german_shepherd.jpg", "01_espresso.jpg"}
    assert not any(row.label_given for row in rows)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("models", ("efficientnet-lite0", "package.module:function", "installed")),
        ("interpreters", ("grad", "gradcam", "representation", "passes a map", "150", "perturbation", "train rts")),
        ("attacks", ("pgd", "adv2", "stadv", "as published", "passes, quick", "linf", "8/255", "l2", "1 pixel")),
    ],
)
def test_what_is_available(command: str, expected: tuple[str, ...], invoke: Invoke) -> None:
    result = invoke(command)
    assert result.exit_code == 0
    assert all(word in result.stdout for word in expected)


def test_python_m_underfire_is_underfire() -> None:
    done = subprocess.run([sys.executable, "-m", "underfire", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"underfire, version {version('underfire')}\n"
    (script,) = entry_points(group="console_scripts", name="underfire")
    assert script.load() is main


def test_ctrl_c_exits_with_130_and_says_how_to_go_on(
    invoke: Invoke, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press_ctrl_c(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("underfire.api.run_audit", press_ctrl_c)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs tests in the background ignores it
    try:
        result = invoke("audit", photos, *MODEL_OPTIONS, "--out", "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert "The finished parts in 'run' are kept; the same command goes on from there." in result.stderr


def test_a_mistake_of_ours_is_not_taken_for_a_failed_gate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_down(**_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(underfire.cli, "cli", break_down)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 70
    assert "RuntimeError: a bug" in capsys.readouterr().err


def test_file_names_of_photos_are_readable_and_all_different() -> None:
    stems = file_stems(["a.png", "a.jpg", "in/a.png", "b\n<c>.png", ".hidden.png", "ä" * 300 + ".png", "a~2.png"])
    assert stems[:5] == ["a", "a~2", "in_a", "b__c_", "hidden"]
    assert len(set(stems)) == len(stems)
    assert max(map(len, stems)) < 120


def test_the_clock() -> None:
    assert [clock(s) for s in (0, 65, 3599.6, 7265)] == ["0:00", "1:05", "1:00:00", "2:01:05"]


def test_misclassified_photos_are_never_attacked(invoke: Invoke, photos: Path) -> None:
    invoke("audit", photos, *MODEL_OPTIONS, *FAST, "--attacks", "pgd", "--out", "run")
    assert {row.attack for row in rows_of(Path("run")) if row.image_id == MISCLASSIFIED} == {"none"}
