"""A run directory as the report reads it: what is there is used, what is missing stays missing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from underfire.auditing.rows import Row, read_rows
from underfire.errors import InputError
from underfire.present.pictures import Bytes, Map, read_photo


@dataclass(frozen=True)
class Run:
    """What a run directory says.

    Attributes:
        folder: the run directory.
        facts: run.json; any key may be missing.
        rows: every row of every finished part.
    """

    folder: Path
    facts: Mapping[str, Any]
    rows: tuple[Row, ...]

    @property
    def finished(self) -> bool:
        """Whether the audit says that it came to its end."""
        return bool(self.facts.get("finished", False))

    def section(self, name: str) -> Mapping[str, Any]:
        """The object ``name`` of run.json, empty where there is none."""
        value = self.facts.get(name)
        return value if isinstance(value, dict) else {}

    @property
    def class_names(self) -> Mapping[str, str]:
        """The names of the classes that occur, by index as text."""
        names = self.section("class_names") or self.section("model").get("class_names")
        return {str(index): str(name) for index, name in names.items()} if isinstance(names, dict) else {}

    def entries(self, name: str) -> list[Mapping[str, Any]]:
        """The objects in the list ``name`` of run.json, none where there is no list."""
        value = self.facts.get(name)
        return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def read_run(folder: Path) -> Run:
    """Reads run.json and the rows.

    Raises:
        InputError: ``folder`` is not a run directory, or run.json or a part is damaged.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise InputError(
            f"{str(folder)!r} holds no run.json, so it is not a run; give the directory that "
            "`underfire audit --out` wrote"
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}); run the same audit again to mend it") from error
    if not isinstance(facts, dict):
        raise InputError(f"{str(path)!r} does not describe a run; run the same audit again to mend it")
    rows = tuple(read_rows(folder)) if (folder / "rows").is_dir() else ()
    return Run(folder=folder, facts=facts, rows=rows)


@dataclass(frozen=True)
class Artifacts:
    """The pictures and maps of one photo, as far as they can be read.

    Attributes:
        pictures: by condition ("benign", "pgd", "adv2-cam"), (H, W, 3) uint8.
        maps: by condition and interpreter ("none/cam", "adv2-cam/grad"), (h, w) float32.
        damaged: names of files that are there and cannot be read.
    """

    pictures: Mapping[str, Bytes]
    maps: Mapping[str, Map]
    damaged: tuple[str, ...]


def read_artifacts(folder: Path, conditions: frozenset[str]) -> Artifacts:
    """Reads the PNGs of ``conditions`` and the maps in ``folder``, a photo's artifacts; it need not exist."""
    pictures: dict[str, Bytes] = {}
    maps: dict[str, Map] = {}
    damaged: list[str] = []
    for condition in sorted(conditions):
        path = folder / f"{condition}.png"
        if not path.is_file():
            continue
        try:
            pictures[condition] = read_photo(path)
        except (OSError, ValueError, SyntaxError):  # what Pillow raises for a damaged PNG
            damaged.append(path.name)
    path = folder / "maps.safetensors"
    if path.is_file():
        try:
            maps = {name: np.asarray(map_, np.float32) for name, map_ in load_file(path).items() if map_.ndim == 2}
        except (SafetensorError, OSError):
            damaged.append(path.name)
    return Artifacts(pictures, maps, tuple(damaged))
