"""What ``underfire study defense`` compares, and how."""

from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from underfire.attacks.control import FORMER_NAMES, NORMALIZED
from underfire.attacks.perturbations import Linf
from underfire.auditing.plan import AuditPlan
from underfire.defenses.adaptive import steps_for
from underfire.defenses.calibration import check_rate
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.score_based import queries_for
from underfire.errors import InputError
from underfire.evaluation.attackers import WEIGHTINGS, AttackBudget
from underfire.evaluation.detectors import FPR, CandidateDetector, candidates_of
from underfire.files import quoted
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.parsing import budgets, count, counts, number
from underfire.studies.options import interpreter_names, named_folder, option


@dataclass(frozen=True)
class DefenseOptions:
    """What is compared, and how; the command takes these beside the options of an audit."""

    clean: tuple[str, ...] = option(
        (),
        help="Clean photos to fit the detectors on; repeatable. Those that are in RUN too are left out.",
        metavar="PHOTO_OR_FOLDER",
        multiple=True,
        required=True,
    )
    sets: tuple[tuple[str, ...], ...] = option(
        (),
        help="A set of interpreters to watch, comma-separated; repeatable.",
        name="set",
        parse=interpreter_names,
        metavar="NAMES",
        multiple=True,
        shown_default="all combinations of the run's interpreters that take few passes for a map",
    )
    fpr: float = option(FPR, help="The share of clean photos that may be flagged.", parse=number, metavar="RATE")
    budget: int | None = option(
        None,
        help="What detection may cost for a photo; sets that cost more are shown, and not recommended.",
        parse=count,
        metavar="PASSES",
    )
    weighting: tuple[str, ...] = option(
        (NORMALIZED.name,),
        help="How gradients of several maps are combined; repeatable: the strongest result per photo is reported.",
        old_names=("sharing",),
        old_values=FORMER_NAMES,
        choices=tuple(WEIGHTINGS),
        multiple=True,
    )
    eps_grid: tuple[float, ...] = option(
        (),
        help="Further ε of the adaptive attack on every set, comma-separated, as 2/255,4/255.",
        parse=budgets,
        metavar="VALUES",
        shown_default="the run's alone",
    )
    passes_grid: tuple[int, ...] = option(
        (),
        help="Further numbers of its passes, comma-separated, as 50,100.",
        parse=counts,
        metavar="COUNTS",
        shown_default="those of --passes alone",
    )
    score_search: int | None = option(
        None,
        help="Extra budget (passes per photo) for a score-based black-box attack on photos that are still flagged.",
        old_names=("search",),
        parse=count,
        metavar="PASSES",
    )
    extra_attacks: tuple[tuple[str, Path], ...] = option(
        (),
        help="Further attacks on the same photos, in the directory of another audit or of a study's attacks; "
        "repeatable.",
        old_names=("also",),
        parse=named_folder,
        metavar="NAME=DIR",
        multiple=True,
    )

    def check(self) -> None:
        """Refuses what can be seen to be wrong without a model; raises `InputError`."""
        check_rate(self.fpr)
        names = Counter(name for name, _ in self.extra_attacks)
        twice = next((name for name, times in names.items() if times > 1), None)
        if twice is not None:
            raise InputError(f"--extra-attacks '{twice}' is given twice; give every folder a name of its own")
        lost = next((folder for _, folder in self.extra_attacks if not folder.is_dir()), None)
        if lost is not None:
            raise InputError(
                f"--extra-attacks {quoted(lost)} is no folder; give the directory of an audit, or of a study's attacks"
            )

    def check_with(
        self, plan: AuditPlan, classifier: Classifier, passes: int
    ) -> tuple[tuple[Interpreter, ...], tuple[CandidateDetector, ...]]:
        """The interpreters and detectors that are compared on an audit with ``plan`` of ``classifier``.

        Raises:
            InputError: there are sets that cannot be, see `candidates_of`; none is within the budget; an ε is out of
                range; an adaptive attack of ``passes``, or of those of the grid, has no step; or a score-based attack
                has no two queries, or another perturbation than it knows.
        """
        given = AttackBudget.of(plan, passes)
        given.along(self.eps_grid, self.passes_grid)
        interpreters, candidates = candidates_of(plan, classifier, self.sets)
        signals = {c.name: EnsembleSignals(c.interpreters) for c in candidates if c.is_set}
        for some, count_of_passes in product(signals.values(), [passes, *self.passes_grid]):
            steps_for(count_of_passes, some)
        if self.score_search is not None:
            if not isinstance(given.perturbation, Linf):
                raise InputError(
                    f"the score-based attack knows the perturbation 'linf' alone, not '{given.perturbation.name}'; "
                    "leave --score-search out"
                )
            for some in signals.values():
                queries_for(self.score_search, some)
        cheapest = min(signals, key=lambda name: signals[name].passes_per_image)
        cost = signals[cheapest].passes_per_image
        if self.budget is not None and cost > self.budget:
            raise InputError(
                f"a budget of {self.budget} passes is below what any set costs; the cheapest, {cheapest}, takes "
                f"{cost}: give at least that"
            )
        return interpreters, candidates
