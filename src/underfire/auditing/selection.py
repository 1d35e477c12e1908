"""Which interpreters take part in an audit that names none, and why the others do not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from underfire.attacks.authors import PUBLISHED
from underfire.attacks.budget import descent_of
from underfire.attacks.registry import entry_of
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import PASSES, QUICK, Preset
from underfire.choices import EVERY
from underfire.errors import InputError
from underfire.interpreters import MASK, RTS, Interpreter
from underfire.interpreters.base import tried
from underfire.interpreters.registry import INTERPRETERS
from underfire.models.classifier import Classifier
from underfire.models.draws import refuse_random


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
    given: Mapping[str, Interpreter] = MappingProxyType({}),
) -> Selection:
    """The ``named`` interpreters, or for None those of the preset that suit: of GRAD, IG, CAM, MASK and RTS.

    CAM takes part where a linear layer reads pooled features, MASK in the presets ``standard`` and ``paper``, RTS in
    every one if there are weights for ``classifier``: those at ``rts``, or those that come with the package. For
    ``("all",)`` MASK takes part in ``quick`` as well, and so does all else that suits the classifier, but for what
    takes half of the preset's passes before an attack's second step. Where ``attacks`` follow gradients of maps, one is
    tried with each; ``given`` are instances by name.

    Raises:
        InputError: the weights at ``rts`` are not for ``classifier``, or RTS takes no part; a gradient that the attacks
            follow does not exist for an interpreter that is named, or for none of those that suit; the classifier draws
            random numbers.
    """
    refuse_random(classifier)
    every = named is not None and tuple(named) == (EVERY,)
    if named is not None and EVERY in named and not every:
        raise InputError(f"interpreters '{','.join(named)}' name others beside '{EVERY}'; leave them out, or '{EVERY}'")
    if named is not None and not every:
        refused = {name: _unattackable(name, classifier, attacks, rts, given) for name in named}
        for name, reason in refused.items():
            if reason is not None:
                raise InputError(f"{name} cannot be attacked on {classifier.name!r}: {reason}; leave it out.")
        selection = Selection(tuple(named))
    else:
        candidates = INTERPRETERS.installed() if every else (*QUICK, MASK.name, RTS.name)
        reasons = {
            name: _reason(name, classifier, preset, attacks, rts, every=every)
            or _unattackable(name, classifier, attacks, rts, given)
            or _too_long(name, classifier, preset, attacks, rts, given)
            for name in candidates
        }
        if all(reasons.values()):
            raise InputError(f"no interpreter suits {classifier.name!r}: {next(iter(reasons.values()))}.")
        left_out = tuple(f"{name} ({reason})" for name, reason in reasons.items() if reason)
        selection = Selection(tuple(name for name, reason in reasons.items() if not reason), left_out)
    if rts is not None and RTS.name not in selection.interpreters:
        names = ", ".join(selection.interpreters)
        raise InputError(f"weights '{rts}' are given for rts, and it is not among {names}; name it, or leave them out")
    return selection


def _unattackable(
    name: str, classifier: Classifier, attacks: Sequence[str], rts: str | None, given: Mapping[str, Interpreter]
) -> str | None:
    """Why attacks that follow gradients cannot take the interpreter; None if they can, or if there are none."""
    if not _follows_maps(attacks):
        return None
    (interpreter,) = make_interpreters((name,), classifier, rts=rts, given=given)
    reason = tried(interpreter)
    return None if reason is None else reason.removesuffix(".")


def _too_long(
    name: str,
    classifier: Classifier,
    preset: Preset,
    attacks: Sequence[str],
    rts: str | None,
    given: Mapping[str, Interpreter],
) -> str | None:
    """That the preset's passes are nearly spent once attacks have seen the interpreter's map, if so."""
    if not _follows_maps(attacks):
        return None
    passes = descent_of(1, make_interpreters((name,), classifier, rts=rts, given=given))
    if 2 * passes <= PASSES[preset]:
        return None
    return f"an attack's first step takes {passes} passes, too many for '{preset}'; name it with --interpreters"


def _follows_maps(attacks: Sequence[str]) -> bool:
    entries = [entry_of(attack).attack for attack in attacks]
    return any(attack.joint and not attack.asks_for_maps for attack in entries)


def _reason(
    name: str, classifier: Classifier, preset: Preset, attacks: Sequence[str], rts: str | None, *, every: bool
) -> str | None:
    """Why the interpreter takes no part; None if it does."""
    if preset == "authors" and name not in PUBLISHED:
        return "the preset 'authors' has no schedule for it"
    if name == MASK.name and preset == "quick" and not every:
        return f"each of its maps takes {MASK.passes_per_map} passes, too many for 'quick'; name it with --interpreters"
    cls = INTERPRETERS.find(name)
    searching = next((attack for attack in attacks if entry_of(attack).attack.asks_for_maps), None)
    if cls.slow and searching is not None:
        return f"the attack '{searching}' would take {cls.passes_per_map} passes for each of its queries"
    if name == RTS.name and rts is not None:
        make_interpreters((name,), classifier, rts=rts)  # says what is wrong with the weights
        return None
    reason = cls.available(classifier)
    return None if reason is None else reason.removesuffix(".")
