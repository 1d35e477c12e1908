"""The headline job: an audit from the first photo to its report."""

from collections.abc import Sequence
from pathlib import Path

from underfire.attacks.joint import JointAttack
from underfire.auditing.engines import EngineName
from underfire.auditing.given import GivenParts, PhotosGiven, named_attacks, named_interpreters, photos_given
from underfire.auditing.locks import describing
from underfire.auditing.plan import WHOLE, AuditPlan, ModelSettings, Preset, Shard
from underfire.auditing.run import Run, open_run, read_run
from underfire.auditing.runner import AuditListener, run_audit
from underfire.auditing.selection import select_interpreters
from underfire.auditing.store import STUDIES, RunDirectory, write_json
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.report import REPORT, build_report
from underfire.studies.study import Claim, read

DEFAULTS = AuditPlan()
"""The one place of defaults is the plan."""


class AuditRun(Run):
    """A `Run` with what stands on it: its report, and what studies of it claim."""

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What the studies in its directory tested; none where there is no study of it.

        Raises:
            InputError: a study is damaged.
        """
        return tuple(claim for saved in read(self.path / STUDIES) for claim in saved.study.claims)

    @property
    def page(self) -> Path:
        """Where its report is, or goes."""
        return self.path / REPORT

    def report(self) -> Path:
        """Writes summary.json and report.html into its directory; returns the path of the report.

        Raises:
            InputError: two rows are of the same map, or a study is damaged.
            OSError: the disk refused.
        """
        page = build_report(self)
        write_json(self.path / "summary.json", self.summary.to_json())
        return page


def load_run(path: str | Path) -> AuditRun:
    """The audit in the directory ``path``; `Run.finished` tells whether it came to its end.

    Raises:
        InputError: it is none, or it is damaged.
    """
    found = read_run(Path(path), unfinished=True)
    return AuditRun(found.path, found.facts, found.records)


def rebuild(path: Path) -> AuditRun:
    """The run in ``path`` with its summary and report written again, as far as it got and run.json describes it.

    Raises:
        InputError: it is none, or a part or a study cannot be read.
        OSError: the disk refused.
    """
    found = open_run(path)
    run = AuditRun(found.path, found.facts, found.records)
    run.report()
    return run


def audit(
    classifier: Classifier,
    photos: PhotosGiven = None,
    *,
    interpreters: Sequence[str | Interpreter] | None = None,
    attacks: Sequence[str | JointAttack] = DEFAULTS.attacks,
    out: str | Path = "underfire-run",
    preset: Preset = DEFAULTS.preset,
    perturbation: str = DEFAULTS.perturbation,
    eps: float | None = None,
    passes: int | None = None,
    steps: int | None = None,
    seed: int = DEFAULTS.seed,
    targets: str = DEFAULTS.targets,
    batch_size: int = DEFAULTS.batch_size,
    limit: int | None = None,
    rts: str | None = None,
    model: ModelSettings | None = None,
    shard: Shard = WHOLE,
    engine: EngineName = "local",
    strict: bool = False,
    command: str | None = None,
    listener: AuditListener | None = None,
) -> AuditRun:
    """Attacks photos and their explanations, and measures how far the explanations can be trusted.

    What is in ``out`` already is not made again: the same call goes on where another was stopped.

    Args:
        classifier: under audit.
        photos: a photo, a folder (its sub-folders are classes), a manifest, several of these, or a `PhotoSet`; without
            any, the photos that come with the package.
        interpreters: names or instances; by default those of the preset that suit the classifier.
        attacks: names, or instances for interpreters that take part.
        out: the run directory.
        preset: how many passes an attack may spend on a photo.
        perturbation: linf, l2 or flow.
        eps: the budget, in the perturbation's unit.
        passes: forward and backward passes of every attack per photo, in place of the preset's.
        steps: of every attack, in place of passes.
        seed: of all random numbers.
        targets: random, next, given (a manifest's), or a class by index or name.
        batch_size: photos that are attacked together.
        limit: at most so many photos, the first ones.
        rts: the file of RTS's weights, in place of those that come with the package.
        model: how the classifier is loaded again, for studies of the run; by default by its name.
        shard: the share of the audit to do.
        engine: local, or ray for the processes of a Ray cluster.
        strict: refuse a photo that cannot be used, rather than leave it out.
        command: what the report names as the command that made it.
        listener: is told how the work comes along.

    Returns:
        The run, unfinished where other shards have parts to do.

    Raises:
        InputError: something that was given cannot be used, does not fit the rest or what is in ``out``.
    """
    names, instances = named_interpreters(interpreters, classifier)
    selection = select_interpreters(
        names, classifier, preset=preset, attacks=[a for a in attacks if isinstance(a, str)], rts=rts
    )
    attack_names, given_attacks = named_attacks(attacks, selection.interpreters, classifier)
    plan = AuditPlan(
        model=model or ModelSettings(spec=classifier.name),
        interpreters=selection.interpreters,
        left_out=selection.left_out,
        rts=rts,
        attacks=attack_names,
        preset=preset,
        targets=targets,
        perturbation=perturbation,
        eps=eps,
        steps=steps,
        passes=passes,
        seed=seed,
        batch_size=batch_size,
        limit=limit,
        device=str(classifier.device),
    )
    run_audit(
        plan,
        photos_given(photos, classifier),
        classifier,
        Path(out),
        shard=shard,
        engine=engine,
        strict=strict,
        command=command,
        listener=listener,
        given=GivenParts(instances, given_attacks),
    )
    with describing(RunDirectory(Path(out)).lock_file):  # of two shards the later one sees what the other did
        return load_run(out)
