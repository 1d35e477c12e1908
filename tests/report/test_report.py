"""The report as a reader, a browser and an attacker with a file name meet it."""

import os
import re
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import save_file
from safetensors.torch import save_file as torch_file

from support.made_runs import run_of
from support.pictures import png_with_header
from support.synthetic_run import NAMES, Recipe, write_run
from underfire.auditing.plan import AuditPlan
from underfire.auditing.rows import SCHEMA, read_rows
from underfire.auditing.run import open_run
from underfire.auditing.tally import summarise
from underfire.cli import cli
from underfire.errors import InputError
from underfire.report import build_report
from underfire.report.settings import configuration

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
NOTHING_LEFT = dict.fromkeys(range(4), "misclassified")
HOSTILE = "<script>alert(1)</script>.jpg"


class Page(HTMLParser):
    """Collects what the tests ask for, and fails on a tag that is not closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def attributes(self, name: str) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get(name)) is not None]


def build(folder: Path, recipe: Recipe | None = None) -> tuple[Page, str]:
    html = build_report(open_run(write_run(folder, recipe or Recipe()))).read_text(encoding="utf-8")
    return Page(html), html


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page, str]:
    folder = tmp_path_factory.mktemp("full") / "run"
    recipe = Recipe(
        files=("a.jpg", HOSTILE, "c.jpg", "d.jpg", "e.jpg", "f.jpg"),
        excluded={2: "misclassified", 3: "already the target"},
        failures=(5,),
        unlabelled=(0,),
        skipped=(("broken.jpg", "the file ends too early"), ("<img src=x onerror=alert(2)>", 'no "image"')),
    )
    return (folder, *build(folder, recipe))


def test_headline_is_the_summary(full: tuple[Path, Page, str]) -> None:
    folder, page, html = full
    headlines = summarise(read_rows(folder)).headlines
    cards = re.findall(r'<b class="num">(\d+)</b><span>of (\d+) photos', html)
    assert cards == [(str(h.kept.k), str(h.kept.n)) for h in headlines] == [("3", "4")] * 3
    for headline in headlines:
        low, high = headline.kept.low, headline.kept.high
        assert low is not None
        assert high is not None
        assert f"3 of 4 ( {100 * low:.0f}–{100 * high:.0f} % )" in page.text.replace("(", "( ").replace(")", " )")


def test_every_mean_of_the_matrix_is_the_summarys(full: tuple[Path, Page, str]) -> None:
    folder, _, html = full
    summary = summarise(read_rows(folder))
    shown = re.findall(r"<b>([\d.–]+)</b><small>([\d.–]+) · n (\d+)</small>", html)
    means = [(c.mean("l1"), 3) for c in summary.transfer] + [(c.mean("iou_50"), 2) for c in summary.transfer]
    assert len(shown) == len(means) == 2 * 6 * 3
    for (value, spread, n), (mean, digits) in zip(shown, means, strict=True):
        assert (value, n) == (f"{mean.value:.{digits}f}", str(mean.n))
        assert spread == f"{mean.low:.{digits}f}–{mean.high:.{digits}f}"


def test_the_diagonal_is_framed_and_controls_are_not_shaded(full: tuple[Path, Page, str]) -> None:
    _, page, _ = full
    cells = [attrs for tag, attrs in page.tags if tag == "td" and "num" in (attrs.get("class") or "").split()]
    matrix = [attrs for attrs in cells if "control" in (attrs["class"] or "") or "style" in attrs]
    assert sum("own" in (attrs["class"] or "").split() for attrs in matrix) == 2 * 3
    assert sum("control" in (attrs["class"] or "") for attrs in matrix) == 2 * 2 * 3
    shaded = [(float(style.removeprefix("--shade:")), attrs) for attrs in matrix if (style := attrs.get("style"))]
    own = [shade for shade, attrs in shaded if "own" in (attrs["class"] or "").split()]
    others = [shade for shade, attrs in shaded if "own" not in (attrs["class"] or "").split()]
    assert 0 <= max(others) < min(own) <= 0.5


def test_names_are_data(full: tuple[Path, Page, str]) -> None:
    _, page, html = full
    assert HOSTILE not in html
    assert "onerror=" not in "".join(name for _, attrs in page.tags for name in attrs)
    assert HOSTILE in page.text
    assert NAMES[9] in page.text
    assert any(NAMES[9] in label and HOSTILE in label for label in page.attributes("aria-label"))


def test_nothing_is_asked_of_a_network(full: tuple[Path, Page, str]) -> None:
    _, page, html = full
    assert set(re.findall(r"https?://[^\"'\s<]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert all(source.startswith("data:image/") for source in page.attributes("src"))
    assert all(link.startswith("#") for link in page.attributes("href") + page.attributes("xlink:href"))
    assert "@import" not in html
    policy = page.attributes("content")[0]
    assert policy.startswith("default-src 'none'")
    assert re.findall(r"script-src ([^;]*)", policy)[0].startswith("'sha256-")


def test_ids_are_unique_and_every_reference_has_one(full: tuple[Path, Page, str]) -> None:
    _, page, html = full
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    references = page.attributes("href") + page.attributes("xlink:href") + re.findall(r"url\((#[^)]+)\)", html)
    assert references
    assert {reference.removeprefix("#") for reference in references} <= set(ids)


def test_accessible(full: tuple[Path, Page, str]) -> None:
    _, page, _ = full
    assert all("alt" in attrs for tag, attrs in page.tags if tag == "img")
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in page.tags if tag == "th")
    assert all(attrs.get("aria-label") or attrs.get("aria-hidden") for tag, attrs in page.tags if tag == "svg")
    assert [tag for tag, _ in page.tags if tag == "h1"] == ["h1"]


def test_exclusions_skips_labels_and_origin_are_told(full: tuple[Path, Page, str]) -> None:
    _, page, _ = full
    for words in (
        "misclassified", "already the target", "broken.jpg the file ends too early", 'no "image"',
        "1 of 6 photos came without a label", "8/255 = 0.0314", "f" * 64, "2.10.0", "--out 'run <1>'",
        "Change × 16", "wanted: ostrich", "✗ label missed",
    ):  # fmt: skip
        assert words in page.text, words
    assert "unfinished" not in page.text


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"steps": None, "passes": {"pgd": 150, "adv2-cam": 150}}, ["passes: 150 per photo, for every attack"]),
        ({"steps": {"pgd": 9, "adv2-cam": 9}, "passes": None}, ["steps: 9 per photo, for every attack"]),
        (
            {"passes": {"pgd": 1600}, "steps": {"adv2-grad": 1004, "adv2-ig": 1004, "adv2-gradcam": 1600}},
            [
                "passes: 1600 per photo, for PGD",
                "steps: 1004 per photo, for ADV² on GRAD and ADV² on IG; 1600 per photo, for ADV² on Grad-CAM",
            ],
        ),
        ({"seed": 3, "limit": None}, ["seed: 3", "limit: none"]),
        ({"left_out": ["mask (slow; dear)", "rts (no weights)"]}, ["left out: mask (slow; dear), rts (no weights)"]),
        ({"left_out": []}, ["left out: none"]),
    ],
)
def test_settings_are_told_in_words(config: dict[str, object], said: list[str]) -> None:
    run = run_of(AuditPlan(), config=config)
    assert [f"{fact.name}: {fact.value}" for fact in configuration(run)] == said


def test_same_run_same_bytes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Recipe())
    first = build_report(open_run(folder)).read_bytes()
    assert build_report(open_run(folder)).read_bytes() == first
    assert [path.name for path in folder.iterdir() if "report" in path.name] == ["report.html"]


def test_pictures_are_capped_and_the_rest_is_counted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Recipe(files=("a.jpg", "b.jpg", "c.jpg"), interpreters=("cam",)))
    page = Page(build_report(open_run(folder), most_photos=1).read_text(encoding="utf-8"))
    assert len([tag for tag, attrs in page.tags if attrs.get("class") == "photo"]) == 1
    assert "1 photo is shown, at even distances in the order of the run, and 2 left out" in page.text
    assert "of 3 photos" in page.text


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        pytest.param(Recipe(interpreters=("cam",)), "An attacker who aims at CAM", id="one interpreter"),
        pytest.param(Recipe(excluded=NOTHING_LEFT), "has no answer yet", id="nothing attacked"),
        pytest.param(Recipe(failures=range(4)), "kept the map on no photo", id="every attack failed"),
        pytest.param(Recipe(artifacts=False), "not there", id="no artifacts"),
        pytest.param(Recipe(files=("a.jpg",)), "on 1 of 1 photo;", id="one photo"),
        pytest.param(Recipe(names={}), "class 9", id="no class names"),
        pytest.param(Recipe(finished=False), "unfinished. 3 of 4 photos are done so far", id="unfinished"),
    ],
)  # fmt: skip
def test_runs_of_every_kind(tmp_path: Path, recipe: Recipe, said: str) -> None:
    page, _ = build(tmp_path / "run", recipe)
    assert said in page.text


def test_a_sound_run_says_so_in_one_sentence(full: tuple[Path, Page, str]) -> None:
    _, page, html = full
    assert "Is the attack sound?" in page.text
    assert "Nothing was seen that speaks against it: identical calls of the model agree" in page.text
    assert 'class="remarks"' not in html
    assert "hindered" not in page.text


def test_what_hinders_the_attacks_is_said_in_words(tmp_path: Path) -> None:
    stuck = {"stuck": 1.0, "nll_first": 9.0, "nll_half": 9.0, "nll_kept": 9.0}
    faults = ("randomised", "no_gradient")
    page, html = build(tmp_path / "run", Recipe(interpreters=("cam",), failures=range(4), course=stuck, faults=faults))
    for words in (
        "The attacks of this run were hindered",
        "No: something stands in the attacks’ way",
        "On 5 of 8 test images, two identical calls gave different outputs. The model draws random numbers",
        "On 5 of 8 test images, the loss had no gradient in any pixel",
        "On 4 of 4 photos under PGD and 4 of 4 photos under ADV² on CAM, the gradient was zero in every pixel at 10 %",
        "the label was not reached and its loss fell by less than 10 %",
    ):
        assert words in page.text, words
    remarks = html[html.index('<ul class="remarks">') :].split("</ul>")[0]
    assert re.findall(r'class="tag (\w+)"', remarks) == ["serious"] * 3 + ["caution"]


def test_reservations_are_no_alarm(tmp_path: Path) -> None:
    course = {"nll_first": 9.0, "nll_half": 8.0, "nll_kept": 2.0}
    page, _ = build(tmp_path / "run", Recipe(interpreters=("cam",), failures=(0,), course=course))
    assert "With reservations" in page.text
    assert "On 1 of 4 photos under PGD" in page.text
    assert "hindered" not in page.text


def test_a_run_without_checks_has_no_such_section(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Recipe(excluded=NOTHING_LEFT, checked=False))
    assert "Is the attack sound?" not in Page(build_report(open_run(folder)).read_text(encoding="utf-8")).text


def _as_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("noise.png")


def _as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n{} loop\n"


@pytest.mark.parametrize(
    ("name", "spoil", "problem"),
    [
        ("benign.png", lambda path: path.write_bytes(POSTSCRIPT), "does not begin as one"),
        ("benign.png", lambda path: path.write_bytes(png_with_header(13_000, 13_000)), "13000 × 13000 pixels"),
        ("pgd.png", lambda path: path.write_bytes(path.read_bytes()[:200]), "PNG that can be read"),
        ("pgd.png", _as_link, "it is a link"),
        ("pgd.png", _as_pipe, "pipe, a socket or a device"),
        ("maps.safetensors", lambda path: path.write_bytes(b"no maps"), "does not hold maps"),
        ("maps.safetensors", lambda path: save_file({"none/cam": np.zeros((1, 65), "f4")}, path), "of shape .1, 65."),
        ("maps.safetensors", lambda path: save_file({"none/cam": np.ones((7, 7), "i4")}, path), "type I32"),
        ("maps.safetensors", lambda path: save_file({"none/cam": np.full((7, 7), np.nan, "f4")}, path), "from nan"),
        ("maps.safetensors", lambda path: save_file({"none/cam": np.full((7, 7), 1e30, "f4")}, path), "a map from 0"),
        ("maps.safetensors", lambda path: torch_file({"none/cam": torch.ones(7, 7).bfloat16()}, path), "type BF16"),
    ],
)
def test_what_an_audit_does_not_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, spoil: Callable[[Path], object], problem: str
) -> None:
    """And no program is asked for help: Pillow would hand PostScript to Ghostscript."""
    folder = write_run(tmp_path / "run", Recipe())
    path = sorted((folder / "artifacts").iterdir())[0] / name
    spoil(path)
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(InputError, match=f"{re.escape(str(path))}.*{problem}.*; delete it"):
        build_report(open_run(folder))
    assert not (folder / "report.html").exists()
    result = CliRunner().invoke(cli, ["report", str(folder)])
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    path.unlink()
    assert build_report(open_run(folder)).is_file()


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[]", "\udc80"])
def test_no_run_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        build_report(open_run(tmp_path))
    assert not (tmp_path / "report.html").exists()


def test_the_fixture_has_the_real_schema(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Recipe())
    part = next((folder / "rows").iterdir())
    assert pa.parquet.read_schema(part).equals(SCHEMA)
    assert np.isclose([r.allowed.eps for r in read_rows(folder)], 8 / 255).all()
