"""One entry of the benchmark for each model and interpreter, from the rows of a run: nothing is measured twice."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from underfire import __version__
from underfire.auditing.condition import NOISE, PGD, Condition
from underfire.auditing.rows import Row
from underfire.auditing.run import Run
from underfire.auditing.summary import Headline, map_met
from underfire.decoding import decoded, plain_json
from underfire.diagnostics.attack_signs import Weight
from underfire.errors import InputError
from underfire.evidence.figures import accuracy
from underfire.evidence.reliability import Doubt, reliability
from underfire.evidence.results import dataset
from underfire.files import printable, quoted, read_regular_file
from underfire.stats import NO_ESTIMATE, Estimate, Share, wilson

FORMAT = "underfire-benchmark/1"
"""The end is raised when a field is removed or changes its meaning."""

HEADLINE_TAU = 0.5
"""The τ of the table's joint success rate."""

_TAUS = tuple(round(0.05 * place, 2) for place in range(21))
_MOST_BYTES = 2**22
_ENDING = ".benchmark.json"


@dataclass(frozen=True)
class CurvePoint:
    """The joint success rate at one τ (a map is kept at an IoU of at least τ), and that of noise of the same size."""

    tau: float
    jsr: Share
    noise: Share


@dataclass(frozen=True)
class Transferred:
    """What an attack on another interpreter does to this one's map: the joint success rate at `HEADLINE_TAU`."""

    source: str
    jsr: Share


@dataclass(frozen=True)
class BenchmarkSettings:
    """What decides whether two entries can be compared."""

    perturbation: str
    eps: float
    preset: str
    passes: int | None
    steps: int | None
    seed: int
    underfire_version: str


@dataclass(frozen=True)
class BenchmarkFloor:
    """What the benign maps show of the model; see `underfire.diagnostics.map_checks.FaithfulnessFloor`."""

    verdict: str
    advantage: Estimate
    similarity: Estimate


@dataclass(frozen=True)
class BenchmarkEntry:
    """One model and interpreter under attack.

    Attributes:
        format: `FORMAT`.
        model: its name; ``fingerprint`` is the SHA-256 of weights and preprocessing.
        interpreter: its name.
        photos, attacked: how many; ``photos_sha256`` as in results.json.
        settings: of the attacks.
        accuracy: on the benign photos that have a label.
        jsr_curve: of ADV² on the interpreter, the mildest τ first.
        jsr_pgd: of PGD, which does not try to keep the map, at `HEADLINE_TAU`.
        noise_l1: mean L1 distance of the map under noise of the size of ε.
        floor: of its benign maps; None where that was not looked at.
        transfer: from every other interpreter that was attacked.
        certificate: what no attack can do; None where there is none.
        unreliable: whether a serious doubt is among ``doubts``.
        doubts: signs of a failed attack, and of maps that say nothing.
    """

    format: str
    model: str
    fingerprint: str
    interpreter: str
    photos: int
    attacked: int
    photos_sha256: str
    settings: BenchmarkSettings
    accuracy: Share
    jsr_curve: tuple[CurvePoint, ...]
    jsr_pgd: Share
    noise_l1: Estimate
    floor: BenchmarkFloor | None
    transfer: tuple[Transferred, ...]
    certificate: None
    unreliable: bool
    doubts: tuple[Doubt, ...]

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"its format is {quoted(self.format)}, and {FORMAT!r} is read")
        if self.unreliable != any(doubt.weight is Weight.SERIOUS for doubt in self.doubts):
            raise ValueError("its flag 'unreliable' is not that of its doubts")
        if HEADLINE_TAU not in {point.tau for point in self.jsr_curve}:
            raise ValueError(f"its jsr_curve has no point at {HEADLINE_TAU:g}")
        for figure in (self.accuracy, self.jsr_pgd, *(point.jsr for point in self.jsr_curve)):
            if figure.value is not None and not 0 <= figure.value <= 1:
                raise ValueError(f"it has the rate {figure.value:g}, which is not within 0 and 1")

    @property
    def jsr(self) -> Share:
        """The joint success rate at `HEADLINE_TAU`."""
        return next(point.jsr for point in self.jsr_curve if point.tau == HEADLINE_TAU)

    @property
    def noise(self) -> Share:
        """What noise of the same size does, at `HEADLINE_TAU`."""
        return next(point.noise for point in self.jsr_curve if point.tau == HEADLINE_TAU)

    @property
    def file_name(self) -> str:
        """Of its own; letters, digits, points and dashes alone."""
        name = re.sub(r"[^A-Za-z0-9.]+", "-", self.model).strip("-.")[:80] or "model"
        return f"{name}--{self.interpreter}{_ENDING}"

    def to_json(self) -> dict[str, Any]:
        """Plain values; `read_entry` makes it again."""
        return asdict(self)


def entries(run: Run) -> tuple[BenchmarkEntry, ...]:
    """One entry for each interpreter of ``run`` that ADV² attacked on its own.

    Raises:
        InputError: the run is unfinished, or has none.
    """
    if not run.finished:
        raise InputError(f"the run {quoted(run.path)} is unfinished; finish it with the command that began it")
    if not run.summary.headlines:
        raise InputError(
            f"the run {quoted(run.path)} has no attack of ADV² on an interpreter; run an audit with --attacks pgd,adv2"
        )
    return tuple(_entry(run, headline) for headline in run.summary.headlines)


def _entry(run: Run, headline: Headline) -> BenchmarkEntry:
    name, summary, plan = headline.interpreter, run.summary, run.facts.settings
    cells = {(row.condition, row.image_id): row for row in run.records if row.interpreter == name}
    noise, floor = summary.cell(NOISE, name), headline.faithfulness
    doubts = reliability(run, name)
    photos = dataset(run)
    effort = plan.effort_of(headline.condition)
    return BenchmarkEntry(
        format=FORMAT,
        model=printable(run.facts.model.name),
        fingerprint=run.facts.model.fingerprint,
        interpreter=name,
        photos=photos["photos"],
        attacked=photos["attacked"],
        photos_sha256=photos["sha256"],
        settings=BenchmarkSettings(
            plan.perturbation, plan.perturbation_of(NOISE).eps, plan.preset, effort.passes, effort.steps, plan.seed,
            __version__,
        ),
        accuracy=accuracy(run),
        jsr_curve=_curve(_under(cells, headline.condition), _under(cells, NOISE)),
        jsr_pgd=_rate(_under(cells, PGD), HEADLINE_TAU),
        noise_l1=NO_ESTIMATE if noise is None else noise.mean("l1"),
        floor=None if floor is None else BenchmarkFloor(str(floor.verdict), floor.advantage, floor.similarity),
        transfer=tuple(
            Transferred(other.interpreter, _rate(_under(cells, other.condition), HEADLINE_TAU))
            for other in summary.headlines
            if other.interpreter != name
        ),
        certificate=None,
        unreliable=doubts.unreliable,
        doubts=doubts.doubts,
    )  # fmt: skip


def _under(cells: Mapping[tuple[Condition, str], Row], condition: Condition) -> list[Row]:
    return [row for (under, _), row in cells.items() if under == condition]


def _curve(attacked: list[Row], noise: list[Row]) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(tau, _rate(attacked, tau), _share(map_met(row, "kept", tau) for row in noise)) for tau in _TAUS
    )


def _rate(rows: list[Row], tau: float) -> Share:
    """The share of ``rows`` whose image as saved has the label that was wanted, and a map kept at ``tau``."""
    return _share(row.saved.success and map_met(row, "kept", tau) for row in rows)


def _share(outcomes: Iterable[bool]) -> Share:
    counted = list(outcomes)
    return wilson(sum(counted), len(counted))


def read_entry(path: Path) -> BenchmarkEntry:
    """The entry in the file ``path``, which others may have written.

    Raises:
        InputError: it is none.
    """
    try:
        return decoded(BenchmarkEntry, plain_json(read_regular_file(path, limit=_MOST_BYTES)))
    except ValueError as error:
        raise InputError(
            f"{quoted(path)} is no entry of the benchmark ({error}); give files that `underfire benchmark` wrote"
        ) from error
