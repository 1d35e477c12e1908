"""Planted rows whose figures are worked out by hand."""

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from support.planted_rows import PLANTED, controls, row, transfer_rows
from underfire.auditing.condition import Condition
from underfire.auditing.rows import Row, table_of
from underfire.auditing.summary import (
    KEPT_IOU,
    MOST_NAMED,
    MOST_POINTS,
    Cell,
    Excluded,
    ExcludedFor,
    Headline,
    Summary,
)
from underfire.auditing.tally import summarise, summarise_tables
from underfire.diagnostics.attack_signs import Indicator
from underfire.errors import InputError
from underfire.stats import Estimate, Share, bootstrap_mean, wilson

NOTHING = Estimate(None, None, None, 0)


@pytest.fixture(scope="module")
def planted() -> Summary:
    return summarise(PLANTED)


def the_cell(summary: Summary, condition: str, interpreter: str = "cam") -> Cell:
    cell = summary.cell(Condition.parse(condition), interpreter)
    assert cell is not None
    return cell


def the_headline(summary: Summary) -> Headline:
    (headline,) = summary.headlines
    return headline


def test_photos_are_counted_with_their_exclusions(planted: Summary) -> None:
    photos = planted.photos
    assert (photos.total, photos.attacked) == (5, 4)
    assert photos.excluded == (Excluded("e", "misclassified"),)
    assert photos.reasons == (ExcludedFor("misclassified", 1),)
    assert (photos.own_labels, photos.own_labels_attacked) == (2, 1)


def test_conditions_come_in_the_order_of_the_matrix(planted: Summary) -> None:
    assert tuple(map(str, planted.conditions)) == ("none", "noise", "pgd", "adv2-cam")
    assert planted.interpreters == ("cam",)
    several = summarise(
        row("a", condition, interpreter)
        for condition in ("adv2-cam+grad", "adv2-ig", "adv2-grad", "none", "pgd", "noise")
        for interpreter in ("ig", "grad")
    )
    assert tuple(map(str, several.conditions)) == ("none", "noise", "pgd", "adv2-grad", "adv2-ig", "adv2-cam+grad")
    assert several.interpreters == ("grad", "ig")


def test_an_attack_is_judged_by_its_successes_and_by_all(planted: Summary) -> None:
    attack = planted.attack(Condition.parse("adv2-cam"))
    assert attack is not None
    assert (attack.condition, attack.n) == (Condition.on("adv2", "cam"), 4)
    assert attack.asr == wilson(3, 4)
    assert attack.asr_8bit == wilson(2, 4)
    assert attack.confidence.n == 3
    assert attack.confidence.value == pytest.approx((0.9 + 0.7 + 0.8) / 3)
    assert attack.confidence_all.value == pytest.approx((0.9 + 0.7 + 0.1 + 0.8) / 4)
    assert attack.confidence_8bit.value == pytest.approx((0.8 + 0.7) / 2)
    assert attack.confidence_8bit_all.value == pytest.approx((0.8 + 0.6 + 0.0 + 0.7) / 4)
    assert (attack.linf.value, attack.l2.value) == (0.03, 1.0)
    assert (attack.passes.value, attack.seconds.value) == (20, 2.0)
    assert planted.attack(Condition.parse("none")) is None
    assert planted.attack(Condition.parse("adv2-ig")) is None


def test_failed_attacks_are_never_averaged_into_successes(planted: Summary) -> None:
    cell = the_cell(planted, "adv2-cam")
    assert cell.distances.l1.successes == bootstrap_mean([0.04, 0.02, 0.12])
    assert cell.distances.l1.every.value == pytest.approx((0.04 + 0.02 + 0.99 + 0.12) / 4)
    assert cell.distances.l1.successes_8bit == bootstrap_mean([0.04, 0.12])
    assert cell.distances.l1.every_8bit.n == 4
    assert cell.distances.iou_50.successes.value == pytest.approx((0.8 + 0.9 + 0.4) / 3)
    assert cell.distances.iou_25.successes.value == pytest.approx((0.8 + 0.9 + 0.4) / 3 * 0.9)
    assert cell.distances.iou_75.successes.value == pytest.approx((0.8 + 0.9 + 0.4) / 3 * 0.8)
    assert cell.distances.iou_top20.successes.value == pytest.approx((0.8 + 0.9 + 0.4) / 3 * 0.7)


def test_eight_bit_figures_are_of_the_eight_bit_columns() -> None:
    rows = [row("a", "pgd", success=True, l1=0.1, iou=0.9, l1_8bit=0.2, iou_8bit=0.3)]
    cell = the_cell(summarise(rows), "pgd")
    assert (cell.distances.l1.every.value, cell.distances.l1.every_8bit.value) == (0.1, 0.2)
    assert (cell.distances.iou_50.successes.value, cell.distances.iou_50.successes_8bit.value) == (0.9, 0.3)
    assert (cell.mean("l1").value, cell.mean("l1", eight_bit=False).value) == (0.2, 0.1)


def test_controls_have_no_successes_and_show_all_photos(planted: Summary) -> None:
    noise = the_cell(planted, "noise")
    assert noise.control
    assert noise.distances.l1.successes == NOTHING
    assert noise.mean("l1").value == pytest.approx((3 * 0.05 + 0.01) / 4)
    assert the_cell(planted, "none").mean("iou_50").value == 1.0
    assert not the_cell(planted, "pgd").control


def test_an_excluded_photo_is_never_counted(planted: Summary) -> None:
    without = summarise(r for r in PLANTED if r.image_id != "e")
    assert the_cell(planted, "none").n == 4
    assert the_cell(planted, "none").distances.l1.every.value == 0
    assert replace(planted, photos=without.photos) == without
    # Attacking a photo that other rows exclude would be a mistake upstream: such rows count nowhere either.
    assert replace(summarise([*PLANTED, row("e", "pgd", success=True)]), photos=without.photos) == without


def test_signs_are_counted_per_attack_over_the_photos_that_have_a_course() -> None:
    failed: dict[str, Any] = {"nll_first": 9.0, "nll_half": 9.0, "nll_kept": 9.0}
    reached: dict[str, Any] = {"stuck": 0.0, "nll_first": 9.0, "nll_half": 0.1, "nll_kept": 0.1}
    moved: dict[str, Any] = {"gap_first": 0.3, "gap_half": 0.2, "gap_kept": 0.05}
    rows = [
        *(row(name, "none") for name in "abc"),
        row("a", "pgd", stuck=1.0, **failed),
        row("b", "pgd", stuck=0.0, **failed),
        row("c", "pgd", success=True, **reached),
        *(row("a", "adv2-cam", seen_by, success=True, **reached, **moved) for seen_by in ("cam", "grad")),
        row("d", "none", excluded="misclassified"),
    ]
    counts = {(str(sign.condition), sign.indicator.value): (sign.k, sign.n) for sign in summarise(rows).signs}
    silent = {("pgd", i.value): (0, 3) for i in Indicator} | {("adv2-cam", i.value): (0, 1) for i in Indicator}
    assert counts == silent | {
        ("pgd", "zero_gradients"): (1, 3),
        ("pgd", "loss_not_falling"): (2, 3),
        ("adv2-cam", "still_improving"): (1, 1),
    }
    assert json.loads(json.dumps(summarise(rows).to_json()))["signs"][0]["indicator"] == "zero_gradients"


def test_rows_without_a_course_have_no_signs(planted: Summary) -> None:
    assert planted.signs == ()


def test_adv2_is_compared_with_pgd_on_the_photos_where_both_succeed(planted: Summary) -> None:
    cell = the_cell(planted, "adv2-cam")
    assert cell.l1_minus_pgd is not None  # a and b: in c ADV² failed, in d PGD did
    assert cell.l1_minus_pgd == bootstrap_mean([0.04 - 0.30, 0.02 - 0.20])
    assert cell.l1_minus_pgd_8bit == bootstrap_mean([0.04 - 0.30])
    assert the_cell(planted, "pgd").l1_minus_pgd is None
    assert the_cell(planted, "noise").l1_minus_pgd_8bit is None


def test_the_headline_counts_on_the_eight_bit_image(planted: Summary) -> None:
    headline = the_headline(planted)
    assert (headline.interpreter, str(headline.condition)) == ("cam", "adv2-cam")
    assert headline.kept == wilson(1, 4)  # a; b lost its label, c failed, d's map changed
    assert headline.kept_pgd == wilson(1, 4)  # b
    assert headline.within_noise == wilson(1, 4)  # a: 0.04 ≤ 0.05; d: 0.12 > 0.01
    assert headline.within_noise_pgd == wilson(0, 4)


@pytest.mark.parametrize(("iou", "kept"), [(KEPT_IOU, 1), (KEPT_IOU - 1e-9, 0)])
def test_a_map_is_kept_from_the_threshold_on(iou: float, kept: int) -> None:
    assert the_headline(summarise([row("a", "adv2-cam", success=True, iou=0.1, iou_8bit=iou)])).kept.k == kept


@pytest.mark.parametrize(("l1", "within"), [(0.05, 1), (0.0500001, 0)])
def test_a_map_within_noise_moves_no_more_than_noise_moves_it(l1: float, within: int) -> None:
    rows = [*controls("a"), row("a", "adv2-cam", success=True, l1=0.9, l1_8bit=l1)]
    assert the_headline(summarise(rows)).within_noise == wilson(within, 1)


def test_without_noise_rows_nothing_is_said_of_noise() -> None:
    headline = the_headline(summarise([row("a", "adv2-cam", success=True)]))
    assert headline.within_noise == Share(None, None, None, 0, 0)
    assert headline.kept_pgd.n == 0


def test_the_matrix_knows_its_diagonal() -> None:
    summary = summarise(transfer_rows())
    assert {(str(c.condition), c.interpreter) for c in summary.transfer if c.own} == {
        ("adv2-cam", "cam"),
        ("adv2-grad", "grad"),
    }
    assert the_cell(summary, "adv2-grad", "cam").distances.l1.successes.value == 0.21
    assert [h.interpreter for h in summary.headlines] == ["cam", "grad"]  # not ig, and not cam+grad
    difference = the_cell(summary, "adv2-cam+grad", "grad").l1_minus_pgd
    assert difference is not None
    assert difference.value == pytest.approx(0.06 - 0.32)


def test_an_attack_on_a_photo_counts_once_whatever_the_number_of_maps() -> None:
    attack = summarise(transfer_rows()).attack(Condition.parse("adv2-cam"))
    assert attack is not None
    assert (attack.n, attack.asr) == (1, wilson(1, 1))


def test_distributions_have_every_photo(planted: Summary) -> None:
    assert [str(d.condition) for d in planted.distributions] == ["noise", "pgd", "adv2-cam"]
    points = planted.distributions[-1].points
    assert [p.image_id for p in points] == ["a", "b", "c", "d"]
    assert [p.l1 for p in points] == [0.04, 0.02, 0.99, 0.12]
    assert [p.iou_50 for p in points] == [0.8, 0.9, 1.0, 0.4]
    assert [(p.success, p.success_8bit) for p in points] == [
        (True, True), (True, False), (False, False), (True, True)
    ]  # fmt: skip


def test_the_order_of_rows_changes_nothing(planted: Summary) -> None:
    shuffled = list(PLANTED)
    random.Random(5).shuffle(shuffled)
    assert summarise(shuffled) == planted


def test_a_half_finished_run_is_summarised_with_its_own_n() -> None:
    unfinished = [r for r in PLANTED if not (r.image_id == "d" and r.attack == "adv2")]
    headline = the_headline(summarise(unfinished))
    assert (headline.kept.n, headline.kept_pgd.n) == (3, 4)


def test_the_same_row_twice_is_refused() -> None:
    with pytest.raises(InputError, match="two rows of 'a' under pgd with the map of cam"):
        summarise([*PLANTED, row("a", "pgd")])


@pytest.mark.parametrize("rows", [[], PLANTED, [r for r in PLANTED if r.image_id == "e"], PLANTED[:2]])
def test_every_summary_is_valid_json(rows: Iterable[Row]) -> None:
    summary = summarise(rows)
    text = json.dumps(summary.to_json(), allow_nan=False)
    assert json.loads(text)["photos"]["attacked"] == summary.photos.attacked
    assert text == json.dumps(summarise(rows).to_json(), allow_nan=False)


def test_a_run_without_rows_has_no_figures() -> None:
    summary = summarise([])
    assert (summary.photos.total, summary.attacks, summary.transfer, summary.headlines) == (0, (), (), ())


def test_rows_in_pieces_have_the_figures_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        replace(found, photo=replace(found.photo, image_id=f"{found.image_id}{i}"))
        for i in range(3)
        for found in PLANTED
    ]
    rows.sort(key=lambda row: row.image_id)
    tables = [table_of([row for row in rows if row.image_id == name]) for name in sorted({r.image_id for r in rows})]
    whole = summarise(rows)
    monkeypatch.setattr("underfire.auditing.tally.BLOCK", 2)
    assert summarise_tables(tables) == whole


def test_the_summary_does_not_grow_with_the_photos() -> None:
    """Points and names of excluded photos end somewhere, and the rows have them all."""
    excluded = [row(f"x{i:03}", "none", excluded="misclassified") for i in range(MOST_NAMED + 5)]
    photos = [row(f"p{i:03}", "adv2-cam", success=i % 2 == 0, l1=0.001 * i) for i in range(MOST_POINTS + 2)]
    few, many = (summarise([*photos[:n], *excluded]) for n in (MOST_POINTS, MOST_POINTS + 2))
    assert len(many.photos.excluded) == MOST_NAMED
    assert many.photos.reasons == (ExcludedFor("misclassified", MOST_NAMED + 5),)
    assert [len(summary.distributions[0].points) for summary in (few, many)] == [MOST_POINTS, 0]
    sizes = [len(json.dumps(summary.to_json())) for summary in (few, many)]
    assert abs(sizes[1] - sizes[0]) < 500


def test_a_density_counts_every_photo() -> None:
    rows = [row(f"p{i:03}", "adv2-cam", success=i % 4 != 0, l1=i / 100) for i in range(100)]
    (found,) = summarise(rows).distributions
    assert (found.n, sum(found.l1.counts), sum(found.l1.missed)) == (75, 75, 25)
    assert found.l1.missed[0] == 1  # of 0.00 and 0.01 in the first fiftieth, the first missed
    assert found.l1.median == pytest.approx(0.5, abs=0.01)
    assert "points" not in summarise(rows).to_json()["distributions"][0]


def test_adv2_is_nearer_than_pgd_on_some_photos_where_both_succeed(planted: Summary) -> None:
    assert the_cell(planted, "adv2-cam").nearer_than_pgd_8bit == wilson(1, 1)  # a
    assert the_cell(planted, "pgd").nearer_than_pgd_8bit is None
