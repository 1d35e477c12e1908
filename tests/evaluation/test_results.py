"""What is counted of planted detectors, which set is recommended, and what words and figure say of it."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from support.snapshots import check_snapshot
from underfire.auditing.condition import Condition
from underfire.evaluation.attackers import AdaptiveEffort
from underfire.evaluation.detectors import DetectorName, DetectorOutput, SignalPart
from underfire.evaluation.extra_attacks import AttackedImage, ObliviousAttack
from underfire.evaluation.figure import defense_figure
from underfire.evaluation.results import (
    AttackOutcome,
    DetectorRecord,
    DetectorResult,
    best,
    details,
    sets,
    summaries,
)
from underfire.evaluation.words import defense_claims, defense_words
from underfire.present.tables import to_arrow
from underfire.stats import wilson
from underfire.studies.study import Verdict

N = 10
PHOTOS = tuple(f"photo-{index}" for index in range(N))
CAM_ATTACK = ObliviousAttack(Condition.on("adv2", "cam"))
UNDER = (
    ObliviousAttack(Condition("pgd")),
    ObliviousAttack(Condition.on("adv2", "grad")),
    CAM_ATTACK,
    ObliviousAttack(Condition.on("adv2", "cam"), "patch"),
)


def output(score: float, threshold: float = -5.0) -> DetectorOutput:
    return DetectorOutput(score, score < threshold, score < 2 * threshold)


def outcome(*, reached: bool, score: float, confidence: float = 1.0) -> AttackOutcome:
    return AttackOutcome(AttackedImage(Path("image.png"), reached, confidence, 290), output(score))


def planted(
    key: str,
    *,
    evaded: int,
    passes: int,
    failed: int = 0,
    baseline: str | None = None,
    signals: SignalPart | None = None,
    levels: int = 8,
    most_passes: int = 300,
    sharing: str = "even",
) -> DetectorResult:
    """A detector that is evaded on so many photos, and misses nothing but every second image under ADV² on CAM.

    The adaptive attack misses its label on ``failed`` further photos.
    """
    clean = {photo: output(-1 - 0.1 * index) for index, photo in enumerate(PHOTOS)}
    clean[PHOTOS[-1]] = output(-6)  # a false positive

    def outcomes(attack: ObliviousAttack) -> Mapping[str, AttackOutcome]:
        hidden = [attack == CAM_ATTACK and index % 2 == 0 for index in range(N)]
        # Of the first photo the label is missed; it is in no share of what is flagged.
        scores = [-0.5 if some else -20 for some in hidden]
        return {p: outcome(reached=i > 0, score=scores[i]) for i, p in enumerate(PHOTOS)}

    adaptive = {
        photo: outcome(reached=index < N - failed, score=-2 if index < evaded else -7, confidence=0.9 + 0.01 * index)
        for index, photo in enumerate(PHOTOS)
    }
    names = tuple(key.split("+"))
    return DetectorResult(
        name=DetectorName(names if baseline is None else ("cam",), baseline),
        passes=passes,
        clean=200,
        benign=clean,
        corrupted={"jpeg-75": clean, "crop-90": {photo: output(-9) for photo in PHOTOS}},
        attacked={attack: outcomes(attack) for attack in UNDER},
        adaptive=adaptive,
        effort=AdaptiveEffort(
            levels / 255, most_passes, 200 // len(names), 2, sharing if len(names) > 1 and not baseline else None
        ),
        signals=signals,
    )


CAM_ = planted("cam", evaded=6, passes=13)
GRAD_ = planted("grad", evaded=4, passes=11)
BOTH = planted("grad+cam", evaded=1, passes=17, failed=2)
DEAR = planted("grad+cam+rts", evaded=1, passes=30)
SQUEEZE = planted("squeezing", evaded=9, passes=4, baseline="squeezing")
MEAN = planted("mean-map", evaded=3, passes=17, baseline="mean-map")
FOUND = (DEAR, MEAN, SQUEEZE, CAM_, BOTH, GRAD_)
PARTS = (planted("grad+cam", evaded=5, passes=17, signals=SignalPart("views", alone=True)),)


def records(budget: int | None = None) -> list[DetectorRecord]:
    return [*summaries(FOUND, budget=budget), *details(FOUND, PARTS)]


def words(made: list[DetectorRecord], **more: Any) -> str:
    settings: dict[str, Any] = {
        "taking_part": "10 of 10 photos attacked.", "beyond_limit": 0, "left_out": 0, "rates": (0.05, 0.01),
        "passes": 300, "budget": None, "all_weightings": ["even"], "norm": "linf",
    }  # fmt: skip
    return defense_words(made, **(settings | more))


def test_one_summary_for_each_detector_comes_first_the_sets_by_cost() -> None:
    made = records()
    first = ["grad", "cam", "grad+cam", "grad+cam+rts", "squeezing", "mean-map"]
    assert [str(line.detector) for line in made[:6]] == first
    assert [line.kind for line in made[:6]] == ["set"] * 4 + ["baseline"] * 2
    assert {line.kind for line in made[6:]} == {"attack", "harmless", "ablation"}
    assert {str(line.under) for line in made[:6]} == {"adaptive"}
    assert [(e.steps, e.finalists) for line in made[:3] if (e := line.effort)] == [(200, 2), (200, 2), (100, 2)]


@pytest.mark.parametrize(
    ("budget", "verdicts"),
    [
        (None, {"grad": "best at its cost", "cam": None, "grad+cam": "best", "grad+cam+rts": None}),
        (17, {"grad": "best at its cost", "cam": None, "grad+cam": "best", "grad+cam+rts": "over the budget"}),
        (13, {"grad": "best", "cam": None, "grad+cam": "over the budget", "grad+cam+rts": "over the budget"}),
    ],
)
def test_the_set_that_is_evaded_least_is_best_and_of_two_alike_the_cheaper(
    budget: int | None, verdicts: dict[str, str | None]
) -> None:
    assert {str(line.detector): line.verdict for line in sets(records(budget))} == verdicts


def test_the_adaptive_attack_is_counted_as_planted() -> None:
    line = best(records())
    rate = wilson(1, N)
    assert line.evaded == rate
    assert (line.n, line.failed, line.reached.value) == (N, 2, 0.8)
    assert line.confidence.value == pytest.approx(sum(0.9 + 0.01 * index for index in range(8)) / 8)
    assert line.attack_passes == 290
    assert line.flags.flagged.value == 7 / 8  # of those that reached their label
    assert line.flags.flagged_strictly.value == 0
    # Benign −1 … −1.7 against one −2 and seven −7, photo by photo of the 8 whose label was reached.
    assert line.auroc.value == 1
    assert line.auroc.low is not None
    assert line.auroc.low < 1
    assert line.false_positives.value == 1 / N


def test_other_attacks_are_counted_on_photos_whose_label_they_reached() -> None:
    by = {(str(line.detector), str(line.under)): line for line in records() if line.kind == "attack"}
    pgd, cam = by["grad+cam", "pgd"], by["grad+cam", "adv2-cam"]
    assert (pgd.n, pgd.failed, pgd.auroc.value) == (N, 1, 1)
    assert (pgd.flags.flagged.value, pgd.flags.flagged_strictly.value) == (1, 1)
    assert (cam.n, cam.failed, cam.flags.flagged.value) == (N, 1, 5 / 9)  # 4 of the 9 hide
    assert cam.auroc.value == pytest.approx(5 / 9)
    assert cam.evaded.value == 4 / N
    summary = best(records())
    assert (summary.auroc_pgd, summary.auroc_adv2) == (pgd.auroc, cam.auroc)  # the lowest, and not that of others


def test_corrupted_photos_are_flagged_or_not() -> None:
    by = {(str(line.detector), str(line.under)): line for line in records() if line.kind == "harmless"}
    assert by["cam", "jpeg-75"].flags.flagged.value == 1 / N
    assert by["cam", "crop-90"].flags.flagged.value == 1
    assert by["cam", "crop-90"].auroc.value is None


def test_parts_of_the_signals_are_shown_with_the_attack_that_adapted_to_all() -> None:
    parts = [line for line in records() if line.kind == "ablation"]
    assert [str(line.under) for line in parts] == ["pgd", "adv2-grad", "adv2-cam", "adaptive to all signals"]
    assert {str(line.signals) for line in parts} == {"views alone"}
    assert parts[-1].evaded.value == 5 / N


def with_resources() -> list[DetectorRecord]:
    """Lines of two sets of one and a set of two, with three ε, and with fewer passes at the largest."""
    shares = {(2, 300): (0, 2, 0), (4, 300): (6, 4, 1), (8, 300): (6, 4, 2), (8, 50): (0, 0, 0), (8, 100): (5, 5, 0)}
    spent = [
        planted(key, evaded=evaded, passes=13, levels=levels, most_passes=passes)
        for (levels, passes), several in shares.items()
        for key, evaded in zip(("cam", "grad", "grad+cam"), several, strict=True)
    ]
    return [
        *summaries((CAM_, GRAD_, BOTH, SQUEEZE), budget=None),
        *(one.under_adaptive("resources", f", {255 * one.effort.eps:.0f}/255") for one in spent),
    ]


def test_what_the_attacker_needs_is_told_by_number_of_interpreters() -> None:
    made = with_resources()
    told = [line for line in made if line.kind == "resources"]
    assert [(e.eps, e.most_passes) for line in told[::6] if (e := line.effort)] == [
        (2 / 255, 300),
        (8 / 255, 300),
        (8 / 255, 100),
    ]
    said = words(made)
    assert "the least ε, at 300 passes: 4/255 with 1, more than 8/255 with 2; " in said
    assert "the fewest passes, at 8/255: 100 passes with 1, more than 300 passes with 2." in said
    along_eps = [line for line in made if line.kind != "resources" or (line.effort and line.effort.most_passes == 300)]
    assert "the fewest passes" not in words(along_eps)


def with_weightings() -> list[DetectorRecord]:
    return [
        planted("grad+cam", evaded=evaded, passes=17, sharing=name).under_adaptive("sharing")
        for name, evaded in (("even", 1), ("fixed", 3))
    ]


def with_search() -> list[DetectorRecord]:
    return [
        planted(key, evaded=evaded, passes=17, most_passes=800).under_adaptive("search")
        for key, evaded in (("grad+cam", 4), ("cam", 7))
    ]


def test_the_table_has_every_record_and_its_columns_in_order() -> None:
    made = records()
    found = to_arrow(made, DetectorRecord)
    assert found.num_rows == len(made)
    assert found["detector"].to_pylist() == [str(line.detector) for line in made]
    assert found["evaded"][2].as_py() == 0.1
    assert found.column_names[:12] == [
        "kind", "detector", "verdict", "signals", "under", "eps", "most_passes", "steps", "finalists", "sharing",
        "interpreters", "passes",
    ]  # fmt: skip
    assert found.column_names[-3:] == ["false_positives_high", "attack_passes", "clean"]
    assert len(found.column_names) == len(set(found.column_names)) == 43
    assert len(fields(DetectorRecord)) <= 20


def test_one_photo_decides_that_the_best_set_is_evaded_and_none_that_it_is_not() -> None:
    (claim,) = defense_claims(records())
    assert (claim.id, claim.verdict, claim.n) == ("evaded/grad+cam", Verdict.HOLDS, N)
    assert claim.estimates["evaded"] == wilson(1, N)
    (claim,) = defense_claims(summaries([planted("cam", evaded=0, passes=13)], budget=None))
    assert claim.verdict is Verdict.UNDECIDED


def test_words_are_those_of_the_snapshots() -> None:
    whole = [*with_resources(), *details(FOUND, PARTS), *with_weightings(), *with_search()]
    check_snapshot(__file__, "defense", words(whole, all_weightings=["even", "fixed"]))
    unevaded = summaries([planted("cam", evaded=0, passes=13)], budget=20)
    check_snapshot(__file__, "defense-unevaded", words(unevaded, budget=20, left_out=2, beyond_limit=1, rates=(0.05,)))


def test_the_figure_has_every_detector_with_its_adaptive_attack() -> None:
    svg = defense_figure(records(), "linf")
    assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314 - our own output
    assert "#0a0b" not in svg
    for text in ("GRAD + CAM · 17 passes", "feature squeezing · 4 passes", "evaded on 10 % of 10"):
        assert text in svg.replace("\u00a0", " ")
    assert svg == defense_figure(records(), "linf")


def test_the_figure_has_a_cell_for_each_set_and_what_was_spent_on_it() -> None:
    svg = defense_figure(with_resources(), "linf")
    for text in ("2/255", "4/255", "300 passes", "evaded, by the attacker's budget"):
        assert text in svg
    assert "cam adaptive, 4/255 60 %" in svg
    for share in ("20 %", "60 %", "40 %", "10 %"):
        assert f">{share}<" in svg
    assert "by the attacker's budget" not in defense_figure(records(), "linf")
