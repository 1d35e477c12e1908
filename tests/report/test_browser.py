"""The report in a real browser, where there is one."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.synthetic_run import GRIDS, Recipe, write_run
from underfire.auditing.run import open_run
from underfire.report import build_report

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--enable-logging=stderr",
)  # fmt: skip


def browse(page: Path, profile: Path, *flags: str) -> tuple[str, list[str]]:
    """What chromium prints for ``page``, and what the page's console said."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *QUIET, f"--user-data-dir={profile}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, re.findall(r".*CONSOLE.*", done.stderr)


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(files=("a.jpg", "<script>document.title='x'</script>.jpg", "c.jpg"), failures=(2,))
    return build_report(open_run(write_run(tmp_path_factory.mktemp("browser") / "run", recipe)))


def test_the_policy_is_kept_and_the_figures_are_there(report: Path, tmp_path: Path) -> None:
    dom, console = browse(report, tmp_path / "profile", "--dump-dom")
    assert console == []
    assert re.findall(r'<b class="num">(\d+)</b><span>of (\d+) photos', dom) == [("2", "3")] * 3
    assert "<title>underfire: audit of gradient-net</title>" in dom
    assert dom.count('<details class="photo"') == 3


@pytest.mark.parametrize("width", [700, 1100])
def test_six_interpreters_leave_a_margin(width: int, tmp_path: Path) -> None:
    page = build_report(
        open_run(write_run(tmp_path / "run", Recipe(files=("a.jpg", "b.jpg"), interpreters=tuple(GRIDS))))
    )
    page.write_text(
        page.read_text(encoding="utf-8").replace('<details class="photo"', '<details class="photo" open'),
        encoding="utf-8",
    )
    shot = tmp_path / "shot.png"
    browse(page, tmp_path / "profile", f"--screenshot={shot}", f"--window-size={width},12000")
    margin = pixels(shot)[:, -14:]
    assert (margin == margin[0, 0]).all()


def test_a_breach_of_the_policy_would_be_seen(report: Path, tmp_path: Path) -> None:
    breached = tmp_path / "breached.html"
    text = report.read_text(encoding="utf-8")
    breached.write_text(text.replace("</main>", "<script>document.title='x'</script></main>"), encoding="utf-8")
    dom, console = browse(breached, tmp_path / "profile", "--dump-dom")
    assert any("Content Security Policy" in line for line in console)
    assert "<title>x</title>" not in dom


@pytest.mark.parametrize(("scheme", "dark"), [("0", True), ("1", False)])
def test_it_is_drawn_light_and_dark(report: Path, tmp_path: Path, scheme: str, dark: bool) -> None:
    shot = tmp_path / "shot.png"
    look = f"--blink-settings=preferredColorScheme={scheme}"
    browse(report, tmp_path / "profile", look, f"--screenshot={shot}", "--window-size=1100,1800")
    drawn = pixels(shot)
    assert drawn.shape == (1800, 1100, 3)
    assert (drawn[2, 2].mean() < 64) == dark
    # Text, cards and photos: many colours, and something on most lines of the page.
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 500
    assert (drawn.std(axis=(1, 2)) > 2).mean() > 0.5
