"""An audit in a process of its own is terminated, then killed, and goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.toy_photos import (
    MODEL_OPTIONS,
    leftovers,
    rows_of,
    write_photos,
)

PHOTOS = 10
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


def start(photos: Path, out: Path, *program: str) -> subprocess.Popen[str]:
    options = ("--interpreters", "grad,cam", "--steps", "16", "--batch-size", "2", "--out", str(out))
    return subprocess.Popen(
        [sys.executable, *program, "audit", str(photos), *MODEL_OPTIONS, *options],
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
    before, deadline = len(parts(out)), time.monotonic() + 60
    while len(parts(out)) <= before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return said


def test_an_audit_that_is_terminated_and_killed_ends_with_the_rows_of_an_undisturbed_one(tmp_path: Path) -> None:
    photos, out = write_photos(tmp_path / "photos", PHOTOS), tmp_path / "run"
    undisturbed = start(photos, tmp_path / "undisturbed", "-m", "underfire")
    said = "".join(undisturbed.communicate(timeout=120))
    assert undisturbed.returncode == 0, said

    process = start(photos, out, "-c", ONE_PART)
    said = stop_after_another_part(process, out, signal.SIGTERM)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert f"The finished parts in '{out}' are kept; the same command goes on from there." in said
    assert leftovers(out) == []

    process = start(photos, out, "-c", ONE_PART)
    stop_after_another_part(process, out, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = parts(out)
    assert len(kept) == 2

    process = start(photos, out, "-m", "underfire")
    said = "".join(process.communicate(timeout=120))
    assert process.returncode == 0, said
    assert {name: parts(out)[name] for name in kept} == kept
    assert rows_of(out) == rows_of(tmp_path / "undisturbed")
    assert leftovers(out) == []
    assert (out / "report.html").is_file()
