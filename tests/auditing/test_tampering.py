"""A run directory that somebody else filled: one sentence and exit code 2 at every door, nothing changed or run."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from support.toy_photos import MODEL_OPTIONS, write_photos
from underfire import api
from underfire.auditing.condition import NONE, PGD
from underfire.auditing.rows import Row, read_rows, write_part
from underfire.auditing.run import open_run
from underfire.auditing.store import RunDirectory
from underfire.auditing.verification import OwnRows, verified_rows
from underfire.cli import cli
from underfire.errors import InputError

DOORS = ("report", "resume", "study")
FAST = ("--interpreters", "cam", "--attacks", "pgd,adv2", "--steps", "2", "--batch-size", "2")


class Audited(NamedTuple):
    photos: Path
    run: Path


def resume(photos: Path, run: Path) -> tuple[str, ...]:
    return ("audit", str(photos), *MODEL_OPTIONS, *FAST, "--out", str(run))


def through(door: str, photos: Path, run: Path) -> tuple[str, ...]:
    """The command that opens ``run``."""
    return {"report": ("report", str(run)), "resume": resume(photos, run), "study": ("study", "transfer", str(run))}[
        door
    ]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    folder = tmp_path_factory.mktemp("audited")
    photos = write_photos(folder / "photos", 3)
    ended = CliRunner().invoke(cli, resume(photos, folder / "run"))
    assert ended.exit_code == 0, ended.output
    return Audited(photos, folder / "run")


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    """A pipe that is waited for ends the test, not the day."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def contents(folder: Path) -> Mapping[str, object]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.is_file() and not path.is_symlink()
        else path.lstat().st_mode
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }


Spoil = Callable[[Path], object]


def said(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Edits run.json."""

    def spoil(run: Path) -> None:
        content = json.loads((run / "run.json").read_text(encoding="utf-8"))
        change(content)
        (run / "run.json").write_text(json.dumps(content), encoding="utf-8")

    return spoil


def put(**values: Any) -> Spoil:
    return said(lambda content: content.update(values))


def photo(**values: Any) -> Spoil:
    return said(lambda content: content["photos"][0].update(values))


def within(section: str, **values: Any) -> Spoil:
    return said(lambda content: content[section].update(values))


def text(old: str, new: str) -> Spoil:
    """Edits run.json where Python's JSON would not."""

    def spoil(run: Path) -> None:
        content = (run / "run.json").read_text(encoding="utf-8")
        assert old in content
        (run / "run.json").write_text(content.replace(old, new, 1), encoding="utf-8")

    return spoil


def part(run: Path) -> Path:
    return run / "rows" / "part-00000.parquet"


def rows(change: Callable[[list[Row]], list[Row]]) -> Spoil:
    return lambda run: write_part(part(run), change(read_rows(run)[: len(pq.read_table(part(run)))]))


def column(name: str, value: Any) -> Spoil:
    """Edits a column of a part, past all checks of a row."""

    def spoil(run: Path) -> None:
        table = pq.read_table(part(run))
        place = table.schema.get_field_index(name)
        field = table.schema.field(place)
        edited = table.set_column(place, field, pa.array([value] * len(table), field.type))
        pq.write_table(edited, part(run), write_page_checksum=True)

    return spoil


def in_place_of(name: str, make: Callable[[Path], object]) -> Spoil:
    def spoil(run: Path) -> None:
        path = run / name
        if path.is_dir() and not path.is_symlink():
            path.rename(run.parent / "outside" / path.name)
        else:
            path.unlink(missing_ok=True)
        make(path)

    return spoil


def link(path: Path) -> None:
    path.symlink_to(path.parents[1] / "outside" if path.name != "rows" else path.parents[1] / "outside" / "rows")


def first_folder(run: Path) -> str:
    return f"artifacts/{sorted(p.name for p in (run / 'artifacts').iterdir())[0]}"


CHECKED = {"interpreter": "cam", "constant": [False], "advantage": [0.1], "similarity": [0.2]}
NESTED = "[" * 100_000 + "]" * 100_000
KINDS: dict[str, Spoil] = {
    "key absolute": photo(key="/outside"),
    "key dots": photo(key="../../outside"),
    "key and hash": photo(key="00000-../../ou", sha256="../../ou" + "0" * 56),
    "key of another": said(lambda c: c["photos"][0].update(key=c["photos"][1]["key"])),
    "hash": photo(sha256="0" * 64, key="00000-00000000"),
    "photo dropped": said(lambda c: c["photos"].pop()),
    "photo twice": said(lambda c: c["photos"].append(c["photos"][0])),
    "no photos": put(photos=[]),
    "photos text": put(photos="all"),
    "photo without a file": said(lambda c: c["photos"][0].pop("file")),
    "label text": photo(label="1"),
    "label edited": said(lambda c: c["photos"][0].update(label=(c["photos"][0]["label"] + 1) % 10)),
    "label of no class": photo(label=99),
    "exclusion edited": photo(excluded="misclassified"),
    "terminal escapes": photo(image_id="\x1b]0;pwned\x07"),
    "model list": put(model=["net"]),
    "names too few": said(lambda c: c["model"]["class_names"].pop("9")),
    "input size": within("model", input_size=[0, 2**40]),
    "config number": put(config=3),
    "config of another seed": within("config", seed=1),
    "config nested": within("config", seed={"a": {"b": {"c": {"d": 1}}}}),
    "plan of another seed": within("plan", seed=1),
    "plan unknown": within("plan", code="acme:run"),
    "plan text": put(plan="quick"),
    "steps of two kinds": within("plan", steps=5),
    "steps of one attack": said(lambda c: c["config"]["steps"].update(pgd=5)),
    "eps of two kinds": within("plan", eps=0.5),
    "eps negative": said(lambda c: [c[s].update(eps=-1.0) for s in ("plan", "config", "threat_model")]),
    "eps NaN": within("threat_model", eps=float("nan")),
    "eps infinite": text('"norm": "linf"', '"norm": "linf", "x": 1e999'),
    "number of 400 digits": text('"norm": "linf"', '"norm": "linf", "x": 1' + "0" * 400),
    "number of 5000 digits": text('"norm": "linf"', '"norm": "linf", "x": 1' + "0" * 5000),
    "nested": text('"norm": "linf"', f'"norm": "linf", "x": {NESTED}'),
    "seed beyond": text('"seed": 0', '"seed": 9223372036854775808'),
    "versions list": put(versions=["torch"]),
    "skipped numbers": put(skipped=[1, 2]),
    "checks of something": put(model_checks=[{"check": "coupled", "fired": True}]),
    "settings of nobody": put(interpreter_settings={"gone": {}}),
    "settings that are a list": put(interpreter_settings=[]),
    "map checks of nobody": put(map_checks=[CHECKED | {"interpreter": "gone"}]),
    "map checks twice": put(map_checks=[CHECKED, CHECKED]),
    "map checks of two lengths": put(map_checks=[CHECKED | {"advantage": [0.1, 0.2]}]),
    "map checks out of range": put(map_checks=[CHECKED | {"similarity": [1e300]}]),
    "threads text": put(threads="one"),
    "finished text": put(finished="yes"),
    "created number": put(created=2031),
    "conditions lead out": put(conditions=["none", "noise", "pgd", "adv2-../../outside"]),
    "conditions fewer": put(conditions=["none", "noise"]),
    "interpreters twice": put(interpreters=["cam", "cam"]),
    "unknown": put(hook="acme:run"),
    "run.json empty": lambda run: (run / "run.json").write_bytes(b""),
    "run.json no text": lambda run: (run / "run.json").write_bytes(b"\xff\xfe{}"),
    "run.json list": lambda run: (run / "run.json").write_text("[]"),
    "run.json pipe": in_place_of("run.json", os.mkfifo),
    "run.json link": in_place_of("run.json", lambda path: path.symlink_to(path.parents[1] / "copy.json")),
    "lock pipe": in_place_of(".lock", os.mkfifo),
    "artifacts link": in_place_of("artifacts", link),
    "rows link": in_place_of("rows", link),
    "studies link": in_place_of("studies", link),
    "report link": in_place_of("report.html", link),
    "photo link": lambda run: in_place_of(first_folder(run), lambda p: p.symlink_to(run.parent / "outside"))(run),
    "part link": in_place_of("rows/part-00000.parquet", lambda path: path.symlink_to("part-00001.parquet")),
    "part pipe": in_place_of("rows/part-00000.parquet", os.mkfifo),
    "part folder": in_place_of("rows/part-00000.parquet", Path.mkdir),
    "part empty": lambda run: part(run).write_bytes(b""),
    "part cut": lambda run: part(run).write_bytes(part(run).read_bytes()[:999]),
    "last part cut": lambda run: (run / "rows" / "part-00001.parquet").write_bytes(b"PAR1"),
    "part of other columns": lambda run: pq.write_table(pa.table({"x": [1]}), part(run)),
    "part further": lambda run: shutil.copy(part(run), part(run).with_name("part-00007.parquet")),
    "part of other photos": lambda run: shutil.copy(part(run), part(run).with_name("part-00001.parquet")),
    "no rows": rows(lambda some: []),
    "row lost": rows(lambda some: some[1:]),
    "row twice": rows(lambda some: [*some, some[0]]),
    "row of another photo": column("image_id", "another.png"),
    "rows of another hash": column("image_sha256", "0" * 64),
    "rows of another label": column("label", 7),
    "rows of another seed": column("seed", 5),
    "rows of another eps": column("eps", 0.5),
    "rows of a tiny eps": column("eps", 5e-324),
    "rows of another interpreter": column("interpreter", "grad"),
    "rows all successful": column("success", True),
    "linf beyond eps": column("linf", 0.9),
    "iou 7.5": column("iou_50_8bit", 7.5),
    "confidence 3": column("confidence", 3.0),
    "l1 negative": column("l1", -4.0),
    "l1 huge": column("l1_8bit", 1e308),
    "seconds huge": column("seconds", 1e308),
    "seconds NaN": column("seconds", float("nan")),
    "prediction of no class": column("prediction", 10**9),
}  # fmt: skip


@pytest.mark.parametrize("name", list(KINDS))
def test_what_was_tampered_with_is_one_sentence_at_every_door(
    name: str, audited: Audited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(audited.run, tmp_path / "run")
    shutil.copy(run / "run.json", tmp_path / "copy.json")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "thesis").write_text("mine")
    KINDS[name](run)
    before = contents(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr("underfire.auditing.unit.Auditor.run", None)
    for door in DOORS:
        ended = CliRunner().invoke(cli, through(door, audited.photos, run))
        lines = [line for line in ended.stderr.splitlines() if line.startswith("Error: ")]
        assert (ended.exit_code, len(lines)) == (2, 1), (door, ended.output, ended.exception)
        assert "\x1b" not in ended.output
        assert contents(tmp_path) == before, door


def test_a_run_as_it_was_made_passes_every_door(audited: Audited) -> None:
    for door in DOORS:
        ended = CliRunner().invoke(cli, through(door, audited.photos, audited.run))
        assert ended.exit_code == 0, ended.output


def test_a_part_that_is_missing_is_told_and_made_again(audited: Audited, tmp_path: Path) -> None:
    run = shutil.copytree(audited.run, tmp_path / "run")
    part(run).unlink()
    reported = CliRunner().invoke(cli, through("report", audited.photos, run))
    assert (reported.exit_code, "unfinished: the report is of 1 of its 3 photos" in reported.stderr) == (0, True)
    assert "This run is unfinished." in (run / "report.html").read_text(encoding="utf-8")
    studied = CliRunner().invoke(cli, through("study", audited.photos, run))
    assert (studied.exit_code, "is unfinished: 1 of its 3 photos" in studied.stderr) == (2, True)
    resumed = CliRunner().invoke(cli, [*resume(audited.photos, run), "--fail-if", "asr<0"])
    assert (resumed.exit_code, part(run).is_file()) == (0, True)


@pytest.mark.parametrize(("gates", "code"), [((), 2), (("--fail-if", "asr<0"), 1)])
def test_an_audit_whose_rows_vanished_does_not_pass(
    gates: tuple[str, ...], code: int, audited: Audited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(audited.run, tmp_path / "run")
    rebuild = api.rebuild

    def vanished(path: Path) -> Any:
        shutil.rmtree(path / "rows", ignore_errors=True)
        return rebuild(path)

    monkeypatch.setattr(api, "rebuild", vanished)
    ended = CliRunner().invoke(cli, [*resume(audited.photos, run), *gates])
    assert (ended.exit_code, "others that were finished are gone" in " ".join(ended.stderr.split())) == (code, True)
    assert "shard" not in ended.output


def test_a_run_imports_nothing(audited: Audited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\ndef go(): pass\n")
    for section, name, spec in (
        ("plan", "model", {"spec": "evil:go"}),
        ("plan", "model", {"spec": "./evil.py:go"}),
        *(("plan", "model", {"spec": f"{kind}:evil.py"}) for kind in ("script", "onnx", "hf")),
        ("plan", "interpreters", ["evil:go"]),
        ("plan", "attacks", ["evil:go"]),
    ):
        run = shutil.copytree(audited.run, tmp_path / "run", dirs_exist_ok=True)

        def change(content: dict[str, Any], section: str = section, name: str = name, spec: Any = spec) -> None:
            old = content[section][name]
            content[section][name] = old | spec if isinstance(old, dict) else spec
            if name != "model":
                content["config"][name] = spec

        said(change)(run)
        for study in ("bound", "transfer", "frontier", "gap"):
            ended = CliRunner().invoke(cli, ["study", study, str(run), "--onto" if study == "transfer" else "--limit",
                                             "efficientnet-lite0" if study == "transfer" else "1"])  # fmt: skip
            assert ended.exit_code == 2, ended.output
            assert len([line for line in ended.stderr.splitlines() if line.startswith("Error: ")]) == 1
        assert CliRunner().invoke(cli, ["report", str(run)]).exit_code == 0
    assert not (tmp_path / "ran").exists()


def test_what_a_study_left_is_verified_as_a_run_is(audited: Audited) -> None:
    """A study's own attacks may leave photos out; those that they have are the run's, with all their rows."""
    run = open_run(audited.run)
    directory, own = RunDirectory(audited.run.parent / "work"), OwnRows((NONE, PGD), "cam")
    path = directory.part(0)
    left = [row for row in run.records[: len(pq.read_table(part(audited.run)))] if row.condition in own.conditions]
    first = [row for row in left if row.image_id == left[0].image_id]
    for some in ([], first, left):
        write_part(path, some)
        assert verified_rows(directory, run.facts, own) == {0: some}
    for some, problem in (
        (first[1:], "it lacks 1 of its"),
        ([*left, left[0]], "or a second one"),
        ([*left, next(row for row in run.records if row.attack == "adv2")], "no place for a row"),
        ([replace(row, photo=replace(row.photo, target=row.photo.target ^ 1)) for row in left], "target class"),
    ):
        write_part(path, some)
        with pytest.raises(InputError, match=f"part-00000.parquet' does not belong to this run: .*{problem}"):
            verified_rows(directory, run.facts, own)


@pytest.mark.parametrize("named", [(), ("--interpreters", "cam"), ("--attacks", "adv2")])
def test_code_of_others_is_named_by_the_user(
    named: tuple[str, ...], audited: Audited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(audited.run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    command = ["study", "bound", str(run), "--limit", "1", "--out", str(tmp_path / "out"), *named]
    refused = CliRunner().invoke(cli, command)
    assert (refused.exit_code, "name them yourself: --model" in refused.stderr) == (2, True)
    assert CliRunner().invoke(cli, [*command, *MODEL_OPTIONS]).exit_code == 0


def test_a_name_that_steers_a_terminal_is_spelt_out(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    (photos / "manifest.csv").unlink()
    (photos / "\x1b]0;pwned\x07.png").write_bytes(b"none")
    for _ in range(2):
        assert CliRunner().invoke(cli, resume(photos, tmp_path / "run")).exit_code == 0
    refused = CliRunner().invoke(cli, [*resume(photos, tmp_path / "run"), "--strict"])
    assert (refused.exit_code, "\x1b" in refused.output, r"\x1b]0;pwned" in refused.stderr) == (2, False, True)
