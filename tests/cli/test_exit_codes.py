"""What decides the exit code: the gates alone, once a command came to its end; nothing else makes it 0 or 1."""

import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result

import underfire as uf
from support.made_runs import with_rows
from support.toy_photos import MODEL_OPTIONS, toy_classifier, write_photos
from underfire.auditing.facts import SkippedFile
from underfire.auditing.gates import failures, parse_gate, try_gates
from underfire.auditing.plan import AuditPlan
from underfire.auditing.store import RunDirectory
from underfire.cli import cli, main
from underfire.cli.options import with_room
from underfire.errors import InputError, InputWarning
from underfire.evaluation.attackers import AttackBudget
from underfire.files import refused, write_whole
from underfire.images import save_png

FAST = ("--interpreters", "cam", "--attacks", "adv2", "--steps", "8", "--batch-size", "2", "--out", "run")
PASSING, FAILING = ("--fail-if", "asr>1"), ("--fail-if", "asr>=0")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos, of which four can be attacked, and one that cannot be read."""
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> uf.Run:
    out = tmp_path_factory.mktemp("audited") / "run"
    return uf.audit(toy_classifier(), photos, interpreters=["cam"], attacks=["adv2"], steps=2, out=out)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


class _Stop(BaseException):
    """What a stranger's framework may raise to end the process."""


@pytest.mark.parametrize("stop", [SystemExit(0), SystemExit(), SystemExit(1), _Stop("enough"), GeneratorExit()])
def test_code_that_ends_the_process_decides_no_exit_code(
    stop: BaseException, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: Any, **__: Any) -> None:
        raise stop

    monkeypatch.setattr("underfire.api.run_audit", end)
    result = invoke("audit", *MODEL_OPTIONS, *FAST, *PASSING)
    assert result.exit_code == 2, result.output
    assert type(stop).__name__ in result.stderr
    assert re.search(r"end\(\) of '.*test_exit_codes.py', line \d+", result.stderr)


_ENDING = """
from torch import nn
from support.toys import relu_net

class Ending(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.calls = relu_net(), 0

    def forward(self, x):
        self.calls += 1
        if self.calls > 4:  # once it is loaded
            raise SystemExit(0)
        return self.net(x)
"""


@pytest.mark.parametrize("command", ["audit", "explain", "attack"])
def test_a_model_that_ends_the_process_is_named(command: str, here: Path, photos: Path) -> None:
    name = f"ending_{command}"
    (here / f"{name}.py").write_text(_ENDING, encoding="utf-8")
    options = {"audit": PASSING, "attack": ("--target-class", "1"), "explain": ()}[command]
    model = ("--model", f"{name}:Ending", *MODEL_OPTIONS[2:])
    result = invoke(command, photos / "photo-0.png", *model, *options)
    assert result.exit_code == 2, result.output
    assert f"the model '{name}:Ending' fails with SystemExit: 0" in result.stderr


@contextmanager
def standard_output(stream: Any) -> Iterator[None]:
    """The process's own stdout is ``stream`` in the block, whatever the command put in its place."""
    before = sys.stdout, sys.stderr
    sys.stdout = stream
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def ended(stream: Any, *arguments: object) -> object:
    """The exit code of the process that ran ``underfire`` with ``arguments`` on this stdout."""
    argv, sys.argv = sys.argv, ["underfire", *map(str, arguments)]
    try:
        with standard_output(stream), pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code
    finally:
        sys.argv = argv


def closed_pipe() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", encoding="utf-8")


@pytest.mark.parametrize(("gate", "code"), [(PASSING, 0), (FAILING, 1)])
def test_a_stdout_that_takes_nothing_leaves_the_code_to_the_gates(
    gate: tuple[str, str], code: int, here: Path, photos: Path
) -> None:
    command = ("audit", photos, *MODEL_OPTIONS, *FAST, *gate)
    assert ended(closed_pipe(), *command) == code
    with Path("ascii.txt").open("w", encoding="ascii") as stream:
        assert ended(stream, *command) == code
    assert "ADV\\xb2" in Path("ascii.txt").read_text(encoding="ascii")
    assert ended(None, *command) == code  # >&-


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full disk to write to")
def test_a_full_disk_under_stdout_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as stream:
        assert ended(stream, "attacks") == 2
    assert "'standard output' cannot be written" in capsys.readouterr().err


def test_the_interpreter_ends_as_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "underfire", "--help"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_too_few_photos_fail_the_gates(here: Path, photos: Path) -> None:
    command = ("audit", photos, *MODEL_OPTIONS, *FAST)  # 4 of 6 attacked
    assert [invoke(*command, *gate).exit_code for gate in (PASSING, FAILING)] == [0, 1]
    few = invoke(*command, *PASSING, "--min-photos", 5)
    assert few.exit_code == 1
    assert "photos attacked: 4 of 6, fewer than 5" in few.stderr
    assert invoke(*command, "--min-photos", 5).exit_code == 1  # a gate of its own
    assert invoke(*command, *PASSING, "--min-photos", 4).exit_code == 0


@pytest.mark.parametrize(
    ("unreadable", "least", "fails"),
    [(1, None, False), (3, None, False), (4, None, True), (100, None, True), (100, 4, False), (100, 5, True)],
)
def test_half_of_the_photos_found_must_have_been_attacked(
    unreadable: int, least: int | None, fails: bool, audited: uf.Run
) -> None:
    skips = [SkippedFile(f"{i}.png", "cut short", image_id=f"{i}.png") for i in range(unreadable)]
    others = [SkippedFile("README.md", "no photo")] * 50  # nobody takes them for photos
    run = replace(audited, facts=replace(audited.facts, skipped=(*skips, *others)))
    passing = parse_gate("asr>1")
    checks = try_gates(run, [passing], min_photos=least)
    assert [(check.rule, check.outcome) for check in checks] == [
        ("min-photos", "failed" if fails else "passed"),
        ("asr", "passed"),
    ]
    assert try_gates(run, [], min_photos=None) == ()
    assert len(failures(try_gates(run, [passing, parse_gate("asr>=0")], min_photos=least))) == 1 + fails


def test_gates_in_python(audited: uf.Run) -> None:
    run = uf.load_run(audited.path)
    assert run.failures(["asr>1", parse_gate("kept>1")]) == []
    (failure,) = run.failures(["asr>=0"])
    assert failure.startswith("asr>=0: cam has asr")
    assert len(run.failures([], min_photos=5)) == 1
    unfinished = with_rows(run, run.records[:1])
    assert len(unfinished.failures(["asr>1"])) == 1
    with pytest.raises(InputError, match="min_photos is 0"):
        run.failures(["asr>1"], min_photos=0)
    with pytest.raises(InputError, match="'asr' is not a gate"):
        run.failures(["asr"])


@pytest.mark.parametrize("make", [lambda eps: AuditPlan(eps=eps), lambda eps: grid(eps)], ids=["plan", "grid"])
def test_a_budget_below_a_grey_level_is_refused_and_a_broken_one_told(make: Callable[[float], object]) -> None:
    for eps in (0.0039, 1e-6, 0.99 / 255):
        with pytest.raises(InputError, match="of a grey level"):
            make(eps)
    for eps in (1 / 255, 8 / 255, 1.0):
        make(eps)
    for eps, told in ((7.9 / 255, "7.9 grey levels; .* counts as 7"), (0.007, "1.785 grey levels; .* counts as 1")):
        with pytest.warns(InputWarning, match=told):
            make(eps)


def grid(eps: float) -> object:
    """A further ε of a study."""
    return AttackBudget.of(AuditPlan(), 20).along([eps], [])


def test_other_budgets_are_in_no_grey_levels() -> None:
    assert AuditPlan(perturbation="l2", eps=0.003).eps == 0.003
    assert AuditPlan(perturbation="flow", eps=0.003).eps == 0.003
    assert uf.Linf(0.003).eps == 0.003  # attacks in Python may work on floats


@pytest.mark.parametrize("command", [("plan",), ("attack", "--target-class", "1")])
def test_the_command_line_tells_a_broken_budget_once(command: tuple[str, ...], here: Path, photos: Path) -> None:
    result = invoke(*command, photos / "photo-0.png", *MODEL_OPTIONS, "--steps", 2, "--eps", "0.031")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("Warning: eps 0.031 is 7.905 grey levels") == 1
    refused_too = invoke(*command, photos / "photo-0.png", *MODEL_OPTIONS, "--eps", "0.9/255")
    assert refused_too.exit_code == 2
    assert "0.9 of a grey level" in refused_too.stderr


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1])
def test_seeds_that_no_row_can_hold(seed: int) -> None:
    with pytest.raises(InputError, match=str(seed)):
        AuditPlan(seed=seed)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The block cannot write larger files; as on a full disk, what was opened is cut short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.json", lambda path: write_whole(path, b"0" * 4096)),
        ("x.png", lambda path: save_png(torch.rand(3, 64, 64), path)),
        ("maps.safetensors", lambda path: RunDirectory(path.parent).save_maps(path.parent, {"m": torch.rand(64, 64)})),
    ],
)
def test_a_write_that_fails_names_its_file(name: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    with files_of_at_most(1000), pytest.raises(OSError, match=re.escape(name)) as caught:
        write(tmp_path / name)
    sentence = refused(caught.value)
    assert str(tmp_path / name) in sentence
    assert "free some space" in sentence
    assert [path.name for path in tmp_path.iterdir()] in ([], [name])  # maps lie in a folder that vanishes


def test_an_audit_goes_on_once_there_is_space(here: Path, photos: Path) -> None:
    command = ("audit", photos, *MODEL_OPTIONS, *FAST, *PASSING)
    with files_of_at_most(7000):  # run.json is written; no part is
        result = invoke(*command)
    assert result.exit_code == 2, result.output
    assert "'run/" in result.stderr
    assert "goes on" in result.stderr
    assert json.loads(Path("run/run.json").read_text(encoding="utf-8"))["finished"] is False
    assert invoke(*command).exit_code == 0


def test_temporary_files_go_beside_out_where_the_system_has_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, parameter = click.Context(cli), click.Option(["--out"])
    monkeypatch.setattr(tempfile, "tempdir", "unused")
    with_room(context, parameter, tmp_path / "run")
    assert tempfile.gettempdir() == "unused"
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
    with_room(context, parameter, None)  # not even that: what needs a place says so
    with pytest.raises(FileNotFoundError):
        tempfile.gettempdir()
    with_room(context, parameter, tmp_path / "run" / "deeper")
    assert Path(tempfile.mkdtemp()).parents[1] == tmp_path
    assert not (tmp_path / "run").exists()
