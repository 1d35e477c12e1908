"""What is counted of planted detectors, which set is recommended, and what words and figure say of it."""

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from underfire.attacks.perturbations import Linf
from underfire.evaluation.figure import defence_figure
from underfire.evaluation.findings import AdaptiveShot, Findings, Seen, Shot
from underfire.evaluation.lines import (
    Line,
    best,
    details,
    resources_line,
    search_line,
    sets,
    sharing_line,
    summaries,
    table,
)
from underfire.evaluation.trials import Resources
from underfire.evaluation.words import defence_words
from underfire.stats import wilson

N = 10
PHOTOS = tuple(f"photo-{index}" for index in range(N))
GIVEN = Resources(Linf(8 / 255), 300)
UNDER = ("pgd", "adv2-grad", "adv2-cam", "patch: adv2-cam")


def seen(score: float, threshold: float = -5.0) -> Seen:
    return Seen(score, score < threshold, score < 2 * threshold)


def planted(
    key: str,
    *,
    evaded: int,
    passes: int,
    failed: int = 0,
    is_set: bool = True,
    worst: str = "adv2-cam",
    signals: str = "",
    spent: Resources = GIVEN,
    sharings: tuple[str, ...] = ("even",),
) -> Findings:
    """A detector that is evaded on so many photos, and misses nothing but every second image under ``worst``.

    The adaptive attack misses its label on ``failed`` further photos.
    """
    clean = {photo: seen(-1 - 0.1 * index) for index, photo in enumerate(PHOTOS)}
    clean[PHOTOS[-1]] = seen(-6)  # a false positive

    def shots(under: str) -> Mapping[str, Shot]:
        hidden = [under == worst and index % 2 == 0 for index in range(N)]
        # Of the first photo the label is missed; it is in no share of what is flagged.
        return {photo: Shot(index > 0, seen(-0.5 if hidden[index] else -20)) for index, photo in enumerate(PHOTOS)}

    adaptive = {
        photo: AdaptiveShot(index < N - failed, seen(-2 if index < evaded else -7), 0.9 + 0.01 * index, 290)
        for index, photo in enumerate(PHOTOS)
    }
    names = tuple(key.split("+"))
    return Findings(
        key=key,
        interpreters=names,
        is_set=is_set,
        passes=passes,
        clean=200,
        benign=clean,
        harmless={"jpeg-75": clean, "crop-90": {photo: seen(-9) for photo in PHOTOS}},
        attacks={under: shots(under) for under in UNDER},
        adaptive=adaptive,
        resources=spent,
        steps=200 // len(names),
        finalists=2,
        sharings=sharings,
        signals=signals,
    )


CAM_ = planted("cam", evaded=6, passes=13)
GRAD_ = planted("grad", evaded=4, passes=11)
BOTH = planted("grad+cam", evaded=1, passes=17, failed=2)
DEAR = planted("grad+cam+rts", evaded=1, passes=30)
SQUEEZE = planted("squeezing", evaded=9, passes=4, is_set=False)
MEAN = planted("mean-map", evaded=3, passes=17, is_set=False)
FOUND = (DEAR, MEAN, SQUEEZE, CAM_, BOTH, GRAD_)
PARTS = (planted("grad+cam", evaded=5, passes=17, signals="views alone"),)


def lines(budget: int | None = None) -> list[Line]:
    return [*summaries(FOUND, budget=budget), *details(FOUND, PARTS)]


def words(made: list[Line], **more: Any) -> str:
    settings: dict[str, Any] = {
        "photos": (), "skipped": 0, "beyond_limit": 0, "left_out": 0, "rates": (0.05, 0.01), "passes": 300,
        "budget": None, "sharings": ["even"],
    }  # fmt: skip
    return defence_words(made, **(settings | more))


def test_one_summary_for_each_detector_comes_first_the_sets_by_cost() -> None:
    made = lines()
    first = ["grad", "cam", "grad+cam", "grad+cam+rts", "squeezing", "mean-map"]
    assert [line.detector for line in made[:6]] == first
    assert [line.kind for line in made[:6]] == ["set"] * 4 + ["baseline"] * 2
    assert {line.kind for line in made[6:]} == {"attack", "harmless", "ablation"}
    assert {line.under for line in made[:6]} == {"adaptive"}
    assert [(line.steps, line.finalists) for line in made[:3]] == [(200, 2), (200, 2), (100, 2)]


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
    assert {line.detector: line.verdict for line in sets(lines(budget))} == verdicts


def test_the_adaptive_attack_is_counted_as_planted() -> None:
    line = best(lines())
    rate = wilson(1, N)
    assert (line.evaded, line.evaded_low, line.evaded_high) == (rate.value, rate.low, rate.high)
    assert (line.n, line.failed, line.reached) == (N, 2, 0.8)
    assert line.confidence == pytest.approx(sum(0.9 + 0.01 * index for index in range(8)) / 8)
    assert line.attack_passes == 290
    assert line.flagged == 7 / 8  # of those that reached their label
    assert line.flagged_strictly == 0
    # Benign −1 … −1.7 against one −2 and seven −7, photo by photo of the 8 whose label was reached.
    assert line.auroc == 1
    assert line.auroc_low is not None
    assert line.auroc_low < 1
    assert line.false_positives == 1 / N


def test_other_attacks_are_counted_on_photos_whose_label_they_reached() -> None:
    by = {(line.detector, line.under): line for line in lines() if line.kind == "attack"}
    pgd, cam = by["grad+cam", "pgd"], by["grad+cam", "adv2-cam"]
    assert (pgd.n, pgd.failed, pgd.auroc, pgd.flagged, pgd.flagged_strictly) == (N, 1, 1, 1, 1)
    assert (cam.n, cam.failed, cam.flagged) == (N, 1, 5 / 9)  # 4 of the 9 hide
    assert cam.auroc == pytest.approx(5 / 9)
    assert cam.evaded == 4 / N
    summary = best(lines())
    assert (summary.auroc_pgd, summary.auroc_adv2) == (pgd.auroc, cam.auroc)  # the lowest, and not that of others


def test_harmless_changes_are_flagged_or_not() -> None:
    by = {(line.detector, line.under): line for line in lines() if line.kind == "harmless"}
    assert by["cam", "jpeg-75"].flagged == 1 / N
    assert by["cam", "crop-90"].flagged == 1
    assert by["cam", "crop-90"].auroc is None


def test_parts_of_the_signals_are_shown_with_the_attack_that_adapted_to_all() -> None:
    parts = [line for line in lines() if line.kind == "ablation"]
    assert [line.under for line in parts] == ["pgd", "adv2-grad", "adv2-cam", "adaptive to all signals"]
    assert {line.signals for line in parts} == {"views alone"}
    assert parts[-1].evaded == 5 / N


def with_resources() -> list[Line]:
    """Lines of two sets of one and a set of two, with three ε, and with fewer passes at the largest."""
    shares = {(2, 300): (0, 2, 0), (4, 300): (6, 4, 1), (8, 300): (6, 4, 2), (8, 50): (0, 0, 0), (8, 100): (5, 5, 0)}
    spent = [
        planted(key, evaded=evaded, passes=13, spent=Resources(Linf(levels / 255), passes))
        for (levels, passes), several in shares.items()
        for key, evaded in zip(("cam", "grad", "grad+cam"), several, strict=True)
    ]
    return [*summaries((CAM_, GRAD_, BOTH, SQUEEZE), budget=None), *map(resources_line, spent)]


def test_what_the_attacker_needs_is_told_by_number_of_interpreters() -> None:
    made = with_resources()
    told = [line for line in made if line.kind == "resources"]
    assert [(line.eps, line.most_passes) for line in told[::6]] == [(2 / 255, 300), (8 / 255, 300), (8 / 255, 100)]
    said = words(made)
    assert "the least ε, at 300 passes: 4/255 with 1, more than 8/255 with 2; " in said
    assert "the fewest passes, at 8/255: 100 passes with 1, more than 300 passes with 2." in said
    along_eps = [line for line in made if line.kind != "resources" or line.most_passes == 300]
    assert "the fewest passes" not in words(along_eps)
    assert "must spend" not in words(lines())


def test_each_sharing_is_told_by_itself() -> None:
    tries = [
        planted("grad+cam", evaded=evaded, passes=17, sharings=(name,)) for name, evaded in (("even", 1), ("fixed", 3))
    ]
    made = [*lines(), *map(sharing_line, tries)]
    assert [line.under for line in made if line.kind == "sharing"] == [
        "adaptive, even sharing",
        "adaptive, fixed sharing",
    ]
    assert "Evaded by each sharing alone: GRAD + CAM even 10 % (AUROC " in words(made)
    assert "), fixed 30 % (AUROC " in words(made)
    assert "sharing alone" not in words(lines())


def test_a_search_is_told_with_what_it_may_spend() -> None:
    found = [
        search_line(planted("grad+cam", evaded=4, passes=17), 500),
        search_line(planted("cam", evaded=7, passes=13), 500),
    ]
    assert [(line.kind, line.most_passes, line.evaded) for line in found] == [
        ("search", 800, 0.4),
        ("search", 800, 0.7),
    ]
    said = words([*lines(), *found])
    assert "With a search of 500 passes more" in said
    assert "sets are evaded on: GRAD + CAM 40 %; CAM 70 %." in said
    assert "search" not in words(lines())


def test_maps_that_share_no_step_have_no_sharing() -> None:
    assert {line.detector: line.sharing for line in lines() if line.kind == "set"} == {
        "grad": None, "cam": None, "grad+cam": "even", "grad+cam+rts": "even"
    }  # fmt: skip


def test_the_table_has_every_line() -> None:
    made = lines()
    found = table(made)
    assert found.num_rows == len(made)
    assert found["detector"].to_pylist() == [line.detector for line in made]
    assert found["evaded"][2].as_py() == 0.1


def test_words_carry_the_adaptive_attack_and_what_is_not_stopped() -> None:
    said = words(lines())
    assert said.startswith("Against the attacker who knows the detector, GRAD + CAM detects best, at 17 passes")
    assert "reaches the label unflagged on 10 % (2 % to 40 %) of 10 photos" in said
    assert "It will not stop this attacker on 1 of 10 photos" in said
    paragraphs = said.split("\n\n")
    assert len(paragraphs) == 5
    assert all(paragraph.endswith(".") and "\n" not in paragraph for paragraph in paragraphs)
    assert "PGD 1.00" in said
    assert "ADV² on CAM 0.56" in said
    assert "ADV² on CAM (patch) 1.00" in said
    assert "jpeg-75 10 %, crop-90 100 %" in said
    assert "GRAD at 11 (evaded on 40 %), GRAD + CAM at 17 (evaded on 10 %)" in said
    assert "with 1: 50 % evaded, 100 % reached, confidence 0.9" in said
    assert ", 200 steps; with 2: 10 % evaded" in said
    assert "feature squeezing (PGD 1.00, the ADV² that is hardest for it 0.56; who knows it " in said
    assert "evaded on 90 %); the mean map (" in said
    assert "views alone PGD 1.00, ADV² 0.56" in said


def test_words_say_what_nobody_evaded_and_what_was_left_out() -> None:
    made = summaries([planted("cam", evaded=0, passes=13)], budget=20)
    said = words(made, budget=20, left_out=2, beyond_limit=1, sharings=["even", "worst"], rates=(0.05,))
    assert "detects best within 20 passes for a photo" in said
    assert "On none of these photos was it evaded; up to 28 % remain possible" in said
    assert "the same as others: 2 clean photos." in said
    assert "1 photo beyond the limit" in said
    assert "the strongest of even and worst sharing" in said
    assert "Hardest" not in said


def test_the_figure_has_every_detector_with_its_adaptive_attack() -> None:
    svg = defence_figure(lines())
    assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314 - our own output
    assert "#0a0b" not in svg
    for text in ("GRAD + CAM · 17 passes", "feature squeezing · 4 passes", "evaded on 10 % of 10"):
        assert text in svg.replace("\u00a0", " ")
    assert svg == defence_figure(lines())


def test_the_figure_has_a_cell_for_each_set_and_what_was_spent_on_it() -> None:
    svg = defence_figure(with_resources())
    for text in ("2/255", "4/255", "300 passes", "evaded, by what the attacker may spend"):
        assert text in svg
    assert "cam adaptive, 4/255, 300 passes 60 %" in svg
    for share in ("20 %", "60 %", "40 %", "10 %"):
        assert f">{share}<" in svg
    assert "by what the attacker may spend" not in defence_figure(lines())
