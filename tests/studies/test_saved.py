"""A study on disk: whole or not at all, and the same when it is read back."""

import errno
import os
from pathlib import Path
from xml.etree import ElementTree as ET

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.made_runs import made_study
from underfire.errors import InputError
from underfire.present.palette import with_colours
from underfire.studies.registry import STUDIES
from underfire.studies.study import read, save


def test_what_is_read_is_what_was_saved(tmp_path: Path) -> None:
    study = made_study()
    save(study, tmp_path / "out", command="underfire study transfer run", seed=7)
    (found,) = read(tmp_path / "out")
    assert found.study.table.equals(study.table)
    assert (found.study.name, found.study.title, found.study.claim) == (study.name, study.title, study.claim)
    assert found.study.words == study.words
    assert (found.made.command, found.made.seed) == ("underfire study transfer run", 7)
    assert {"python", "underfire", "torch"} <= set(found.made.versions)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "transfer.md", "transfer.parquet", "transfer.svg",
    ]  # fmt: skip
    assert pq.read_table(tmp_path / "out" / "transfer.parquet").to_pylist() == study.table.to_pylist()


def test_the_page_has_the_words_the_table_and_what_made_it(tmp_path: Path) -> None:
    save(made_study(), tmp_path, command="underfire study transfer run", seed=7)
    page = (tmp_path / "transfer.md").read_text(encoding="utf-8")
    lines = page.splitlines()
    assert lines[0] == "# A title of transfer"
    assert "Claim: A claim, <b>ours</b>." in lines
    assert "It holds." in lines
    assert "![A title of transfer](transfer.svg)" in lines
    assert "| model | l1 | n |" in lines
    assert "| <script>alert(1)</script>\\|net | 0.123 (0.1 to 0.2) | 12 |" in lines
    assert "| other | – | 0 |" in lines
    assert lines[-1].startswith("Made by `underfire study transfer run` with seed 7 on 20")


def test_the_figure_brings_its_colours_for_light_and_dark(tmp_path: Path) -> None:
    save(made_study(), tmp_path, command="", seed=0)
    text = (tmp_path / "transfer.svg").read_text(encoding="utf-8")
    root = ET.fromstring(text)  # noqa: S314 - our own output
    style = root[0].text or ""
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    for rules in (light, dark):
        assert "--adv2:#" in rules
        assert "--paper:#" in rules
        assert "--pgd" not in rules
    sheet = Path(with_colours.__code__.co_filename).parent / "templates" / "style.css"
    assert light.split("--adv2:")[1][:7] in sheet.read_text(encoding="utf-8")
    assert light.split("--adv2:")[1][:7] != dark.split("--adv2:")[1][:7]


def test_studies_come_in_their_order_and_nothing_else_is_read(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == ()
    for name in reversed(STUDIES):
        save(made_study(name), tmp_path, command="", seed=0)
    (tmp_path / "strange.parquet").write_bytes(b"")
    assert tuple(found.study.name for found in read(tmp_path)) == tuple(STUDIES)
    with pytest.raises(ValueError, match="transfer, bound, frontier, gap"):
        save(made_study("strange"), tmp_path, command="", seed=0)


def test_a_save_that_fails_leaves_the_study_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(made_study(words="Before."), tmp_path, command="", seed=0)
    sync, calls = os.fsync, iter(range(9))

    def full(descriptor: int) -> None:
        if next(calls) == 2:  # svg and md are written, the table is not
            raise OSError(errno.ENOSPC, "no space left")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save(made_study(words="After."), tmp_path, command="", seed=0)
    (found,) = read(tmp_path)
    assert found.study.words == "Before."
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("damage", ["cut", "bytes", "plain", "twins", "long", "renamed"])
def test_a_damaged_study_is_named(tmp_path: Path, damage: str) -> None:
    save(made_study(), tmp_path, command="", seed=0)
    path = tmp_path / "transfer.parquet"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "bytes":
        path.write_bytes(b"PAR1 nothing of the kind PAR1")
    elif damage == "plain":
        pq.write_table(made_study().table, path)
    elif damage == "long":
        pq.write_table(pq.read_table(path).take([0] * 10_001), path)
    elif damage == "twins":
        table = pq.read_table(path)
        names = ["l1" if name == "n" else name for name in table.column_names]
        pq.write_table(pa.table(table.columns, names).replace_schema_metadata(table.schema.metadata), path)
    else:
        path.rename(tmp_path / "gap.parquet")
    with pytest.raises(InputError, match=r"(transfer|gap)\.parquet.*underfire study (transfer|gap)"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"seed": 0', '"seed": "0"'),
        ('"seed": 0', '"seed": 1e999'),
        ('"seed": 0', f'"seed": {"[" * 100_000}{"]" * 100_000}'),
        ('"versions": {', '"versions": {"x": [], '),
        ('"date": "', '"date": ["x"], "x": "'),
        ('"claims": []', '"claims": [{"id": "x"}]'),
        ('"words": "It holds."', '"words": null'),
        ('"version": 1', '"version": true'),
    ],
)
def test_what_a_study_says_of_itself_is_read_by_its_types(tmp_path: Path, old: str, new: str) -> None:
    save(made_study(), tmp_path, command="", seed=0)
    path = tmp_path / "transfer.parquet"
    table = pq.read_table(path)
    (key, about), *_ = table.schema.metadata.items()
    assert old.encode() in about
    pq.write_table(table.replace_schema_metadata({key: about.replace(old.encode(), new.encode(), 1)}), path)
    with pytest.raises(InputError, match=r"transfer\.parquet' cannot be read as a study \("):
        read(tmp_path)


def test_a_study_that_was_saved_under_an_old_name_is_read_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as once:
        once.setitem(STUDIES, "defence", STUDIES["defense"])
        save(made_study("defence", words="Old."), tmp_path, command="", seed=0)
    (found,) = read(tmp_path)
    assert (found.study.name, found.study.words) == ("defense", "Old.")
    save(made_study("defense", words="New."), tmp_path, command="", seed=0)
    (found,) = read(tmp_path)
    assert (found.study.name, found.study.words) == ("defense", "New.")
