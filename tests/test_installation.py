"""What `underfire doctor` says of planted machines and installations."""

import tomllib
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from underfire import installation
from underfire.installation import EXTRAS, GIB, Extra, Gpu, Machine, Needed, inspect, troubles_of

WELL = Machine(4, 4, 16 * GIB, 100 * GIB, "/tmp", (), driver=False, encoding="utf-8")  # noqa: S108 - never opened
CUDA = Gpu("cuda:0", "H200", 140 * GIB)


def test_nothing_hurts_on_a_usual_machine() -> None:
    assert troubles_of(WELL) == []
    assert troubles_of(replace(WELL, gpus=(CUDA,), driver=True, encoding="UTF-8", threads=5, memory=None)) == []


@pytest.mark.parametrize(
    ("change", "said", "advised"),
    [
        ({"cores": 2.5, "threads": 8}, "8 threads on 2.5 cores", "OMP_NUM_THREADS=2"),
        ({"cores": 0.5, "threads": 2}, "2 threads on 0.5 cores", "OMP_NUM_THREADS=1"),
        ({"disk": GIB // 2}, "0.5 GiB are free", "--out"),
        ({"memory": GIB}, "1.0 GiB of memory", "--batch-size 1"),
        ({"temporary": None}, "temporary", "TMPDIR"),
        ({"driver": True}, "sees no GPU", "--device cuda"),
        ({"encoding": "ascii"}, "ascii", "PYTHONIOENCODING"),
    ],
)
def test_what_hurts_is_said_with_what_to_do(change: dict[str, Any], said: str, advised: str) -> None:
    (trouble,) = troubles_of(replace(WELL, **change))
    assert not trouble.fatal
    assert said in trouble.what
    assert advised in trouble.advice


def _declare(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: list(lines))
    monkeypatch.setattr(installation, "_machine", lambda: WELL)


def test_missing_and_old_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    _declare(
        monkeypatch,
        "click>=8",
        "numpy>=9999",
        "no-such-package>=2",
        'pytest>=1; extra == "timm"',
        'pytest>=9999; extra == "captum"',
        'no-such-ray; extra == "ray"',
        "tomli; python_version < '3'",
    )
    found = inspect("0.1", broken=["interpreter 'x' cannot be loaded"])
    assert [(p.name, p.wanted, p.fits) for p in found.packages] == [
        ("click", ">=8", True),
        ("numpy", ">=9999", False),
        ("no-such-package", ">=2", False),
    ]
    fatal = [trouble.what for trouble in found.troubles if trouble.fatal]
    assert fatal == [trouble.what for trouble in found.troubles[:2]]  # they come first
    assert "numpy>=9999" in fatal[0]
    assert "no-such-package is not installed" in fatal[1]
    assert [trouble.what.split()[0] for trouble in found.troubles[2:]] == ["pytest", "interpreter"]
    there = {extra.name: extra.complete for extra in found.extras if extra.name}
    assert there == {"timm": True, "captum": False, "ray": False}


def test_sources_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> list[str]:
        raise metadata.PackageNotFoundError("underfire")

    monkeypatch.setattr(metadata, "requires", missing)
    monkeypatch.setattr(installation, "_machine", lambda: WELL)
    found = inspect("0.1")
    assert found.packages == ()
    assert [trouble.fatal for trouble in found.troubles] == [False]
    assert "pip install -e ." in found.troubles[0].advice


def test_how_an_extra_is_installed() -> None:
    package = Needed("torchvision", "", None, fits=False)
    assert Extra("hf", "models", (package,)).install == 'pip install "underfire[hf]"'
    assert Extra(None, "models", (package,)).install == 'pip install "torchvision"'


def test_every_extra_has_a_purpose() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"dev", "docs"}


def test_the_limits_of_a_container(tmp_path: Path) -> None:
    limit = tmp_path / "cpu.max"
    limit.write_text("150000 100000\n", encoding="ascii")
    assert [installation._first_number(limit, place) for place in (0, 1, 2)] == [150000, 100000, None]
    limit.write_text("max 100000\n", encoding="ascii")
    assert installation._first_number(limit) is None
    assert installation._first_number(tmp_path / "missing") is None
