"""The report as an explorer: its policy, size and sample, and what it does in a real Chromium, by clicks and keys."""

import base64
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from support.browser import needs_browser, opened_browser, violations
from support.synthetic_run import GRIDS, Recipe, write_run
from underfire import metrics
from underfire.auditing.condition import NONE, PGD, Condition
from underfire.auditing.maps import read_maps
from underfire.auditing.run import Run, open_run
from underfire.auditing.store import MAPS_FILE, RunDirectory, map_name
from underfire.present.pictures import map_uri
from underfire.report import build_report
from underfire.report.build import MOST_BYTES
from underfire.report.gallery import Gallery

HOSTILE = "</script><script>document.title='x'</script>.jpg"
FILES = ("a.jpg", HOSTILE, "c.jpg", "d.jpg", "é&é.jpg", "f.jpg")
INTERPRETERS = ("cam", "gradcam", "grad", "ig")
MISSED = (2,)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(files=FILES, interpreters=INTERPRETERS, failures=MISSED)
    return build_report(open_run(write_run(tmp_path_factory.mktemp("explorer") / "run", recipe)))


@pytest.fixture(scope="module")
def html(report: Path) -> str:
    return report.read_text(encoding="utf-8")


def content(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="explorer-data">(.*?)</script>', html)
    assert found is not None
    return json.loads(found[1])


def unpacked(packed: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_the_policy_names_the_one_script(html: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert dict(part.split(" ", 1) for part in policy.split("; ")) == {
        "default-src": "'none'", "img-src": "data:", "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert not re.search(r"<[^>]*\son\w+=", html.replace(scripts[0], ""))
    assert len(re.findall(r"<script", html)) == 2


def test_maps_are_on_their_grid_in_eight_bits() -> None:
    uri = map_uri(np.array([[0.0, 0.4999, 0.5], [0.501, 0.75, 1.0]], dtype=np.float32))
    with Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (3, 2))
        assert np.asarray(image).tolist() == [[0, 127, 128], [128, 191, 255]]


def test_the_list_has_every_photo_as_the_rows_say(report: Path, html: str) -> None:
    run, listed = open_run(report.parent), unpacked(content(html)["list"])
    assert listed["names"] == [photo.image_id for photo in run.attacked] == list(FILES)
    assert [listed["classes"][place] for place in listed["labels"]] == ["cock", "hen"] * 3
    assert listed["outcomes"] == ["kkxkkk", "mmxmmm"] * len(INTERPRETERS)
    (own,) = [r for r in run.records if (r.image_id, str(r.condition), r.interpreter) == ("d.jpg", "adv2-cam", "cam")]
    assert listed["iou"][0][3] == round(100 * own.saved.distances.iou_50)
    assert listed["l1"][0][3] == round(1000 * own.saved.distances.l1)


def test_a_sample_is_at_even_distances_and_within_its_budget(report: Path) -> None:
    run = open_run(report.parent)
    gallery = Gallery(run, run.summary, most=3)
    assert gallery.photos == (FILES[0], FILES[2], FILES[4])
    album = gallery.album(lambda photo, place: "x" * 100, budget=299)
    assert (list(album.photos), album.left_out) == ([FILES[0], FILES[2]], 4)
    whole = gallery.listed.packed(run.attacked, gallery.photos, run.class_names)
    budget = len(whole.packed) - 40
    listing = gallery.listed.packed(run.attacked, gallery.photos, run.class_names, budget=budget)
    assert (whole.n, len(listing.packed) <= budget) == (6, True)
    assert set(gallery.photos) <= set(listing.places)
    assert (listing.n < listing.total, listing.total) == (True, 6)
    assert unpacked(listing.packed)["names"] == list(listing.places)


def test_photos_that_do_not_fit_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(write_run(tmp_path / "run", Recipe(files=FILES, interpreters=("cam",))))
    whole = len(build_report(run).read_bytes())
    monkeypatch.setattr("underfire.report.build.MOST_BYTES", whole - 10)
    text = build_report(run).read_text(encoding="utf-8")
    assert len(text.encode()) < whole - 10
    shown = len(re.findall('<details class="photo"', text))
    assert 0 < shown < len(FILES)
    assert f"{len(FILES) - shown} left out" in text
    assert whole < MOST_BYTES


@pytest.mark.parametrize(("interpreters", "many"), [(3, False), (4, True), (6, True)])
def test_four_answers_are_rows_and_no_card_is_alone(tmp_path: Path, interpreters: int, many: bool) -> None:
    recipe = Recipe(files=("a.jpg",), interpreters=tuple(GRIDS)[:interpreters])
    text = build_report(open_run(write_run(tmp_path / "run", recipe))).read_text(encoding="utf-8")
    assert ('class="cards many"' in text) is many
    assert text.count('<article class="card">') == interpreters


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened_browser() as opened:
        yield opened


@pytest.fixture
def visit(browser: Any, report: Path) -> Iterator[Callable[..., Any]]:
    """Opens the report, in a context with the given settings; nothing may go wrong in it."""
    contexts, problems = [], list[str]()

    def opened(hash_: str = "", *, at: Path = report, **settings: Any) -> Any:
        contexts.append(browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | settings)))
        page = contexts[-1].new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda request: problems.extend(re.findall(r"^(?!file:|data:|blob:).*", request.url)))
        page.goto(at.as_uri() + hash_)
        if settings.get("java_script_enabled", True):
            page.wait_for_selector("#list[data-ready]", state="attached")
            page.wait_for_selector("#live[data-settled]", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def figures(run: Run, cut: float, tau: float) -> list[tuple[str, str]]:
    """What the page is to show for every pair, computed here of the maps in 8 bits."""
    found = []
    for interpreter in sorted(INTERPRETERS):
        for condition in (Condition.on("adv2", interpreter), PGD):
            overlaps = []
            for place, photo in enumerate(run.photos):
                maps = read_maps(RunDirectory(run.path).artifact(photo, MAPS_FILE), (64, 64))
                pair = [np.floor(255 * maps[map_name(c, interpreter)] + 0.5) / 255 for c in (NONE, condition)]
                tensors = [torch.from_numpy(np.asarray(one, dtype=np.float64))[None] for one in pair]
                if place not in MISSED:
                    overlaps.append(float(metrics.iou(*tensors, threshold=cut)))
            kept, n = sum(value >= tau for value in overlaps), len(run.photos)
            found.append(
                (f"{kept} of {n} ({100 * kept / n:.0f} %)", f"{np.mean(overlaps):.2f} ({len(overlaps)} reached)")
            )
    return found


def shown(page: Any, settled: str) -> list[tuple[str, str]]:
    page.wait_for_selector(f"#live[data-settled='{settled}']")
    rows = [row.locator("td").all_inner_texts() for row in page.locator("#live tbody tr").all()]
    return [(row[0], row[1]) for row in rows]


@needs_browser
def test_sliders_cut_the_maps_anew(visit: Callable[..., Any], report: Path) -> None:
    page, run = visit(), open_run(report.parent)
    assert shown(page, "50 50") == figures(run, 0.5, 0.5)
    page.locator("#cut").focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    page.locator("#tau").focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    changed = figures(run, 0.2, 0.9)
    assert shown(page, "20 90") == changed
    assert changed != figures(run, 0.5, 0.5)
    assert page.locator("#cut-value").inner_text() == "0.20"


@needs_browser
def test_photos_are_filtered_and_sorted(visit: Callable[..., Any]) -> None:
    page = visit()

    def names() -> list[str]:
        return list(page.locator("#list tbody th").all_inner_texts())

    assert names()[:4] == ["a.jpg", HOSTILE, "c.jpg", "d.jpg"]
    page.select_option("#verdict-filter", "x")
    assert names() == ["c.jpg"]
    assert page.locator("details.photo:visible summary .name").all_inner_texts()[0].startswith("c.jpg")
    page.select_option("#verdict-filter", "all")
    page.fill("#words-filter", "HEN jpg")
    assert len(names()) == 3
    assert page.locator("details.photo:visible").count() == 3
    page.fill("#words-filter", "")
    page.select_option("#attack", label="PGD, map of IG")
    page.select_option("#sort", "iou-up")
    overlaps = [float(text) for text in page.locator("#list tbody td:nth-child(5)").all_inner_texts()]
    assert overlaps == sorted(overlaps)
    page.select_option("#sort", "l1-down")
    distances = [float(text) for text in page.locator("#list tbody td:nth-child(6)").all_inner_texts()]
    assert distances == sorted(distances, reverse=True)
    assert "6 of 6 photos match" in page.locator("#count").inner_text()


@needs_browser
def test_a_photo_has_an_address(visit: Callable[..., Any], report: Path) -> None:
    fourth = f"photo-{open_run(report.parent).photos[3].key}"
    page = visit(f"#{fourth}")
    assert page.locator(f"#{fourth}").get_attribute("open") is not None
    assert page.evaluate("document.activeElement.closest('details').id") == fourth
    page.locator("#list tbody a", has_text="</script>").click()
    opened = page.evaluate("document.activeElement.closest('details').id")
    assert page.evaluate("location.hash") == f"#{opened}"
    assert page.title() == "underfire: audit of gradient-net"


@needs_browser
def test_two_images_side_by_side_and_in_turn(visit: Callable[..., Any]) -> None:
    page = visit(reduced_motion="reduce")
    viewer = page.locator("details.photo[open] .viewer")
    field = {name: viewer.locator(f"[name={name}]") for name in ("left", "right", "interpreter", "layer", "flicker")}
    assert viewer.locator("figcaption").all_inner_texts()[0].startswith("Benign")
    field["right"].select_option(label="PGD")
    field["interpreter"].select_option(label="IG")
    right = viewer.locator("figcaption").nth(1)
    assert re.match(r"PGD · .* · L1 0\.300 · IoU", right.inner_text())
    field["layer"].select_option("region")
    page.wait_for_function("document.querySelectorAll('.viewer canvas')[1]?.width === 56")
    field["layer"].select_option("image")
    assert viewer.locator("canvas, img").count() == 0
    field["flicker"].click()
    panes = viewer.locator(".panes figure")
    assert [panes.nth(i).is_visible() for i in (0, 1)] == [True, False]
    viewer.locator(".panes").click()
    assert [panes.nth(i).is_visible() for i in (0, 1)] == [False, True]
    field["flicker"].click()
    assert [panes.nth(i).is_visible() for i in (0, 1)] == [True, True]


@needs_browser
def test_images_take_turns_by_themselves(visit: Callable[..., Any]) -> None:
    page = visit(reduced_motion="no-preference")
    page.locator("details.photo[open] [name=flicker]").click()
    page.wait_for_selector(".panes[data-shown='1']")
    page.wait_for_selector(".panes[data-shown='0']")


@needs_browser
def test_keys(visit: Callable[..., Any]) -> None:
    page = visit()
    first, second = (page.locator("details.photo").nth(place).get_attribute("id") for place in (0, 1))
    for key, hash_ in (("j", second), ("k", first)):
        page.keyboard.press(key)
        assert page.evaluate("location.hash") == f"#{hash_}"
        assert page.locator("details.photo[open]").count() == 1
    page.keyboard.press("m")
    assert page.locator(f"#{first} [name=layer]").input_value() == "image"
    page.keyboard.press(".")
    assert page.locator("#cut-value").inner_text() == "0.55"
    page.keyboard.press("/")
    page.keyboard.type("jd.")
    assert page.locator("#words-filter").input_value() == "jd."
    assert page.locator("#cut-value").inner_text() == "0.55"


@needs_browser
def test_dark_and_light_by_a_button(visit: Callable[..., Any]) -> None:
    page = visit(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.locator("#theme").click()
    light = page.evaluate(background)
    assert page.locator("#theme").get_attribute("aria-pressed") == "false"
    assert [sum(map(int, re.findall(r"\d+", colour))) > 380 for colour in (dark, light)] == [False, True]


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_nothing_and_the_page_is_as_wide_as_the_window(
    visit: Callable[..., Any], tmp_path: Path, width: int, scheme: str
) -> None:
    small = build_report(open_run(write_run(tmp_path / "run", Recipe(files=FILES[:2], interpreters=("cam", "ig")))))
    page = visit(at=small, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.locator("details.help summary").click()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@needs_browser
def test_without_a_script_everything_is_there_to_read(visit: Callable[..., Any]) -> None:
    page = visit(java_script_enabled=False)
    assert not page.locator("#explore").is_visible()
    assert not page.locator("#theme").is_visible()
    assert page.locator("details.photo").count() == len(FILES)
    page.locator("details.photo summary").nth(1).click()
    maps = page.locator("details.photo").nth(1).locator(".stage.laid")
    assert maps.count() == 7 * len(INTERPRETERS)
    assert all(maps.nth(place).bounding_box()["width"] > 40 for place in (0, 9))
    assert HOSTILE in page.locator("details.photo summary").nth(1).inner_text()
