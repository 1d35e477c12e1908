"""Trying one input in this process."""

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from click.testing import CliRunner

from fuzz.case import Case, Ended, Make, Originals, Outcome, Verdict
from fuzz.guard import guarded
from underfire.cli import cli

LARGE = 2**30
"""Bytes over those of the process before, from which on an input takes too much."""

SECRETS = "outside"
"""The folder beside the input that nothing may open."""

EVIL = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\ndef go(): pass\n"


def try_input(
    make: Make,
    kind: str,
    seed: int,
    number: int,
    folder: Path,
    originals: Originals,
    made: Callable[[], object] = lambda: None,
) -> Outcome:
    """Makes input ``number`` of a kind in ``folder``, calls ``made``, runs the commands and judges what they did."""
    home, secrets = folder / "in", folder / SECRETS
    home.mkdir(parents=True)
    secrets.mkdir()
    (secrets / "thesis").write_text("mine")
    (home / "evil.py").write_text(EVIL)
    case = make(Random(f"{seed}/{kind}/{number}"), home, originals)
    _note(folder / "case.txt", case)
    made()
    with _within(home), peak() as most, guarded(home, secrets) as seen:
        ended, faults = [], []
        for command in case.commands:
            end, fault = _run(command, case.codes)
            ended.append(end)
            faults += [fault] if fault else []
        for end in case.asks():
            fault = _fault("a request", end, case.codes)
            ended.append(end)
            faults += [fault] if fault else []
    outcome = _judged(case, tuple(ended), faults, most[0])
    left = sorted(path.name for path in secrets.iterdir()), (secrets / "thesis").read_bytes()
    if seen or left != (["thesis"], b"mine") or (home / "ran").exists():
        outcome = outcome.because(Verdict.HARM, "; ".join(seen) or "a file outside was changed, or code run")
    with (folder / "case.txt").open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"\n{outcome.verdict}: {outcome.why}\n")
        for end in ended:
            file.write(f"\nexit code {end.code}\n{end.said}\n{end.complained}\n")
    return outcome


def _judged(case: Case, ended: tuple[Ended, ...], faults: list[str], most: int) -> Outcome:
    outcome = Outcome(Verdict.REFUSED if any(end.code for end in ended) else Verdict.ACCEPTED, case.told, bytes=most)
    if faults:
        return outcome.because(Verdict.CRASH, faults[0])
    wrong = case.wrong(ended)
    if wrong:
        return outcome.because(Verdict.SILENT, wrong)
    return outcome.because(Verdict.LARGE, f"{most / 2**30:.2f} GB") if most > LARGE else outcome


def _run(command: tuple[str, ...], codes: tuple[int, ...]) -> tuple[Ended, str | None]:
    """How ``command`` ended, and what of that no command may do."""
    result = CliRunner().invoke(cli, command)
    ended = Ended(result.exit_code, result.stdout, result.stderr)
    error = result.exception
    if error is not None and not isinstance(error, SystemExit):
        place = traceback.extract_tb(error.__traceback__)[-1]
        why = f"{type(error).__name__}: {str(error)[:300]} ({place.filename}:{place.lineno})"
        trace = "".join(traceback.format_exception(error))[-6000:]
        return Ended(70, ended.said, trace), f"{command[0]}: {why}"
    return ended, _fault(command[0], ended, codes)


def _fault(what: str, ended: Ended, codes: tuple[int, ...]) -> str | None:
    """What is wrong with how ``what`` ended, whatever it was given."""
    if ended.code not in codes:
        return f"{what}: exit code {ended.code}: {ended.complained[-300:]!r}"
    if ended.code == 2 and sum(line.startswith("Error: ") for line in ended.complained.splitlines()) != 1:
        return f"{what}: exit code 2 without one sentence: {ended.complained[-300:]!r}"
    if "\x1b" in ended.said + ended.complained:
        return f"{what}: what it says steers a terminal"
    return None


def _note(path: Path, case: Case) -> None:
    lines = [case.told, "", *(f"underfire {' '.join(command)}" for command in case.commands)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")


@contextmanager
def _within(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def peak() -> Iterator[list[int]]:
    """The most memory that the block had over what there was before, in bytes; 0 where Linux does not tell."""
    found = [0]
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    try:
        yield found
    finally:
        found[0] = max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    status = Path("/proc/self/status")
    lines: Any = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
