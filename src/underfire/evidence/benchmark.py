"""One entry of the benchmark for each model and interpreter, from the rows of a run: nothing is measured twice."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from underfire import __version__
from underfire.auditing.certificate_folder import CertificateFolder
from underfire.auditing.condition import NOISE, PGD, Condition
from underfire.auditing.rows import Row
from underfire.auditing.run import Run
from underfire.auditing.summary import Headline, map_met
from underfire.certificates import Certificate
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
class CertifiedGoal:
    """What is certified against one goal.

    Attributes:
        goal: LABEL/MAP.
        radius: the median of the photos' R(½), an L2 distance in pixel values; 0 where a photo has none.
        rates: at each of the certificate's ``radii`` the mean over photos of the certified success rate.
    """

    goal: str
    radius: float
    rates: tuple[float, ...]


@dataclass(frozen=True)
class CertifiedNoise:
    """The system with noise of one σ; ``cap`` is the longest R(½) that the draws allow.

    Of the photos some ``abstained``: their label is not certified. Others are ``censored``: their radii tell of the
    number of draws.
    """

    sigma: float
    cap: float
    abstained: int
    censored: int
    goals: tuple[CertifiedGoal, ...]


@dataclass(frozen=True)
class BenchmarkCertificate:
    """What no attack within an L2 distance does to the model and interpreter behind noise, which is another system.

    Attributes:
        photos: how many of the attacked ones are certified.
        samples: draws of each.
        alpha: the chance, for each photo, that any of its figures is wrong, over all interpreters and σ certified.
        radii: L2 distances in pixel values.
        noise: for each σ.
    """

    photos: int
    samples: int
    alpha: float
    radii: tuple[float, ...]
    noise: tuple[CertifiedNoise, ...]

    def __post_init__(self) -> None:
        for goal in (goal for one in self.noise for goal in one.goals):
            if len(goal.rates) != len(self.radii) or not all(0 <= rate <= 1 for rate in goal.rates):
                raise ValueError(
                    f"its certified rates for {quoted(goal.goal)} are not one within 0 and 1 for each radius"
                )


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
        certificate: what no attack can do to the same behind noise; None where nobody gave certificates of it.
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
    certificate: BenchmarkCertificate | None
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


def entries(run: Run, certified: CertificateFolder | None = None) -> tuple[BenchmarkEntry, ...]:
    """One entry for each interpreter of ``run`` that ADV² attacked on its own.

    Args:
        run: a finished one.
        certified: certificates of its attacked photos, for the entries of the interpreters that they are of.

    Raises:
        InputError: the run is unfinished, or has none; or none of them is certified.
    """
    if not run.finished:
        raise InputError(f"the run {quoted(run.path)} is unfinished; finish it with the command that began it")
    if not run.summary.headlines:
        raise InputError(
            f"the run {quoted(run.path)} has no attack of ADV² on an interpreter; run an audit with --attacks pgd,adv2"
        )
    made = tuple(_entry(run, headline, certified) for headline in run.summary.headlines)
    if certified is not None and all(entry.certificate is None for entry in made):
        names = ", ".join(entry.interpreter for entry in made)
        raise InputError(
            f"the certificates are of no interpreter that ADV² attacked in the run; certify some of {names}"
        )
    return made


def _entry(run: Run, headline: Headline, certified: CertificateFolder | None) -> BenchmarkEntry:
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
        certificate=None if certified is None else _certificate(certified, name),
        unreliable=doubts.unreliable,
        doubts=doubts.doubts,
    )  # fmt: skip


def _certificate(certified: CertificateFolder, name: str) -> BenchmarkCertificate | None:
    own = [certificate for certificate in certified.certificates if certificate.interpreter == name]
    if not own:
        return None
    settings = certified.settings
    noise = tuple(map(_of_noise, own))
    return BenchmarkCertificate(len(own[0].keys), settings.samples, settings.alpha, settings.radii, noise)


def _of_noise(found: Certificate) -> CertifiedNoise:
    abstained, rates = found.abstained, found.rate
    return CertifiedNoise(
        found.sigma,
        found.cap(),
        int(abstained.sum()),
        int((found.censored & ~abstained).sum()),
        tuple(
            CertifiedGoal(goal, float(found.radius(goal).quantile(0.5)), tuple(rates[goal].mean(dim=0).tolist()))
            for goal in found.goals
        ),
    )


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
