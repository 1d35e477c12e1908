"""The site builds strictly and without a network, is whole, and asks for nothing from elsewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest

import underfire as uf
from underfire import metrics, testing
from underfire.cli import cli

pytest.importorskip("sphinx")

from sphinx.util.inventory import InventoryFile

ROOT = Path(__file__).parents[1]
BUILD = """
import socket, sys
def refused(*_): raise OSError("the site asked for the network")
socket.socket.connect = socket.getaddrinfo = refused
from sphinx.cmd.build import main
sys.exit(main(["-q", "-W", "--keep-going", "-b", "html", "docs", sys.argv[1]]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with every warning an error."""
    out = tmp_path_factory.mktemp("site")
    where = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": "0"}
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=ROOT, env=where, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return out


class _Resources(HTMLParser):
    """Addresses from which a page loads something by itself."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        loads = tag in {"script", "img", "iframe", "source"} or (tag == "link" and told.get("rel") == "stylesheet")
        self.found += [told.get("src") or told.get("href") or ""] if loads else []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    loaded = {address for page in pages for address in _Resources(page).found}
    assert loaded
    assert not {address for address in loaded if re.match(r"(\w+:)?//", address)}
    styles = "".join(style.read_text(encoding="utf-8") for style in site.rglob("*.css"))
    assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", styles)


def test_every_public_name_has_its_entry(site: Path) -> None:
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, target: target)
    told = {name for role, names in inventory.items() if role.startswith("py:") for name in names}
    names = {f"underfire.{name}" for name in uf.__all__} | {f"underfire.testing.{name}" for name in testing.__all__}
    names |= {
        f"underfire.metrics.{name}"
        for name, value in vars(metrics).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == metrics.__name__
    }
    assert names - told == set()


def _commands(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    """Every command that is not hidden, with its words joined by hyphens."""
    for name, command in group.commands.items():
        if not command.hidden:
            yield "-".join((*words, name)), command
            yield from _commands(command, (*words, name)) if isinstance(command, click.Group) else ()


def test_every_command_has_its_section_and_every_option_its_entry(site: Path) -> None:
    page = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    commands = dict(_commands(cli, ("underfire",)))
    assert len(commands) > 10
    assert [name for name in commands if f'id="{name}"' not in page] == []
    options = [
        f'id="cmdoption-{name}-{option.lstrip("-")}"'
        for name, command in commands.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for option in parameter.opts[:1]
    ]
    assert [option for option in options if option not in page] == []


def test_a_page_is_found_by_its_words(site: Path) -> None:
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert '"explanation/threat-model"' in index
