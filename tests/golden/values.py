"""What the golden records hold, in no words of the package: tables, figures, texts and images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from torch import Tensor

Kept = Literal["exact", "levels", "close"]
"""How the images of an attack on the dyadic network are recorded.

``exact``: the SHA-256 of their float64 bytes. Every sum in the network is exact, and of what is not, softmax, only
the sign enters a step. ``levels``: the SHA-256 of their grey levels, for attacks that end in whole ones. ``close``: the
values themselves, for attacks whose steps have lengths that are no dyadic rationals.
"""


@dataclass(frozen=True)
class StudyOutput:
    """What one study leaves."""

    table: pa.Table
    figure: str
    words: str


@dataclass(frozen=True)
class AuditOutput:
    """What an audit leaves: its rows in an order of their own, summary.json, report.html, its pictures' pixels."""

    rows: pa.Table
    summary: Mapping[str, Any]
    report: str
    pictures: tuple[str, ...]
    """SHA-256 of the pixels of every PNG of the run directory, sorted."""


@dataclass(frozen=True)
class Attacked:
    """Adversarial images (N, C, H, W) in [0, 1] and what each of them cost."""

    images: Tensor
    passes: tuple[int, ...]
    kept: Kept
