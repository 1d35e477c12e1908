"""Peak memory of a contender, in a process of its own.

``python -m benchmarks.memory JSON`` is that process: it prints the bytes.
"""

import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.rivals import FAMILIES
from benchmarks.subject import Recipe, Subject

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measurable(device: torch.device) -> bool:
    """Whether memory can be measured: on a CUDA device, or where Linux tells a process its peak."""
    return device.type == "cuda" or (device.type == "cpu" and _CLEAR.exists())


def rise(run: Callable[[], object], device: torch.device) -> int:
    """By how many bytes ``run`` raises the peak of memory in use over what is in use before it.

    On a CPU the peak of the resident set is reset first. ``ru_maxrss`` would not do: it can't be reset, a child
    inherits it from its parent, and a model being loaded may have raised it higher than ``run`` does.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    _give_back()
    _CLEAR.write_text("5")
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def peak(recipe: Recipe, family: str, contender: str) -> int:
    """:func:`rise` of a contender of ``benchmarks.rivals`` in a new process, after the imports, the loading of the
    model and a run on one image.

    Raises:
        RuntimeError: the process failed.
    """
    words = json.dumps({"recipe": asdict(recipe), "family": family, "contender": contender})
    command = [sys.executable, "-m", "benchmarks.memory", words]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter and words
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {contender} ({family}) failed:\n{done.stderr}")
    return int(done.stdout.split()[-1])


def _measured(words: str) -> int:
    told = json.loads(words)
    subject = Subject.make(Recipe(**told["recipe"]))
    contender = FAMILIES[told["family"]].contenders[told["contender"]]
    if reason := contender.missing():
        raise ImportError(reason)
    contender.run(replace(subject, x=subject.x[:1], label=subject.label[:1], target=subject.target[:1]))
    return rise(lambda: contender.run(subject), subject.x.device)


def resident(field: str) -> int:
    """A line of this process's status, in bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _give_back() -> None:
    """Free memory goes back to the system, so that taking it again shows."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, other C libraries may not
    if trim is not None:
        trim(0)


if __name__ == "__main__":
    print(_measured(sys.argv[1]))
