"""The files of a run directory. Each appears whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underfire.auditing.condition import NONE, Condition
from underfire.auditing.plan import Unit
from underfire.errors import InputError
from underfire.files import write_whole

_NEEDED = ("schema", "underfire_version", "versions", "model", "config", "photos", "skipped", "finished")

STUDIES = "studies"
"""Where in a run directory the studies of the run lie."""

MAPS_FILE = "maps.safetensors"
"""Where among a photo's artifacts its maps lie."""


def picture_name(condition: Condition) -> str:
    """The file of the image under ``condition`` among a photo's artifacts."""
    return f"{'benign' if condition == NONE else condition}.png"


def map_name(condition: Condition, interpreter: str) -> str:
    """The name in `MAPS_FILE` of the map that ``interpreter`` took under ``condition``."""
    return f"{condition}/{interpreter}"


@dataclass(frozen=True)
class RunDirectory:
    """Where a run keeps what it found: run.json, rows/, artifacts/."""

    path: Path

    @property
    def run_file(self) -> Path:
        """The description of the run."""
        return self.path / "run.json"

    @property
    def lock_file(self) -> Path:
        """What processes lock that work in this directory."""
        return self.path / ".lock"

    @property
    def artifacts(self) -> Path:
        """Images and maps, one folder per photo."""
        return self.path / "artifacts"

    def part(self, number: int) -> Path:
        """The rows of one unit."""
        return self.path / "rows" / f"part-{number:05d}.parquet"

    def has_part(self, number: int) -> bool:
        """Whether a unit is finished."""
        return self.part(number).is_file()

    def check_usable(self) -> None:
        """Refuses a directory that is full of other things; raises `InputError`."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"'{self.path}' is a file; give a directory for the run")
        if self.path.is_dir() and not self.run_file.is_file():
            # Hidden files may be those of another process that is about to write run.json.
            stranger = next((entry for entry in self.path.iterdir() if not entry.name.startswith(".")), None)
            if stranger is not None:
                raise InputError(
                    f"'{self.path}' holds '{stranger.name}' but no run.json, so it is not a run; give a new directory"
                )

    def read(self) -> dict[str, Any] | None:
        """The content of run.json, or None if there is none; raises `InputError` if it cannot be read."""
        try:
            content = json.loads(self.run_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(
                f"'{self.run_file}' cannot be read ({error}); give a new directory, or delete this one"
            ) from error
        missing = [name for name in _NEEDED if not isinstance(content, dict) or name not in content]
        if missing:
            raise InputError(f"'{self.run_file}' has no '{missing[0]}', so it is no run; give a new directory")
        return dict(content)

    def write(self, run: Mapping[str, Any]) -> None:
        """Replaces run.json."""
        write_json(self.run_file, run)

    @contextmanager
    def new_artifacts(self, key: str) -> Iterator[Path]:
        """An empty folder that becomes artifacts/``key`` when the block ends well, and vanishes otherwise."""
        unfinished = self.artifacts / f".{key}.{os.getpid()}"
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
            final = self.artifacts / key
            shutil.rmtree(final, ignore_errors=True)  # from a run that was stopped before its part was written
            unfinished.rename(final)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def sweep(self, unit: Unit) -> None:
        """Removes what a killed process left unfinished of ``unit``."""
        for leftover in self.part(unit.number).parent.glob(f".{self.part(unit.number).name}.*.tmp"):
            leftover.unlink(missing_ok=True)
        for photo in unit.photos:
            for folder in self.artifacts.glob(f".{photo.key}.*"):
                shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes ``content`` to ``path`` in ASCII, whole or not at all."""
    # Escapes alone hold every file name: bytes of it that are no UTF-8 come as lone surrogates.
    text = json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    write_whole(path, text.encode())
