"""What the options of ``underfire study`` are written like."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from underfire.auditing.plan import ModelSettings
from underfire.cli.options import Eps, Numbers, Size


class Renamed(click.Choice[str]):
    """A choice whose values were once called otherwise: the ``former`` names are taken as well, and not listed."""

    def __init__(self, choices: Sequence[str], former: Mapping[str, str]) -> None:
        super().__init__(choices)
        self._former = former

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The value by its present name."""
        return super().convert(self._former.get(value, value), param, ctx)


class Other(click.ParamType[ModelSettings]):
    """Another classifier: ``efficientnet-lite2``, or ``nets:resnet20 checkpoint=FILE mean=R,G,B input-size=32``."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ModelSettings:
        """The classifier that ``value`` names."""
        if isinstance(value, ModelSettings):
            return value
        readers = {"mean": Numbers(), "std": Numbers(), "input_size": Size(), "resize": click.IntRange(min=1)}
        known = [field.name for field in fields(ModelSettings)][1:]
        try:
            spec, *words = shlex.split(str(value))
        except ValueError as error:
            self.fail(f"'{value}' names no model ({error})", param, ctx)
        found: dict[str, Any] = {}
        for word in words:
            option, _, text = word.partition("=")
            name = option.replace("-", "_")
            if name not in known or not text:
                options = ", ".join(f"{name.replace('_', '-')}=" for name in known)
                self.fail(f"'{word}' in '{value}' is not known; after the model's name go {options}", param, ctx)
            found[name] = readers[name].convert(text, param, ctx) if name in readers else text
        return ModelSettings(spec, **found)


class Also(click.ParamType[tuple[str, Path]]):
    """A folder with a name: ``l2=other-run``."""

    name = "also"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        """Name and folder."""
        if isinstance(value, tuple):
            return value
        name, _, folder = str(value).partition("=")
        if not name.strip() or not folder or ": " in name:
            self.fail(f"'{value}' is not NAME=DIR; write it as l2=other-run", param, ctx)
        return name.strip(), Path(folder)


class Grid(click.ParamType[tuple[float, ...]]):
    """Comma-separated values, each as a budget is written: ``2/255,4/255``."""

    name = "grid"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """The values, in the order given."""
        if isinstance(value, tuple):
            return value
        return tuple(Eps().convert(part, param, ctx) for part in str(value).split(","))


class Counts(click.ParamType[tuple[int, ...]]):
    """Comma-separated numbers of passes: ``50,100``."""

    name = "counts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers, in the order given."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(re.fullmatch(r"0*[1-9][0-9]{0,8}", part.strip()) for part in parts):
            self.fail(f"'{value}' is no list of numbers of passes; write it as 50,100", param, ctx)
        return tuple(map(int, parts))
