"""Figures as inline SVG with the colours of the page, so that they read on light and on dark."""

import io
import re
from html import escape

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_MARKS = {
    "#0a0b01": "var(--ink)",
    "#0a0b02": "var(--muted)",
    "#0a0b03": "var(--line)",
    "#0a0b04": "var(--adv2)",
    "#0a0b05": "var(--pgd)",
    "#0a0b06": "var(--noise)",
    "#0a0b07": "var(--paper)",
}
"""Colours no plot would use, drawn by matplotlib and then replaced by the page's own (see `inline`)."""
INK, MUTED, LINE, ADV2, PGD, NOISE, PAPER = _MARKS


def inline(figure: Figure, *, name: str, description: str) -> str:
    """``figure`` as an ``<svg>`` to put into a page: no prolog, no metadata, ids and colours of the page.

    What is drawn in `INK`, `MUTED`, `LINE`, `ADV2`, `PGD`, `NOISE` or `PAPER` has the page's colour, light or dark. The
    patches of figure and axes should be transparent.

    Args:
        figure: drawn in full.
        name: unique on the page; it prefixes every id.
        description: read aloud instead of the picture.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    for mark, colour in _MARKS.items():
        svg = svg.replace(mark, colour)
    # width and height in points would keep the plot from shrinking with the page
    svg = re.sub(r'(<svg\b[^>]*?)\s+width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?)\s+height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(description, quote=True)}"', 1).strip()
