"""What an audit is said to take follows from what a probe saw of it, on a clock that each pass moves on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from support.toy_photos import MODEL_OPTIONS, found, toy_classifier, toy_plan, write_photos
from underfire.auditing.attackers import attack_of
from underfire.auditing.condition import NOISE, NONE, PGD, Condition
from underfire.auditing.cost import ConditionCost, costs_of
from underfire.auditing.inspection import inspect_photos
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import AuditPlan
from underfire.auditing.probe import LOOKS, Speed, probe
from underfire.auditing.runner import run_audit
from underfire.cli import cli
from underfire.models.classifier import Classifier

CAM = ("adv2", ("cam",))
SPEED = Speed(
    passes={("pgd", ()): 2.0, CAM: 3.0}, begin={CAM: 5.0}, look=7.0, look_passes=2, image=0.5,
    bytes_benign=100, bytes_adversarial=1000, bytes_maps=10,
)  # fmt: skip


def cost(condition: Condition, attack: int | None, photos: int = 6) -> ConditionCost:
    return ConditionCost(condition, attack, maps=4, photos=photos)


def test_seconds_are_those_of_passes_looks_images_and_of_how_an_attack_begins() -> None:
    found = [SPEED.seconds(c, batch_size=4) for c in (cost(NONE, 0), cost(NOISE, 0), cost(PGD, 10))]
    assert found == [6 * 7.5, 6 * 14.5, 6 * (14.5 + 20.0)]
    assert SPEED.seconds(cost(Condition.on("adv2", "cam"), 10), batch_size=4) == 6 * (14.5 + 30.0) + 2 * 5.0
    assert SPEED.seconds(cost(Condition("square"), 10), batch_size=4) == 6 * (14.5 + 25.0)
    assert SPEED.seconds(cost(Condition("square"), None), batch_size=4) == 6 * 14.5


def test_where_no_attack_was_tried_its_passes_take_what_a_look_s_do() -> None:
    untried = replace(SPEED, passes={}, begin={})
    assert untried.seconds(cost(Condition("square"), 10), batch_size=4) == 6 * (14.5 + 10 * 3.5)


def test_artifacts_that_do_not_stay_take_no_disk() -> None:
    costs = [cost(NONE, 0), cost(NOISE, 0), cost(PGD, 10)]
    disk = {keep: SPEED.bytes_of(costs, interpreters=2, parts=3, keep=keep) for keep in ("all", "adversarial", "none")}
    assert disk["adversarial"] - disk["none"] == 6 * 1000
    assert disk["all"] - disk["none"] == 6 * (100 + 2 * 1000 + 3 * 10)


@contextmanager
def ticking(classifier: Classifier, price: float) -> Iterator[list[float]]:
    """A clock that each image of a forward pass moves on by ``price``."""
    now = [0.0]

    def tick(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        now[0] += price * len(inputs[0])

    handle = classifier.module.register_forward_pre_hook(tick)
    try:
        yield now
    finally:
        handle.remove()


def test_a_probe_finds_the_price_of_a_pass(tmp_path: Path) -> None:
    classifier = toy_classifier()
    plan = replace(toy_plan(), batch_size=4, interpreters=("cam",), steps=200)
    photos = inspect_photos(plan, classifier, found(write_photos(tmp_path / "photos")), strict=False).photos
    with ticking(classifier, 0.25) as now:
        interpreters = make_interpreters(plan.interpreters, classifier)
        attacks = {c: attack_of(plan, c, classifier, interpreters) for c in plan.conditions[2:]}
        speed = probe(plan, classifier, interpreters, attacks, photos, clock=lambda: now[0])
    threads = torch.get_num_threads()
    filled = -(-4 // threads) * threads / 4  # batches are filled up to a multiple of them
    assert speed.passes == pytest.approx({("pgd", ()): 0.25 * filled, CAM: 0.25 * filled})
    assert speed.look == pytest.approx(2 * 0.25 * filled)  # a prediction, and a map of CAM
    assert LOOKS < 200


def test_a_probe_of_attacks_that_cannot_be_watched_tells_passes_too(tmp_path: Path) -> None:
    classifier = toy_classifier()
    plan = replace(toy_plan(), batch_size=4, interpreters=("cam",), attacks=("square",), steps=200)
    photos = inspect_photos(plan, classifier, found(write_photos(tmp_path / "photos")), strict=False).photos
    with ticking(classifier, 0.25) as now:
        interpreters = make_interpreters(plan.interpreters, classifier)
        attacks = {c: attack_of(plan, c, classifier, interpreters) for c in plan.conditions[2:]}
        speed = probe(plan, classifier, interpreters, attacks, photos, clock=lambda: now[0])
    assert speed.passes == {}
    assert 0 < speed.look == pytest.approx(2 * speed.of_pass(plan.conditions[2]))


def test_a_probe_ends_with_its_time(tmp_path: Path) -> None:
    classifier = toy_classifier()
    plan = replace(toy_plan(), interpreters=("cam", "grad"), steps=200)
    photos = inspect_photos(plan, classifier, found(write_photos(tmp_path / "photos")), strict=False).photos
    with ticking(classifier, 1.0) as now:
        interpreters = make_interpreters(plan.interpreters, classifier)
        attacks = {c: attack_of(plan, c, classifier, interpreters) for c in plan.conditions[2:]}
        before = now[0]
        speed = probe(plan, classifier, interpreters, attacks, photos, seconds=60.0, clock=lambda: now[0])
        took = now[0] - before
    assert set(speed.passes) == {("pgd", ()), CAM, ("adv2", ("grad",))}
    assert 30 < took < 150  # 20 for each attack; preparing them and the looks come on top


def seconds_of(plan: AuditPlan, photos: Path, price: float, out: Path) -> tuple[float, float]:
    """What a probe says, and what the audit then takes, both by the clock of passes."""
    classifier = toy_classifier()
    planned = inspect_photos(plan, classifier, found(photos), strict=False).photos
    with ticking(classifier, price) as now:
        interpreters = make_interpreters(plan.interpreters, classifier)
        attacks = {c: attack_of(plan, c, classifier, interpreters) for c in plan.conditions[2:]}
        speed = probe(plan, classifier, interpreters, attacks, planned, clock=lambda: now[0])
        costs = costs_of(attacks, plan.conditions, interpreters, planned)
        said = sum(speed.seconds(cost, batch_size=plan.batch_size) for cost in costs)
        marks = []

        class Marks:
            def started(self, *_: Any) -> None:
                marks.append(now[0])

            def advanced(self, event: Any) -> None:
                marks.append(now[0])

        run_audit(plan, found(photos), classifier, out, listener=Marks())
    return said, marks[-1] - marks[0]


@pytest.mark.parametrize("interpreters", [("cam",), ("grad", "cam")])
def test_the_audit_takes_what_the_probe_says(interpreters: tuple[str, ...], tmp_path: Path) -> None:
    # No photo is done early, and none is alone, where it would be given company.
    plan = replace(toy_plan(), interpreters=interpreters, steps=None, passes=60, eps=1 / 255, batch_size=5)
    photos = write_photos(tmp_path / "photos")
    said, took = seconds_of(plan, photos, 0.5, tmp_path / "run")
    assert said == pytest.approx(took, rel=0.2)


def test_the_command_says_hours_and_disk_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos = write_photos(tmp_path / "photos")
    options = ["plan", str(photos), *MODEL_OPTIONS, "--interpreters", "cam", "--steps", "4"]
    before = sorted(tmp_path.rglob("*"))
    lines = {}
    for more in ("--probe", "--no-probe"):
        ended = CliRunner().invoke(cli, [*options, more])
        assert ended.exit_code == 0, ended.output
        lines[more] = ended.stdout.splitlines()
    assert sorted(tmp_path.rglob("*")) == before
    assert lines["--probe"][: len(lines["--no-probe"])] == lines["--no-probe"]
    assert lines["--no-probe"][-1].endswith("passes in all.")
    assert [line.split()[:2] for line in lines["--probe"][-3:-1]] == [["PGD", "-"], ["ADV²", "CAM"]]
