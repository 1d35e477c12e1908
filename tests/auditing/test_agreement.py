"""Whether measures rank interpreters alike: closed forms, scipy's Friedman test, and planted rankings."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import friedmanchisquare
from torch import Tensor

from support.planted_rows import row
from support.rows import row as changed
from support.synthetic_run import Recipe, write_run
from underfire.auditing.agreement import MeasureAgreement, kendall_w
from underfire.auditing.distances import MEASURES, is_distance, measures_of
from underfire.auditing.rows import Row
from underfire.auditing.run import open_run
from underfire.auditing.tally import summarise
from underfire.report.agreement import agreement_part
from underfire.report.build import build_report
from underfire.studies.study import Verdict

ALL = ("cam", "grad", "ig")
KEPT = {"cam": 0.9, "grad": 0.5, "ig": 0.2}
"""By interpreter, how much of its map is kept: of all three IG resists most."""
NONE: Mapping[str, float] = {}


def attacked(interpreter: str, photo: int, changes: Mapping[str, float] = NONE, *, success: bool = True) -> Row:
    """ADV² on ``interpreter``, by every measure as near to the benign map as `KEPT` says, a little more or less."""
    kept = KEPT[interpreter] + 0.01 * (photo % 5)
    values = {**{name: 1 - kept if is_distance(name) else kept for name in MEASURES}, **changes}
    saved: dict[str, Any] = {f"{name}_8bit": value for name, value in values.items()}
    return changed(row(str(photo), f"adv2-{interpreter}", interpreter, success=success), **values | saved)


def agreed(rows: list[Row]) -> MeasureAgreement:
    found = summarise(rows).agreement
    assert found is not None
    return found


def rankings(*by_measure: list[float]) -> Tensor:
    return torch.tensor(by_measure, dtype=torch.float64).T[None]


def test_concordance_in_closed_form() -> None:
    assert kendall_w(rankings([1, 2, 3], [4, 5, 6], [0, 7, 9])).tolist() == [1.0]
    assert kendall_w(rankings([1, 2, 3], [3, 2, 1])).tolist() == [0.0]
    # Rank sums 4, 6 and 8 of three rankings: 12 · 8 / (9 · 24).
    assert kendall_w(rankings([1, 2, 3], [1, 3, 2], [2, 1, 3])).tolist() == pytest.approx([12 * 8 / (9 * 24)])
    assert kendall_w(rankings([1, 1, 1], [2, 2, 2])).isnan().all()


@pytest.mark.parametrize("seed", range(5))
def test_concordance_is_friedmans_statistic(seed: int) -> None:
    values = torch.randint(4, (1, 5, 7), generator=torch.Generator().manual_seed(seed)).double()  # with ties
    expected = friedmanchisquare(*values[0].numpy()).statistic / (7 * 4)
    assert kendall_w(values).tolist() == pytest.approx([expected])


def test_measures_that_agree() -> None:
    found = agreed([attacked(name, photo) for name in ALL for photo in range(8)])
    assert found.interpreters == ALL
    assert [one.measure for one in found.rankings] == list(MEASURES)
    assert {one.ranks for one in found.rankings} == {(3.0, 2.0, 1.0)}  # a distance is turned round
    assert found.rankings[0].means == pytest.approx(tuple(1 - KEPT[name] - 0.01 * 13 / 8 for name in ALL))
    assert (found.concordance.value, found.concordance.low, found.concordance.n) == (1.0, 1.0, 8)


def test_a_measure_that_disagrees() -> None:
    other = {"cam": 0.1, "grad": 0.4, "ig": 0.8}
    found = agreed([attacked(name, photo, {"spearman": other[name]}) for name in ALL for photo in range(8)])
    by_measure = {one.measure: one.ranks for one in found.rankings}
    assert by_measure["spearman"] == (1.0, 2.0, 3.0)
    assert by_measure["kendall"] == (3.0, 2.0, 1.0)
    m = len(MEASURES)
    assert found.concordance.value == pytest.approx((m - 2) ** 2 / m**2)  # rank sums 2(m − 2) apart and not 2m


def test_the_same_photos_count_for_all() -> None:
    missed = [attacked("ig", photo, success=photo != 3) for photo in range(5)]
    found = agreed([*(attacked(name, photo) for name in ("cam", "grad") for photo in range(6)), *missed])
    assert found.concordance.n == 4  # photo 3 missed its label on IG, photo 5 has no row of it


def test_old_rows_are_ranked_by_what_they_have() -> None:
    new = [name for name in MEASURES if name not in measures_of(2)]
    lacking: dict[str, Any] = dict.fromkeys([*new, *(f"{name}_8bit" for name in new)])
    found = agreed([changed(attacked(name, photo), **lacking) for name in ALL for photo in range(3)])
    assert [one.measure for one in found.rankings] == list(measures_of(2))


def test_there_is_no_ranking_of_one_and_of_none() -> None:
    assert summarise([attacked("cam", photo) for photo in range(4)]).agreement is None
    assert summarise([attacked(name, 0, success=name == "cam") for name in ALL]).agreement is None
    (same,) = {summarise([attacked(name, 0) for name in ("cam", "grad")]).agreement}
    assert same is not None
    assert (same.concordance.value, same.concordance.low, same.concordance.n) == (1.0, None, 1)


def test_the_report_tests_it() -> None:
    alike = agreement_part(summarise([attacked(name, photo) for name in ALL for photo in range(8)]))
    assert alike is not None
    assert (alike.claim.verdict, alike.claim.n) == (Verdict.HOLDS, 8)
    assert "IG resists most by every measure" in alike.words
    other = {"cam": 0.1, "grad": 0.4, "ig": 0.8}
    turned = ("spearman", "kendall", "pearson", "ssim")
    rows = [attacked(n, p, dict.fromkeys(turned, other[n])) for n in ALL for p in range(8)]
    apart = agreement_part(summarise(rows))
    assert apart is not None
    assert apart.claim.verdict is Verdict.FAILS
    assert "CAM resists most by spearman, kendall, pearson and ssim" in apart.words


def test_the_page_shows_it_whatever_the_number_of_photos(tmp_path: Path) -> None:
    tables = []
    for count in (2, 6):
        files = [f"{index}.jpg" for index in range(count)]
        page = build_report(open_run(write_run(tmp_path / str(count), Recipe(files=files, artifacts=False))))
        (table,) = re.findall(r'aria-label="Rankings.*?</table>', page.read_text(encoding="utf-8"), re.DOTALL)
        tables.append(table)
    assert [table.count("<tr") for table in tables] == [len(MEASURES) + 1] * 2
