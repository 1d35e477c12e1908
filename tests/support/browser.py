"""Chromium, driven by playwright, for tests that click; where either is missing they are skipped."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs chromium on the PATH and the package playwright",
)

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
)
_SEVERE = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


@contextmanager
def opened_browser() -> Iterator["Browser"]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened_page(browser: "Browser", **options: Any) -> Iterator["Page"]:
    """A page of ``browser``; that no script fails and no policy is broken is asserted at the end.

    What a server refuses is in the console as well, and is for the test to expect.
    """
    said: list[str] = []
    page = browser.new_page(**options)
    page.set_default_timeout(20_000)  # of a busy machine
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        yield page
    finally:
        page.close()
    assert [line for line in said if not line.startswith("Failed to load resource")] == []


def violations(page: "Page") -> list[str]:
    """What axe-core finds wrong with ``page`` as it is, a line each."""
    from axe_playwright_python import base

    source = (Path(base.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    page.evaluate(source)
    found = page.evaluate("tags => axe.run(document, {runOnly: tags})", list(_SEVERE))
    return [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]
