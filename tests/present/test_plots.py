"""Plots as parts of a page."""

import re
from xml.etree import ElementTree as ET

from underfire.present.plots import Series, strips

LINES = (
    Series("Noise", "noise", (0.01, 0.02), (), (0.0125, 0.015, 0.0175), 2),
    Series("$x$ <b>", "adv2", (0.1,) * 6, (0.3, 0.4), (0.1, 0.1, 0.1), 6),
)


def plot(name: str = "one") -> str:
    return strips(LINES, upper=0.5, label="L1", name=name, description='said "aloud" & <plain>')


def test_well_formed_with_its_description() -> None:
    root = ET.fromstring(plot())  # noqa: S314 - our own output
    assert root.tag.endswith("svg")
    assert root.get("aria-label") == 'said "aloud" & <plain>'
    assert root.get("width") is None
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "$x$ <b>" in texts


def test_colours_are_the_pages() -> None:
    svg = plot()
    assert "#0a0b" not in svg
    assert {"var(--adv2)", "var(--noise)", "var(--ink)", "var(--line)"} <= set(re.findall(r"var\(--\w+\)", svg))


def test_two_plots_share_no_id_and_one_is_repeatable() -> None:
    ids = [set(re.findall(r'\bid="([^"]+)"', plot(name))) for name in ("one", "two")]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert plot() == plot()


def test_every_photo_is_drawn() -> None:
    groups = ET.fromstring(plot()).iter("{http://www.w3.org/2000/svg}g")  # noqa: S314 - our own output
    points = [
        len(list(group.iter("{http://www.w3.org/2000/svg}use")))
        for group in groups
        if (group.get("id") or "").startswith("one-PathCollection")
    ]
    assert sum(points) == 2 + 6 + 2


def test_nothing_to_draw_is_no_error() -> None:
    assert "<svg" in strips(
        [Series("PGD", "pgd", (), (), None, 0)], upper=1, label="L1", name="empty", description="empty"
    )
