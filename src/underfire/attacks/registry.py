"""The attacks that there are: the one table that plans, command lines, listings and reports read.

A further attack is its file and one line here; one of another package enters by an entry point of the group
``underfire.attacks``, one of the user's own as ``package.module:Name``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from underfire.attacks.adv2 import ADV2
from underfire.attacks.authors import PUBLISHED, AuthorsADV2
from underfire.attacks.budget import Effort
from underfire.attacks.goals import TARGET_KEPT, Goal
from underfire.attacks.joint import JointAttack, Terms
from underfire.attacks.map_attack import MapAttack
from underfire.attacks.perturbations import Perturbation
from underfire.attacks.pgd import PGD
from underfire.attacks.square import Square
from underfire.attacks.stadv import StAdv
from underfire.errors import InputError
from underfire.interpreters import Interpreter
from underfire.interpreters.registry import INTERPRETERS
from underfire.models.classifier import Classifier
from underfire.plugins import Parts

AUTHORS = "authors"
"""The preset in which ADV² is the attack that its authors published, with their schedule."""


@dataclass(frozen=True)
class PlanFacts:
    """What of a plan decides whether an attack can take part: preset, perturbation and interpreters, by name."""

    preset: str
    perturbation: str
    interpreters: tuple[str, ...]


@dataclass(frozen=True)
class AttackEntry:
    """An attack in the table.

    Attributes:
        attack: its class, which says its name, title, budget unit, whether it is joint, and what it works within.
        authors: the attack that takes its place in the preset ``authors``.
    """

    attack: type[JointAttack]
    authors: type[AuthorsADV2] | None = None

    @classmethod
    def of(cls, attack: type[JointAttack]) -> "AttackEntry":
        """The entry of ``attack``: that of the table, or one of its own for an attack from elsewhere."""
        return next((entry for entry in BUILT_IN if entry.attack is attack), cls(attack))

    @property
    def name(self) -> str:
        """What rows call it."""
        return self.attack.name

    @property
    def title(self) -> str:
        """As a heading."""
        return self.attack.title or self.name

    def refuses(self, facts: PlanFacts) -> str | None:
        """In a sentence why it cannot take part in a plan; None if it can."""
        named, within = f"the attack '{self.name}'", self.attack.perturbations
        if within is not None and facts.perturbation not in within:
            known = " or ".join(f"'{name}'" for name in within)
            return f"{named} is for the perturbation {known}, not '{facts.perturbation}'; leave the attack out"
        slow = next((name for name in facts.interpreters if self.attack.asks_for_maps and is_slow(name)), None)
        if slow is not None:
            return (
                f"{named} asks for a map at every query, and one of '{slow}' takes "
                f"{INTERPRETERS.find(slow).passes_per_map} passes; leave one of the two out"
            )
        replaced = facts.preset == AUTHORS and self.authors is not None
        unpublished = next((name for name in facts.interpreters if replaced and name not in PUBLISHED), None)
        if unpublished is not None:
            return (
                f"the preset '{AUTHORS}' has no schedule for '{unpublished}', only for {', '.join(PUBLISHED)}; "
                "leave it out, or give another preset"
            )
        return None

    def published(self, preset: str, sources: Sequence[str]) -> Effort | None:
        """The effort of the authors' own schedule for the interpreter attacked, where the preset asks for that."""
        if preset != AUTHORS or self.authors is None or sources[0] not in PUBLISHED:
            return None
        return Effort(steps=PUBLISHED[sources[0]].steps)

    def make(
        self, classifier: Classifier, interpreters: Sequence[Interpreter], terms: Terms, *, preset: str
    ) -> JointAttack:
        """The attack on ``interpreters``, or on ``classifier`` if it is no joint one.

        Raises:
            InputError: the terms don't pay for a single step, or the attack does not suit an interpreter.
        """
        attack = self.authors if preset == AUTHORS and self.authors is not None else self.attack
        return attack.planned(classifier, interpreters, terms)

    def within(self, planned: Perturbation) -> Perturbation:
        """What it may do to an image in a plan whose perturbation is ``planned``."""
        return self.attack.within(planned)


BUILT_IN: tuple[AttackEntry, ...] = (
    AttackEntry(PGD),
    AttackEntry(ADV2, authors=AuthorsADV2),
    AttackEntry(StAdv),
    AttackEntry(Square),
    AttackEntry(MapAttack),
)
"""The attacks that come with the package, in the order in which they are run."""

ATTACKS: Parts[JointAttack] = Parts(
    "attack", "underfire.attacks", JointAttack, lambda: {entry.name: entry.attack for entry in BUILT_IN}
)
"""All classes of attacks by name."""


def entry_of(name: str) -> AttackEntry:
    """The entry of the attack called ``name``; raises `InputError` where there is none."""
    return AttackEntry.of(ATTACKS.find(name))


def refusal_of(attacks: Sequence[str], facts: PlanFacts) -> str | None:
    """In a sentence why one of the ``attacks`` cannot take part in a plan; of one that is not loaded yet, nothing."""
    for name in attacks:
        try:
            reason = entry_of(name).refuses(facts)
        except InputError:
            continue
        if reason is not None:
            return reason
    return None


def is_slow(interpreter: str) -> bool:
    """Whether every map of the interpreter takes many passes; of one that is not known yet, no."""
    try:
        return INTERPRETERS.find(interpreter).slow
    except InputError:
        return False


def goals_of(name: str) -> tuple[Goal, ...]:
    """The goals that the attack called ``name`` can be made for, its own first; one not installed has ADV²'s alone."""
    try:
        return entry_of(name).attack.goals
    except InputError:
        return (TARGET_KEPT,)


def attack_for(goal: Goal) -> str:
    """The name of the first built-in attack that can be made for ``goal``.

    Raises:
        InputError: there is none: maps are led to given ones, which no plan has.
    """
    for entry in BUILT_IN:
        if goal in entry.attack.goals:
            return entry.name
    known = ", ".join(str(goal) for entry in BUILT_IN for goal in entry.attack.goals if entry.attack.goals[1:])
    raise InputError(f"goal '{goal}' has no attack that plans itself; give some of {known}")


def attack_title(name: str) -> str:
    """An attack as the literature writes it: ``adv2`` is ADV²; one that is not installed keeps its name."""
    try:
        return entry_of(name).title
    except InputError:
        return name
