"""Entries of the benchmark: their numbers by hand, what reads them, and the table that joins them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from scipy import stats

import underfire as uf
from support.certified import SETTINGS, counts, write_certificates
from support.made_runs import with_rows
from support.planted_rows import PLANTED, controls
from support.planted_rows import row as planted
from support.synthetic_run import Recipe, write_run
from underfire.auditing.rows import Row
from underfire.cli import cli
from underfire.diagnostics.map_checks import MapCheck
from underfire.errors import InputError
from underfire.evidence.benchmark import (
    HEADLINE_TAU,
    BenchmarkCertificate,
    BenchmarkEntry,
    CertifiedGoal,
    CertifiedNoise,
    entries,
    read_entry,
)
from underfire.evidence.leaderboard import COLUMNS, as_html, as_markdown, comparable, ordered, rows

DOCS = Path(__file__).parents[2] / "docs"
CHECKS = tuple(MapCheck(name, (False,) * 5, (0.5, 0.4, 0.6, 0.5, 0.4), (0.1,) * 5) for name in ("cam", "grad"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> uf.Run:
    recipe = Recipe(interpreters=("cam", "grad"), artifacts=False)
    made = uf.load_run(write_run(tmp_path_factory.mktemp("run") / "run", recipe))
    return replace(made, facts=replace(made.facts, map_checks=CHECKS))


def of_rows(run: uf.Run, rows: list[Row]) -> uf.Run:
    """``run`` as if its rows were ``rows``."""
    made = with_rows(run, rows)
    made.__dict__["missing"] = ()
    return made


def test_the_curve_in_closed_form(run: uf.Run) -> None:
    """Of four photos a keeps its map at an IoU of 0.8, d at 0.4; b and c miss the label as saved."""
    (entry,) = entries(of_rows(run, PLANTED))
    curve = {point.tau: point for point in entry.jsr_curve}
    assert len(curve) == 21
    assert [curve[tau].jsr.k for tau in (0.0, 0.4, 0.45, 0.8, 0.85, 1.0)] == [2, 2, 1, 1, 0, 0]
    assert {point.jsr.n for point in entry.jsr_curve} == {4}
    assert [curve[tau].noise.k for tau in (0.9, 0.95)] == [4, 0]
    assert (entry.jsr.value, entry.noise.value) == (0.25, 1.0)
    assert entry.jsr_pgd.k == 1  # b, at 0.6
    assert entry.noise_l1.value == pytest.approx(0.04)


def test_the_headline_and_transfer_are_those_of_the_summary(run: uf.Run) -> None:
    found = {entry.interpreter: entry for entry in entries(run)}
    assert set(found) == {"cam", "grad"}
    for headline in run.summary.headlines:
        entry = found[headline.interpreter]
        assert entry.jsr == headline.kept
        assert entry.jsr_pgd == headline.kept_pgd
        rates = next(goal.rates for goal in run.summary.goals if goal.interpreter == headline.interpreter)
        assert [(p.jsr, p.noise) for p in entry.jsr_curve if p.tau in (0.25, 0.5, 0.75)] == [
            (rate.jsr, rate.noise) for rate in rates
        ]
    assert [one.source for one in found["cam"].transfer] == ["grad"]
    assert found["cam"].transfer[0].jsr.value == 0.0  # an IoU of 1 - 3 · 0.3
    assert (found["cam"].settings.passes, found["cam"].settings.steps) == (300, None)
    assert found["cam"].floor is not None
    assert found["cam"].floor.verdict == "met"


def test_an_entry_is_read_as_it_was_written(run: uf.Run, tmp_path: Path) -> None:
    for entry in entries(run):
        path = tmp_path / entry.file_name
        path.write_text(json.dumps(entry.to_json()), encoding="utf-8")
        assert read_entry(path) == entry


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "other/9"}, "'other/9'"),
        ({"unreliable": True}, "'unreliable'"),
        ({"jsr_curve": []}, "jsr_curve"),
        ({"accuracy": {"value": 2, "low": None, "high": None, "n": 1, "k": 2}}, "rate 2"),
        ({"model": 7}, "it.model is 7"),
        ({"more": 1}, "'more'"),
    ],
)
def test_what_is_no_entry_is_refused(change: dict[str, Any], why: str, run: uf.Run, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**entries(run)[0].to_json(), **change}), encoding="utf-8")
    with pytest.raises(InputError, match=r"x\.json.*no entry") as caught:
        read_entry(path)
    assert why in str(caught.value)
    path.write_bytes(b"\x00")
    with pytest.raises(InputError, match="no entry"):
        read_entry(path)


def with_rate(entry: BenchmarkEntry, value: float, **changes: Any) -> BenchmarkEntry:
    curve = tuple(
        replace(point, jsr=replace(point.jsr, value=value)) if point.tau == HEADLINE_TAU else point
        for point in entry.jsr_curve
    )
    return replace(entry, jsr_curve=curve, **changes)


def test_the_table_has_the_lowest_rate_first_and_the_unreliable_last(run: uf.Run, tmp_path: Path) -> None:
    entry = entries(run)[0]
    blind = uf.load_run(
        write_run(tmp_path / "run", Recipe(interpreters=("cam",), artifacts=False, course={"stuck": 0.5}))
    )
    (doubtful,) = entries(blind)
    assert doubtful.unreliable
    given = [
        with_rate(doubtful, 0.0, model="doubtful"),
        with_rate(entry, 0.9, model="weak"),
        with_rate(entry, 0.1, model="strong"),
    ]
    assert [one.model for one in ordered(given)] == ["strong", "weak", "doubtful"]
    lines = [line for line in as_markdown(given).splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| strong", "| weak", "| doubtful"]
    assert "no: " in lines[-1]
    assert "linf 8/255, 300 passes" in as_markdown(given)
    assert "zero\\_gradients" in lines[-1]


def test_entries_that_do_not_compare_stand_in_tables_of_their_own(run: uf.Run) -> None:
    entry = entries(run)[0]
    given = [
        with_rate(entry, 0.1, model="fewer passes", settings=replace(entry.settings, passes=7)),
        with_rate(entry, 0.9, model="weak"),
        with_rate(entry, 0.2, model="other photos", photos_sha256="f" * 64),
        with_rate(entry, 0.1, model="more photos", photos=entry.photos + 1),
        with_rate(entry, 0.1, model="strong"),
    ]
    groups = [[one.model for one in some] for some in comparable(given)]
    assert groups[0] == ["more photos"]
    assert ["strong", "weak"] in groups[1:]
    assert len(groups) == 4
    for page, mark in ((as_markdown(given), "\n## "), (as_html(given), "<table>")):
        assert page.count(mark) == 4
    assert as_markdown(given).count(f"## {entry.photos} photos (ffffffff), linf 8/255, 300 passes\n") == 1


def test_hostile_names_stay_text(run: uf.Run) -> None:
    entry = replace(entries(run)[0], model="../<script>alert(1)</script>|`x`\n# y")
    assert entry.file_name == "script-alert-1-script-x-y--cam.benchmark.json"
    page = as_html([entry])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    lines = as_markdown([entry]).splitlines()
    assert not any(line.startswith("# y") for line in lines)
    assert "\\<script\\>" in lines[-1]
    steering = replace(entry, model="\x00\x1b\ud800" + "x" * 1000)
    for text in (as_html([steering]), as_markdown([steering])):
        assert "\\x1b" in text
        assert "\x1b" not in text
        assert "x" * 300 not in text
        text.encode()
    assert replace(entry, model="///").file_name == "model--cam.benchmark.json"


def test_runs_that_have_no_entry(run: uf.Run) -> None:
    rows = [*controls("a"), planted("a", "pgd", success=True)]
    with pytest.raises(InputError, match="--attacks pgd,adv2"):
        entries(of_rows(run, rows))
    with pytest.raises(InputError, match="unfinished"):
        entries(with_rows(run, ()))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def test_the_commands(run: uf.Run, tmp_path: Path) -> None:
    made = invoke("benchmark", run.path, "--out", tmp_path / "entries")
    assert made.exit_code == 0, made.output
    files = made.stdout.splitlines()
    assert [Path(file).name for file in files] == [
        "gradient-net--cam.benchmark.json",
        "gradient-net--grad.benchmark.json",
    ]
    assert invoke("benchmark", "--out", tmp_path / "entries", run.path).stdout == made.stdout
    printed = invoke("benchmark", "table", *files)
    assert printed.exit_code == 0, printed.output
    assert printed.stdout.count("| gradient-net |") == 2
    for name in ("table.md", "table.html"):
        assert invoke("benchmark", "table", *files, "--out", tmp_path / name).exit_code == 0
        assert "gradient-net" in (tmp_path / name).read_text(encoding="utf-8")
    assert invoke("benchmark", "table", *files, "--out", tmp_path / "table.txt").exit_code == 2
    assert invoke("benchmark", "table", run.path / "run.json").exit_code == 2
    assert invoke("benchmark", tmp_path, "--out", tmp_path / "entries").exit_code == 2
    assert invoke("benchmark", run.path).exit_code == 2
    assert "table FILE" in invoke("benchmark", "--help").stdout


def test_certificates_of_the_runs_photos_are_told(run: uf.Run, tmp_path: Path) -> None:
    """Of two photos whose draws had 20 and 60 wrong labels of 100; the second abstains, the third is not certified."""
    attacked = [photo for photo in run.photos if photo.excluded is None]
    write_certificates(tmp_path / "certified", attacked, run.facts.model.fingerprint, (20, 60))
    made = invoke("benchmark", run.path, "--certificates", tmp_path / "certified", "--out", tmp_path / "entries")
    assert made.exit_code == 0, made.output
    cam, grad = (read_entry(Path(file)) for file in made.stdout.splitlines())
    assert grad.certificate is None
    told = cam.certificate
    assert told is not None
    assert (told.photos, told.samples, told.alpha, told.radii) == (2, 100, 0.01, (0.0, 0.1))
    assert [one.sigma for one in told.noise] == list(SETTINGS.sigmas)
    for one in told.noise:
        assert (one.abstained, one.censored) == (1, 0)
        assert [goal.goal for goal in one.goals] == ["other/free", "other/kept", "kept/topk"]
        for goal in one.goals:
            pairs = [(counts(k)[goal.goal] + 1, 100 - counts(k)[goal.goal]) for k in (20, 60)]
            limits = [stats.beta.isf(0.0025 / 3, *pair) for pair in pairs]
            radii = [max(0.0, -one.sigma * stats.norm.ppf(limit)) for limit in limits]
            assert goal.radius == pytest.approx(sum(radii) / 2)
            for radius, rate in zip(told.radii, goal.rates, strict=True):
                u = [stats.norm.cdf(stats.norm.ppf(limit) + radius / one.sigma) for limit in limits]
                assert rate == pytest.approx(sum(u) / 2)
        assert one.cap == pytest.approx(-one.sigma * stats.norm.ppf(stats.beta.isf(0.0025 / 3, 1, 100)))


def test_the_table_has_the_largest_radius_certified(run: uf.Run) -> None:
    entry = entries(run)[0]
    noise = tuple(
        CertifiedNoise(sigma, 1.0, abstained, 0, (CertifiedGoal("other/free", 0.9, (1.0,)), *goals))
        for sigma, abstained, goals in (
            (0.06, 0, (CertifiedGoal("other/kept", 0.0512, (1.0,)),)),
            (0.12, 1, (CertifiedGoal("other/kept", 0.2341, (1.0,)),)),
            (0.25, 3, (CertifiedGoal("other/kept", 0.1, (1.0,)),)),
            (0.5, 4, ()),
        )
    )
    certified = BenchmarkCertificate(4, 100, 0.01, (0.0,), noise)
    uncounted = replace(certified, noise=noise[-1:])
    given = [replace(entry, certificate=one) for one in (certified, uncounted, None)]
    place = COLUMNS.index("certified radius (L2)")
    assert [row[place] for row in rows(given)] == ["0.234 (σ 0.12; 1 of 4 abstains)", "–", "–"]
    for page in (as_markdown(given), as_html(given)):
        assert page.count("0.234 (σ 0.12; 1 of 4 abstains)") == 1


def test_certificates_of_others_make_no_entry(run: uf.Run, tmp_path: Path) -> None:
    attacked = [photo for photo in run.photos if photo.excluded is None]
    for name, model, names in (("model", "0" * 64, ("cam",)), ("interpreter", run.facts.model.fingerprint, ("ig",))):
        write_certificates(tmp_path / name, attacked, model, (20,), names)
        refused = invoke("benchmark", run.path, "--certificates", tmp_path / name, "--out", tmp_path / "entries")
        assert refused.exit_code == 2
        assert f"another {name}" in refused.output or "certify some of cam, grad" in refused.output
    assert not (tmp_path / "entries").exists()


def test_certified_rates_out_of_range_are_refused() -> None:
    goal = CertifiedGoal("other/free", 0.1, (0.5, 1.5))
    for radii in ((0.0, 0.1), (0.0,)):
        with pytest.raises(ValueError, match="certified rates"):
            BenchmarkCertificate(1, 100, 0.01, radii, (CertifiedNoise(0.12, 0.2, 0, 0, (goal,)),))


def test_the_published_tables_are_those_of_the_published_entries() -> None:
    published = [read_entry(file) for file in sorted((DOCS / "benchmark").glob("*.benchmark.json"))]
    assert len(published) >= 10
    assert (DOCS / "measured" / "benchmark.md").read_text(encoding="utf-8") == as_markdown(published)
