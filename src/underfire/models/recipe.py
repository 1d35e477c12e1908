"""What a source of models gives, and what all sources say when they cannot."""

import difflib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType

from torch import nn

from underfire.choices import Outputs
from underfire.errors import InputError
from underfire.images.preprocessing import Preprocessing
from underfire.models.class_names import imagenet_names

LARGEST_SIDE = 4096
"""Of the images that a file says its network takes, in pixels."""

IMAGENET = 1000
"""How many classes it has."""


@dataclass(frozen=True)
class Recipe:
    """A network and what it was trained with; ``None`` where the source does not say."""

    module: nn.Module
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] | None = None
    outputs: Outputs | None = None


def import_optional(package: str, spec: str, *, extra: str | None = None) -> ModuleType:
    """The package that the model ``spec`` needs.

    Args:
        package: its name, or that of a module of it.
        spec: the model, as the user wrote it.
        extra: of underfire, which installs it; the package itself is named by default.

    Raises:
        InputError: it is not installed, or does not work.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        wanted = package if extra is None else f"underfire[{extra}]"
        raise InputError(
            f"model '{spec}' needs the package {error.name}, which is not installed: pip install \"{wanted}\"."
        ) from error
    except Exception as error:  # a half-working binary package fails with whatever its loader raises
        raise InputError(
            f"model '{spec}' needs the package {package}, which fails to import: {one_line(error)}."
        ) from error


def names_for(num_classes: int) -> tuple[str, ...] | None:
    """The names of ImageNet's classes, for a network of as many."""
    return imagenet_names() if num_classes == IMAGENET else None


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that says that ``name`` is not among ``known``."""
    near = difflib.get_close_matches(name, known)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def one_line(error: BaseException) -> str:
    """The message of ``error`` in one line, without a full stop."""
    return " ".join(str(error).split()).rstrip(".")
