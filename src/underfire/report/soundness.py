"""Is the attack sound? What speaks against reading its failures as strength of the model, in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from underfire.auditing.condition import Condition
from underfire.auditing.summary import SEARCH, Summary
from underfire.diagnostics.attack_signs import Indicator, Reading, Weight
from underfire.diagnostics.gradient_masking import finding
from underfire.diagnostics.model_checks import Checked, ModelCheck
from underfire.present.text import listing, plural

_LABELS = {Weight.SERIOUS: "Serious", Weight.CAUTION: "Caution", Weight.NOTE: "Note"}


@dataclass(frozen=True)
class Remark:
    """One thing that was seen, as a few sentences; ``id`` is that of the check or indicator, for programs."""

    id: str
    weight: Weight
    text: str

    @property
    def label(self) -> str:
        """Its weight as a word."""
        return _LABELS[self.weight]


def remarks(model_checks: Sequence[Checked], summary: Summary) -> list[Remark]:
    """What was seen of the model and of each attack's course, the gravest first; ``model_checks`` as the audit made."""
    seen = [*_of_model(model_checks), *_of_comparisons(summary), *_of_attacks(summary)]
    order = list(Weight)
    return sorted(seen, key=lambda remark: order.index(remark.weight))


def warnings(model_checks: Sequence[Checked], summary: Summary) -> list[str]:
    """What nobody may overlook: the serious remarks, for the terminal and the top of the report."""
    return [remark.text for remark in remarks(model_checks, summary) if remark.weight is Weight.SERIOUS]


def verdict(model_checks: Sequence[Checked], summary: Summary) -> str:
    """The sentence to begin with; empty where nothing was checked and nothing attacked."""
    counts = [remark.weight for remark in remarks(model_checks, summary) if remark.weight is not Weight.NOTE]
    if Weight.SERIOUS in counts:
        return "No: something stands in the attacks’ way, and their failures cannot be read as strength of the model."
    if counts:
        return "With reservations: the attacks may be weaker than an attacker’s would be, for the reasons below."
    checked = [
        *(["identical calls of the model agree and its gradients are there"] if model_checks else []),
        *([f"every {_judged(summary)} moved what it aimed at and was near its end"] if summary.signs else []),
        *(["a search without gradients found nothing more"] if any(c.reached for c in summary.comparisons) else []),
    ]
    return f"Nothing was seen that speaks against it: {listing(checked)}." if checked else ""


def _of_model(model_checks: Sequence[Checked]) -> list[Remark]:
    """Of the checks that fired."""
    fired = (checked for checked in model_checks if checked.fired)
    return [_remark(c.check, f"{c.shown} of {plural(c.of, 'test image')}", c.check.reading) for c in fired]


def _of_comparisons(summary: Summary) -> list[Remark]:
    """Whether gradients mislead, for every attack that was checked by a search without them."""
    return [
        Remark(
            "gradient_masking",
            Weight.SERIOUS if checked.better else Weight.NOTE,
            finding(
                checked.better,
                checked.reached,
                checked.n,
                blind=Condition(SEARCH, sources=checked.condition.sources).title,
                white_box=checked.condition.title,
            ),
        )
        for checked in summary.comparisons
    ]


def _judged(summary: Summary) -> str:
    """The attacks whose own course counts: a search that checks others is judged by what it reached."""
    return "attack that follows gradients" if summary.comparisons else "attack"


def _of_attacks(summary: Summary) -> list[Remark]:
    found = []
    for indicator in Indicator:
        shown = [
            f"{sign.k} of {plural(sign.n, 'photo')} under {sign.condition.title}"
            for sign in summary.signs
            if sign.indicator is indicator and sign.k and not (summary.comparisons and sign.condition.attack == SEARCH)
        ]
        if shown:
            found.append(_remark(indicator, listing(shown), indicator.reading))
    return found


def _remark(seen: ModelCheck | Indicator, where: str, reading: Reading) -> Remark:
    return Remark(
        str(seen),
        reading.weight,
        " ".join(filter(None, (f"On {where}, {reading.seen}.", reading.means, reading.advice))),
    )
