"""What this site asks of Sphinx besides: the menu from index.md, links to files of the project, MathML, notebooks."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from myst_parser.parsers.sphinx_ import MystParser
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).parents[2]
SOURCE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Source"]

_SECTION = re.compile(r"^## (?P<title>.+)\n(?P<body>(?:(?!## ).*\n?)*)", re.MULTILINE)
_PAGE = re.compile(r"\[(?P<title>[^\]]+)\]\((?P<page>[\w/-]+)\.(?:md|ipynb)\)")
_BAR = re.compile(r"(``.*?``|`[^`]*`)|\|")
_LINK = re.compile(r"\]\((?P<target>(?:\.\./)+[^)#\s]+)")


def add_menu(text: str) -> str:
    """index.md with a hidden table of contents for each of its sections, of the pages to which that section links."""
    menus = [
        f"```{{toctree}}\n:hidden:\n:caption: {section['title']}\n\n"
        + "\n".join(f"{title} <{page}>" for title, page in pages)
        + "\n```\n"
        for section in _SECTION.finditer(text)
        if (pages := _PAGE.findall(section["body"]))
    ]
    return text + "\n\n" + "\n".join(menus)


def link_to_source(text: str, folder: Path) -> str:
    """``text`` of a page in ``folder`` with links to files outside docs/ made addresses of the repository."""

    def address(link: re.Match[str]) -> str:
        target = (folder / link["target"]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return link[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"]({SOURCE}/{kind}/main/{target.relative_to(ROOT).as_posix()}"

    return _LINK.sub(address, text)


def read_page(app: Sphinx, page: str, content: list[str]) -> None:
    """What is done to each page before it is parsed."""
    text = link_to_source(content[0], (app.srcdir / page).parent)
    if page == "index":
        text = add_menu(text)
    if page == "explanation/results":
        text += "\n```{toctree}\n:hidden:\n:glob:\n\n../measured/*\n```\n"
    content[0] = text


def keep_bars(_app: Sphinx, _kind: str, _name: str, _what: object, _options: object, lines: list[str]) -> None:
    """Bars in docstrings are those of a magnitude, which reStructuredText would take for a substitution."""
    lines[:] = [_BAR.sub(lambda bar: bar[1] or r"\|", line) for line in lines]


def cells_to_markdown(notebook: dict[str, Any]) -> Iterator[str]:
    """The cells of a notebook and their outputs, as Markdown."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
            continue
        yield f"```python\n{source}\n```"
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/html" in data:
                yield '```{raw} html\n<div class="output">' + "".join(data["text/html"]) + "</div>\n```"
            elif picture := next((kind for kind in ("image/jpeg", "image/png") if kind in data), None):
                inline = "".join(data[picture]).replace("\n", "")
                alt = "what the cell above shows"
                yield f'```{{raw}} html\n<img class="output" alt="{alt}" src="data:{picture};base64,{inline}">\n```'
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                yield f"```text\n{text.rstrip()}\n```"


class NotebookParser(MystParser):
    """Reads executed notebooks; nothing is executed here."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parses the Markdown that the notebook amounts to."""
        super().parse("\n\n".join(cells_to_markdown(json.loads(inputstring))), document)


def inline_formula(writer: HTML5Translator, node: nodes.math) -> None:
    """A formula within a line, as MathML."""
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def formula(writer: HTML5Translator, node: nodes.math_block) -> None:
    """A formula on a line of its own, as MathML."""
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", keep_bars)
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))
    app.add_source_parser(NotebookParser)
    for plain in ("csv", "jsonl"):
        app.add_lexer(plain, TextLexer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
