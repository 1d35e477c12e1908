"""The study of certificates and attacks: figures, censoring, a planted violation, and that it goes on where it was."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import torch
from click.testing import CliRunner

import underfire as uf
from support.snapshots import check_snapshot
from support.stopping import Stop, stopping_after
from support.toy_photos import MISCLASSIFIED, MODEL_OPTIONS, found, toy_classifier, toy_plan
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.certificates.nearest import nearest_image
from underfire.cli import cli
from underfire.errors import InputError
from underfire.images import read_png
from underfire.studies import sandwich
from underfire.studies.sandwich import CountedDraws, SandwichOptions, sandwich_study
from underfire.studies.sandwich_rows import SandwichPhoto, row_of
from underfire.studies.source import decide
from underfire.studies.study import Study, Verdict

PLAN = replace(toy_plan(), interpreters=("cam", "grad"), targets="given")
OPTIONS = SandwichOptions(
    sigma=(0.01, 0.02), samples=60, alpha=0.05, attacked=("cam",), at=0.02, elsewhere=1, averaged=2, rounds=1, judged=4,
    scored=8,
)  # fmt: skip


def decided(photos: Path) -> tuple[PlannedPhoto, ...]:
    return decide(PLAN, found(photos), toy_classifier()).photos[:2]


def study(photos: Path, work: Path, plan: AuditPlan = PLAN, options: SandwichOptions = OPTIONS, **more: Any) -> Study:
    return sandwich_study(plan, decided(photos), toy_classifier(), options, work=work, **more)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    work = tmp_path_factory.mktemp("whole")
    return work, study(photos, work)


def content(work: Path) -> dict[str, bytes]:
    return {str(path.relative_to(work)): path.read_bytes() for path in work.rglob("*.json")}


def photo(radius: float, distance: float | None = None, **more: Any) -> SandwichPhoto:
    plain = SandwichPhoto(
        "cam", 0.1, "other/kept", count=20, radius=radius, label_radius=0.1, cap=0.3, abstained=False, censored=False,
        attacked=True, distance=distance, held=0.01, passes=100,
    )  # fmt: skip
    return replace(plain, **more)


def test_certificates_are_those_of_the_call(photos: Path, whole: tuple[Path, Study]) -> None:
    rows = whole[1].table.to_pylist()
    assert len(rows) == 2 * 2 * 4
    classifier, names = toy_classifier(), [one.image_id for one in decided(photos)]
    assert MISCLASSIFIED not in names
    x = torch.stack([read_png(photos / name) for name in names])
    y = torch.tensor([one.label for one in decided(photos)])
    for row in rows:
        (g,) = (g for g in (uf.CAM(classifier), uf.GRAD(classifier)) if g.name == row["interpreter"])
        own = uf.certify(
            g, x, y, sigma=row["sigma"], samples=60, alpha=0.05 / 4, target=(y + 2) % 10,
            goals=["other/free", "other/kept", "target/kept", "kept/topk"], keys=names,
        )  # fmt: skip
        assert row["radius"] == pytest.approx(float(own.radius(row["goal"]).quantile(0.5)), abs=1e-12)
        assert row["cap"] == pytest.approx(own.cap())
        assert row["n"] == 2
        assert row["abstained"] == int(own.abstained.sum())
        assert row["few"] == int((own.censored & ~own.abstained).sum())
        assert row["unmet"] == int((own.counts[row["goal"]] == 0).sum())
        assert row["attacked"] == (2 if (row["interpreter"], row["sigma"]) == ("cam", 0.02) else 1)
        assert row["distance"] is None or row["distance"] >= 0


class TestCensoring:
    def test_censored_photos_are_counted_and_in_no_ratio(self) -> None:
        kept = [photo(0.1, 0.5), photo(0.2, 0.6), photo(0.2, 0.8)]
        few = photo(0.3, 9.0, censored=True, count=3)
        none = photo(0.0, 0.0, censored=True, abstained=True, label_radius=0.0)
        row = row_of([*kept, few, none])
        assert (row.n, row.abstained, row.few, row.attacked) == (5, 1, 1, 5)
        assert row.ratio.n == row.buys.n == 3
        assert row.ratio.value == pytest.approx(4.0)
        assert row.buys.value == pytest.approx(1.0)
        assert row.radius.value == 0.2
        assert row.distance.value == 0.6

    def test_what_was_not_found_or_not_tried_has_no_distance(self) -> None:
        row = row_of([photo(0.1, None), photo(0.1, 0.3), photo(0.1, None, attacked=False, held=None)])
        assert (row.attacked, row.missed, row.distance.n, row.ratio.n, row.held.n) == (2, 1, 1, 1, 2)

    def test_a_goal_that_noise_reaches_has_no_ratio(self) -> None:
        assert photo(0.0, 0.0, goal="kept/topk", count=90).ratio is None
        assert photo(0.05, 0.2).ratio == pytest.approx(4.0)
        assert photo(0.05, 0.0).ratio == 0.0
        assert photo(0.1, goal="other/free").buys is None

    def test_a_map_buys_nothing_where_the_label_stays(self) -> None:
        assert photo(0.2, goal="target/kept").buys == pytest.approx(1.0)
        assert photo(0.2, goal="kept/topk").buys is None


class TestFalsifier:
    """Planted: the first draws of each photo are counted as if none of very many had met a goal."""

    PLAN = replace(PLAN, interpreters=("cam",))
    OPTIONS = replace(OPTIONS, sigma=(0.02,), scored=60, judged=8, rounds=3, averaged=4, elsewhere=0)

    @pytest.fixture
    def counted(self, monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
        """The seeds with which draws were counted; the certificates are of the count 0 among 10⁹ draws."""
        counted, seeds = sandwich._Measured._counted, list[int | None]()

        def lying(measured: Any, one: PlannedPhoto, sigma: float, seed: int | None = None) -> CountedDraws:
            seeds.append(seed)
            true = counted(measured, one, sigma, seed)
            n = 0 if seed is None or self.again else 10**9
            return CountedDraws({name: dict.fromkeys(counts, n) for name, counts in true.counts.items()})

        def certificate(*facts: Any) -> uf.Certificate:
            return replace(uf.Certificate(*facts), samples=10**9)

        monkeypatch.setattr(sandwich._Measured, "_counted", lying)
        monkeypatch.setattr(sandwich, "Certificate", certificate)
        certificate.version = 1  # type: ignore[attr-defined]
        return seeds

    again = False

    def test_a_certificate_that_is_wrong_twice_stops_the_study(
        self, photos: Path, tmp_path: Path, counted: list[int | None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(self, "again", True)
        with pytest.raises(RuntimeError, match="is wrong: an image inside of it"):
            study(photos, tmp_path, self.PLAN, self.OPTIONS)
        assert counted[-1] is not None

    def test_one_unlucky_set_of_draws_does_not(self, photos: Path, tmp_path: Path, counted: list[int | None]) -> None:
        study(photos, tmp_path, self.PLAN, self.OPTIONS)
        assert any(seed is not None for seed in counted)


def test_it_goes_on_where_it_was_stopped_amid_a_photo(
    photos: Path, tmp_path: Path, whole: tuple[Path, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    search, calls = nearest_image, []

    def dying(*parts: Any, **options: Any) -> Any:
        calls.append(parts)
        if len(calls) == 10:
            raise Stop
        return search(*parts, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sandwich, "nearest_image", dying)
        with pytest.raises(Stop):
            study(photos, tmp_path)
    with pytest.raises(Stop):
        study(photos, tmp_path, note=stopping_after(1))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert 0 < len(kept) < len(content(whole[0]))
    assert study(photos, tmp_path) == whole[1]
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert content(tmp_path) == content(whole[0])


@pytest.mark.parametrize("changed", [{"other/free": 61}, {"other/free": -1}, {}])
def test_counts_that_no_draws_can_have_shown_are_refused(
    photos: Path, tmp_path: Path, whole: tuple[Path, Study], changed: dict[str, int]
) -> None:
    work = shutil.copytree(whole[0], tmp_path / "work")
    path = next(work.glob("counts-*/*.json"))
    counts = json.loads(path.read_text())
    counts["counts"]["cam"] = counts["counts"]["cam"] | changed if changed else {"other/free": 0}
    path.write_text(json.dumps(counts))
    with pytest.raises(InputError, match="cannot be read"):
        study(photos, work)


def test_the_words_tell_what_is_censored_and_what_a_map_buys() -> None:
    photos = [photo(0.1 + 0.001 * k, 0.5 + 0.1 * k) for k in range(7)]
    photos += [photo(0.3, None, censored=True, count=2), photo(0.0, 0.0, censored=True, abstained=True)]
    free = [replace(one, goal="other/free", radius=min(one.radius, 0.1)) for one in photos]
    further = [replace(one, interpreter="grad", sigma=0.2) for one in photos]
    rows = [row_of(some) for some in (free, photos, further)]
    claims = sandwich._claims(rows, [*free, *photos, *further])
    options = replace(OPTIONS, sigma=(0.1, 0.2), at=0.1)
    check_snapshot(__file__, "sandwich", sandwich._words(rows, claims, options, "9 of 9 photos attacked.", 12.2))


def test_claims(whole: tuple[Path, Study]) -> None:
    claims = whole[1].claims
    assert [claim.id for claim in claims] == [
        "buys", "sound", "buys/cam/0.01", "buys/grad/0.01", "buys/cam/0.02", "buys/grad/0.02",
    ]  # fmt: skip
    assert claims[1].verdict is Verdict.HOLDS
    assert claims[1].n == (2 + 3) * 4  # CAM at 0.02 on both photos, and three other cells of the first
    assert ET.fromstring(whole[1].figure).tag.endswith("svg")  # noqa: S314 - our own output


def test_a_map_that_buys_next_to_nothing_fails_the_claim() -> None:
    rows = [row_of([photo(0.1 * (1 + 0.001 * k), 0.5) for k in range(10)])]
    (overall, _, single) = sandwich._claims(rows, [])
    assert overall.verdict is single.verdict is Verdict.FAILS
    more = [row_of([photo(0.11 + 0.001 * k, 0.5) for k in range(10)])]
    assert sandwich._claims(more, [])[0].verdict is Verdict.HOLDS


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (replace(OPTIONS, attacked=("rts",)), "attacked 'rts' is none of the interpreters cam, grad"),
        (replace(OPTIONS, at=0.3), "at 0.3 is none of the sigma"),
        (replace(OPTIONS, sigma=(0.02, -1.0)), "sigma is -1.0"),
    ],
)
def test_what_does_not_fit_is_refused(photos: Path, tmp_path: Path, options: SandwichOptions, said: str) -> None:
    with pytest.raises(InputError, match=said):
        study(photos, tmp_path, options=options)


def test_the_command(photos: Path, tmp_path: Path) -> None:
    common = ("study", "sandwich", str(photos), *MODEL_OPTIONS, "--interpreters", "cam", "--out", str(tmp_path))
    few = (
        "--limit",
        "1",
        "--elsewhere",
        "0",
        "--samples",
        "4",
        "--rounds",
        "1",
        "--averaged",
        "1",
        "--judged",
        "2",
        "--scored",
        "2",
    )
    done = CliRunner().invoke(cli, [*common, *few, "--sigma", "0.1", "--at", "0.1", "--attacked", "cam"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "sandwich.md").is_file()
    refused = CliRunner().invoke(cli, [*common, "--eps", "0.1"])
    assert refused.exit_code == 2
    assert "--eps cannot be given" in refused.output
