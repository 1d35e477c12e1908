"""The benchmarks measure what they say; how long anything takes is asserted nowhere."""

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from benchmarks import __main__ as command
from benchmarks import memory, models, peers, preparation, steps
from benchmarks.__main__ import SECTIONS, main
from benchmarks.header import header
from benchmarks.rivals import FAMILIES, Contender, Family
from benchmarks.subject import Recipe, Subject
from benchmarks.tables import Table, at_least, at_most
from benchmarks.timing import Ratio, in_turn, ratio
from support.toys import images
from underfire import (
    CAM,
    GRAD,
    IG,
    LRP,
    RISE,
    AttentionRelevance,
    AttnLRP,
    Classifier,
    GradCAM,
    GuidedBackprop,
    Interpreter,
    KernelSHAP,
    Occlusion,
    Rollout,
)
from underfire.attacks.engine import Outcome, Setting, descend
from underfire.interpreters import MapObjective
from underfire.models import DEFAULT_MODEL
from underfire.models.folded import prepared
from underfire.testing import token_classifier

TURNS = 3
MEBIBYTE = 2**20


@pytest.fixture
def subject(relu_classifier: Classifier) -> Subject:
    """A batch of six of four pictures, for a toy."""
    return Subject.of(Recipe("toy", "cpu", 6), relu_classifier, images(4, 32))


class _FakeTime:
    """A clock that stands still unless something takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def task(self, durations: Iterator[float], log: list[str], name: str) -> Callable[[], None]:
        def run() -> None:
            log.append(name)
            self.now += next(durations)

        return run


@pytest.mark.slow
def test_contenders_alternate_and_warm_up() -> None:
    clock, log = _FakeTime(), list[str]()
    contenders = {name: clock.task(map(float, count(first)), log, name) for name, first in (("a", 10), ("b", 50))}
    seconds = in_turn(contenders, turns=2, clock=clock, warm_ups=1)
    assert log == ["a", "b"] * 3
    assert seconds == {"a": [11, 12], "b": [51, 52]}


def test_ratio_of_medians_with_interval() -> None:
    assert ratio([3, 3, 3], [2, 2, 2]) == Ratio(1.5, 1.5, 1.5)
    found = ratio([1, 2, 9], [1, 1, 1])
    assert found.value == 2
    assert (found.low, found.high) == (1, 9)
    # Drawn together: what slows a turn slows both of its entries, and says nothing of their ratio.
    assert ratio([2, 20, 200], [1, 10, 100]) == Ratio(2, 2, 2)


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [1.0, 2.0]), ([], [])])
def test_ratio_refuses_what_was_not_in_turn(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="one of each for every turn"):
        ratio(ours, theirs)


def test_verdicts() -> None:
    assert at_most(Ratio(1.0, 0.9, 1.1), 1.0) == "met"
    assert at_most(Ratio(1.05, 0.9, 1.1), 1.0) == "missed, within the interval"
    assert at_most(Ratio(1.05, 1.01, 1.1), 1.0) == "missed"
    assert at_least(Ratio(1.5, 1.3, 1.6), 1.4) == "met"
    assert at_least(Ratio(1.35, 1.3, 1.6), 1.4) == "missed, within the interval"
    assert at_least(Ratio(1.35, 1.3, 1.39), 1.4) == "missed"


def test_tables_are_markdown() -> None:
    shown = str(Table("Title", ("", "n"), (("first", "1"), ("b", "200")), ("A note.",)))
    assert shown.splitlines() == [
        "### Title",
        "",
        "|       |   n |",
        "|-------|----:|",
        "| first |   1 |",
        "| b     | 200 |",
        "",
        "A note.",
    ]
    with pytest.raises(ValueError, match="cells"):
        Table("Title", ("one",), (("1", "2"),))


def test_photos_come_again_until_the_batch_is_full(subject: Subject) -> None:
    assert torch.equal(subject.x, images(4, 32)[[0, 1, 2, 3, 0, 1]])
    assert not (subject.target == subject.label).any()
    with torch.no_grad():
        torch.testing.assert_close(subject.plain(subject.x), subject.classifier(subject.x))
        exact = subject.in_float64(2)
        assert exact.plain(exact.x).dtype == torch.float64
    assert len(exact.x) == 2


@pytest.mark.parametrize(
    ("kinds", "passes"),
    [
        ((), 1),
        *(((kind,), 1) for kind in (CAM, GradCAM)),
        *(((kind,), 2) for kind in (GRAD, GuidedBackprop, LRP)),
        *(((kind,), 3) for kind in (IG, Occlusion)),
        *(((kind,), 5) for kind in (RISE, KernelSHAP)),
        ((CAM, GRAD, IG), 4),
    ],
)
def test_a_step_in_forward_passes(subject: Subject, kinds: Sequence[type[Interpreter]], passes: int) -> None:
    """With a clock that counts forward passes the durations are known: neither IG's start nor the end is in them."""
    twin, calls = prepared(subject.classifier), list[nn.Module]()
    twin.module.register_forward_hook(lambda module, _, __: calls.append(module))
    interpreters = [kind(subject.classifier) for kind in kinds]
    laps = steps.timed(twin, subject, interpreters, turns=TURNS, clock=lambda: float(len(calls)))
    assert laps.steps == [passes] * TURNS
    assert laps.raw == [1] * TURNS


def test_a_loop_that_looks_twice_a_step_is_noticed(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(
        classifier: Classifier, x: Tensor, target: Tensor, objectives: Sequence[MapObjective], setting: Setting
    ) -> Outcome:
        setting.perturbation.image(x, x)
        return descend(classifier, x, target, objectives, setting)

    monkeypatch.setattr("benchmarks.steps.descend", twice)
    with pytest.raises(RuntimeError, match="not once a step"):
        steps.timed(prepared(subject.classifier), subject, [], turns=TURNS, clock=_FakeTime())


@pytest.mark.slow
def test_rows_are_those_of_interpreters_that_the_model_has() -> None:
    classifier = token_classifier(dtype=torch.float32)
    tokens = Subject.of(Recipe("toy", "cpu", 2), classifier, images(2, 16))
    (table,) = steps.tables(tokens, turns=1)
    limits = {row[0]: row[4] for row in table.rows}
    assert {"ADV² on AttnLRP", "ADV² on attention rollout"} <= limits.keys()
    assert not {"ADV² on CAM", "ADV² on LRP"} & limits.keys()
    assert limits["ADV² on Grad-CAM"] == "2.40"  # it counts two passes on tokens


@pytest.mark.slow
def test_steps_and_preparation_make_tables(subject: Subject) -> None:
    (table,) = steps.tables(subject, turns=1)
    attention = {(AttnLRP,), (Rollout,), (AttentionRelevance,)}
    assert [row[0] for row in table.rows] == [name for name, kinds in steps.ATTACKED.items() if kinds not in attention]
    (table,) = preparation.tables(subject, turns=1)
    assert table.rows[1][-1] == "met"  # the logits


@pytest.mark.parametrize("name", FAMILIES)
def test_peers_agree_with_ours(subject: Subject, name: str) -> None:
    """Those that are installed."""
    family, before = FAMILIES[name], subject.x.clone()
    present, absent = peers.sorted_out(family, subject)
    assert present.keys() | absent.keys() == family.contenders.keys()
    seen = peers.measured(present, subject, subject.in_float64(4), turns=1, peaks={}, absent=absent)
    assert seen.differing.keys() == {who for who in present if family.contenders[who].differs(subject)}
    for who in seen.exact:
        assert seen.apart(who) <= family.contenders[who].same
    for result in seen.results.values():
        assert result.is_floating_point()
        assert not result.requires_grad
    assert torch.equal(subject.x, before)
    assert not subject.x.requires_grad
    notes = peers.table(family, subject, seen).notes
    assert notes[-1].startswith("Equal results in float64: met") == (len(seen.exact) > 1)
    assert any(note.startswith("No slower than 1.05 × the fastest") for note in notes) == (len(present) > 1)


def test_a_library_that_is_missing_is_named_and_a_result_that_differs_shows(subject: Subject) -> None:
    def planted(given: Subject) -> Tensor:
        return ours.run(given) + 0.5

    ours = FAMILIES["GRAD"].contenders["underfire"]
    family = Family(
        "Maps",
        {
            "underfire": ours,
            "other": Contender("torch", planted),
            "another": Contender("torch", planted, differs=lambda _: "it adds a half"),
            "absent": Contender("no_such_library", planted),
            "unable": Contender("torch", planted, lacks=lambda _: "it knows no toys"),
        },
    )
    present, absent = peers.sorted_out(family, subject)
    peaks = {"underfire": 30, "other": 60, "another": 60}
    seen = peers.measured(present, subject, subject.in_float64(2), turns=1, peaks=peaks, absent=absent)
    table = peers.table(family, subject, seen)
    assert table.notes[0] == "absent is left out: not installed (No module named 'no_such_library')."
    assert table.notes[1] == "unable is left out: it knows no toys."
    assert table.notes[2] == "another, time alone: it adds a half."
    assert table.notes[-1] == "Equal results in float64: missed, 5.0e-01."
    other, another = (dict(zip(table.columns, row, strict=True)) for row in table.rows[1:])
    assert other["memory, ours / theirs"] == "0.50"
    assert other["max difference, float32"] == "5.0e-01"
    assert another["max difference, float32"] == another["max difference, float64"] == ""


def test_a_model_that_our_method_does_not_suit_has_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "measurable", lambda _: False)
    tokens = Subject.of(Recipe("toy", "cpu", 2, draws=2), token_classifier(dtype=torch.float32), images(2, 16))
    titles = [table.title for table in peers.tables(tokens, turns=1)]
    assert not any("LRP" in title or "guided" in title for title in titles)
    assert sum(title.startswith(("PGD", "Maps of GRAD", "Maps of IG", "Maps of Grad-CAM")) for title in titles) == 4


def test_larger_models_are_measured_beside_other_libraries_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "timm", ModuleType("timm"))
    everything = list(command.work(tuple(SECTIONS), None, None, None, None))
    assert [recipe.model for recipe, _ in everything] == [DEFAULT_MODEL, *command.LARGE]
    assert [names for _, names in everything] == [tuple(SECTIONS), ["peers"], ["peers"]]
    assert {recipe.batch_size for recipe, _ in everything[1:]} == {2}
    assert len(list(command.work(("steps",), None, None, None, None))) == 1
    assert [recipe.model for recipe, _ in command.work(("peers",), "timm:other", None, 3, None)] == ["timm:other"]
    monkeypatch.setitem(sys.modules, "timm", None)
    assert len(list(command.work(("peers",), None, None, None, None))) == 1
    assert capsys.readouterr().out.startswith("No ResNet-50 and no ViT: timm can't be imported")


@pytest.mark.slow
@pytest.mark.parametrize("make", [models.resnet50, models.vit_small])
def test_larger_models_have_fixed_weights(make: Callable[[], Classifier], torchvision: ModuleType) -> None:
    pytest.importorskip("timm")
    x = images(1, 224)
    with torch.no_grad():
        assert torch.equal(make()(x), make()(x))


needs_proc = pytest.mark.skipif(not memory.measurable(torch.device("cpu")), reason="Linux tells a process its peak")


@pytest.mark.slow
@needs_proc
def test_memory_sees_the_peak_and_nothing_before_it() -> None:
    cpu = torch.device("cpu")
    torch.ones(64 * MEBIBYTE)  # 256 MiB, gone again
    found = memory.rise(lambda: torch.ones(8 * MEBIBYTE), cpu)  # 32 MiB
    assert 30 * MEBIBYTE < found < 48 * MEBIBYTE


@needs_proc
def test_memory_is_measured_in_another_process() -> None:
    recipe = Recipe("underfire.testing:smooth_classifier", "cpu", 2)
    assert 0 <= memory.peak(recipe, "GRAD", "underfire") < 1024 * MEBIBYTE
    with pytest.raises(RuntimeError, match="no such model"):
        memory.peak(Recipe("no such model", "cpu", 2), "GRAD", "underfire")


def test_the_header_says_what_the_numbers_depend_on() -> None:
    assert f"torch {torch.__version__}" in header()
    assert f"{torch.get_num_threads()} threads, load " in header()


def test_the_command_knows_its_sections() -> None:
    assert CliRunner().invoke(main, ["--help"]).exit_code == 0
    refused = CliRunner().invoke(main, ["speed"])
    assert refused.exit_code == 2
    assert all(section in refused.output for section in SECTIONS)
