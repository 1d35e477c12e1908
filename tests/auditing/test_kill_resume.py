"""An audit in a process of its own is terminated, then killed, and goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from click.testing import CliRunner

from support.toy_photos import MODEL_OPTIONS, leftovers, one_thread, rows_of, write_photos
from underfire.cli import cli

PHOTOS = 6
TESTS = Path(__file__).parents[1]

# However fast the audit is: after one part it waits in the middle of the next, before it saves an image.
ONE_PART = """
import time
from underfire.auditing import unit
from underfire.cli import main

save_png, write_part, written = unit.save_png, unit.write_part, []

def save_or_wait(image, path):
    if written:
        time.sleep(600)
    save_png(image, path)

def write_and_tell(path, rows):
    write_part(path, rows)
    written.append(path)

unit.save_png, unit.write_part = save_or_wait, write_and_tell
main()
"""


def command(photos: Path, out: Path) -> list[str]:
    options = ("--interpreters", "grad,cam", "--steps", "16", "--batch-size", "2", "--out", str(out))
    return ["audit", str(photos), *MODEL_OPTIONS, *options]


def undisturbed(photos: Path, out: Path) -> None:
    """The command in this process, which has the same number of threads as those that are stopped."""
    with one_thread():
        ended = CliRunner().invoke(cli, command(photos, out))
    assert ended.exit_code == 0, ended.output


def start(photos: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ONE_PART, *command(photos, out)],
        cwd=TESTS,  # the model's module is there
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def parts(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "rows").glob("part-*.parquet")}


def stop_after_another_part(process: subprocess.Popen[str], out: Path, number: signal.Signals) -> str:
    """Sends the signal as soon as there is one part more; returns what was said on stderr."""
    before, deadline = len(parts(out)), time.monotonic() + 300
    while len(parts(out)) <= before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    return said


def test_an_audit_that_is_terminated_and_killed_ends_with_the_rows_of_an_undisturbed_one(tmp_path: Path) -> None:
    photos, out = write_photos(tmp_path / "photos", PHOTOS), tmp_path / "run"
    undisturbed(photos, tmp_path / "undisturbed")

    process = start(photos, out)
    said = stop_after_another_part(process, out, signal.SIGTERM)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert f"The finished parts in '{out}' are kept; the same command goes on from there." in said
    assert leftovers(out) == []

    process = start(photos, out)
    stop_after_another_part(process, out, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = parts(out)
    assert len(kept) == 2

    undisturbed(photos, out)
    assert {name: parts(out)[name] for name in kept} == kept
    assert rows_of(out) == rows_of(tmp_path / "undisturbed")
    assert leftovers(out) == []
    assert (out / "report.html").is_file()
