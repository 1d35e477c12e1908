"""The figure of the gap: distances to the chosen maps, and for every interpreter one photo to look at."""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from underfire.files import printable
from underfire.present.pictures import Bytes, Map, overlay
from underfire.present.plots import axes_of, blank, label_axes, mark
from underfire.present.svg import ADV2, INK, LINE, MUTED, NOISE, PGD, inline
from underfire.stats import Estimate

_SIDE, _COLOURS = 120, 256  # of a picture in the file, which is to be looked at and no more
_WIDTH_IN, _MARGIN_IN = 6.6, 0.1
_PICTURE_IN, _GAP_IN = 1.2, 0.1
_HEADING_IN, _TITLE_IN, _CAPTION_IN, _SPACE_IN = 0.55, 0.24, 0.42, 0.14
_CHART_LEFT_IN, _CHART_TOP_IN, _CHART_ROW_IN, _AXIS_IN = 0.95, 0.62, 0.34, 0.62
_LONGEST = 21  # characters of a class's name below a picture
_SERIES = ((NOISE, "benign photo", 0.2), (PGD, "PGD", 0.0), (ADV2, "ADV² towards the map", -0.2))

_PICTURE = re.compile(r"(?P<start>data:image/png;base64,)(?P<data>[^\"]+)")
_BLOCKS = "image-rendering:crisp-edges;image-rendering:pixelated"


@dataclass(frozen=True)
class Distances:
    """The mean L1 to the target map on one interpreter, of the benign photos, under PGD and under ADV²."""

    title: str
    source: str
    """Of the target maps, in words."""
    benign: Estimate
    pgd: Estimate
    adv2: Estimate
    of: int
    """How many photos were attacked."""


@dataclass(frozen=True)
class Exhibit:
    """A photo before and after, 8-bit pictures (H, W, 3), with its maps (h, w) in [0, 1] and the one aimed at."""

    photo: str
    label: str
    target: str
    confidence: float
    """Of the target on the adversarial picture."""
    l1: float
    iou: float
    """Between the adversarial picture's map and the target map."""
    benign: Bytes
    adversarial: Bytes
    benign_map: Map
    adversarial_map: Map
    target_map: Map


@dataclass(frozen=True)
class PhotoExample:
    """What stands for all attacks on an interpreter; no exhibit where none reached the label."""

    title: str
    exhibit: Exhibit | None


def gap_figure(distances: Sequence[Distances], examples: Sequence[PhotoExample], *, shows: str) -> str:
    """An SVG: one chart per source of target maps, and below a row of pictures per example, with a map from ``shows``.

    Class names, photo names and titles are data: nothing in them is taken for a formula or markup.
    """
    sources = list(dict.fromkeys(one.source for one in distances))
    most = max(sum(one.source == source for one in distances) for source in sources)
    chart = _CHART_TOP_IN + most * _CHART_ROW_IN + _AXIS_IN
    row = _TITLE_IN + _PICTURE_IN + _CAPTION_IN + _SPACE_IN
    height = chart + _HEADING_IN + len(examples) * row
    figure = blank(_WIDTH_IN, height)
    _charts(figure, distances, sources, height)
    _text(
        figure, _MARGIN_IN, height - chart - 0.12, height,
        f"The typical photo of each interpreter, {shows}: of the attacks that reached the label the\n"
        "median by distance to the target map", size=9.5, colour=MUTED,
    )  # fmt: skip
    for place, example in enumerate(examples):
        _row(figure, example, height - chart - _HEADING_IN - place * row, height)
    description = (
        f"Mean L1 to the target maps for {', '.join(dict.fromkeys(one.title for one in distances))}, and for each a "
        "photo with its map before and after the attack; the table has the numbers."
    )
    return _lighter(inline(figure, name="gap", description=description))


def _charts(figure: Figure, distances: Sequence[Distances], sources: Sequence[str], height: float) -> None:
    figures = [m for one in distances for m in (one.benign, one.pgd, one.adv2)]
    upper = 1.08 * max((end for m in figures for end in (m.value, m.high) if end is not None), default=1.0)
    width = (_WIDTH_IN - _CHART_LEFT_IN - _MARGIN_IN - (len(sources) - 1) * 2 * _GAP_IN) / len(sources)
    for column, source in enumerate(sources):
        here = [one for one in distances if one.source == source]
        rows = len(here) * _CHART_ROW_IN
        left = _CHART_LEFT_IN + column * (width + 2 * _GAP_IN)
        bottom = height - _CHART_TOP_IN - rows
        axes = axes_of(figure, (left / _WIDTH_IN, bottom / height, width / _WIDTH_IN, rows / height))
        for centre, one in enumerate(reversed(here)):
            for (colour, _, shift), m in zip(_SERIES, (one.benign, one.pgd, one.adv2), strict=True):
                solid = 2 * m.n >= one.of
                mark(axes, m, centre + shift, colour, solid=solid, whisker=1.4, alpha=0.6, edge=1.0, zorders=(2, 2))
        label_axes(axes, x="L1 to the target map", size=9.5)
        axes.set_xlim(0, upper)
        axes.set_ylim(-0.5, len(here) - 0.5)
        axes.set_yticks(range(len(here)), [one.title for one in reversed(here)] if column == 0 else [""] * len(here))
        axes.tick_params(axis="y", colors=INK, labelsize=10.5, length=0)
        axes.grid(axis="x", color=LINE, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.locator_params(axis="x", nbins=5)
        axes.set_title(source, color=INK, fontsize=10.5, loc="left")
    place = _CHART_LEFT_IN
    for colour, text, _ in _SERIES:
        _text(figure, place, height - 0.08, height, f"● {text}", size=9.5, colour=colour)
        place += 0.3 + 0.075 * len(text)
    _text(figure, place, height - 0.08, height, "○ on less than half", size=9.5, colour=MUTED)


def _row(figure: Figure, example: PhotoExample, top: float, height: float) -> None:
    seen = example.exhibit
    if seen is None:
        _text(figure, _MARGIN_IN, top, height, f"{example.title}: the label was never reached", size=10.5, colour=INK)
        return
    title = f"{example.title}: {_short(seen.photo, 60)}"
    _text(figure, _MARGIN_IN, top, height, title, size=10.5, colour=INK)
    label, target = _short(seen.label), _short(seen.target)
    cells = (
        (seen.benign, f"the photo, label\n{label}"),
        (overlay(seen.benign, seen.benign_map), "its map"),
        (overlay(seen.benign, seen.target_map), "the map chosen"),
        (seen.adversarial, f"attacked, {seen.confidence:.2f}\n{target}"),
        (
            overlay(seen.adversarial, seen.adversarial_map),
            f"its map: L1 {seen.l1:.3f},\nIoU {seen.iou:.2f}",
        ),
    )
    bottom = top - _TITLE_IN - _PICTURE_IN
    for column, (picture, caption) in enumerate(cells):
        left = _MARGIN_IN + column * (_PICTURE_IN + _GAP_IN)
        axes: Any = figure.add_axes((left / _WIDTH_IN, bottom / height, _PICTURE_IN / _WIDTH_IN, _PICTURE_IN / height))
        axes.imshow(_small(picture), interpolation="none")  # as it is: the file holds these pixels as a PNG
        axes.set_axis_off()
        _text(figure, left, bottom - 0.05, height, caption, size=8, colour=MUTED)


def _text(figure: Figure, left: float, top: float, height: float, text: str, *, size: float, colour: str) -> None:
    """Text whose upper left corner is at ``left``, ``top`` in inches."""
    figure.text(
        left / _WIDTH_IN, top / height, text, fontsize=size, color=colour, va="top", ha="left", parse_math=False,
        linespacing=1.25,
    )  # fmt: skip


def _small(picture: Bytes) -> Bytes:
    """``picture`` (H, W, 3) with at most `_SIDE` pixels a side."""
    image = Image.fromarray(picture)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.uint8)


def _lighter(svg: str) -> str:
    """``svg`` with its pictures in fewer colours, at half the bytes, and smooth where they are enlarged."""

    def again(match: re.Match[str]) -> str:
        with Image.open(io.BytesIO(base64.b64decode(match["data"])), formats=("PNG",)) as image:
            # The median cut would dim the few bright cells of a map.
            few = image.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        few.save(buffer, "PNG", optimize=True)
        return match["start"] + base64.b64encode(buffer.getvalue()).decode("ascii")

    return _PICTURE.sub(again, svg).replace(_BLOCKS, "")


def _short(text: str, longest: int = _LONGEST) -> str:
    line = " ".join(printable(text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
