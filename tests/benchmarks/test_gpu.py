"""The script for a GPU runs from end to end on a CPU; what fails is a line, and what it measures is what it says."""

from itertools import count
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from benchmarks import gpu
from benchmarks.gpu import Deadline, guarded, main, quality, rate, speed, tables
from benchmarks.subject import Recipe, Subject
from support.toy_photos import toy_classifier
from support.toys import images

STAGES = ("eager", "prepared", "bf16", "CUDA graph")
ENDLESS = Deadline(60)


@pytest.fixture
def subject() -> Subject:
    return Subject.of(Recipe("toy", "cpu", 4), toy_classifier(), images(3, 32))


@pytest.mark.parametrize(("seconds", "rounds"), [(0.5, 1), (3.0, 3), (3.5, 4)])
def test_a_rate_is_of_what_came_after_the_warm_up(seconds: float, rounds: int) -> None:
    made = iter([1000, *[7] * 100])
    ticks = count()
    assert rate(lambda: next(made), seconds, lambda: float(next(ticks))) == 7
    assert next(ticks) == rounds + 1


def test_what_fails_is_a_line_and_what_comes_too_late_as_well() -> None:
    def fails() -> tuple[str, ...]:
        raise RuntimeError("out of memory\nand more")

    now = iter([0.0, 59.0, 60.0])
    deadline = Deadline(1, lambda: next(now))
    assert guarded(fails, 3, deadline) == ("RuntimeError: out of memory", "", "")
    assert guarded(fails, 2, deadline) == ("left out: the time is over", "")


def test_every_stage_that_runs_here_has_its_rates(subject: Subject) -> None:
    found = {row[0]: row[1:] for row in speed(subject, STAGES, 0.01, ENDLESS).rows}
    for name in STAGES[:3]:
        raw, pgd, share, _, joint, _ = found[name]
        assert min(float(raw), float(pgd), float(joint), float(share)) > 0, name
    assert found["CUDA graph"][1:] == ("", "", "", "", "")
    assert set(found) == {"Foolbox, eager", "torchattacks, eager", *STAGES}


def test_the_search_in_each_stage_is_judged_in_float32(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "PASSES", 40)
    judged: list[torch.dtype] = []
    classify = subject.classifier.probabilities

    def probabilities(x: Tensor) -> Tensor:
        judged.append(x.dtype)
        return classify(x)

    monkeypatch.setattr(subject.classifier, "probabilities", probabilities)
    found = {row[0]: row[1:] for row in quality(subject, STAGES, ENDLESS).rows}
    label, p, l1, passes, _ = found["eager"]
    assert (label, 0.9 <= float(p) <= 1, 1 <= float(passes) <= 40) == ("4 of 4", True, True)
    assert float(found["prepared"][2]) == pytest.approx(float(l1), abs=0.02)
    assert found["bf16"][0] == "4 of 4"
    assert set(judged) == {torch.float32}


def test_batches_come_one_by_one(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(name: str, subject: Subject, *_: Any) -> tuple[str, ...]:
        return (f"{len(subject.x)}", *[""] * 5)

    monkeypatch.setattr(gpu, "stage_row", row)
    monkeypatch.setattr(gpu, "rival_rate", lambda *_: 1.0)
    _, *others = tables(subject, ("eager",), (2, 8), 0.01, ENDLESS)
    assert [table.rows[-1][1] for table in others] == ["2", "8"]


def test_without_a_card_it_says_how_to_try_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ended = CliRunner().invoke(main, [])
    assert (ended.exit_code, "there is no GPU here" in ended.output) == (2, True)
