"""Contenders timed in turn, and the ratio of what they took."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

Clock = Callable[[], float]
"""Seconds since some fixed moment, all work that was asked for before being done."""

_RESAMPLES = 2000


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def clock_of(device: torch.device) -> Clock:
    """The clock for work on ``device``: a GPU is waited for before it is read."""
    if device.type != "cuda":
        return time.perf_counter

    def read() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


def in_turn(
    contenders: Mapping[str, Callable[[], object]], *, turns: int, clock: Clock, warm_ups: int = 1
) -> dict[str, list[float]]:
    """Seconds of every contender in each of ``turns`` turns, A B C A B C …, after ``warm_ups`` turns that don't count.

    What slows a machine for a while slows all contenders alike that way. Rubbish is collected between them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(-warm_ups, turns):
        for name, run in contenders.items():
            gc.collect()
            start = clock()
            run()
            took = clock() - start
            if turn >= 0:
                seconds[name].append(took)
    return seconds


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Median of ``ours`` over median of ``theirs``; the i-th entries of both were taken in the same turn.

    The interval comes from drawing turns with replacement, from a fixed seed.

    Raises:
        ValueError: there is not one entry of each for every turn, or no turn at all.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} and {len(theirs)} durations are not one of each for every turn")
    a, b = np.asarray(ours), np.asarray(theirs)
    turns = np.random.default_rng(0).integers(len(a), size=(_RESAMPLES, len(a)))
    drawn = np.median(a[turns], axis=1) / np.median(b[turns], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Ratio(float(np.median(a) / np.median(b)), float(low), float(high))
