"""What is installed here, on which machine, and what of it will hurt: ``underfire doctor``."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from packaging.requirements import Requirement

EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "models": "--model efficientnet-lite1 and efficientnet-lite2",
        "timm": "--model timm:NAME",
        "studio": "underfire studio",
        "hf": "--model hf:NAME",
        "onnx": "--model onnx:FILE",
        "captum": "attributions of Captum as interpreters",
        "ray": "--engine ray",
        "evidence": "underfire evidence",
        "maite": "the evaluation of MAITE, for underfire.maite",
    }
)
"""The extras of the package and what each is for; what only developers need is not among them."""

_NO_EXTRA = {"torchvision": "--model torchvision:NAME"}
"""Packages that are used where they are installed, and belong to no extra."""

GIB = 2**30
_LEAST_DISK, _LEAST_MEMORY = 2 * GIB, 3 * GIB
_OVER = 1.5  # threads for each usable core from which on they hinder each other; a core more or less is rounding


@dataclass(frozen=True)
class Needed:
    """A package that is wanted.

    Attributes:
        name: of the distribution.
        wanted: the versions that fit, as ``>=1.26``; empty for any.
        version: the one that is installed, None for none.
        fits: whether it is installed in a version that is wanted.
    """

    name: str
    wanted: str
    version: str | None
    fits: bool


@dataclass(frozen=True)
class Extra:
    """Packages that are needed for one purpose only.

    Attributes:
        name: what stands in the brackets of ``underfire[…]``, None for what belongs to no extra.
        purpose: what it is for.
        packages: that it consists of.
    """

    name: str | None
    purpose: str
    packages: tuple[Needed, ...]

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return all(package.fits for package in self.packages)

    @property
    def install(self) -> str:
        """The command that installs it."""
        wanted = self.packages[0].name if self.name is None else f"underfire[{self.name}]"
        return f'pip install "{wanted}"'


@dataclass(frozen=True)
class Gpu:
    """An accelerator that PyTorch can use: what ``--device`` takes, its name, its memory in bytes where known."""

    device: str
    name: str
    memory: int | None


@dataclass(frozen=True)
class Machine:
    """What the process may use.

    Attributes:
        cores: CPU cores that it may use: those of its affinity, or of the container's quota if that is less.
        threads: that torch works with, None without torch.
        memory: bytes, those of the container if it has less; None where the system does not say.
        disk: bytes free where the process is.
        temporary: the folder for temporary files, None if there is none that can be written.
        gpus: those that torch can use.
        driver: whether the system has a driver of NVIDIA.
        encoding: of standard output.
    """

    cores: float
    threads: int | None
    memory: int | None
    disk: int
    temporary: str | None
    gpus: tuple[Gpu, ...]
    driver: bool
    encoding: str


@dataclass(frozen=True)
class Trouble:
    """What will hurt: whether underfire does not work with it, what it is, and what to do."""

    fatal: bool
    what: str
    advice: str


@dataclass(frozen=True)
class Installation:
    """All of it.

    Attributes:
        underfire: version.
        python: version.
        system: name of the system and the processor's family.
        packages: that underfire needs.
        extras: that it may use.
        machine: what it runs on.
        troubles: the fatal ones first.
    """

    underfire: str
    python: str
    system: str
    packages: tuple[Needed, ...]
    extras: tuple[Extra, ...]
    machine: Machine
    troubles: tuple[Trouble, ...]


def inspect(underfire: str, broken: Iterable[str] = ()) -> Installation:
    """What is installed here.

    Args:
        underfire: its version.
        broken: a sentence for each part of an installed package that cannot be loaded.
    """
    needed, extras = _requirements()
    machine = _machine()
    parts = [Trouble(False, what, "Mend that package, or uninstall it.") for what in broken]
    found = [*_of_packages(needed), *_of_extras(extras), *troubles_of(machine), *parts]
    return Installation(
        underfire,
        platform.python_version(),
        f"{platform.system()} {platform.machine()}",
        needed,
        extras,
        machine,
        tuple(sorted(found, key=lambda trouble: not trouble.fatal)),
    )


def troubles_of(machine: Machine) -> list[Trouble]:
    """What hurts on ``machine``."""
    found = []
    if machine.threads is not None and machine.threads > _OVER * machine.cores:
        found.append(
            Trouble(
                False,
                f"torch works with {machine.threads} threads on {machine.cores:g} cores, and threads that wait for a "
                "core slow an audit down many times over",
                f"Set OMP_NUM_THREADS={max(1, int(machine.cores))} in the environment.",
            )
        )
    if machine.disk < _LEAST_DISK:
        found.append(
            Trouble(
                False,
                f"{machine.disk / GIB:.1f} GiB are free on this disk; an audit keeps about a MiB for each photo and "
                "attack",
                "Free some space, or give --out on another disk.",
            )
        )
    if machine.memory is not None and machine.memory < _LEAST_MEMORY:
        found.append(
            Trouble(
                False,
                f"the process may use {machine.memory / GIB:.1f} GiB of memory",
                "Give --batch-size 1, and close what else runs.",
            )
        )
    if machine.temporary is None:
        found.append(Trouble(False, "no folder for temporary files can be written", "Set TMPDIR to one that can."))
    if machine.driver and not any(gpu.device.startswith("cuda") for gpu in machine.gpus):
        found.append(
            Trouble(
                False,
                "the system has a driver of NVIDIA, and this build of torch sees no GPU",
                "Install torch for CUDA, as https://pytorch.org says, and give --device cuda.",
            )
        )
    if machine.encoding.lower().replace("-", "") not in ("utf8", "utf8sig"):
        found.append(
            Trouble(
                False,
                f"standard output is in {machine.encoding}, where signs such as ε are written as escapes",
                "Set PYTHONIOENCODING=utf-8 in the environment.",
            )
        )
    return found


def _requirements() -> tuple[tuple[Needed, ...], tuple[Extra, ...]]:
    """The packages that underfire needs, and its extras; none where it runs from its sources without installation."""
    try:
        declared = [Requirement(line) for line in metadata.requires("underfire") or ()]
    except metadata.PackageNotFoundError:
        declared = []

    def of(extra: str) -> tuple[Needed, ...]:
        wanted = [r for r in declared if r.marker is None or r.marker.evaluate({"extra": extra})]
        return tuple(_needed(r) for r in wanted if (r.marker is None) == (not extra))

    known = [Extra(name, purpose, of(name)) for name, purpose in EXTRAS.items()]
    others = [Extra(None, purpose, (_needed(Requirement(name)),)) for name, purpose in _NO_EXTRA.items()]
    return of(""), tuple(extra for extra in (*known, *others) if extra.packages)


def _needed(requirement: Requirement) -> Needed:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Needed(requirement.name, str(requirement.specifier), None, False)
    fits = requirement.specifier.contains(version, prereleases=True)
    return Needed(requirement.name, str(requirement.specifier), version, fits)


def _of_packages(packages: Sequence[Needed]) -> list[Trouble]:
    if not packages:
        what = "underfire runs from its sources and is not installed, so that nobody knows which packages it needs"
        return [Trouble(False, what, "Run in its folder: pip install -e .")]
    return [_missing(package, fatal=True) for package in packages if not package.fits]


def _of_extras(extras: Sequence[Extra]) -> list[Trouble]:
    """Extras are there or not; what hurts is one of which a package has the wrong version."""
    return [_missing(p, fatal=False) for extra in extras for p in extra.packages if p.version and not p.fits]


def _missing(package: Needed, *, fatal: bool) -> Trouble:
    here = f"is {package.version} here" if package.version else "is not installed"
    return Trouble(
        fatal,
        f"{package.name} {here}, and underfire needs {package.name}{package.wanted}",
        f'Run: pip install "{package.name}{package.wanted}"',
    )


def _machine() -> Machine:
    try:
        temporary: str | None = tempfile.gettempdir()
    except FileNotFoundError:
        temporary = None
    threads, gpus = _torch()
    return Machine(
        cores=_cores(),
        threads=threads,
        memory=_memory(),
        disk=shutil.disk_usage(Path.cwd()).free,
        temporary=temporary,
        gpus=gpus,
        driver=Path("/proc/driver/nvidia/version").exists(),
        encoding=getattr(sys.stdout, "encoding", None) or "utf-8",
    )


def _torch() -> tuple[int | None, tuple[Gpu, ...]]:
    """Its threads and the accelerators that it can use; nothing where it cannot be imported, whatever the reason."""
    try:
        import torch

        cuda = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        gpus = [Gpu(f"cuda:{index}", card.name, card.total_memory) for index, card in enumerate(cuda)]
        if torch.backends.mps.is_available():
            gpus.append(Gpu("mps", "Apple", None))
        return torch.get_num_threads(), tuple(gpus)
    except Exception:  # noqa: BLE001 - a half-installed torch fails with whatever its loader raises
        return None, ()


def _cores() -> float:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _first_number(Path("/sys/fs/cgroup/cpu.max"))
    period = _first_number(Path("/sys/fs/cgroup/cpu.max"), place=1)
    return min(cores, quota / period) if quota and period else cores


def _memory() -> int | None:
    limit = _first_number(Path("/sys/fs/cgroup/memory.max"))
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on POSIX
        return limit
    return min(whole, limit) if limit else whole


def _first_number(file: Path, place: int = 0) -> int | None:
    """The number that stands in ``file`` at ``place``; None for ``max``, and where there is no such file."""
    try:
        words = file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return None
    return int(words[place]) if len(words) > place and words[place].isdecimal() else None
