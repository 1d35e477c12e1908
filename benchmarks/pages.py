"""``python -m benchmarks.pages FOLDER``: drawn pages in class folders, by how many degrees each is turned clockwise."""

import random
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 256
"""Pixels of a side of a drawn page, whatever its shape was on paper."""

TURNS = (0, 90, 180, 270)
"""Degrees, clockwise."""

_VOWELS, _CONSONANTS = "aaaeeeeiioou", "bcdfghklmnnprrssttvwyzp"
Draw = ImageDraw.ImageDraw
Ink = tuple[int, int, int]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--pages", type=click.IntRange(1), default=40, show_default=True, help="How many, a quarter each way up.")
@click.option("--seed", type=int, default=2, show_default=True, help="0 are the pages of training, 1 those held out.")
def main(folder: Path, pages: int, seed: int) -> None:
    """Draw pages into FOLDER/0, FOLDER/90, FOLDER/180 and FOLDER/270."""
    draw_pages(folder, pages=pages, seed=seed)


def draw_pages(folder: Path, *, pages: int, seed: int) -> None:
    """Draw ``pages`` pages of ``seed`` into class folders in ``folder``, a quarter each way up."""
    for turn in TURNS:
        (folder / str(turn)).mkdir(parents=True, exist_ok=True)
    for number in range(pages):
        turn = TURNS[number % len(TURNS)]
        turned(drawn_page(seed, number), turn).save(folder / str(turn) / f"page-{seed}-{number:04}.png")


def turned(page: Image.Image, turn: int) -> Image.Image:
    """``page`` turned clockwise by one of ``TURNS``."""
    return page.rotate(-turn)


def drawn_page(seed: int, number: int) -> Image.Image:
    """Page ``number`` of those of ``seed``, upright, ``SIDE`` × ``SIDE``, RGB: always the same."""
    draw = random.Random(f"{seed}/{number}")
    width, height = (round(SIDE * draw.uniform(0.85, 1.25)) for _ in range(2))
    paper = tuple(draw.randint(225, 255) for _ in range(3))
    page = Image.new("RGB", (width, height), paper)
    _Layout(page, draw).fill()
    if draw.random() < 0.35:
        _stamp(page, draw)
    page = page.rotate(draw.uniform(-4, 4), Image.Resampling.BICUBIC, fillcolor=paper)
    return _scanned(page.resize((SIDE, SIDE), Image.Resampling.BICUBIC), draw)


class _Layout:
    """Blocks of a page, from the top to the bottom, in one or two columns."""

    def __init__(self, page: Image.Image, draw: random.Random) -> None:
        self.pen, self.draw = ImageDraw.Draw(page), draw
        self.width, self.height = page.size
        shade = draw.randint(0, 70)
        self.ink: Ink = (shade, shade, min(255, shade + draw.choice((0, 0, 40))))
        self.size = draw.randint(8, 12)
        self.font = ImageFont.load_default(self.size)
        self.leading = round(self.size * draw.uniform(1.15, 1.5))
        self.margin = draw.randint(12, 26)

    def fill(self) -> None:
        """Draw everything."""
        draw, left, right = self.draw, self.margin, self.width - self.margin
        top, bottom = draw.randint(12, 26), self.height - draw.randint(14, 26)
        if draw.random() < 0.3:
            self._rule(left, right, top - 4)
        if draw.random() < 0.8:
            top = self._title(left, right, top)
        if draw.random() < 0.35:
            middle, gap = self.width // 2, draw.randint(5, 9)
            self._column(left, middle - gap, top, bottom)
            self._column(middle + gap, right, top, bottom - draw.choice((0, draw.randint(0, (bottom - top) // 2))))
        else:
            self._column(left, right, top, bottom - draw.choice((0, draw.randint(0, (bottom - top) // 2))))
        if draw.random() < 0.5:
            self.pen.text((self.width // 2, self.height - 13), str(draw.randint(1, 99)), self.ink, self.font)

    def _column(self, left: int, right: int, top: int, bottom: int) -> None:
        blocks: tuple[Callable[[int, int, int, int], int], ...]
        blocks = (self._heading, self._list, self._table, self._figure, self._paragraph)
        indent = self.draw.choice((0, 2 * self.size))
        while top + 2 * self.leading < bottom:
            block = self.draw.choices(blocks, (2, 1.5, 1, 1, 5))[0]
            if block == self._paragraph:
                top = self._lines(left, right, top, bottom, self.draw.randint(2, 7), indent)
            else:
                top = block(left, right, top, bottom)
            top += self.draw.randint(2, 8)

    def _paragraph(self, left: int, right: int, top: int, bottom: int) -> int:
        return self._lines(left, right, top, bottom, self.draw.randint(2, 7), 0)

    def _lines(self, left: int, right: int, top: int, bottom: int, lines: int, indent: int) -> int:
        """Lines of words, ragged on the right, the last one short; returns where they end."""
        ragged = self.draw.choice((0.05, 0.15, 0.3))
        for line in range(lines):
            if top + self.size > bottom:
                break
            start = left + (indent if line == 0 else 0)
            share = self.draw.uniform(0.2, 0.8) if line == lines - 1 else 1 - self.draw.uniform(0, ragged)
            self.pen.text((start, top), self._words(self.font, round(share * (right - start))), self.ink, self.font)
            top += self.leading
        return top

    def _title(self, left: int, right: int, top: int) -> int:
        size = self.draw.randint(15, 24)
        font = ImageFont.load_default(size)
        text = self._words(font, round(self.draw.uniform(0.4, 0.95) * (right - left)))
        start = left if self.draw.random() < 0.5 else (left + right - round(font.getlength(text))) // 2
        self.pen.text((start, top), text, self.ink, font)
        return top + size + self.draw.randint(6, 12)

    def _heading(self, left: int, right: int, top: int, _: int) -> int:
        font = ImageFont.load_default(self.size + self.draw.randint(2, 5))
        text = self._words(font, round(self.draw.uniform(0.3, 0.7) * (right - left)))
        self.pen.text((left, top), text, self.ink, font, stroke_width=self.draw.choice((0, 0.4)), stroke_fill=self.ink)
        return top + self.leading + 3

    def _list(self, left: int, right: int, top: int, bottom: int) -> int:
        for _ in range(self.draw.randint(2, 5)):
            if top + self.size > bottom:
                break
            middle = top + self.size // 2 + 1
            self.pen.ellipse((left + 3, middle - 1, left + 6, middle + 2), self.ink)
            top = self._lines(left + 11, right, top, bottom, 1, 0)
        return top

    def _table(self, left: int, right: int, top: int, bottom: int) -> int:
        columns, row = self.draw.randint(2, 4), self.leading + 2
        rows = min(self.draw.randint(2, 6), (bottom - top) // row)
        step = (right - left) / columns
        for i in range(rows):
            for j in range(columns):
                text = self._words(self.font, round(step * self.draw.uniform(0.3, 0.8)))
                self.pen.text((left + 3 + j * step, top + 1 + i * row), text, self.ink, self.font)
            self._rule(left, right, top + i * row)
        if rows:
            self._rule(left, right, top + rows * row)
        return top + max(rows, 1) * row

    def _figure(self, left: int, right: int, top: int, bottom: int) -> int:
        """A picture or a chart, with its caption below."""
        tall = min(self.draw.randint(25, 70), bottom - top - self.leading)
        if tall < 15:
            return self._paragraph(left, right, top, bottom)
        grey = self.draw.randint(110, 215)
        if self.draw.random() < 0.5:
            self.pen.rectangle((left, top, right, top + tall), (grey, grey, grey))
            for _ in range(5):
                x, y, r = self.draw.randint(left, right), self.draw.randint(top, top + tall), self.draw.randint(2, 9)
                box = (max(left, x - r), max(top, y - r), min(right, x + r), min(top + tall, y + r))
                self.pen.ellipse(box, (grey - 60, grey - 50, grey - 40))
        else:
            for x in range(left + 4, right - 6, 11):
                self.pen.rectangle((x, top + tall - self.draw.randint(3, tall), x + 6, top + tall), (grey, grey, 200))
            self._rule(left, right, top + tall)
        return self._lines(left + 8, right, top + tall + 2, bottom, 1, 0)

    def _rule(self, left: int, right: int, y: int) -> None:
        self.pen.line((left, y, right, y), self.ink)

    def _words(self, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
        """Made-up words that together are not much wider than ``width`` pixels."""
        text, capital = "", True
        while True:
            word = "".join(
                self.draw.choice(_CONSONANTS) + self.draw.choice(_VOWELS) for _ in range(self.draw.randint(1, 4))
            )
            word = word[: self.draw.randint(2, 8)]
            longer = f"{text} {word.capitalize() if capital else word}".strip()
            if text and font.getlength(longer) > width:
                return text
            text, capital = longer, False
            if self.draw.random() < 0.15:
                text, capital = text + self.draw.choice(".,."), text.endswith(".")


def _stamp(page: Image.Image, draw: random.Random) -> None:
    """A round or square stamp at any angle and in any place: it says nothing of which way the page lies."""
    size = draw.randint(34, 60)
    stamp = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(stamp)
    frame = pen.ellipse if draw.random() < 0.5 else pen.rectangle
    frame((3, 3, size - 4, size - 4), outline=220, width=2)
    pen.text((size // 5, size // 2 - 5), draw.choice(("PAID", "COPY", "SEEN", "VOID")), 220, ImageFont.load_default(11))
    stamp = stamp.rotate(draw.uniform(0, 360), Image.Resampling.BICUBIC, expand=True)
    place = tuple(draw.randint(0, side - s) for side, s in zip(page.size, stamp.size, strict=True))
    page.paste(draw.choice(((170, 30, 40), (30, 50, 160), (20, 110, 60))), (place[0], place[1]), stamp)


def _scanned(page: Image.Image, draw: random.Random) -> Image.Image:
    """The page as a scanner or a camera would see it: blurred, lit from one side, darker or paler, with noise."""
    if draw.random() < 0.4:
        page = page.filter(ImageFilter.GaussianBlur(draw.uniform(0.3, 0.9)))
    noise = np.random.default_rng(draw.getrandbits(64))
    level = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
    light = 1 + draw.uniform(-0.25, 0.25) * level[:, None] + draw.uniform(-0.25, 0.25) * level
    values = np.asarray(page, dtype=np.float32) * (light * draw.uniform(0.75, 1.05))[..., None]
    values += draw.uniform(0, 10) * noise.standard_normal((SIDE, SIDE, 1), dtype=np.float32)
    return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
