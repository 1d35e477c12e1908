"""Joining the runs of shards, made on machines that share nothing, into one run directory."""

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa

from underfire.auditing.condition import NONE
from underfire.auditing.facts import RunFacts
from underfire.auditing.plan import Shard, first_difference, shown_setting
from underfire.auditing.rows import read_table
from underfire.auditing.run import Run, open_run
from underfire.auditing.store import MAPS_FILE, RunDirectory, picture_name
from underfire.auditing.verification import units_of, verified_tables
from underfire.errors import InputError
from underfire.files import naming, quoted, read_regular_file, write_whole

_MOST_BYTES = 2**28  # of a part, a picture or a photo's maps
_MOST_SHARDS = 256
_TIME = "seconds"
"""The column that differs when the same rows are made again."""

_ADVICE = "give runs of one command, each with a --shard of its own"


def merge_runs(paths: Sequence[Path], out: Path) -> None:
    """Joins the runs in ``paths`` into one in ``out``, which appears whole or not at all.

    The parts are copied byte for byte, with the images and maps that an audit writes. What describes the run, apart
    from its parts, is what the first one says. Studies are not joined.

    Args:
        paths: run directories, which may be anybody's.
        out: a directory that is new or empty, in none of ``paths``.

    Raises:
        InputError: a run is none or damaged, two differ in what decides rows or have other rows of the same part, or
            ``out`` cannot be used.
        OSError: the disk refused.
    """
    _check_new(out, paths)
    runs = [open_run(path) for path in paths]
    for run in runs[1:]:
        _check_same(runs[0], run)
    sources = _sources(runs)
    place = out.resolve()
    unfinished = RunDirectory(place.with_name(f".{place.name}.{os.getpid()}.tmp"))
    shutil.rmtree(unfinished.path, ignore_errors=True)  # of a process that had the same number
    try:
        unfinished.path.mkdir(parents=True)
        _copy(sources, runs[0].facts, unfinished)
        open_run(unfinished.path)  # what was copied, and not only what was looked at before
        with naming(out):
            unfinished.path.replace(place)
    except BaseException:
        shutil.rmtree(unfinished.path, ignore_errors=True)
        raise


def shards_of(parts: Collection[int], total: int) -> tuple[Shard, ...]:
    """The fewest shards that do exactly ``parts`` of a run with ``total``; none where that takes more than 256."""
    for count in range(1, min(total, _MOST_SHARDS) + 1):
        first = sorted({number % count for number in parts})
        if sum(len(range(number, total, count)) for number in first) == len(parts):
            return tuple(Shard(number + 1, count) for number in first)
    return ()


def _check_new(out: Path, paths: Sequence[Path]) -> None:
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{quoted(out)} is there already; give a new directory for the merged run")
    inside = next((path for path in paths if out.resolve().is_relative_to(path.resolve())), None)
    if inside is not None:
        raise InputError(f"{quoted(out)} lies in the run {quoted(inside)}; give a directory outside of it")


def _check_same(first: Run, other: Run) -> None:
    """Refuses two runs that differ in anything that decides rows."""
    difference = first_difference(_deciding(first.facts), _deciding(other.facts)) or next(
        _photo_differences(first.facts, other.facts), None
    )
    if difference is not None:
        name, here, there = difference
        raise InputError(
            f"{quoted(first.path)} and {quoted(other.path)} are no shards of one audit: {name} is "
            f"{shown_setting(here)} in the first and {shown_setting(there)} in the second; {_ADVICE}"
        )


def _deciding(facts: RunFacts) -> Mapping[str, object]:
    """Everything that decides rows, apart from the photos, in the words of a sentence."""
    model = asdict(facts.model)
    named = model.pop("class_names")
    return {
        **facts.config,
        "the schema": facts.schema,
        "the version of underfire": facts.underfire_version,
        "the version of torch": facts.versions.get("torch"),
        "the number of threads": facts.threads if facts.device == "cpu" else None,  # they decide the order of sums
        "the list of conditions": tuple(map(str, facts.attacked_under)),
        "the list of interpreters": facts.seen_by,
        "the model's hash": model.pop("fingerprint"),
        **{f"the model's {name}": value for name, value in model.items()},
        **{f"the name of class {index}": name for index, name in named.items()},
        "the number of skipped files": len(facts.skipped),
        "the number of photos": len(facts.photos),
    }


def _photo_differences(first: RunFacts, other: RunFacts) -> Iterator[tuple[str, object, object]]:
    """What differs between equally many photos. Where their files lie decides nothing."""
    for place, (old, new) in enumerate(zip(first.photos, other.photos, strict=True), start=1):
        if old.image_id != new.image_id:
            yield f"photo {place}", old.image_id, new.image_id
        for name in ("sha256", "label", "label_given", "target", "excluded"):
            if getattr(old, name) != getattr(new, name):
                yield f"the {name} of photo {quoted(old.image_id)}", getattr(old, name), getattr(new, name)


def _sources(runs: Sequence[Run]) -> dict[int, RunDirectory]:
    """Where each part is taken from, by its number: the first run that has it."""
    sources: dict[int, RunDirectory] = {}
    for run in runs:
        directory = RunDirectory(run.path)
        for number, table in verified_tables(directory, run.facts):
            earlier = sources.setdefault(number, directory)
            if earlier is not directory:
                _check_equal(earlier.part(number), read_table(earlier.part(number)), directory.part(number), table)
    return sources


def _check_equal(first: Path, mine: pa.Table, second: Path, theirs: pa.Table) -> None:
    """Refuses two files of the same part that differ in more than the time that they took."""
    mine, theirs = mine.drop_columns([_TIME]), theirs.drop_columns([_TIME])
    if mine.equals(theirs):
        return
    both = f"{quoted(first)} and {quoted(second)} are the same part with other rows"
    for here, there in zip(mine.to_pylist(), theirs.to_pylist(), strict=True):
        name = next((name for name, value in here.items() if value != there[name]), None)
        if name is not None:
            raise InputError(
                f"{both}: {name} of a row of {quoted(here['image_id'])} is {shown_setting(here[name])} in the first "
                f"and {shown_setting(there[name])} in the second; leave out the run that you do not trust"
            )
    raise InputError(f"{both}; leave out the run that you do not trust")


def _copy(sources: Mapping[int, RunDirectory], facts: RunFacts, target: RunDirectory) -> None:
    """Fills ``target`` with the parts of ``sources`` and what belongs to them."""
    everything = units_of(facts)
    pictures = dict.fromkeys(map(picture_name, (NONE, *facts.attacked_under)))
    for unit in everything:
        source = sources.get(unit.number)
        if source is None:
            continue
        for photo in unit.photos:
            for name in (*pictures, MAPS_FILE):
                path = source.artifact(photo, name)
                if path.is_file():
                    copy = target.artifact(photo, name)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    with naming(copy):
                        copy.write_bytes(_content(path))
        write_whole(target.part(unit.number), _content(source.part(unit.number)))
    target.write(replace(facts, finished=len(sources) == len(everything)))


def _content(path: Path) -> bytes:
    try:
        return read_regular_file(path, limit=_MOST_BYTES, follow_links=False)
    except InputError as error:
        raise InputError(f"{quoted(path)} cannot be copied: {error}; put it back, or delete it") from error
