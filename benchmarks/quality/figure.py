"""Quality against passes as a picture."""

from collections import defaultdict
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.quality.measure import Found, read
from underfire import stats

STYLES = {
    "adv2": ("#1668b3", "o", "ADV²"),
    "authors": ("#c1440e", "s", "the authors' schedule"),
    "pgd": ("#777777", "^", "PGD"),
}
"""Colour, marker and name of an attack."""


def draw(log: Path, file: Path) -> None:
    """One panel per map: mean L1 against passes, with 95 % intervals, of the photos that all its points share."""
    matplotlib.rcParams["svg.hashsalt"] = "underfire"  # the same picture from the same log
    panels: dict[str, list[Found]] = defaultdict(list)
    for found in read(log):
        panels[found.interpreter].append(found)
    figure = Figure(figsize=(3.4 * len(panels), 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, group) in zip(axes, panels.items(), strict=True):
        _panel(axis, name, group)
    axes[0].set_ylabel("mean L1 to the benign map")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(file, format="svg", metadata={"Date": None})


def _panel(axis: Axes, name: str, group: list[Found]) -> None:
    by_point: dict[tuple[str, int], dict[str, Found]] = defaultdict(dict)
    for found in group:
        by_point[found.attack, found.budget][found.photo] = found
    shared = set.intersection(*(set(photos) for photos in by_point.values()))
    lines: dict[str, list[tuple[float, stats.Estimate]]] = defaultdict(list)
    for (attack, _), photos in by_point.items():
        chosen = [photos[photo] for photo in sorted(shared)]
        passes = sum(found.passes for found in chosen) / len(chosen)
        lines[attack].append((passes, stats.bootstrap_mean([found.computed.l1 for found in chosen])))
    for attack, points in lines.items():
        colour, marker, label = STYLES[attack]
        points.sort(key=lambda point: point[0])
        x, middle, spread = _with_spread(points)
        axis.errorbar(x, middle, yerr=spread, color=colour, marker=marker, capsize=2, label=label)
    axis.set(
        title=f"{name}, n = {len(shared)}", xscale="log", xlabel="passes per photo", xlim=(60, 3000), ylim=(0, None)
    )
    axis.set_xticks([100, 300, 1000], ["100", "300", "1000"])
    axis.minorticks_off()
    axis.grid(alpha=0.3)


def _with_spread(points: list[tuple[float, stats.Estimate]]) -> tuple[list[float], list[float], list[list[float]]]:
    """Passes, means, and how far each interval reaches below and above its mean; one photo has none."""
    x = [passes for passes, _ in points]
    middle = [mean.value or 0.0 for _, mean in points]
    below = [m - (mean.low if mean.low is not None else m) for m, (_, mean) in zip(middle, points, strict=True)]
    above = [(mean.high if mean.high is not None else m) - m for m, (_, mean) in zip(middle, points, strict=True)]
    return x, middle, [below, above]
