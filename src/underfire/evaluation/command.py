"""``underfire study defense``: the detector benchmark as the command line calls it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underfire.attacks.control import EVEN
from underfire.auditing.plan import AuditPlan
from underfire.defenses.adaptive import PASSES
from underfire.defenses.calibration import check_rate
from underfire.errors import InputError
from underfire.evaluation.adaptive import SHARINGS
from underfire.evaluation.sets import FPR, check_enough, check_sets
from underfire.evaluation.study import defence_study
from underfire.evaluation.trials import Resources, further
from underfire.images.dataset import Photos
from underfire.images.files import quoted
from underfire.models.classifier import Classifier
from underfire.parsing import budgets, count, counts
from underfire.studies.options import Source, interpreter_names, named_folder, option
from underfire.studies.study import Study


@dataclass(frozen=True)
class DetectorOptions:
    """What the command takes beside the options of an audit."""

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
        shown_default="all of the run's interpreters but MASK, in all combinations",
    )
    fpr: float = option(FPR, help="The share of clean photos that may be flagged.", parse=float, metavar="RATE")
    budget: int | None = option(
        None,
        help="What detection may cost for a photo; sets that cost more are shown, and not recommended.",
        parse=count,
        metavar="PASSES",
    )
    weighting: tuple[str, ...] = option(
        (EVEN.name,),
        help="How gradients of several maps are combined; repeatable: the strongest result per photo is reported.",
        old_names=("sharing",),
        choices=tuple(SHARINGS),
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
        """Raises `InputError` for what can be seen to be wrong without a model."""
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


def study(source: Source, options: DetectorOptions) -> Study:
    """The study as the command line calls it."""
    options.check()
    passes = source.plan.passes or PASSES
    known: list[Photos] = []

    def check(plan: AuditPlan, classifier: Classifier) -> None:
        further(Resources.of(plan, passes), options.eps_grid, options.passes_grid)
        check_sets(plan, classifier, options.sets, options.budget, [passes, *options.passes_grid], options.score_search)
        known.append(source.usable(options.clean, classifier))
        check_enough(len(known[0]), options.fpr)

    run = source.audited(check)
    classifier = run.classifier(source.plan.device)
    if not known:
        check(run.plan, classifier)
    settings: dict[str, Any] = {
        "sets": options.sets,
        "fpr": options.fpr,
        "budget": options.budget,
        "passes": passes,
        "sharings": [SHARINGS[name] for name in dict.fromkeys(options.weighting)],
        "eps_grid": options.eps_grid,
        "passes_grid": options.passes_grid,
        "search": options.score_search,
        "also": dict(options.extra_attacks),
    }
    return defence_study(run, known[0], classifier, work=source.work, limit=source.limit, note=source.note, **settings)
