"""Which interpreters take part in an audit that names none, and why the others do not."""

from collections.abc import Sequence
from dataclasses import dataclass

from underfire.attacks.authors import PUBLISHED
from underfire.auditing.names import known_interpreters, make_interpreters
from underfire.auditing.plan import QUICK, REFITTED, Preset
from underfire.errors import InputError
from underfire.interpreters import MASK, RTS
from underfire.models.classifier import Classifier

EVERY = "all"
"""In place of names: every interpreter that suits the classifier and the preset."""


@dataclass(frozen=True)
class Selection:
    """The interpreters of an audit by name, and in words which were left out and why."""

    interpreters: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def select_interpreters(
    named: Sequence[str] | None,
    classifier: Classifier,
    *,
    preset: Preset,
    attacks: Sequence[str] = (),
    rts: str | None = None,
) -> Selection:
    """The ``named`` interpreters, or for None those of the preset that suit: of GRAD, IG, CAM, MASK and RTS.

    CAM takes part where a linear layer reads pooled features, MASK in the presets ``standard`` and ``paper``, RTS in
    every one if there are weights for ``classifier``: those at ``rts``, or those that come with the package. For
    ``("all",)`` MASK takes part in ``quick`` as well, and so does all else that suits the classifier.

    Raises:
        InputError: the weights at ``rts`` are not for ``classifier``, or RTS takes no part.
    """
    every = named is not None and tuple(named) == (EVERY,)
    if named is not None and EVERY in named and not every:
        raise InputError(f"interpreters '{','.join(named)}' name others beside '{EVERY}'; leave them out, or '{EVERY}'")
    if named is not None and not every:
        selection = Selection(tuple(named))
    else:
        candidates = tuple(known_interpreters()) if every else (*QUICK, MASK.name, RTS.name)
        reasons = {name: _reason(name, classifier, preset, attacks, rts, every=every) for name in candidates}
        left_out = tuple(f"{name} ({reason})" for name, reason in reasons.items() if reason)
        selection = Selection(tuple(name for name, reason in reasons.items() if not reason), left_out)
    if rts is not None and RTS.name not in selection.interpreters:
        names = ", ".join(selection.interpreters)
        raise InputError(f"weights '{rts}' are given for rts, and it is not among {names}; name it, or leave them out")
    return selection


def _reason(
    name: str, classifier: Classifier, preset: Preset, attacks: Sequence[str], rts: str | None, *, every: bool
) -> str | None:
    """Why the interpreter takes no part; None if it does."""
    if preset == "authors" and name not in PUBLISHED:
        return "the preset 'authors' has no schedule for it"
    if name == MASK.name and preset == "quick" and not every:
        return f"each of its maps takes {MASK.passes_per_map} passes, too many for 'quick'; name it with --interpreters"
    if name in REFITTED and "square" in attacks:
        return f"the attack 'square' would take {MASK.passes_per_map} passes for each of its queries"
    try:
        make_interpreters((name,), classifier, rts=rts)
    except InputError as error:
        if name == RTS.name and rts is not None:
            raise
        return str(error).removesuffix(".")
    return None
