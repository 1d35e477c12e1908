"""The script for a GPU runs from end to end on a CPU; what fails is a line, and what it measures is what it says."""

import signal
import time
import weakref
from itertools import count
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from benchmarks import gpu, gpu_stages
from benchmarks.gpu import Deadline, Run, attack_rate, main, quality, rate, raw_rate, speed, tables, tried
from benchmarks.gpu_stages import STAGES
from benchmarks.subject import Recipe, Subject
from support.toy_photos import toy_classifier
from support.toys import ReluNet, images
from underfire import ADV2, CAM
from underfire.attacks.engine import descend
from underfire.interpreters import MapTarget

WORKING = ("eager", "prepared", "bf16", "compile")
ALL = (*WORKING, "CUDA graph")
ENDLESS = Deadline(60)


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Subject:
    monkeypatch.setattr(gpu_stages, "BACKEND", "aot_eager")
    return Subject.of(Recipe("toy", "cpu", 4), toy_classifier(), images(3, 32))


@pytest.mark.parametrize(("seconds", "rounds"), [(0.5, 1), (3.0, 3), (3.5, 4)])
def test_a_rate_is_of_what_came_after_the_warm_up(seconds: float, rounds: int) -> None:
    made = iter([1000, *[7] * 100])
    ticks = count()
    assert rate(lambda: next(made), seconds, lambda: float(next(ticks))) == 7
    assert next(ticks) == rounds + 1


def test_what_fails_is_told_in_words_and_what_comes_too_late_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> float:
        raise RuntimeError("out of memory\nand more")

    now = iter([0.0, 59.0, 60.0])
    deadline = Deadline(1, lambda: next(now))
    assert tried("bf16", fails, deadline) == "RuntimeError: out of memory"
    assert tried("graph", fails, deadline) == "left out: the time is over"
    assert capsys.readouterr().err == "bf16: RuntimeError: out of memory\ngraph: left out: the time is over\n"


def test_what_fails_holds_no_memory_when_it_is_told() -> None:
    held: list[weakref.ref[Tensor]] = []

    def fails() -> float:
        large = torch.zeros(10)
        held.append(weakref.ref(large))
        raise RuntimeError(str(large.sum()))

    tried("bf16", fails, ENDLESS)
    assert held[0]() is None


def test_what_takes_too_long_is_stopped_and_told_again_where_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LONGEST", 0.01)
    monkeypatch.setattr(gpu, "AGAIN", 0.01)
    told = 0

    def stubborn() -> float:
        nonlocal told
        while True:
            try:
                time.sleep(60)
            except TimeoutError:
                told += 1
                if told == 2:
                    raise

    before = signal.getsignal(signal.SIGALRM)
    assert tried("compile", stubborn, ENDLESS) == "stopped after 0 s"
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)) == (before, (0.0, 0.0))


def test_every_stage_that_runs_here_has_its_rates(subject: Subject) -> None:
    found = {row[0]: row[1:] for row in speed(subject, ALL, Run(0.01, 4, ENDLESS)).rows}
    for name in WORKING:
        raw, pgd, share, _, joint, _ = found[name]
        assert min(float(raw), float(pgd), float(joint), float(share)) > 0, name
    assert found["CUDA graph"][1:] == ("", "", "", "", "")


def test_one_number_that_fails_takes_no_other_with_it(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> float:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu, "raw_rate", fails)
    ((_, raw, pgd, share, _, joint, _),) = speed(subject, ("prepared",), Run(0.01, 4, ENDLESS)).rows
    assert (raw, share, float(pgd) > 0, float(joint) > 0) == ("RuntimeError: out of memory", "", True, True)


@pytest.mark.parametrize("name", WORKING)
def test_images_reach_the_first_layer_as_the_stage_lays_them_out(subject: Subject, name: str) -> None:
    stage = STAGES[name](subject)
    module, seen = stage.classifier.module, []
    assert isinstance(module, ReluNet)
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    setting = gpu._few_steps(ADV2(CAM(subject.classifier)).setting, 1.0, 4, 1.0)
    raw_rate(stage, subject, 1e-9)
    attack_rate(stage, subject, setting, 1e-9, interpreter=None)
    attack_rate(stage, subject, setting, 1e-9, interpreter=CAM(subject.classifier))
    assert {z.is_contiguous(memory_format=torch.channels_last) for z in seen if len(z) == 4} == {stage.channels_last}


def test_no_run_of_a_compiled_stage_compiles_after_the_first(subject: Subject) -> None:
    stage, cam = STAGES["compile"](subject), CAM(subject.classifier)
    setting = gpu._few_steps(ADV2(cam).setting, 1.0, 4, 1.0)
    x = stage.images(subject.x)
    target = MapTarget(subject.target, torch.rand(4, *cam.grid), tuple("abcd"), seed=0)
    with stage.classifier.frozen(), stage.precision():
        descend(stage.classifier, x, subject.target, [cam.objective(target)], setting)
        with torch.compiler.set_stance("fail_on_recompile"):
            descend(stage.classifier, x, subject.target, [cam.objective(target)], setting)


def test_a_compiled_stage_reaches_what_the_same_reaches_uncompiled(subject: Subject) -> None:
    cam = CAM(subject.classifier)
    target = MapTarget(subject.target, torch.rand(4, *cam.grid), tuple("abcd"), seed=0)
    setting = gpu._few_steps(ADV2(cam).setting, 1.0, 4, 20.0)
    found = []
    for name in ("bf16", "compile"):
        stage = STAGES[name](subject)
        with stage.classifier.frozen(), stage.precision():
            found.append(descend(stage.classifier, subject.x, subject.target, [cam.objective(target)], setting).x_adv)
    assert float((found[0] == found[1]).float().mean()) > 0.9


def test_the_search_in_each_stage_is_judged_in_float32(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[torch.dtype] = []
    classify = subject.classifier.probabilities

    def probabilities(x: Tensor) -> Tensor:
        judged.append(x.dtype)
        return classify(x)

    monkeypatch.setattr(subject.classifier, "probabilities", probabilities)
    found = {row[0]: row[1:] for row in quality(subject, ALL, Run(0.01, 40, ENDLESS)).rows}
    label, p, l1, passes, _ = found["eager"]
    assert (label, 0.9 <= float(p) <= 1, 1 <= float(passes) <= 40) == ("4 of 4", True, True)
    assert float(found["prepared"][2]) == pytest.approx(float(l1), abs=0.02)
    assert (found["bf16"][0], found["compile"][0]) == ("4 of 4", "4 of 4")
    assert found["CUDA graph"][1:] == ("", "", "", "")
    assert set(judged) == {torch.float32}


def test_what_may_leave_a_card_unusable_comes_last(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(name: str, subject: Subject, *_: Any) -> tuple[str, ...]:
        return (f"{name} {len(subject.x)}", *[""] * 5)

    monkeypatch.setattr(gpu, "stage_row", row)
    monkeypatch.setattr(gpu, "quality_row", lambda *_: ("", "", "", "", ""))
    monkeypatch.setattr(gpu, "rival_rate", lambda *_: 1.0)
    made = list(tables(subject, ("compile", "eager"), (2, 8), Run(0.01, 4, ENDLESS)))
    assert [table.rows[-1][1] for table in made] == ["", "1", "eager 2", "1", "eager 8", "", "compile 2", "compile 8"]


def test_a_batch_that_cannot_be_made_is_passed_over(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Subject.of

    def of(recipe: Recipe, *rest: Any) -> Subject:
        if recipe.batch_size == 8:
            raise RuntimeError("out of memory")
        return make(recipe, *rest)

    monkeypatch.setattr(Subject, "of", of)
    monkeypatch.setattr(gpu, "stage_row", lambda *_: ("2", *[""] * 5))
    monkeypatch.setattr(gpu, "rival_rate", lambda *_: 1.0)
    made = list(tables(subject, ("eager",), (8, 2), Run(0.01, 4, ENDLESS)))
    assert [table.rows[-1][1] for table in made[1:]] == ["1", "2"]


def test_without_a_card_it_says_how_to_try_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ended = CliRunner().invoke(main, [])
    assert (ended.exit_code, "there is no GPU here" in ended.output) == (2, True)
