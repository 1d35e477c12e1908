"""Some inputs of every kind in this process, and whether the campaign would notice what it looks for."""

import multiprocessing
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from fuzz.campaign import COLUMNS, Campaign, table
from fuzz.case import HELD, Case, Ended, Make, Originals, Outcome, Verdict
from fuzz.guard import guarded
from fuzz.kinds import KINDS, prepare
from fuzz.trial import try_input
from support.toy_photos import one_thread

SEED = 20_311_101
NUMBERS = {"images": range(8), "manifests": range(12), "options": range(12), "resumes": range(2), "gates": range(3)}
"""Which of a kind, where it is not the usual number: more of what is quick."""

SOME = range(5)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    made = Originals(tmp_path_factory.mktemp("fuzz") / "originals")
    with one_thread():
        prepare(made)
    return made


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    """A pipe that is waited for ends the test, not the day."""
    signal.alarm(900)  # by the clock, and others work here too
    yield
    signal.alarm(0)


@pytest.mark.filterwarnings("ignore")  # of libraries, about what is odd
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_inputs_are_refused_or_do_no_harm(kind: str, originals: Originals, tmp_path: Path) -> None:
    with one_thread():
        if kind in ("onnx", "transformers"):  # the first input pays for the import of the libraries
            try_input(KINDS[kind], kind, SEED, 0, tmp_path / "first", originals)
        for number in NUMBERS.get(kind, SOME):
            outcome = try_input(KINDS[kind], kind, SEED, number, tmp_path / str(number), originals)
            assert outcome.verdict in HELD, (number, outcome)


def test_an_input_is_made_again_by_its_number(originals: Originals, tmp_path: Path) -> None:
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        KINDS["images"](Random("0/images/3"), tmp_path / name, originals)
    (first,), (again,) = ((tmp_path / name).glob("photo.*") for name in ("first", "again"))
    assert first.read_bytes() == again.read_bytes()


def test_the_page_is_of_thousands_and_all_of_them_held() -> None:
    page = Path(__file__).parents[2] / "docs" / "measured" / "hostile-inputs.md"
    rows = [line.strip("| ").split(" | ") for line in page.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    assert rows[0][2:-1] == list(COLUMNS)
    assert {row[0] for row in rows[1:]} == {*KINDS, "all"}
    assert [int(cell) for cell in rows[-1][1:4]] == [sum(int(row[k]) for row in rows[1:-1]) for k in (1, 2, 3)]
    assert int(rows[-1][1]) >= 2000
    assert {tuple(cells) for *_, cells in ([row[0], row[4:-1]] for row in rows[1:])} == {("0",) * 5}


# --- the campaign itself ---


def test_what_leads_out_of_the_folder_is_seen(tmp_path: Path) -> None:
    home, secrets = tmp_path / "in", tmp_path / "outside"
    for folder in (home, secrets):
        folder.mkdir()
        (folder / "file").write_text("x")
    with guarded(home, secrets) as seen:
        (home / "new").write_text("x")
        (home / "new").rename(home / "newer")
        (home / "newer").unlink()
        Path(__file__).read_text(encoding="utf-8")
    assert seen == []
    harms = (
        lambda: (secrets / "file").read_text(),
        lambda: (tmp_path / "new").write_text("x"),
        lambda: (tmp_path / "new").unlink(),
        lambda: (home / "file").rename(tmp_path / "file"),
        lambda: (home / ".." / "folder").mkdir(),
        lambda: subprocess.run(["true"], check=True),
        lambda: socket.socket(socket.AF_UNIX).bind(str(home / "socket")),
    )
    for harm in harms:
        with guarded(home, secrets) as seen:
            harm()
        assert len(seen) >= 1


def planted(does: object) -> Make:
    """An input whose command is harmless, and that does something while it is judged."""

    def make(_: Random, home: Path, __: Originals) -> Case:
        def wrong(ended: tuple[Ended, ...]) -> str | None:
            return does(home, ended) if callable(does) else None

        return Case("planted", (("attacks",),), wrong)

    return make


def raises(*_: object) -> str:
    raise KeyError("planted")


def loops(*_: object) -> str:
    while True:
        pass


def ends(*_: object) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def sees_figures(*_: object) -> str:
    return "other figures"


def nothing(*_: object) -> None:
    return None


def waits(*_: object) -> str:
    reader, _writer = os.pipe()
    return os.read(reader, 1).decode()


def test_what_waits_for_ever_is_ended_and_what_only_gets_no_time_is_not(tmp_path: Path) -> None:
    kinds = {"waits": planted(waits), "slow": planted(lambda *_: time.sleep(2.5))}
    found = {}
    for name, idle in (("waits", 1.0), ("slow", 60.0)):
        campaign = Campaign(kinds, 0, 1.0, tmp_path / name, Originals(tmp_path), lambda _: None, idle)
        ((_, outcome),) = campaign.run(name, (0,))
        found[name] = outcome
    assert (found["waits"].verdict, found["waits"].why) == (Verdict.HANG, "SIGALRM")
    assert found["slow"].verdict is Verdict.ACCEPTED


PLANTED = {
    "fine": (nothing, Verdict.ACCEPTED),
    "raises": (raises, Verdict.CRASH),
    "loops": (loops, Verdict.HANG),
    "ends": (ends, Verdict.CRASH),
    "figures": (sees_figures, Verdict.SILENT),
}


def test_a_campaign_tells_how_each_input_ended_and_goes_on(tmp_path: Path) -> None:
    kinds = {name: planted(does) for name, (does, _) in PLANTED.items()}
    campaign = Campaign(kinds, 0, 0.5, tmp_path / "failures", Originals(tmp_path), lambda _: None)
    found: dict[str, list[Outcome]] = {}
    for name, (_, verdict) in PLANTED.items():
        numbers, outcomes = zip(*campaign.run(name, range(2)), strict=True)
        assert numbers == (0, 1)
        assert {outcome.verdict for outcome in outcomes} == {verdict}
        found[name] = list(outcomes)
        assert campaign.place(name, 0).exists() == (verdict not in HELD)
    assert table(found).splitlines()[-1].startswith("| all | 10 | 0 | 2 | 4 | 2 | 2 | 0 | 0 | 0.")
    assert not multiprocessing.active_children()
