"""The studio as a user has it: the command, in a process of its own, and its page in a real browser."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.browser import needs_browser, opened_browser, opened_page, violations
from support.studio import photo
from support.toy_photos import MODEL_OPTIONS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SECONDS = 60
"""That a busy machine may take."""

LONG = "5000"
"""Passes of an attack that is to be stopped."""

CUT_OFF = """[...document.querySelectorAll(".charts svg[role] text")].filter(text => {
    const [box, chart] = [text, text.ownerSVGElement].map(one => one.getBoundingClientRect());
    return box.left < chart.left || box.right > chart.right || box.top < chart.top || box.bottom > chart.bottom
        || box.height < 11;
}).map(text => text.textContent)"""
"""The words in the charts that leave their chart or are too small to read."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a studio of the toy; that Ctrl-C ends it cleanly, with a page open, is asserted at the end."""
    command = [sys.executable, "-m", "underfire", "studio", *MODEL_OPTIONS, "--port", "0", "--no-open"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            (address,) = re.findall(r"http://127\.0\.0\.1:\d+/\S+/", process.stdout.readline())
            yield address
            with urllib.request.urlopen(f"{address}news") as news:  # noqa: S310
                assert news.readline().startswith(b"data: ")
                process.send_signal(signal.SIGINT)
            _, complained = process.communicate(timeout=60)
            assert process.returncode == 0, complained
            assert "Traceback" not in complained
        finally:
            process.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with opened_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: "Browser", address: str) -> Iterator["Page"]:
    with opened_page(browser, viewport={"width": 1280, "height": 900}) as page:
        page.goto(address)
        ready(page)
        yield page


def told(page: "Page", pattern: str) -> None:
    """Waits until the page's status is as ``pattern`` says."""
    from playwright.sync_api import expect

    expect(page.locator("#status")).to_have_text(re.compile(pattern), timeout=SECONDS * 1000)


def ready(page: "Page") -> None:
    told(page, r"Ready|Done|Stopped")


def test_the_address_with_its_token_is_the_only_one(address: str) -> None:
    with urllib.request.urlopen(address) as answer:  # noqa: S310
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["server"] is None
    root = re.sub(r"/[^/]+/$", "/", address)
    for wrong in (root, f"{address[:-2]}/", address.replace("127.0.0.1", "127.0.0.2")):
        with pytest.raises((urllib.error.HTTPError, urllib.error.URLError)):
            urllib.request.urlopen(wrong)  # noqa: S310


@needs_browser
class TestPage:
    def test_an_attack_is_watched_stopped_and_its_evidence_taken_home(self, page: "Page", tmp_path: Path) -> None:
        page.get_by_label("Label", exact=True).select_option("kept")
        page.get_by_label("Map", exact=True).select_option("l1")
        page.get_by_label("GRAD", exact=True).check()
        ready(page)
        page.get_by_label("Passes of the model").fill(LONG)
        page.get_by_role("button", name="Attack").click()
        told(page, rf"Pass [1-9]\d* of {LONG}")
        assert page.locator(".strip .now img").count() == 3  # the photo and two maps
        first = page.locator("#label-chart path").get_attribute("d")
        page.wait_for_timeout(400)
        assert page.locator("#label-chart path").get_attribute("d") != first
        assert page.get_by_label("Passes of the model").is_disabled()
        assert violations(page) == []
        page.get_by_role("button", name="Stop").press("Enter")
        told(page, "Stopped after")
        assert "kept/l1" in page.locator("#verdict-title").inner_text()
        with page.expect_download() as waiting:
            page.get_by_role("link", name="Download").click()
        waiting.value.save_as(tmp_path / "evidence.zip")
        with zipfile.ZipFile(tmp_path / "evidence.zip") as packed:
            result = json.loads(packed.read("result.json"))
        assert result["settings"]["interpreters"] == ["grad", "cam"]
        assert result["result"]["stopped"]
        assert f"{result['result']['passes']} passes" in page.locator("#status").inner_text()

    def test_a_photo_is_dropped_and_led_to_a_drawn_map_by_mouse_and_keyboard(self, page: "Page") -> None:
        page.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": photo(3)})
        page.get_by_label("the photo that was dropped").wait_for()
        ready(page)
        page.get_by_label("Label", exact=True).select_option("kept")
        page.get_by_label("Map", exact=True).select_option("led")
        page.get_by_label("Passes of the model").fill("30")
        page.get_by_role("button", name="Attack").click()
        page.locator("#error", has_text="empty").wait_for()
        canvas = page.get_by_label("Target map: draw")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 4, steps=4)
        page.mouse.up()
        by_mouse = page.evaluate("drawing.filter(value => value > 0).length")
        canvas.focus()
        for key in ("ArrowRight", "ArrowDown", " "):
            page.keyboard.press(key)
        assert 0 < by_mouse < page.evaluate("drawing.filter(value => value > 0).length")
        page.get_by_role("button", name="Attack").click()
        told(page, "Done after")
        assert page.locator(".strip figcaption b", has_text="target map").count() == 1
        assert page.locator("#error").inner_text() == ""

    def test_a_perturbation_has_a_budget_of_its_own(self, page: "Page", tmp_path: Path) -> None:
        slider = page.get_by_label("Budget ε")
        for name, shown, unit in (
            ("flow", "1 pixel", "moves"),
            ("linf", "8/255", "values"),
            ("l2", "3", "length"),
        ):
            page.get_by_label("What may change").select_option(name)
            assert page.locator("#eps-text").inner_text() == slider.get_attribute("aria-valuetext") == shown
            assert unit in page.locator("#unit").inner_text()
        slider.press("ArrowLeft")
        assert page.locator("#eps-text").inner_text() == "2.625"
        page.get_by_label("Target class").fill("class 3")
        page.get_by_label("Passes of the model").fill("30")
        page.get_by_role("button", name="Attack").click()
        told(page, "Done after")
        assert page.locator(".strip .more", has_text="ε 2.625 (l2)").count() == 1
        with page.expect_download() as waiting:
            page.get_by_role("link", name="Download").click()
        waiting.value.save_as(tmp_path / "evidence.zip")
        with zipfile.ZipFile(tmp_path / "evidence.zip") as packed:
            result = json.loads(packed.read("result.json"))
        assert (result["settings"]["perturbation"], result["settings"]["eps"]) == ("l2", 2.625)
        assert 2 < result["result"]["l2"] <= 2.625

    def test_what_is_bad_is_one_sentence(self, page: "Page") -> None:
        page.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"no photo"})
        page.locator("#error", has_text="not a usable photo").wait_for()
        page.get_by_label("Target class").fill("class 42")
        page.get_by_role("button", name="Attack").click()
        page.locator("#error", has_text="class 42").wait_for()

    def test_flicker_swaps_the_pictures(self, browser: "Browser", address: str) -> None:
        with opened_page(browser, reduced_motion="reduce") as page:
            page.goto(address)
            ready(page)
            page.get_by_label("Target class").fill("class 3")
            page.get_by_label("Passes of the model").fill("12")
            page.get_by_role("button", name="Attack").click()
            told(page, "Done after")
            now = page.locator(".strip .now img").first.get_attribute("src")
            page.get_by_role("button", name="Flicker").click()
            page.keyboard.press("s")
            before = page.locator(".strip .now img").first.get_attribute("src")
            assert before != now
            assert page.locator(".strip .now b").first.inner_text() == "before"
            page.keyboard.press("s")
            assert page.locator(".strip .now img").first.get_attribute("src") == now
            page.keyboard.press("f")
            assert page.locator(".strip .before").first.is_visible()

    def test_it_fits_a_phone_and_axe_finds_nothing(self, browser: "Browser", address: str) -> None:
        size = {"width": 390, "height": 844}
        with opened_page(browser, viewport=size) as page:
            page.goto(address)
            ready(page)
            page.get_by_label("Map", exact=True).select_option("led")
            assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
            assert page.evaluate(CUT_OFF) == []
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert violations(page) == []
