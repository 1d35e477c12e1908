"""Certificates and attacks on one axis: what no attack on a noisy system can do, and what the best one found does.

For each photo, σ and goal a certificate says up to which L2 distance no attacker reaches the goal at a rate of one
half, and a search on the same system tells at which distance one does. What lies between is unknown. Where the search
finds more than a certificate allows, the certificate is wrong, and the study stops.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from underfire.attacks.goals import OTHER_FREE, OTHER_KEPT, Goal
from underfire.auditing.cache import Cache, facts_key
from underfire.auditing.certified import GOALS
from underfire.auditing.look import calling
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.certificates.bounds import lower_limit, rate_within, upper_limit
from underfire.certificates.certificate import Certificate
from underfire.certificates.certification import ALPHA, IOU, SAMPLES, SHIFT, certify_together, count_together
from underfire.certificates.events import BenignImage, ImageGoals
from underfire.certificates.nearest import NearestImage, SearchEffort, nearest_image
from underfire.certificates.noise import SeededNoise
from underfire.certificates.system import NoisySystem
from underfire.decoding import decoded
from underfire.defenses.ensemble import settings_of
from underfire.errors import InputError
from underfire.files import quoted
from underfire.images import load_photo
from underfire.images.png import from_8bit
from underfire.interpreters.base import Interpreter
from underfire.models.classifier import Classifier
from underfire.models.frozen import ordinary
from underfire.parsing import count, names, number, numbers
from underfire.present.tables import to_arrow
from underfire.present.text import interpreter_title
from underfire.present.words import written
from underfire.seeding import derive_seed
from underfire.studies.options import StudySource, option
from underfire.studies.reruns import taking_part
from underfire.studies.sandwich_figure import figure
from underfire.studies.sandwich_rows import BUYS, SandwichPhoto, SandwichRow, row_of
from underfire.studies.source import Note, attacked, quiet
from underfire.studies.study import Claim, Study, Verdict, above, together

CLAIM = (
    "That a person sees the explanation gives a sense of security (Zhang et al. 2020). How much of it can be certified,"
    " and how far what is certified lies from the best attack, the paper leaves open."
)

T = TypeVar("T")

LEVEL = 1e-6
"""The chance with which a rate seen at an image may lie above the true one by bad luck."""

_BATCH = 8  # draws that go through the model together: with a graph for gradients more are slower
_INSIDE = 0.98  # of a certified radius: an image so far along an attack's way is looked at too


def _from_0(text: str) -> int:
    """A number of photos, which may be 0."""
    return 0 if text.strip() == "0" else count(text)


@dataclass(frozen=True)
class SandwichOptions:
    """What ``underfire study sandwich`` takes beside the options of an audit."""

    sigma: tuple[float, ...] = option(
        (0.06, 0.12, 0.25), help="Standard deviations of the noise.", parse=numbers, metavar="S,...",
        shown_default="0.06,0.12,0.25",
    )  # fmt: skip
    samples: int = option(
        SAMPLES, help="Draws of each photo that count for its certificates.", parse=count, metavar="N"
    )
    alpha: float = option(
        ALPHA, help="The chance, for each photo, that any of its certificates is wrong.", parse=number, metavar="A"
    )
    attacked: tuple[str, ...] = option(
        ("cam", "grad"), help="Interpreters that are attacked on all photos.", parse=names, metavar="NAMES",
        shown_default="cam,grad",
    )  # fmt: skip
    at: float = option(0.12, help="The σ at which they are.", parse=number, metavar="S")
    elsewhere: int = option(
        6, help="So many photos, the first ones, are attacked at every σ and on every interpreter.", parse=_from_0,
        metavar="N",
    )  # fmt: skip
    averaged: int = option(8, help="Draws over which each gradient of an attack is a mean.", parse=count, metavar="N")
    rounds: int = option(4, help="Radii that an attack tries, of eight steps each.", parse=count, metavar="N")
    judged: int = option(16, help="Draws by which an attack compares its images.", parse=count, metavar="N")
    scored: int = option(64, help="Fresh draws by which what it found is scored.", parse=count, metavar="N")

    @property
    def effort(self) -> SearchEffort:
        """Of each attack."""
        return SearchEffort(rounds=self.rounds, averaged=self.averaged, judged=self.judged, scored=self.scored)


@dataclass(frozen=True)
class FoundAttack:
    """What one search found: as `NearestImage`, with None for infinity.

    Attributes:
        held: the distance where noise is one draw that the attacker knows.
    """

    distance: float | None
    met: int
    scored: int
    passes: int
    held: float | None


@dataclass(frozen=True)
class CountedDraws:
    """In how many draws of a photo each goal was met, by interpreter."""

    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class AttackedGoals:
    """What was found for each goal on one interpreter."""

    found: Mapping[str, FoundAttack]


def study(source: StudySource, options: SandwichOptions) -> Study:
    """The study as the command line calls it."""
    for name in ("attacks", "goals", "eps", "perturbation", "steps", "passes"):
        source.refuse(name, "has attacks and goals of its own")
    planned = source.planned()
    return sandwich_study(
        planned.plan, planned.photos, planned.classifier, options, work=source.work, note=source.note,
        skipped=planned.skipped,
    )  # fmt: skip


def sandwich_study(
    plan: AuditPlan,
    photos: Sequence[PlannedPhoto],
    classifier: Classifier,
    options: SandwichOptions,
    *,
    work: Path,
    note: Note = quiet,
    skipped: int = 0,
) -> Study:
    """Certifies ``photos`` for every goal, and attacks the same systems.

    Args:
        plan: interpreters and seed; its own attacks play no part.
        photos: all of an audit; those that it would exclude are left out and counted.
        classifier: the plan's.
        options: of certificates and attacks.
        work: a folder for what is counted and found; what is there is not made again.
        note: reports progress.
        skipped: how many files beside ``photos`` could not be used; the words tell.

    Raises:
        InputError: the plan, an option or a photo cannot be used.
        RuntimeError: an attack found more than a certificate allows, which is a mistake of ours.
    """
    interpreters = make_interpreters(plan.interpreters, classifier, rts=plan.rts)
    _check(options, interpreters)
    chosen = attacked(photos)
    measured = _Measured(options, plan.seed, interpreters, work)
    found: list[SandwichPhoto] = []
    for place, photo in enumerate(chosen):
        found += measured.photo(photo, everywhere=place < options.elsewhere)
        note(f"photo {place + 1} of {len(chosen)}")
    rows = [
        row_of([one for one in found if (one.sigma, one.interpreter, one.goal) == (sigma, g.name, goal)])
        for sigma in options.sigma
        for g in interpreters
        for goal in GOALS
    ]
    claims = _claims(rows, found)
    length = 8 / 255 * math.sqrt(math.prod(classifier.input_size) * classifier.channels)
    return Study(
        name="sandwich",
        title="What no attack can do, and what the best one found does",
        claim=CLAIM,
        claims=claims,
        table=to_arrow(rows, SandwichRow),
        figure=figure(found, options.at, length),
        words=_words(rows, claims, options, taking_part(photos, skipped), length),
    )


def _check(options: SandwichOptions, interpreters: Sequence[Interpreter]) -> None:
    named = [g.name for g in interpreters]
    stranger = next((name for name in options.attacked if name not in named), None)
    if stranger is not None:
        raise InputError(
            f"attacked {quoted(stranger)} is none of the interpreters {', '.join(named)}; name it there too"
        )
    if options.at not in options.sigma:
        shown = ",".join(f"{sigma:g}" for sigma in options.sigma)
        raise InputError(f"at {options.at:g} is none of the sigma {shown}; give one of these")


# Collect


class _Measured:
    """What is counted and found, photo by photo, from the study's folder where it is there."""

    def __init__(self, options: SandwichOptions, seed: int, interpreters: Sequence[Interpreter], work: Path) -> None:
        self._options, self._seed, self._interpreters = options, seed, interpreters
        self._classifier = interpreters[0].classifier
        parts = [settings_of(g) for g in interpreters]
        facts = (Certificate.version, self._classifier.fingerprint(), parts, options.samples, GOALS, seed)
        drawn = partial(_drawn, options.samples, [g.name for g in interpreters])
        self._counts = Cache(work / f"counts-{facts_key(*facts)}", encode=asdict, decode=drawn)
        more = (NearestImage.version, options.effort, options.alpha, options.sigma)
        self._attacks = Cache(
            work / f"attacks-{facts_key(*facts, *more)}", encode=asdict, decode=partial(decoded, AttackedGoals)
        )
        self._free: dict[tuple[str, float], NearestImage] = {}

    def photo(self, photo: PlannedPhoto, *, everywhere: bool) -> list[SandwichPhoto]:
        """All figures of one photo."""
        rows = []
        with calling([photo.image_id]):
            for sigma in self._options.sigma:
                key = facts_key(photo.image_id, photo.sha256, photo.label, photo.target, sigma)
                counted = _kept(self._counts, key, partial(self._counted, photo, sigma))
                for g in self._interpreters:
                    certificate = self._certificate(photo, sigma, g, counted.counts[g.name])
                    here = everywhere or (sigma == self._options.at and g.name in self._options.attacked)
                    make = partial(self._attacked, photo, g, certificate)
                    attacks = _kept(self._attacks, f"{key}-{g.name}", make).found if here else {}
                    rows += [_figures(certificate, goal, attacks.get(goal)) for goal in GOALS]
        self._free.clear()
        return rows

    def _counted(self, photo: PlannedPhoto, sigma: float, seed: int | None = None) -> CountedDraws:
        x, y, target = self._loaded(photo)
        certificates = certify_together(
            self._interpreters, x, y, sigma=sigma, samples=self._options.samples, goals=GOALS, target=target,
            seed=self._seed if seed is None else seed, keys=[photo.image_id], batch_size=_BATCH,
        )  # fmt: skip
        return CountedDraws(
            {c.interpreter: {goal: int(found) for goal, found in c.counts.items()} for c in certificates}
        )

    def _certificate(self, photo: PlannedPhoto, sigma: float, g: Interpreter, counts: Mapping[str, int]) -> Certificate:
        """Of one photo, with its share of α."""
        options = self._options
        return Certificate(
            g.name, (photo.image_id,), sigma, options.samples,
            options.alpha / (len(options.sigma) * len(self._interpreters)), (0.0,), IOU, SHIFT,
            {goal: torch.tensor([found]) for goal, found in counts.items()},
        )  # fmt: skip

    def _loaded(self, photo: PlannedPhoto) -> tuple[Tensor, Tensor, Tensor]:
        """The photo (1, C, H, W), its label (1,) and its target (1,)."""
        loaded = load_photo(photo.file, self._classifier.preprocessing)
        if loaded.sha256 != photo.sha256:
            raise InputError(f"photo {quoted(photo.file)} is another one than before; put it back")
        x = from_8bit(loaded.pixels[None], self._classifier.dtype).to(self._classifier.device)
        return (x, *(torch.tensor([label], device=x.device) for label in (photo.label, photo.target)))  # type: ignore[return-value]

    def _attacked(self, photo: PlannedPhoto, g: Interpreter, certificate: Certificate) -> AttackedGoals:
        x, y, target = self._loaded(photo)
        system = NoisySystem(g, certificate.sigma, batch_size=_BATCH)
        benign = g(x, y, keys=[photo.image_id])
        image = BenignImage(photo.image_id, x[0], y[0], target[0], benign[0], None)
        found = {}
        for goal in map(Goal.parse, GOALS):
            asked = ImageGoals((goal,), image, IOU, SHIFT)
            free = self._label_alone(asked, system) if goal in (OTHER_FREE, OTHER_KEPT) else None
            nearest = free if goal == OTHER_FREE else self._search(asked, system, None if free is None else free.image)
            assert nearest is not None  # noqa: S101 - a search always finds out
            held = nearest_image(system, asked, self._options.effort, seed=self._seed, held=True)
            self._falsify(photo, asked, system, certificate, nearest)
            found[str(goal)] = FoundAttack(
                _finite(nearest.distance), nearest.met, nearest.scored, nearest.passes, _finite(held.distance)
            )
        return AttackedGoals(found)

    def _search(self, asked: ImageGoals, system: NoisySystem, begin: Tensor | None) -> NearestImage:
        return nearest_image(system, asked, self._options.effort, seed=self._seed, begin=begin)

    def _label_alone(self, asked: ImageGoals, system: NoisySystem) -> NearestImage:
        """The nearest image of a wrong label, which is the same whatever the interpreter; the first one will do."""
        key = (asked.image.key, system.sigma)
        if key not in self._free:
            cheap = replace(system, interpreter=self._interpreters[0])
            self._free[key] = self._search(replace(asked, goals=(OTHER_FREE,)), cheap, None)
        return self._free[key]

    def _falsify(
        self, photo: PlannedPhoto, asked: ImageGoals, system: NoisySystem, certificate: Certificate, found: NearestImage
    ) -> None:
        """Stop where draws at what was found, or inside a certificate on the way there, belie the certificate.

        Raises:
            RuntimeError: they do, and do so again with other draws of both.
        """
        if not 0 < found.distance < math.inf:
            return
        (goal,) = map(str, asked.goals)
        radius, n = float(certificate.radius(goal)[0]), self._options.scored
        inside = min(1.0, _INSIDE * radius / found.distance)
        for share in (1.0, inside) if inside else (1.0,):
            there = (asked.image.x + share * (found.image - asked.image.x)).clamp(0, 1)
            met = found.met if share == 1 else self._met(asked, system, there, "inside")
            allowed = self._allowed(certificate, int(certificate.counts[goal][0]), asked, there)
            if not _lowest(met, n) > allowed:
                continue
            again = self._counted(photo, certificate.sigma, derive_seed(self._seed, "certified again"))
            allowed = self._allowed(certificate, again.counts[certificate.interpreter][goal], asked, there)
            if _lowest(self._met(asked, system, there, "inside again"), n) > allowed:
                raise RuntimeError(
                    f"the certificate of {photo.image_id} for {goal} on {certificate.interpreter} at σ = "
                    f"{certificate.sigma:g} is wrong: an image inside of it meets the goal at a rate above"
                    f" {allowed:.4g}, which is the most that it allows there; this is a mistake of ours"
                )

    def _met(self, asked: ImageGoals, system: NoisySystem, there: Tensor, purpose: str) -> int:
        """How many fresh draws ``there`` meet the goal."""
        source = SeededNoise(self._seed, asked.image.key, f"{purpose} {asked.goals[0]}")
        with ordinary(), system.classifier.frozen():
            return int(count_together([system], [asked], there, source, self._options.scored))

    @staticmethod
    def _allowed(certificate: Certificate, counts: int, asked: ImageGoals, there: Tensor) -> float:
        """The largest rate that the certificate of a photo with such ``counts`` allows ``there``."""
        distance = float((there.double() - asked.image.x.double()).square().sum().sqrt())
        limit = upper_limit(torch.tensor([counts]), certificate.samples, certificate.alpha / len(certificate.counts))
        return float(rate_within(limit, distance, certificate.sigma))


def _drawn(samples: int, interpreters: Sequence[str], value: object) -> CountedDraws:
    """What was counted, as its file has it.

    Raises:
        ValueError: it is nothing that so many draws can have shown.
    """
    found = decoded(CountedDraws, value)
    for name in interpreters:
        counts = found.counts[name]
        if set(counts) != set(GOALS) or not all(0 <= count <= samples for count in counts.values()):
            raise ValueError(f"its counts of {quoted(name)} are none of {samples} draws")
    return found


def _lowest(met: int, draws: int) -> float:
    """The lower limit of the rate of what was ``met`` in so many draws, at `LEVEL`."""
    return float(lower_limit(torch.tensor([met]), draws, LEVEL))


def _kept(cache: Cache[T], key: str, make: Callable[[], T]) -> T:
    """The value of ``key``, made now or before."""
    ((_, value),) = cache.get_or_make([key], str, lambda _: [make()])
    return value


def _finite(distance: float) -> float | None:
    return distance if math.isfinite(distance) else None


def _figures(certificate: Certificate, goal: str, attack: FoundAttack | None) -> SandwichPhoto:
    return SandwichPhoto(
        interpreter=certificate.interpreter,
        sigma=certificate.sigma,
        goal=goal,
        count=int(certificate.counts[goal][0]),
        radius=float(certificate.radius(goal)[0]),
        label_radius=float(certificate.label_radius[0]),
        cap=certificate.cap(),
        abstained=bool(certificate.abstained[0]),
        censored=bool(certificate.censored[0]),
        attacked=attack is not None,
        distance=None if attack is None else attack.distance,
        held=None if attack is None else attack.held,
        passes=0 if attack is None else attack.passes,
    )


# Judge, and words


def _claims(rows: Sequence[SandwichRow], photos: Sequence[SandwichPhoto]) -> tuple[Claim, ...]:
    """Whether a map lengthens what is certified of a label; and that no attack is nearer than certified."""
    kept, more = [row for row in rows if row.goal == str(OTHER_KEPT)], f"by {100 * BUYS:g} % or more"
    single = [
        Claim(
            f"buys/{row.interpreter}/{row.sigma:g}",
            f"At σ = {row.sigma:g} a map of {interpreter_title(row.interpreter)} that has to stay lengthens the"
            f" certified radius of a wrong label {more}.",
            above(row.buys, BUYS),
            {"buys": row.buys},
            row.buys.n,
        )
        for row in kept
    ]
    figures = {f"{interpreter_title(row.interpreter)}, σ = {row.sigma:g}": row.buys for row in kept}
    statement = f"A map that has to stay lengthens the certified radius of a wrong label by {100 * BUYS:g} % or more."
    overall = Claim.over("buys", statement, together(claim.verdict for claim in single), figures)
    searched = sum(photo.attacked for photo in photos)
    sound = Claim("sound", "No attack reached a goal oftener than a certificate allows.", Verdict.HOLDS, {}, searched)
    return (overall, sound, *single)


def _words(
    rows: Sequence[SandwichRow], claims: Sequence[Claim], options: SandwichOptions, taking: str, length: float
) -> str:
    return written(
        "underfire.studies",
        "sandwich.md.jinja",
        at=options.at,
        claims=claims,
        attacks=[row for row in rows if row.attacked and row.sigma == options.at],
        elsewhere=[row for row in rows if row.attacked and row.sigma != options.at],
        buys=[row for row in rows if row.goal == str(OTHER_KEPT)],
        censored=[next(row for row in rows if row.sigma == sigma) for sigma in options.sigma],
        searched=claims[1].n,
        effort=options.effort,
        length=length,
        level=LEVEL,
        options=options,
        rows=rows,
        share=f"{100 * BUYS:g}",
        taking_part=taking,
        fails=Verdict.FAILS,
    )
