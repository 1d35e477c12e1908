"""underfire next to Foolbox, torchattacks and Captum: time, peak memory, and whether the results are the same."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from statistics import median

import torch
from torch import Tensor

from benchmarks import memory
from benchmarks.rivals import EPS, FAMILIES, POINTS, STEPS, Contender
from benchmarks.subject import Subject
from benchmarks.tables import Table, at_most
from benchmarks.timing import clock_of, in_turn, ratio

OURS = "underfire"
EXACT_BATCH = 2  # images that are compared in float64
SAME = 1e-9  # results of float64 that differ by no more are equal
TITLES = {
    "PGD": f"PGD, {STEPS} steps at ε = {EPS * 255:.0f}/255",
    "GRAD": "Maps of GRAD",
    "IG": f"Maps of IG, {POINTS} points",
    "Grad-CAM": "Maps of Grad-CAM",
}
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Measured:
    """What was seen of the contenders of one family, by name.

    Attributes:
        seconds: of every turn.
        peaks: bytes of peak memory; empty where that can't be measured.
        results: images (N, C, H, W) or maps (N, h, w).
        exact: the same in float64, of fewer images.
        missing: those whose library is not installed.
    """

    seconds: Mapping[str, list[float]]
    peaks: Mapping[str, int]
    results: Mapping[str, Tensor]
    exact: Mapping[str, Tensor]
    missing: tuple[str, ...]

    def apart(self, name: str) -> float:
        """Largest difference in float64 between the result of ``name`` and ours."""
        return float((self.exact[name] - self.exact[OURS]).abs().max())


def tables(subject: Subject, *, turns: int) -> Iterator[Table]:
    """A table of PGD and one of each kind of map, from ``turns`` runs of each contender."""
    exact = subject.in_float64(EXACT_BATCH)
    for family, contenders in FAMILIES.items():
        peaks = {}
        if memory.measurable(subject.x.device):
            peaks = {name: memory.peak(subject.recipe, family, name) for name in _present(contenders)}
        yield table(family, subject, measured(contenders, subject, exact, turns=turns, peaks=peaks))


def measured(
    contenders: Mapping[str, Contender], subject: Subject, exact: Subject, *, turns: int, peaks: Mapping[str, int]
) -> Measured:
    """Run the contenders in turn on ``subject``, and once on ``exact``."""
    present = _present(contenders)
    results = {name: c.run(subject) for name, c in present.items()}  # serves as the warm-up
    seconds = in_turn(
        {name: partial(c.run, subject) for name, c in present.items()},
        turns=turns,
        clock=clock_of(subject.x.device),
        warm_ups=0,
    )
    exact_results = {name: c.run(exact) for name, c in present.items()}
    return Measured(seconds, peaks, results, exact_results, tuple(name for name in contenders if name not in present))


def table(family: str, subject: Subject, seen: Measured) -> Table:
    """What was ``seen`` of a family, with the verdict against the fastest of the others."""
    rivals = [name for name in seen.results if name != OURS]
    rows = [_row(name, family, subject, seen) for name in (OURS, *rivals)]
    notes = [f"Not installed: {', '.join(seen.missing)}."] if seen.missing else []
    if rivals:
        fastest = min(rivals, key=lambda name: median(seen.seconds[name]))
        time = ratio(seen.seconds[OURS], seen.seconds[fastest])
        notes.append(f"At least as fast as the fastest of them, {fastest}: {at_most(time, 1.0)}, {time} of its time.")
        apart = max(seen.apart(name) for name in rivals)
        notes.append(f"Equal results in float64: {'met' if apart <= SAME else 'missed'}, {apart:.1e}.")
    return Table(f"{TITLES[family]} ({subject})", tuple(rows[0]), [tuple(row.values()) for row in rows], notes)


def _row(name: str, family: str, subject: Subject, seen: Measured) -> dict[str, str]:
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
    row["max difference, float64"] = f"{seen.apart(name):.1e}" if rival else ""
    if family == "PGD":  # one rounding error turns a sign, and the paths part: equal in float64 alone
        with torch.no_grad():
            p = subject.plain(result).softmax(dim=1).gather(1, subject.target[:, None])
        row["same pixels, float32"] = f"{float((result == ours).float().mean()):.1%}" if rival else ""
        row["mean p_t, float32"] = f"{float(p.mean()):.3f}"
    else:
        row["max difference, float32"] = f"{float((result - ours).abs().max()):.1e}" if rival else ""
    return row


def _present(contenders: Mapping[str, Contender]) -> dict[str, Contender]:
    """Those whose library is installed."""
    return {name: c for name, c in contenders.items() if find_spec(c.library) is not None}
