"""The chapter of studies in a report: there where there are studies, and nothing of them can act."""

import base64
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from report.test_browser import browse, pixels
from support.made_runs import made_study
from support.scripts import foreign_scripts
from support.synthetic_run import Recipe, write_run
from underfire.auditing.run import open_run
from underfire.errors import InputError
from underfire.report import build_report
from underfire.stats import Estimate
from underfire.studies.study import Claim, Study, Verdict, save


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", Recipe(files=("a.jpg", "b.jpg")))


def page(run: Path) -> str:
    return build_report(open_run(run)).read_text(encoding="utf-8")


def test_a_run_without_studies_has_no_chapter(run: Path) -> None:
    for folder in (None, run / "studies"):
        if folder:
            folder.mkdir()
        html = page(run)
        assert "discussion, tested" not in html
        assert "#discussion" not in html


def test_each_study_is_shown_whole_and_in_order(run: Path) -> None:
    for name in ("gap", "transfer"):
        save(made_study(name), run / "studies", command="underfire study <x>", seed=3)
    html = page(run)
    assert '<li><a href="#discussion">Discussion</a></li>' in html
    assert html.index("A title of transfer") < html.index("A title of gap")
    assert html.count("A claim, &lt;b&gt;ours&lt;/b&gt;.") == 2
    assert html.count("<p>It holds.</p>") == 2
    assert '<th scope="col">l1</th>' in html
    assert "l1_low" not in html
    assert '<th scope="col">nothing</th>' not in html
    assert "<td>0.123 (0.1 to 0.2)</td>" in html
    assert "<code>underfire study &lt;x&gt;</code>: seed 3, 20" in html
    assert page(run) == html


def test_claims_are_shown_with_their_verdicts(run: Path) -> None:
    share = Estimate(0.9, 0.8, 1.0, 9)
    claims = (
        Claim("all", "Every <map> is kept.", Verdict.FAILS, {"share": share}, 9),
        Claim("all/cam", "CAM is kept.", Verdict.HOLDS, {"share": share}, 7),
    )
    save(replace(made_study(), claims=claims), run / "studies", command="", seed=0)
    html = page(run)
    assert html.count('<span class="verdict fails">does not hold</span> Every &lt;map&gt; is kept.') == 2
    kept = '<span class="verdict holds">holds</span> CAM is kept. <small class="num muted">n = 7</small>'
    assert html.count(kept) == 1
    before = html.count('class="verdict')
    save(made_study(), run / "studies", command="", seed=0)
    assert page(run).count('class="verdict') == before - 3


def test_a_figure_is_an_image_and_brings_nothing_into_the_page(run: Path) -> None:
    good = made_study()
    evil = Study(
        good.name, good.title, good.claim, good.claims, good.table,
        good.figure.replace("</svg>", "<script>alert(1)</script></svg><a href='//x'>x</a>"), good.words,
    )  # fmt: skip
    save(evil, run / "studies", command="", seed=0)
    html = page(run)
    assert foreign_scripts(html) == []
    assert not re.search(r"=['\"]?//x", html)
    (source,) = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="said &#34;aloud&#34;">', html)
    assert base64.b64decode(source).decode() == (run / "studies" / "transfer.svg").read_text(encoding="utf-8")


def test_a_damaged_study_is_named(run: Path) -> None:
    (run / "studies").mkdir()
    (run / "studies" / "bound.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"bound\.parquet.*underfire study bound"):
        build_report(open_run(run))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium on the PATH")
@pytest.mark.parametrize("scheme", ["0", "1"])
def test_a_browser_draws_the_figure_light_and_dark(run: Path, tmp_path: Path, scheme: str) -> None:
    save(made_study(), run / "studies", command="", seed=0)
    built = build_report(open_run(run))
    html = built.read_text(encoding="utf-8")
    start, end = html.index('<section id="discussion"'), html.index('<section id="photos"')
    built.write_text(f"{html[: html.index('<header')]}<main>{html[start:end]}</main></body></html>", encoding="utf-8")
    shot = tmp_path / "shot.png"
    look = f"--blink-settings=preferredColorScheme={scheme}"
    _, console = browse(built, tmp_path / "profile", look, f"--screenshot={shot}", "--window-size=900,1400")
    assert console == []
    adv2 = {"0": (0xFF, 0x8A, 0x65), "1": (0xB5, 0x35, 0x1A)}[scheme]
    assert (pixels(shot) == adv2).all(axis=-1).sum() > 10_000
