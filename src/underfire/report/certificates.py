"""The chapter of certificates: what no attack can do to the photos of a run, beside what its attacks did."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from underfire.attacks.goals import Goal
from underfire.auditing.certificate_folder import CertificateFolder
from underfire.auditing.run import Run
from underfire.auditing.summary import AttackFigures, Summary
from underfire.certificates import Certificate
from underfire.errors import InputError
from underfire.present import svg
from underfire.present.certificates import reservations
from underfire.present.plots import axes_of, blank, label_axes, legend_below
from underfire.present.text import budget, interpreter_title, listing, number, of
from underfire.report.settings import allowed
from underfire.stats import Share, wilson

MOST_CERTIFICATES = 24
"""So many pairs of interpreter and σ are shown, the first ones."""

_MOST_RADII = 8  # columns of a table; the curve has all
_STEPS = 100  # of a curve
_WIDTH_IN, _HEIGHT_IN, _FOOT_IN = 5.6, 3.1, 0.95
_COLOURS, _DASHES = (svg.INK, svg.PGD, svg.ADV2, svg.NOISE), ("-", "--", ":", "-.")


@dataclass(frozen=True)
class CertifiedLine:
    """A goal: ``shares`` are of the photos certified at each radius, ``attack`` is what the run's attacks reached."""

    goal: str
    median: str
    shares: tuple[str, ...]
    attack: str


@dataclass(frozen=True)
class CertifiedPanel:
    """One interpreter behind noise of one σ."""

    title: str
    lines: tuple[CertifiedLine, ...]
    curve: Markup


@dataclass(frozen=True)
class CertificatePart:
    """The chapter.

    Attributes:
        photos: how many of the attacked ones are certified.
        samples: draws of each.
        radii: L2 distances in pixel values, the columns of each table.
        told: what must be known of the radii at each σ, whatever the interpreter.
        panels: by interpreter and σ; ``left_out`` are further ones.
        budget: how long a change the attacks were allowed, as a sentence.
    """

    photos: int
    samples: int
    radii: tuple[float, ...]
    told: tuple[str, ...]
    panels: tuple[CertifiedPanel, ...]
    left_out: int
    budget: str


def certificate_part(run: Run, folder: CertificateFolder) -> CertificatePart:
    """What ``folder``, certificates of photos that ``run`` attacked, says of the interpreters in it.

    Raises:
        InputError: it is of none of them.
    """
    summary = run.summary
    own = [one for one in folder.certificates if one.interpreter in summary.interpreters]
    if not own:
        raise InputError(
            f"the certificates are of no interpreter of the run; certify some of {listing(summary.interpreters)}"
        )
    settings = folder.settings
    radii = tuple(sorted(settings.radii)[:_MOST_RADII])
    shown = own[:MOST_CERTIFICATES]
    panels = tuple(_panel(place, one, radii, summary) for place, one in enumerate(shown))
    told = tuple({one.sigma: _told(one, settings.alpha) for one in shown}.values())
    left_out = len(own) - len(shown)
    return CertificatePart(len(own[0].keys), settings.samples, radii, told, panels, left_out, _budget(run))


def certified_at(certificate: Certificate, goal: str, radius: float) -> Share:
    """On how many photos no attacker within ``radius`` reaches ``goal`` in one query at a rate of one half or more."""
    return wilson(int((certificate.radius(goal) > radius).sum()), len(certificate.keys))


def _told(certificate: Certificate, alpha: float) -> str:
    abstained = certificate.abstained
    return reservations(
        sigma=certificate.sigma, photos=len(certificate.keys), abstained=int(abstained.sum()),
        censored=int((certificate.censored & ~abstained).sum()), samples=certificate.samples, cap=certificate.cap(),
        alpha=alpha,
    )  # fmt: skip


def _panel(place: int, certificate: Certificate, radii: Sequence[float], summary: Summary) -> CertifiedPanel:
    title = f"{interpreter_title(certificate.interpreter)}, σ = {certificate.sigma:g}"
    lines = tuple(
        CertifiedLine(
            goal,
            number(float(certificate.radius(goal).quantile(0.5))),
            tuple(of(certified_at(certificate, goal, radius)) for radius in radii),
            _attack(certificate, goal, summary),
        )
        for goal in certificate.goals
    )
    curve = Markup(_curve(certificate, title, f"certified-{place}"))  # noqa: S704 - matplotlib escapes its text
    return CertifiedPanel(title, lines, curve)


def _attack(certificate: Certificate, goal: str, summary: Summary) -> str:
    """What the attack that got furthest towards ``goal`` reached, and how far away."""
    wanted = Goal.parse(goal)
    reached = [
        (share, figures) for figures in summary.attacks if (share := _reached(certificate, wanted, figures, summary))
    ]
    if not reached:
        return "not attacked"
    share, figures = max(reached, key=lambda one: one[0].value or 0.0)
    return f"{of(share)}: {figures.condition.title}, mean L2 {number(figures.l2.value, 2)}"


def _reached(certificate: Certificate, wanted: Goal, figures: AttackFigures, summary: Summary) -> Share | None:
    """On how many photos an attack met ``wanted``, at the certificate's τ; None where that isn't what it aimed at."""
    aim = figures.condition.wanted
    if aim is None or (aim.label != wanted.label and (aim.label, wanted.label) != ("target", "other")):
        return None
    if wanted.map == "free":
        return figures.asr_8bit
    if aim.map != wanted.map or figures.condition.sources != (certificate.interpreter,):
        return None
    tau = certificate.shift if wanted.map == "center" else certificate.iou
    rates = next(found.rates for found in summary.goals if found.condition == figures.condition)
    return next((rate.jsr for rate in rates if rate.tau == tau), None)


def _curve(certificate: Certificate, title: str, name: str) -> str:
    """An SVG: for each goal the share of photos that are still certified at R, against R."""
    figure = blank(_WIDTH_IN, _HEIGHT_IN)
    axes = axes_of(figure, (0.12, _FOOT_IN / _HEIGHT_IN, 0.85, 0.97 - _FOOT_IN / _HEIGHT_IN))
    end = 1.05 * certificate.cap() or certificate.sigma
    distances = [end * step / _STEPS for step in range(_STEPS + 1)]
    for k, goal in enumerate(certificate.goals):
        shares = [certified_at(certificate, goal, radius).value or 0.0 for radius in distances]
        colour, dash = _COLOURS[k % len(_COLOURS)], _DASHES[k % len(_DASHES)]
        axes.plot(distances, shares, drawstyle="steps-pre", color=colour, linestyle=dash, linewidth=1.4, label=goal)
    axes.set_xlim(0, end)
    axes.set_ylim(-0.03, 1.03)
    label_axes(axes, x="L2 distance R from the photo", y="share still certified")
    legend_below(figure, axes, columns=4)
    medians = listing([f"{goal} {number(float(certificate.radius(goal).quantile(0.5)))}" for goal in certificate.goals])
    return svg.inline(
        figure, name=name, description=f"Share of photos still certified at R, {title}. Median R: {medians}"
    )


def _budget(run: Run) -> str:
    norm, eps = allowed(run)
    if norm == "flow":
        return "The attacks of this run moved pixels, which is no such length."
    if norm == "l2":
        return f"The attacks of this run were allowed a length of {budget(eps, norm)}."
    length = eps * math.sqrt(math.prod(run.picture_shape))
    return f"The attacks of this run were allowed {budget(eps, norm)} in every value, a length of up to {length:.1f}."
