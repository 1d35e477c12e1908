"""underfire next to other libraries: time, peak memory, and whether the results are the same."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor

from benchmarks import memory
from benchmarks.rivals import FAMILIES, OURS, Contender, Family
from benchmarks.subject import Subject
from benchmarks.tables import Table, at_most
from benchmarks.timing import clock_of, in_turn, ratio

EXACT_BATCH = 2  # images that are compared in float64
SLOWER = 1.05
"""Of the time of the fastest of the others that ours may take."""

_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Measured:
    """What was seen of the contenders of one family, by name.

    Attributes:
        seconds: of every turn.
        peaks: bytes of peak memory; empty where that can't be measured.
        results: images (N, C, H, W), maps (N, h, w) or radii (N,).
        exact: the same in float64, of fewer images; of those who compute the same as ours.
        absent: in words, why the others are not there.
        differing: in words, what those who don't compute the same do otherwise.
    """

    seconds: Mapping[str, list[float]]
    peaks: Mapping[str, int]
    results: Mapping[str, Tensor]
    exact: Mapping[str, Tensor]
    absent: Mapping[str, str]
    differing: Mapping[str, str]

    def apart(self, name: str) -> float:
        """Largest difference in float64 between the result of ``name`` and ours."""
        return float((self.exact[name] - self.exact[OURS]).abs().max())


def tables(subject: Subject, *, turns: int) -> Iterator[Table]:
    """A table of each family that the model suits, from ``turns`` runs of each contender."""
    exact = subject.in_float64(EXACT_BATCH)
    for name, family in FAMILIES.items():
        present, absent = sorted_out(family, subject)
        if OURS not in present:
            continue
        peaks = {}
        if memory.measurable(subject.x.device):
            peaks = {who: memory.peak(subject.recipe, name, who) for who in present}
        yield table(family, subject, measured(present, subject, exact, turns=turns, peaks=peaks, absent=absent))


def sorted_out(family: Family, subject: Subject) -> tuple[dict[str, Contender], dict[str, str]]:
    """Those of the contenders who can do the work on ``subject``, and in words why the others can't."""
    absent = {}
    for name, contender in family.contenders.items():
        reason = contender.missing()
        if reason:
            absent[name] = f"not installed ({reason})"
        elif reason := contender.lacks(subject):
            absent[name] = reason
    return {name: c for name, c in family.contenders.items() if name not in absent}, absent


def measured(
    present: Mapping[str, Contender],
    subject: Subject,
    exact: Subject,
    *,
    turns: int,
    peaks: Mapping[str, int],
    absent: Mapping[str, str],
) -> Measured:
    """Run the contenders in turn on ``subject``, and once on ``exact`` those who compute the same."""
    results = {name: c.run(subject) for name, c in present.items()}  # serves as the warm-up
    seconds = in_turn(
        {name: partial(c.run, subject) for name, c in present.items()},
        turns=turns,
        clock=clock_of(subject.x.device),
        warm_ups=0,
    )
    differing = {name: words for name, c in present.items() if (words := c.differs(subject))}
    same = {name: c for name, c in present.items() if name not in differing}
    exact_results = {name: c.run(exact) for name, c in same.items()} if len(same) > 1 else {}
    return Measured(seconds, peaks, results, exact_results, absent, differing)


def table(family: Family, subject: Subject, seen: Measured) -> Table:
    """What was ``seen`` of a family, with the verdict against the fastest of the others."""
    rivals = [name for name in seen.results if name != OURS]
    rows = [_row(name, subject, seen) for name in (OURS, *rivals)]
    notes = [f"{name} is left out: {words}." for name, words in seen.absent.items()]
    notes += [f"{name}, time alone: {words}." for name, words in seen.differing.items()]
    if rivals:
        fastest = min(rivals, key=lambda name: median(seen.seconds[name]))
        time = ratio(seen.seconds[OURS], seen.seconds[fastest])
        notes.append(f"No slower than {SLOWER} × the fastest of them, {fastest}: {at_most(time, SLOWER)}, {time}.")
    if equal := [name for name in rivals if name in seen.exact]:
        met = all(seen.apart(name) <= family.contenders[name].same for name in equal)
        apart = max(seen.apart(name) for name in equal)
        notes.append(f"Equal results in float64: {'met' if met else 'missed'}, {apart:.1e}.")
    return Table(f"{family.title} ({subject})", tuple(rows[0]), [tuple(row.values()) for row in rows], notes)


def _row(name: str, subject: Subject, seen: Measured) -> dict[str, str]:
    """The cells of a contender by the headings of their columns; what compares ours with ours stays empty."""
    result, ours, rival = seen.results[name], seen.results[OURS], name != OURS
    row = {
        "": name,
        "seconds": f"{median(seen.seconds[name]):.3f}",
        "time, ours / theirs": str(ratio(seen.seconds[OURS], seen.seconds[name])) if rival else "",
    }
    if seen.peaks:
        row["peak MiB"] = f"{seen.peaks[name] / _MEBIBYTE:.0f}"
        row["memory, ours / theirs"] = f"{seen.peaks[OURS] / seen.peaks[name]:.2f}" if rival else ""
    if not seen.exact:
        return row
    same = rival and name in seen.exact
    row["max difference, float64"] = f"{seen.apart(name):.1e}" if same else ""
    if ours.ndim == subject.x.ndim:  # images: one rounding error turns a sign, and the paths part
        with torch.no_grad():
            p = subject.plain(result).softmax(dim=1).gather(1, subject.target[:, None])
        row["same pixels, float32"] = f"{float((result == ours).float().mean()):.1%}" if same else ""
        row["mean p_t, float32"] = f"{float(p.mean()):.3f}"
    else:
        row["max difference, float32"] = f"{float((result - ours).abs().max()):.1e}" if same else ""
    return row
