"""What preparing the classifier gains, and what it changes."""

from collections.abc import Iterator
from dataclasses import replace
from statistics import median

import torch

from benchmarks.subject import Subject
from benchmarks.tables import Table, at_least
from benchmarks.timing import clock_of, in_turn, ratio
from underfire import PGD, Classifier
from underfire.attacks.engine import descend
from underfire.models.folded import TOLERANCE, prepared

STEPS = 2
FASTER = 1.4


def tables(subject: Subject, *, turns: int) -> Iterator[Table]:
    """The table of ``subject``, from ``turns`` runs of PGD on either classifier."""
    twin = prepared(subject.classifier)
    setting = PGD(subject.classifier, keep="last").setting
    setting = replace(setting, schedule=replace(setting.schedule, steps=STEPS))

    def pgd(classifier: Classifier) -> None:
        descend(classifier, subject.x, subject.target, (), setting)

    seconds = in_turn(
        {
            "plain": lambda: pgd(subject.classifier),
            "prepared": lambda: pgd(twin),
            "preparing": lambda: prepared(subject.classifier),
        },
        turns=turns,
        clock=clock_of(subject.classifier.device),
    )
    faster = ratio(seconds["plain"], seconds["prepared"])
    with torch.no_grad():
        logits = [classifier(subject.photos) for classifier in (subject.classifier, twin)]
    apart, spread = float((logits[0] - logits[1]).abs().max()), float(logits[0].std())
    preparing = median(seconds["preparing"]) / (median(seconds["prepared"]) / STEPS)
    close = "met" if apart <= TOLERANCE * max(1.0, spread) else "missed"
    yield Table(
        f"The prepared classifier ({subject})",
        ("", "found", "wanted", "target"),
        (
            ("PGD step, plain over prepared", str(faster), f"at least {FASTER}", at_least(faster, FASTER)),
            ("largest difference of logits", f"{apart:.1e}", f"at most {TOLERANCE:.0e}", close),
            ("preparing, in PGD steps", f"{preparing:.2f}", "", ""),
        ),
        (
            f"Medians of {turns} runs of {STEPS} steps. The logits are those of {len(subject.photos)} photos and spread"
            f" by {spread:.2f}; the difference counts in units of that where it is more than 1.",
        ),
    )
