"""What is available and what is installed, for people and for programs; completion by the shell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner, Result

from support.toy_photos import MODEL_OPTIONS, write_photos
from underfire import installation
from underfire.attacks.registry import ATTACKS
from underfire.auditing.names import known_interpreters, known_perturbations
from underfire.auditing.plan import PASSES
from underfire.cli import COMMANDS, cli
from underfire.installation import Trouble
from underfire.models import available
from underfire.studies.registry import STUDIES


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def told(*arguments: str) -> object:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.isascii()
    return json.loads(result.stdout)


def test_models_as_json() -> None:
    assert told("models") == [
        {"name": source.name, "description": source.description, "installed": source.installed}
        for source in available()
    ]


def test_interpreters_as_json() -> None:
    listed = told("interpreters")
    assert isinstance(listed, list)
    known = known_interpreters()
    assert [one["name"] for one in listed] == list(known)
    for one in listed:
        cls = known[one["name"]]
        assert (one["passes_per_map"], one["passes_per_step"]) == (cls.passes_per_map, cls.passes_per_step)


def test_attacks_as_json() -> None:
    listed = told("attacks")
    assert isinstance(listed, dict)
    by_name = {one["name"]: one for one in listed["attacks"]}
    assert tuple(by_name) == ATTACKS.installed()
    assert by_name["pgd"]["granted"] == dict(PASSES)
    assert by_name["adv2"]["granted"] == {**PASSES, "authors": None}
    assert by_name["square"]["granted"]["quick"] == 10 * PASSES["quick"]
    assert by_name["square"]["unit"] == "queries"
    assert [one["name"] for one in listed["perturbations"]] == list(known_perturbations())


def test_doctor_tells_the_same_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    for trouble, code in ((Trouble(False, "little", "Eat."), 0), (Trouble(True, "nothing", "Sleep."), 2)):
        monkeypatch.setattr(installation, "troubles_of", lambda _, trouble=trouble: [trouble])
        plain, machine = invoke("doctor"), invoke("doctor", "--json")
        assert (plain.exit_code, machine.exit_code) == (code, code)
        assert f"{trouble.what}. {trouble.advice}" in plain.stdout
        found = json.loads(machine.stdout)
        assert {"fatal": trouble.fatal, "what": trouble.what, "advice": trouble.advice} in found["troubles"]
        assert found["python"] == ".".join(map(str, sys.version_info[:3]))
        assert found["machine"]["cores"] > 0
        for name in ("torch", "click"):
            assert any(name in line for line in plain.stdout.splitlines())


def test_quiet_leaves_results_warnings_and_errors(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 2)
    command = ("audit", photos, *MODEL_OPTIONS, "--interpreters", "cam", "--attacks", "pgd", "--steps", 2)
    loud = invoke(*command, "--out", tmp_path / "loud")
    quiet = invoke(*command, "--out", tmp_path / "quiet", "--quiet", "--eps", "0.031", "--fail-if", "asr>=0")
    assert "part 1/1" in loud.stderr
    assert (loud.exit_code, quiet.exit_code) == (0, 1)
    said = [line.split(":")[0] for line in quiet.stderr.splitlines()]
    assert said == ["Warning", "Gate failed"]
    assert "Report: " in quiet.stdout
    explained = invoke("explain", photos, *MODEL_OPTIONS, "-q", "--interpreters", "cam", "--out", tmp_path / "maps")
    assert (explained.exit_code, explained.stderr) == (0, "")


def test_quiet_goes_with_a_run(tmp_path: Path) -> None:
    """It is no setting of an audit, which a study of a run must refuse."""
    photos = write_photos(tmp_path / "photos", 2)
    run = tmp_path / "run"
    made = invoke("audit", photos, *MODEL_OPTIONS, "--interpreters", "cam,grad", "--steps", 2, "--out", run, "-q")
    assert (made.exit_code, made.stderr) == (0, "")
    assert invoke("study", "transfer", run, "-q").exit_code == 0


def completed(*words: str) -> list[str]:
    """What the shell is offered, or the kind of names that it looks up itself, for the last of ``words``."""
    shell = BashComplete(cli, {}, "underfire", "_UNDERFIRE_COMPLETE")
    found = shell.get_completions(list(words[:-1]), words[-1])
    return [item.value if item.type == "plain" else item.type for item in found]


def test_the_shell_completes_commands_options_choices_and_files() -> None:
    assert completed("") == sorted(COMMANDS)
    assert completed("study", "") == list(STUDIES)
    assert completed("audit", "--pres") == ["--preset"]
    assert completed("audit", "--preset", "") == list(PASSES)
    assert completed("audit", "pho") == ["file"]
    assert completed("audit", "--checkpoint", "wei") == ["file"]


def test_the_script_asks_the_command() -> None:
    asked = {"_UNDERFIRE_COMPLETE": "bash_complete", "COMP_WORDS": "underfire audit --pres", "COMP_CWORD": "2"}
    command = [sys.executable, "-m", "underfire"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["plain,--preset"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell: str) -> None:
    environment = {**os.environ, "_UNDERFIRE_COMPLETE": f"{shell}_source"}
    command = [sys.executable, "-m", "underfire"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if shell == "bash" and done.returncode:  # click asks a bash of the system for its version
        pytest.skip("no bash here")
    assert f"_UNDERFIRE_COMPLETE={shell}_complete" in done.stdout
