"""The words of the study of transfer, made from its numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence

from underfire.auditing.condition import NONE
from underfire.auditing.plan import PlannedPhoto
from underfire.present.text import interpreter_title, listing, number, plural, title
from underfire.stats import LEVEL, least_photos
from underfire.studies.attacks import taking_part
from underfire.studies.cells import DOES_NOT_TRANSFER, KEPT, NOT_DECIDED, NOT_KEPT, TRANSFERS, Compared, Kind, Line
from underfire.studies.onlooking import Onlooking
from underfire.studies.transfer_statistics import MARGIN

CLAIM = (
    "Observation 7 of the paper: an adversarial input made against one interpreter does not deceive another. Its map "
    "through an interpreter that was not attacked is about as far from the benign one as PGD’s, and through the "
    "attacked one far nearer."
)


def transfer_words(
    photos: Sequence[PlannedPhoto], lines: Sequence[Line], seen: Sequence[Onlooking], *, skipped: int = 0
) -> str:
    """One paragraph: the claim's verdict, the cells behind it, the sizes, the test, and then each other classifier."""
    audited = [line for line in lines if line.model == lines[0].model]
    tested = [line for line in audited if line.verdict is not None]
    sentences = [
        _observation(tested),
        _across(tested),
        _own(tested),
        _sizes(audited),
        _test(tested),
        taking_part(photos, skipped),
        _failed(audited),
        *(sentence for other in seen for sentence in _onlooking(other)),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _observation(tested: Sequence[Line]) -> str:
    verdicts = {line.verdict for line in tested}
    across = [line for line in tested if line.kind == "other"]
    if not across:
        return "Observation 7 is not tested: there is no interpreter beside the attacked one."
    if verdicts & {TRANSFERS, NOT_KEPT}:
        return "Observation 7 does not hold here."
    if NOT_DECIDED in verdicts:
        return "Observation 7 is not decided at this n."
    return "Observation 7 holds here."


def _across(tested: Sequence[Line]) -> str:
    across = [line for line in tested if line.kind == "other"]
    if not across:
        return ""
    counts = Counter(line.verdict for line in across)
    said = (
        f"Of {plural(len(across), 'pair')} of an attack and an interpreter that it did not aim at, "
        f"{counts[TRANSFERS]} transfer, {counts[DOES_NOT_TRANSFER]} do not, and {counts[NOT_DECIDED]} are not decided "
        "at this n."
    )
    return f"{said} {_named(across, TRANSFERS, 'These transfer')}".strip()


def _own(tested: Sequence[Line]) -> str:
    own = [line for line in tested if line.kind == "own"]
    counts = Counter(line.verdict for line in own)
    said = (
        f"Of {plural(len(own), 'map')} that {'was' if len(own) == 1 else 'were'} attacked, {counts[KEPT]} "
        f"{'is' if counts[KEPT] == 1 else 'are'} kept, {counts[NOT_KEPT]} not, and {counts[NOT_DECIDED]} not decided."
    )
    return f"{said} {_named(own, NOT_KEPT, 'These are not')}".strip()


def _named(lines: Sequence[Line], verdict: str, beginning: str) -> str:
    named = [
        f"{title(line.condition)} to {interpreter_title(line.map)} "
        f"({line.nearer} of {line.pairs} photos, L1 {_difference(line)} against PGD)"
        for line in lines
        if line.verdict == verdict
    ]
    return f"{beginning}: {listing(named)}." if named else ""


def _difference(line: Line) -> str:
    if line.l1_minus_pgd is None:
        return "–"
    value = f"{line.l1_minus_pgd:+.3f}"
    if line.l1_minus_pgd_low is None or line.l1_minus_pgd_high is None:
        return value
    return f"{value} ({line.l1_minus_pgd_low:+.3f} to {line.l1_minus_pgd_high:+.3f})"


def _sizes(audited: Sequence[Line]) -> str:
    """Per interpreter the mean L1 of noise, PGD, the attack on it, and the attacks on others."""
    parts = []
    for name in dict.fromkeys(line.map for line in audited if line.kind != "label"):
        here = [line for line in audited if line.map == name and line.condition != str(NONE)]
        figures = {
            word: [line.l1 for line in here if line.kind == kind and line.l1 is not None]
            for word, kind in _GROUPS.items()
        }
        said = ", ".join(f"{_range(values)} under {word}" for word, values in figures.items() if values)
        parts.append(f"{interpreter_title(name)} {said}")
    return f"Mean L1 from the benign map: {'; '.join(parts)}."


_GROUPS: Mapping[str, Kind] = {
    "noise": "floor",
    "the attack on it": "own",
    "attacks on others": "other",
    "PGD": "pgd",
}


def _test(tested: Sequence[Line]) -> str:
    looks = len(tested)
    if not looks:
        return ""
    margin, level = f"{100 * MARGIN:.0f} %", f"{100 * (1 - LEVEL):.0f} %"
    return (
        f"A map counts as nearer on a photo when its L1 is more than {margin} below that of PGD’s map. An attack "
        "transfers to an interpreter, and keeps the map that it aimed at, if that is so on most photos, and does not "
        f"if it is not so on most, by an exact sign test at {level} over all {looks} comparisons together "
        f"(Bonferroni); at least {least_photos(looks)} photos are needed for any verdict."
    )


def _failed(audited: Sequence[Line]) -> str:
    failed = {line.condition: line.failed for line in audited if line.kind != "label" and line.failed}
    if not failed:
        return "Every attack reached its label on all of them."
    named = [f"{title(condition)} {count}" for condition, count in failed.items()]
    return f"Photos on which an attack missed its label are kept apart: {listing(named)}."


def _onlooking(seen: Onlooking) -> list[str]:
    if not seen.right:
        return [
            f"{seen.model} was shown the same images, {seen.sizes}; it sees none of the {seen.photos} benign ones "
            "rightly, so that there is nothing to fool."
        ]
    said = [
        f"{seen.model} was shown the same images, {seen.sizes}; it sees {seen.right} of {seen.photos} benign ones "
        "rightly, and the figures are of these."
    ]
    attacks = [line for line in seen.lines if line.kind == "label"]
    counted = [
        f"{title(line.condition)} {_count(line.reached, line.n)} and {_count(line.lost, line.n)} of {line.n}"
        for line in attacks
    ]
    said.append(f"How often it says the target class, and how often no longer the label: {'; '.join(counted)}.")
    tested = [line for line in seen.lines if line.verdict is not None]
    counts = Counter(line.verdict for line in tested)
    near = counts[TRANSFERS] + counts[KEPT]
    far = counts[DOES_NOT_TRANSFER] + counts[NOT_KEPT]
    said.append(
        f"Of {plural(len(tested), 'pair')} of an attack and one of its interpreters, the map of the label is nearer "
        f"the benign one than under PGD, by the same test, in {near}, is not in {far}, and {counts[NOT_DECIDED]} are "
        "not decided."
    )
    said.append(
        f"Its map of the label moves by {_moves(seen, 'label')}; that of the target class by {_moves(seen, 'target')}."
    )
    if seen.left_out:
        said.append(f"Left out there: {listing(seen.left_out)}.")
    return said


def _count(share: float | None, n: int) -> int:
    return 0 if share is None else round(share * n)


def _moves(seen: Onlooking, compared: Compared) -> str:
    """Over all its interpreters the mean L1 under noise, PGD and attacks on interpreters."""
    groups = {"noise": ("floor",), "PGD": ("pgd",), "attacks on interpreters": ("own", "other")}
    found = {
        word: [
            line.l1 for line in seen.lines if line.compared == compared and line.kind in kinds and line.l1 is not None
        ]
        for word, kinds in groups.items()
    }
    return listing([f"{_range(values)} under {word}" for word, values in found.items() if values]) or "nothing counted"


def _range(values: Sequence[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"
