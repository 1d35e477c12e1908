"""The files of a run directory. Each appears whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from underfire.auditing.condition import NOISE, NONE, Condition
from underfire.auditing.facts import RunFacts, run_facts
from underfire.auditing.plan import PlannedPhoto, Unit
from underfire.choices import Keep
from underfire.decoding import plain_json
from underfire.errors import InputError
from underfire.files import RUN_FILE, check_tree, naming, quoted, read_regular_file, write_whole

_MOST_BYTES = 2**28  # of run.json: those of a million photos
_LEADS_OUT = frozenset("/\\\0")

STUDIES = "studies"
"""Where in a run directory the studies of the run lie."""

MAPS_FILE = "maps.safetensors"
"""Where among a photo's artifacts its maps lie."""


def picture_name(condition: Condition) -> str:
    """The file of the image under ``condition`` among a photo's artifacts."""
    return f"{'benign' if condition == NONE else condition.file_name}.png"


def map_name(condition: Condition, interpreter: str) -> str:
    """The name in `MAPS_FILE` of the map that ``interpreter`` took under ``condition``."""
    return f"{condition}/{interpreter}"


@dataclass(frozen=True)
class RunDirectory:
    """Where a run keeps what it found: run.json, rows/, artifacts/. All paths in it are made here.

    ``keep`` says what of the artifacts that are made stays.
    """

    path: Path
    keep: Keep = "all"

    def inside(self, *names: str) -> Path:
        """A path in this directory, each of ``names`` in the one before it; whoever chose them, it leads nowhere else.

        Raises:
            InputError: a name is none of a single file or folder, or a hidden one's.
        """
        for name in names:
            if not name or name.startswith(".") or _LEADS_OUT & set(name):
                raise InputError(f"{quoted(name)} cannot be the name of a file in the run {quoted(self.path)}")
        return self.path.joinpath(*names)

    @property
    def run_file(self) -> Path:
        """The description of the run."""
        return self.path / RUN_FILE

    @property
    def lock_file(self) -> Path:
        """What processes lock that work in this directory."""
        return self.path / ".lock"

    @property
    def artifacts(self) -> Path:
        """Images and maps, one folder per photo."""
        return self.path / "artifacts"

    @property
    def rows(self) -> Path:
        """The parts, one file per unit."""
        return self.path / "rows"

    def artifact(self, photo: PlannedPhoto, name: str) -> Path:
        """A file of ``photo``: `picture_name` or `MAPS_FILE`; raises `InputError` as `inside` does."""
        return self.inside("artifacts", photo.key, name)

    def part(self, number: int) -> Path:
        """The rows of one unit."""
        return self.rows / f"part-{number:05d}.parquet"

    def has_part(self, number: int) -> bool:
        """Whether a unit is finished."""
        return self.part(number).is_file()

    def check_usable(self) -> None:
        """Refuses a directory that is full of other things, or holds what leads out of it; raises `InputError`."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{quoted(self.path)} is a file; give a directory for the run")
        check_tree(self.path)
        if self.path.is_dir() and not self.run_file.is_file():
            # Hidden files may be those of another process that is about to write run.json.
            stranger = next((entry for entry in self.path.iterdir() if not entry.name.startswith(".")), None)
            if stranger is not None:
                raise InputError(
                    f"{quoted(self.path)} holds {quoted(stranger.name)} but no run.json, so it is not a run; "
                    "give a new directory"
                )

    def read(self) -> RunFacts | None:
        """What run.json says, or None if there is none; raises `InputError` if it is damaged or contradicts itself."""
        if not os.path.lexists(self.run_file):
            return None
        try:
            return run_facts(plain_json(read_regular_file(self.run_file, limit=_MOST_BYTES)))
        except ValueError as error:
            raise InputError(
                f"the run.json of {quoted(self.path)} is damaged ({error}); run the audit again into a new directory"
            ) from error

    def write(self, run: RunFacts) -> None:
        """Replaces run.json."""
        write_json(self.run_file, run.to_json())

    @contextmanager
    def new_artifacts(self, photo: PlannedPhoto) -> Iterator[Path]:
        """An empty folder that becomes that of ``photo`` when the block ends well, and vanishes otherwise.

        What is not to be kept of it vanishes too.
        """
        final = self.inside("artifacts", photo.key)
        unfinished = final.with_name(f".{photo.key}.{os.getpid()}")
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
            shutil.rmtree(final, ignore_errors=True)  # from a run that was stopped before its part was written
            if self.keep == "adversarial":
                for name in (*map(picture_name, (NONE, NOISE)), MAPS_FILE):
                    (unfinished / name).unlink(missing_ok=True)
            if self.keep == "none" or not any(unfinished.iterdir()):
                shutil.rmtree(unfinished)
            else:
                unfinished.rename(final)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def save_maps(self, folder: Path, maps: Mapping[str, Tensor]) -> None:
        """Writes ``maps`` (h, w), by the name that `map_name` gives, into a folder of `new_artifacts`."""
        content = safetensors.torch.save({name: found.float().contiguous().clone() for name, found in maps.items()})
        with naming(folder / MAPS_FILE):
            (folder / MAPS_FILE).write_bytes(content)

    def made(self, unit: Unit) -> dict[tuple[str, ...], bytes]:
        """The artifacts of the finished ``unit``, by the photo's key and the file's name, and by () its part."""
        folders = [(photo.key, self.inside("artifacts", photo.key)) for photo in unit.photos]
        files = [(key, file) for key, folder in folders if folder.is_dir() for file in folder.iterdir()]
        return {(): self.part(unit.number).read_bytes()} | {(key, file.name): file.read_bytes() for key, file in files}

    def take(self, unit: Unit, files: Mapping[tuple[str, ...], bytes]) -> None:
        """Writes what `made` found of ``unit`` elsewhere, its part last."""
        for photo in unit.photos:
            with self.new_artifacts(photo) as folder:
                for path, content in files.items():
                    if path[:1] == (photo.key,):
                        (folder / self.artifact(photo, path[1]).name).write_bytes(content)
        write_whole(self.part(unit.number), files[()])

    def sweep_descriptions(self) -> None:
        """Removes what a killed process left unfinished of run.json, the summary or the report."""
        for leftover in self.path.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

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
