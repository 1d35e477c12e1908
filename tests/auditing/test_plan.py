import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underfire.attacks.budget import Effort
from underfire.attacks.perturbations import L2, Flow, Linf
from underfire.attacks.registry import ATTACKS
from underfire.auditing.condition import Condition
from underfire.auditing.plan import (
    PASSES,
    AuditPlan,
    ModelSettings,
    PlannedPhoto,
    Shard,
    first_difference,
    photo_key,
    units,
)
from underfire.auditing.targets import choose_target, class_index
from underfire.choices import pick, split_names
from underfire.errors import InputError

NAMES = tuple(f"class {index}" for index in range(10))


def planned(count: int) -> list[PlannedPhoto]:
    return [PlannedPhoto(f"{i}", photo_key(i, "ab" * 32), "ab" * 32, f"/{i}", 0, True, 1, None) for i in range(count)]


def test_conditions_in_order_with_their_names_on_disk() -> None:
    plan = AuditPlan(interpreters=("cam", "grad"))
    assert [str(condition) for condition in plan.conditions] == ["none", "noise", "pgd", "adv2-cam", "adv2-grad"]
    assert [str(c) for c in AuditPlan(attacks=("pgd",)).conditions] == ["none", "noise", "pgd"]


@pytest.mark.parametrize("preset", list(PASSES))
def test_every_attack_has_the_passes_of_the_preset_and_they_can_be_overridden(preset: Any) -> None:
    plan = AuditPlan(preset=preset, attacks=ATTACKS.installed())
    for condition in plan.conditions[2:]:
        if (preset, condition.attack) != ("authors", "adv2"):
            queries = 10 if condition.attack == "square" else 1
            assert plan.effort_of(condition) == Effort(passes=PASSES[preset] * queries)
        assert replace(plan, steps=7).effort_of(condition) == Effort(steps=7)
        assert replace(plan, passes=70).effort_of(condition) == Effort(passes=70)
    for chosen in (replace(plan, steps=7), replace(plan, passes=70)):
        assert {chosen.effort_of(condition) for condition in plan.conditions[:2]} == {Effort(steps=0)}


def test_the_authors_attack_has_its_published_number_of_steps() -> None:
    plan = AuditPlan(preset="authors")
    steps = {name: plan.effort_of(Condition.on("adv2", name)).steps for name in ("cam", "gradcam", "grad", "ig")}
    grad = 300 + 301 + 201 + 101 + 101
    assert steps == {"cam": 1600, "gradcam": 1600, "grad": grad, "ig": grad}
    assert [PASSES[preset] for preset in ("quick", "standard", "paper", "authors")] == [150, 300, 1600, 1600]


def test_run_json_has_passes_or_steps_as_they_were_chosen() -> None:
    def told(**changes: Any) -> list[object]:
        config = AuditPlan(interpreters=("grad",), **changes).as_config()
        return [config["passes"], config["steps"]]

    assert told() == [{"pgd": 150, "adv2-grad": 150}, None]
    assert told(passes=9) == [{"pgd": 9, "adv2-grad": 9}, None]
    assert told(steps=9) == [None, {"pgd": 9, "adv2-grad": 9}]
    assert told(preset="authors") == [{"pgd": 1600}, {"adv2-grad": 1004}]


CHANGES: dict[str, tuple[Any, str | None]] = {
    "model": (ModelSettings("support.toys:relu_net"), "model"),
    "interpreters": (("cam",), "interpreters"),
    "left_out": (("mask (slow)",), None),
    "rts": ("elsewhere.safetensors", None),  # its hash decides, which is the runner's to take
    "attacks": (("pgd",), "attacks"),
    "goals": (("kept/topk",), "goals"),
    "preset": ("paper", "preset"),
    "targets": ("next", "targets"),
    "perturbation": ("flow", "perturbation"),
    "eps": (4 / 255, "eps"),
    "steps": (3, "steps"),
    "passes": (3, "passes"),
    "seed": (1, "seed"),
    "batch_size": (9, "batch_size"),
    "limit": (2, "limit"),
    "device": ("cuda", "device"),
}


@pytest.mark.parametrize("field", list(AuditPlan.__dataclass_fields__))
def test_every_setting_that_changes_rows_is_named(field: str) -> None:
    value, name = CHANGES[field]
    plan = AuditPlan()
    old = json.loads(json.dumps(plan.as_config()))  # as run.json gives it back
    assert first_difference(old, plan.as_config()) is None
    difference = first_difference(old, replace(plan, **{field: value}).as_config())
    assert (difference and difference[0]) == name


def test_where_a_checkpoint_lies_decides_nothing() -> None:
    plans = [AuditPlan(model=ModelSettings(checkpoint=path)) for path in ("a/weights.pt", "b/weights.pt")]
    assert first_difference(plans[0].as_config(), plans[1].as_config()) is None


@pytest.mark.parametrize("eps", [0.0, -0.1, float("nan"), 8.0, 1.01, 3000.0, float("inf")])
def test_a_budget_is_above_0_and_at_most_1(eps: float) -> None:
    with pytest.raises(InputError, match=f"eps {eps:g} is not in"):
        AuditPlan(eps=eps)


def test_a_budget_of_8_gets_a_hint() -> None:
    with pytest.raises(InputError, match=r"for 8-bit units write 8/255"):
        AuditPlan(eps=8.0)


def test_a_budget_is_in_the_unit_of_its_perturbation() -> None:
    assert {name: AuditPlan(perturbation=name).as_config()["eps"] for name in ("linf", "l2", "flow")} == {
        "linf": 8 / 255,
        "l2": 3.0,
        "flow": 1.0,
    }
    assert AuditPlan(perturbation="l2", eps=8.0).perturbation_of(Condition("pgd")) == L2(8.0)
    with pytest.raises(InputError, match="eps 0 is no displacement"):
        AuditPlan(perturbation="flow", eps=0.0)
    with pytest.raises(InputError, match="perturbation 'l1' is unknown"):
        AuditPlan(perturbation="l1")


def test_stadv_moves_pixels_whatever_the_others_do() -> None:
    stadv, adv2 = Condition.on("stadv", "cam"), Condition.on("adv2", "cam")
    plan = AuditPlan(eps=4 / 255)
    assert (plan.perturbation_of(adv2), plan.perturbation_of(stadv)) == (Linf(4 / 255), Flow())
    plan = AuditPlan(perturbation="flow", eps=2.0)
    assert plan.perturbation_of(adv2) == plan.perturbation_of(stadv) == Flow(2.0)


def test_stadv_is_run_on_each_interpreter() -> None:
    plan = AuditPlan(interpreters=("cam", "grad"), attacks=("stadv",))
    assert [str(condition) for condition in plan.conditions] == ["none", "noise", "stadv-cam", "stadv-grad"]


class TestGoals:
    def _written(self, *goals: str, **changes: Any) -> list[str]:
        plan = AuditPlan(interpreters=("cam", "grad"), goals=goals, **changes)
        return [str(condition) for condition in plan.conditions[2:]]

    def test_an_attack_that_is_for_a_goal_is_made_for_it(self) -> None:
        assert self._written("target/kept", "other/kept") == [
            *("pgd", "adv2-cam", "adv2-grad", "adv2-cam@other/kept", "adv2-grad@other/kept")
        ]

    def test_an_attack_that_a_goal_needs_comes_besides_and_the_baseline_stays(self) -> None:
        assert self._written("kept/topk", "kept/center") == [
            *("pgd", "map-cam", "map-grad", "map-cam@kept/center", "map-grad@kept/center")
        ]

    def test_without_goals_every_attack_has_its_own(self) -> None:
        assert self._written(attacks=("pgd", "adv2", "map")) == [
            *("pgd", "adv2-cam", "adv2-grad", "map-cam", "map-grad")
        ]

    def test_targets_count_where_some_attack_chases_them(self) -> None:
        assert AuditPlan(goals=("kept/topk",)).chases_targets  # PGD does
        assert not AuditPlan(attacks=("map",)).chases_targets

    @pytest.mark.parametrize(
        ("goals", "quoted"), [(("kept/led",), "'kept/led'"), (("x",), "'x/'"), (("kept/l1", "kept/l1"), "named twice")]
    )
    def test_a_goal_that_no_plan_can_have_is_refused(self, goals: tuple[str, ...], quoted: str) -> None:
        with pytest.raises(InputError, match=quoted):
            AuditPlan(goals=goals)


def test_the_authors_attack_is_in_linf() -> None:
    with pytest.raises(InputError, match="'authors' is for the perturbation 'linf', not 'l2'"):
        AuditPlan(preset="authors", perturbation="l2")


@pytest.mark.parametrize(
    ("change", "quoted"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"passes": 0}, "passes is 0"),
        ({"steps": 7, "passes": 9}, "steps 7 and passes 9 are both given"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"limit": -1}, "limit is -1"),
        ({"interpreters": ()}, "no interpreter"),
        ({"attacks": ()}, "no attack"),
        ({"interpreters": ("cam", "mask"), "attacks": ("square",)}, "'square' asks for a map at every query"),
        ({"interpreters": ("mask",), "preset": "authors"}, "'authors' has no schedule for 'mask', only for cam"),
        ({"interpreters": ("rts",), "preset": "authors", "passes": 9}, "'authors' has no schedule for 'rts'"),
        ({"interpreters": ("cam", "grad", "cam")}, "'cam' is named twice"),
        ({"attacks": ("pgd", "pgd")}, "'pgd' is named twice"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change: dict[str, Any], quoted: str) -> None:
    with pytest.raises(InputError, match=quoted):
        AuditPlan(**change)


@pytest.mark.parametrize(("index", "count"), [(0, 1), (3, 2), (1, 0), (-1, 4)])
def test_a_shard_that_does_not_exist_is_refused(index: int, count: int) -> None:
    with pytest.raises(InputError, match=f"'{index}/{count}'"):
        Shard(index, count)


@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 7))
def test_shards_are_a_partition_of_the_units(photos: int, batch_size: int, count: int) -> None:
    everything = planned(photos)
    whole = list(units(everything, batch_size=batch_size))
    assert [photo for unit in whole for photo in unit.photos] == everything
    assert [unit.number for unit in whole] == list(range(len(whole)))
    shards = [list(units(everything, batch_size=batch_size, shard=Shard(i + 1, count))) for i in range(count)]
    assert sorted((unit for shard in shards for unit in shard), key=lambda unit: unit.number) == whole
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def target(policy: str = "random", **changes: Any) -> int:
    settings: dict[str, Any] = {
        "image_id": "a.png", "label": 3, "shown": [5], "given": None, "class_names": NAMES, "seed": 0
    }  # fmt: skip
    return choose_target(policy, **{**settings, **changes})


def test_random_targets_are_uniform_over_the_other_classes() -> None:
    drawn = Counter(target(image_id=f"{i}.png") for i in range(4000))
    assert set(drawn) == set(range(10)) - {3, 5}
    assert all(abs(count - 500) < 5 * (500 * 7 / 8) ** 0.5 for count in drawn.values())


def test_random_targets_belong_to_seed_and_image() -> None:
    ids = [f"{i}.png" for i in range(30)]
    first = [target(image_id=i) for i in ids]
    assert first == [target(image_id=i) for i in ids]
    assert first != [target(image_id=i, seed=1) for i in ids]
    assert len(set(first)) > 3


def test_a_misclassified_photo_of_a_model_with_two_classes_has_the_other_one() -> None:
    drawn = [target(label=a, shown=[b], class_names=NAMES[:2]) for a in (0, 1) for b in (0, 1)]
    assert drawn == [1, 1, 0, 0]


def test_the_other_policies() -> None:
    assert target("next", label=9) == 0
    assert target("given", given=7) == 7
    assert target("4") == 4
    assert target("Class 8") == 8


@pytest.mark.parametrize(
    ("policy", "changes", "quoted"),
    [
        ("given", {}, r"photo 'a\.png' has no target"),
        ("10", {}, "'10' is out of range"),
        ("clas 8", {}, "'clas 8'; did you mean 'class 8'"),
        ("-1", {}, "'-1'"),
        ("zebra", {}, "'zebra'; give an index"),
    ],
)
def test_a_target_that_cannot_be_is_refused(policy: str, changes: dict[str, Any], quoted: str) -> None:
    with pytest.raises(InputError, match=quoted):
        target(policy, **changes)


def test_an_ambiguous_class_name_is_refused_with_the_indices() -> None:
    with pytest.raises(InputError, match=r"'crane'.*1, 2"):
        class_index("crane", ("cock", "crane", "crane", "hen"))


def test_an_unknown_name_gets_the_nearest_one_and_the_whole_list() -> None:
    with pytest.raises(InputError, match=r"interpreter 'gard' is unknown; did you mean 'grad'\? There are: cam, grad"):
        pick("gard", {"cam": 1, "grad": 2}, "interpreter")
    with pytest.raises(InputError, match=r"attack '' is unknown; there are: pgd"):
        split_names("pgd,", ("pgd",), "attack")
    assert split_names(" pgd , adv2 ", ("pgd", "adv2"), "attack") == ("pgd", "adv2")
