"""Shards in directories of their own become one run, which is that of shards in one directory; or nothing does."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from support.toy_photos import found, one_thread, rows_of, toy_classifier, toy_plan, write_photos
from underfire.auditing import merging
from underfire.auditing.merging import shards_of
from underfire.auditing.plan import Shard
from underfire.auditing.runner import run_audit
from underfire.cli import cli


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of a run as a whole, of its shards in directories of their own, and of the same in one."""
    here = tmp_path_factory.mktemp("made")
    elsewhere = shutil.copytree(photos, here / "elsewhere")  # photos lie in other places on other machines
    with one_thread():
        for name, place, shard in (("whole", photos, "1/1"), ("1", photos, "1/2"), ("2", elsewhere, "2/2")):
            index, count = map(int, shard.split("/"))
            run_audit(toy_plan(), found(place), toy_classifier(), here / name, shard=Shard(index, count), command=shard)
    return here


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """A copy of what is `made`, to spoil."""
    return shutil.copytree(made, tmp_path / "here")


def merge(*paths: Path, out: Path) -> Result:
    return CliRunner().invoke(cli, ["merge", *map(str, paths), "--out", str(out)])


def files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def test_shards_become_the_run_of_one_machine(here: Path) -> None:
    out = here / "merged"
    ended = merge(here / "1", here / "2", out=out)
    assert ended.exit_code == 0, ended.output
    assert rows_of(out) == rows_of(here / "whole")
    shared = shutil.copytree(here / "1", here / "shared")
    for name in ("rows", "artifacts"):  # as if the second shard had worked in the directory of the first
        shutil.copytree(here / "2" / name, shared / name, dirs_exist_ok=True)
    facts = json.loads((shared / "run.json").read_text(encoding="utf-8")) | {"finished": True}
    (shared / "run.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    assert CliRunner().invoke(cli, ["report", str(shared)]).exit_code == 0
    expected = files(shared)
    expected.pop(".lock", None)
    assert files(out) == expected
    pictures = {name for name in files(here / "whole") if name.startswith("artifacts")}
    assert {name: files(out)[name] for name in pictures} == {name: files(here / "whole")[name] for name in pictures}


def test_the_merged_run_is_gone_on_with_where_a_shard_is_missing(here: Path, photos: Path) -> None:
    out = here / "merged"
    ended = merge(here / "1", out=out)
    assert ended.exit_code == 0, ended.output
    assert "Of 3 parts 1 are missing, those of --shard 2/2" in ended.stderr
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["finished"] is False
    with one_thread():
        assert run_audit(toy_plan(), found(photos), toy_classifier(), out).finished
    assert rows_of(out) == rows_of(here / "whole")


def test_parts_that_two_runs_have_are_there_once(here: Path) -> None:
    ended = merge(here / "whole", here / "1", here / "2", here / "2", out=here / "merged")
    assert ended.exit_code == 0, ended.output
    assert rows_of(here / "merged") == rows_of(here / "whole")


def _described(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    change(facts)
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")


def _seed(facts: dict[str, Any]) -> None:
    facts["plan"]["seed"] = facts["config"]["seed"] = 7


def _photo(facts: dict[str, Any]) -> None:
    facts["photos"][0] |= {"sha256": "0" * 64, "key": "00000-00000000"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_seed, ("seed is '0'", "'7'")),
        (_photo, ("the sha256 of photo 'photo-0.png'", f"'{'0' * 64}'")),
        (lambda facts: facts["model"].update(fingerprint="other"), ("the model's hash", "'other'")),
        (lambda facts: facts["model"]["class_names"].update({"3": "cat"}), ("the name of class 3", "'cat'")),
        (lambda facts: facts["versions"].update(torch="1.0"), ("the version of torch", "'1.0'")),
        (lambda facts: facts.update(threads=9), ("the number of threads", "'9'")),
        (lambda facts: facts["photos"].pop(), ("the number of photos", "'4'")),
    ],
)
def test_runs_that_differ_are_refused_with_what_differs(
    change: Callable[[dict[str, Any]], object], words: Sequence[str], here: Path
) -> None:
    shutil.rmtree(here / "2" / "rows")  # so that only run.json differs
    _described(here / "2", change)
    before = sorted(here.iterdir())
    ended = merge(here / "1", here / "2", out=here / "merged")
    assert ended.exit_code == 2
    assert [word for word in (*words, str(here / "1"), str(here / "2")) if word not in ended.stderr] == []
    assert len(ended.stderr.strip().splitlines()) == 1
    assert sorted(here.iterdir()) == before


def _rewritten(path: Path, column: str, value: float) -> None:
    table = pq.read_table(path)
    place = table.schema.get_field_index(column)
    field = table.schema.field(place)
    values = [value, *table.column(place).to_pylist()[1:]]
    pq.write_table(table.set_column(place, field, pa.array(values, field.type)), path, write_page_checksum=True)


@pytest.mark.parametrize(("column", "code"), [("seconds", 0), ("spearman", 2)])
def test_other_rows_of_the_same_part_are_refused(column: str, code: int, here: Path) -> None:
    _rewritten(here / "whole" / "rows" / "part-00001.parquet", column, 0.125)
    ended = merge(here / "1", here / "2", here / "whole", out=here / "merged")
    assert ended.exit_code == code, ended.output
    assert (here / "merged").exists() == (code == 0)
    if code:
        assert "spearman of a row of" in ended.stderr
        assert "'0.125'" in ended.stderr


def _foreign_part(run: Path) -> None:
    shutil.copy(run / "rows" / "part-00001.parquet", run / "rows" / "part-00002.parquet")


def _link(run: Path) -> None:
    (picture := next(run.glob("artifacts/*/benign.png"))).unlink()
    picture.symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    "spoil", [_foreign_part, _link, lambda run: (run / "run.json").write_text("{}"), shutil.rmtree]
)
def test_a_spoilt_run_is_refused_and_nothing_is_left(spoil: Callable[[Path], object], here: Path) -> None:
    spoil(here / "2")
    before = sorted(here.iterdir())
    ended = merge(here / "1", here / "2", out=here / "merged")
    assert (ended.exit_code, sorted(here.iterdir())) == (2, before), ended.output


@pytest.mark.parametrize("failing", ["write_whole", "open_run"])
def test_what_fails_on_the_way_leaves_nothing(failing: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = getattr(merging, failing)

    def fail(path: Path, *rest: Any) -> Any:
        if path.is_relative_to(here) and ".merged" in str(path):
            raise OSError(28, "No space left on device", str(path))
        return kept(path, *rest)

    monkeypatch.setattr(merging, failing, fail)
    before = sorted(here.iterdir())
    ended = merge(here / "1", here / "2", out=here / "merged")
    assert (ended.exit_code, sorted(here.iterdir())) == (2, before), ended.output


@pytest.mark.parametrize("out", ["1", "2/merged", "elsewhere"])
def test_a_directory_in_use_is_refused(out: str, here: Path) -> None:
    before = files(here)
    assert merge(here / "1", here / "2", out=here / out).exit_code == 2
    assert files(here) == before


def test_an_empty_directory_is_filled(here: Path) -> None:
    (here / "merged").mkdir()
    assert merge(here / "1", here / "2", out=here / "merged").exit_code == 0


@pytest.mark.parametrize(
    ("parts", "total", "shards"),
    [
        ([1], 3, ["2/2"]),
        ([0, 1, 2], 3, ["1/1"]),
        ([1, 3, 5, 7], 8, ["2/2"]),
        ([1, 2, 5, 6], 8, ["2/4", "3/4"]),
        ([3], 5, ["4/4"]),
        ([0, 999], 1000, []),
    ],
)
def test_missing_parts_are_those_of_shards(parts: list[int], total: int, shards: list[str]) -> None:
    found = shards_of(parts, total)
    assert list(map(str, found)) == shards
    if found:
        assert [n for n in range(total) if any(shard.has(n) for shard in found)] == parts
