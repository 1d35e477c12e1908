"""The state of a training between two epochs, in a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from underfire.errors import InputError
from underfire.weights import read_about, write_weights

_PARTS = ("weights", "first", "second")  # Adam's moments are the first and the second


@dataclass(frozen=True)
class State:
    """What a training needs to go on.

    Attributes:
        weights: of the network, by name.
        moments: Adam's first and second moment of each parameter, by name.
        steps: steps taken.
        history: the scores of each finished epoch.
        seconds: time taken, in all processes together.
    """

    weights: dict[str, Tensor]
    moments: dict[str, tuple[Tensor, Tensor]]
    steps: int
    history: list[dict[str, float]]
    seconds: float


def checkpoint_path(out: Path) -> Path:
    """Where the checkpoint of the weights ``out`` stands."""
    return out.with_name(f"{out.stem}.checkpoint{out.suffix}")


def write_state(path: Path, state: State, settings: Mapping[str, Any]) -> None:
    """Write ``state`` under ``settings``, JSON values; the file appears whole or not at all."""
    tensors = {f"weights/{name}": value for name, value in state.weights.items()}
    for name, (first, second) in state.moments.items():
        tensors |= {f"first/{name}": first, f"second/{name}": second}
    about = {"settings": settings, "steps": state.steps, "history": state.history, "seconds": state.seconds}
    write_weights(path, tensors, about)


def read_state(path: Path, settings: Mapping[str, Any]) -> State:
    """The state that :func:`write_state` wrote under the same ``settings``.

    Raises:
        InputError: the file is damaged or of other settings.
    """
    about = read_about(path)
    if about.get("settings") != settings:
        raise InputError(
            f"checkpoint '{path}' is of a training with other settings; repeat those, give another file, or remove it."
        )
    try:
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
        for key, value in safetensors.torch.load_file(path).items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        moments = {name: (first, parts["second"][name]) for name, first in parts["first"].items()}
        return State(parts["weights"], moments, about["steps"], about["history"], about["seconds"])
    except (safetensors.SafetensorError, KeyError) as error:
        raise InputError(f"checkpoint '{path}' is damaged; remove it to start over.") from error
