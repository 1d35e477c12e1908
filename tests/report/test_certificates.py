"""The chapter of certificates in a report: its figures are the formula's, and no other run's certificates get in."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from scipy import stats

import underfire as uf
from report.test_report import Page
from support.certified import SETTINGS, counts, write_certificates
from support.synthetic_run import Recipe, write_run
from underfire.auditing.certificate_folder import certificates_of
from underfire.auditing.run import Run, open_run
from underfire.auditing.summary import KEPT_IOU
from underfire.cli import cli
from underfire.report.certificates import certificate_part, certified_at

WRONG = (20, 60, 0)
"""Of 100 draws of each photo, so many have a wrong label: the second abstains, and the third is censored."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(write_run(tmp_path / "run", Recipe(interpreters=("cam", "grad"), excluded={3: "misclassified"})))


def certify(run: Run, out: Path, names: tuple[str, ...] = ("cam", "ig")) -> Path:
    write_certificates(out, run.attacked, run.facts.model.fingerprint, WRONG, names)
    return out


def report(run: Run, *options: str | Path) -> Result:
    return CliRunner().invoke(cli, ["report", str(run.path), *map(str, options)])


def radius(goal: str, wrong: int, sigma: float) -> float:
    """Of a goal's share of α: one of three goals, of two interpreters and σ each, and pictures have the other half."""
    k = counts(wrong)[goal]
    return max(0.0, -sigma * float(stats.norm.ppf(stats.beta.isf(0.01 / 24, k + 1, 100 - k))))


def test_figures_are_the_formulas(run: Run, tmp_path: Path) -> None:
    done = report(run, "--certificates", certify(run, tmp_path / "certified"))
    assert done.exit_code == 0, done.output
    html = (run.path / "report.html").read_text(encoding="utf-8")
    section = html[html.index('<section id="certificates"') : html.index('<section id="transfer"')]
    lines = re.findall(r'<tr class="num"><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>', section)
    assert len(lines) == 2 * 3  # σ and goals; IG took no part in the run
    for (goal, median, *shares), sigma in zip(lines, (0.12,) * 3 + (0.25,) * 3, strict=True):
        radii = sorted(radius(goal, wrong, sigma) for wrong in WRONG)
        assert median == f"{radii[1]:.3f}"
        assert shares == [f"{sum(r > at for r in radii)} of 3" for at in (0.0, 0.1)]
    text = Page(section).text
    for sigma in SETTINGS.sigmas:
        assert (
            f"σ = {sigma:g}: 1 of 3 photos abstains. Of the rest, 1 had a wrong label in fewer than 10 of 100 draws"
            f" (censored), so that their radii tell of the number of draws. No radius can be longer than"
            f" {radius('other/free', 0, sigma):.3f}. Confidence 1 − 0.01"
        ) in text
    assert f"8/255 in every value, a length of up to {8 / 255 * math.sqrt(3 * 64 * 64):.1f}" in text
    assert section.count("<svg") == 2
    assert text.count("R(½) is the median") == 1
    assert text.count("Confidence 1 − 0.01") == len(SETTINGS.sigmas)


def test_attacks_stand_beside_the_goals_they_reach(run: Run, tmp_path: Path) -> None:
    """ADV² leads to a target class with the map kept, so that it counts for any other label, and for free maps."""
    part = certificate_part(run, certificates_of(run, certify(run, tmp_path / "certified", ("cam",))))
    attacks = {line.goal: line.attack for line in part.panels[0].lines}
    figures = next(found for found in run.summary.goals if found.interpreter == "cam")
    kept = next(rate.jsr for rate in figures.rates if rate.tau == KEPT_IOU)
    assert attacks["other/kept"].startswith(f"{kept.k} of {kept.n}: ADV² on CAM, mean L2 ")
    assert kept.k == kept.n == 3
    assert attacks["other/free"].startswith("3 of 3: ")
    assert attacks["kept/topk"] == "not attacked"


def test_a_photo_is_certified_within_its_radius_and_no_further(run: Run, tmp_path: Path) -> None:
    (one, _) = certificates_of(run, certify(run, tmp_path / "certified", ("cam",))).certificates
    radii = sorted(map(float, one.radius("other/free")))
    assert radii[0] == 0 < radii[1] < radii[2]
    for beyond, left in ((0.0, 2), (radii[1] - 1e-9, 2), (radii[1], 1), (radii[2], 0)):
        assert certified_at(one, "other/free", beyond).k == left


def test_certificates_that_are_not_the_runs_are_refused_and_the_page_stays(run: Run, tmp_path: Path) -> None:
    assert report(run).exit_code == 0
    before = (run.path / "report.html").read_bytes()
    assert b"What no attack can do" not in before
    write_certificates(tmp_path / "model", run.attacked, "0" * 64, WRONG)
    others = [replace(photo, label=photo.label + 1) for photo in run.attacked]
    write_certificates(tmp_path / "photos", others, run.facts.model.fingerprint, WRONG)
    certify(run, tmp_path / "interpreters", ("ig",))
    for name, said in (
        ("model", "another model"),
        ("photos", "certifies none of the 3 photos"),
        ("interpreters", "certify some of cam and grad"),
        ("nothing", "certify.json"),
    ):
        refused = report(run, "--certificates", tmp_path / name)
        assert refused.exit_code == 2
        assert said in refused.output
        assert refused.output.count("\n") == 1
        assert (run.path / "report.html").read_bytes() == before


@pytest.mark.parametrize("command", [("report",), ("benchmark", "--out", "entries")])
def test_certificates_of_other_settings_are_refused_and_of_unknown_ones_said(
    command: tuple[str, ...], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = certify(run, tmp_path / "certified")
    told = json.loads((folder / "certify.json").read_text())
    told["interpreters"]["cam"]["points"] = 8
    (folder / "certify.json").write_text(json.dumps(told))
    first, *more = command
    arguments = [first, str(run.path), *more, "--certificates", str(folder)]
    refused = CliRunner().invoke(cli, arguments)
    assert refused.exit_code == 2
    assert "certifies 'cam' with 'points' '8', and the run had '32';" in refused.output
    assert refused.output.count("\n") == 1
    assert not (tmp_path / "entries").exists()
    facts = json.loads((run.path / "run.json").read_text())
    del facts["interpreter_settings"]
    (run.path / "run.json").write_text(json.dumps(facts))
    said = CliRunner().invoke(cli, arguments)
    assert said.exit_code == 0, said.output
    assert said.stderr.count("does not say with which settings") == 1


def test_a_run_that_attacked_nothing_has_no_certificates(run: Run, tmp_path: Path) -> None:
    excluded = dict.fromkeys(range(4), "misclassified")
    bare = open_run(write_run(tmp_path / "bare", Recipe(interpreters=("cam",), excluded=excluded)))
    refused = report(bare, "--certificates", certify(run, tmp_path / "certified", ("cam",)))
    assert refused.exit_code == 2
    assert "attacked no photo" in refused.output
    assert "the same photos" not in refused.output


def test_a_share_of_alpha_that_is_none_is_refused_with_its_file(run: Run, tmp_path: Path) -> None:
    settings = certify(run, tmp_path / "certified", ("cam",)) / "certify.json"
    told = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps({**told, "alpha": 5e-324, "share": 0.0}), encoding="utf-8")
    refused = report(run, "--certificates", tmp_path / "certified")
    assert refused.exit_code == 2
    assert str(settings) in refused.output


def test_the_page_without_certificates_is_as_before(run: Run, tmp_path: Path) -> None:
    assert report(run).exit_code == 0
    before = (run.path / "report.html").read_bytes()
    folder = certify(run, tmp_path / "certified")
    assert uf.load_run(run.path).report(certificates=folder).read_bytes() != before
    assert report(run).exit_code == 0
    assert (run.path / "report.html").read_bytes() == before
