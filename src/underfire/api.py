"""The headline job: an audit from the first photo to its report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from underfire.attacks.joint import JointAttack
from underfire.auditing.certificate_folder import certificates_of
from underfire.auditing.gates import Gate, GateCheck, failures, parse_gate, try_gates
from underfire.auditing.given import GivenParts, PhotosGiven, named_attacks, named_interpreters, photos_given
from underfire.auditing.locks import describing
from underfire.auditing.plan import ANY_RAY, WHOLE, AuditPlan, ModelSettings, Preset, RaySettings, Shard
from underfire.auditing.progress import NotebookProgress
from underfire.auditing.run import Named, Run, open_run
from underfire.auditing.runner import AuditListener, run_audit
from underfire.auditing.selection import select_interpreters
from underfire.auditing.store import STUDIES, RunDirectory, write_json
from underfire.choices import EngineName, Keep
from underfire.display import in_notebook
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.report import REPORT, build_report
from underfire.studies.study import Claim, read


class AuditSettings(TypedDict, total=False):
    """What decides an audit's rows beside its model, photos, interpreters and attacks; see `AuditPlan` for defaults.

    Attributes:
        preset: how many passes an attack may spend on a photo: quick, standard, paper or authors.
        perturbation: linf, l2 or flow.
        eps: the budget, in the perturbation's unit.
        passes: forward and backward passes of every attack per photo, in place of the preset's.
        steps: of every attack, in place of passes.
        seed: of all random numbers.
        goals: what label and map shall become, such as "kept/topk"; by default those of the attacks.
        targets: random, next, given (a manifest's), or a class by index or name.
        batch_size: photos that are attacked together.
        limit: at most so many photos, the first ones.
        rts: the file of RTS's weights, in place of those that come with the package.
        model: how the classifier is loaded again, for studies of the run; by default by its name.
        device: where it is loaded then; by default where the classifier is.
    """

    preset: Preset
    perturbation: str
    eps: float | None
    passes: int | None
    steps: int | None
    seed: int
    goals: tuple[str, ...]
    targets: str
    batch_size: int
    limit: int | None
    rts: str | None
    model: ModelSettings
    device: str | None


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

    def gates(self, gates: Sequence[Gate | str], *, min_photos: int | None = None) -> tuple[GateCheck, ...]:
        """What becomes of ``gates``, such as ``iou>0.5``, on each interpreter; nothing without a gate.

        At least ``min_photos`` must have been attacked; by default, where there is a gate, half of the photos that were
        found. See `underfire.auditing.gates.try_gates`.

        Raises:
            InputError: a gate is none, ``min_photos`` is below 1, or the run is damaged.
        """
        parsed = [parse_gate(gate) if isinstance(gate, str) else gate for gate in gates]
        return try_gates(self, parsed, min_photos=min_photos)

    def failures(self, gates: Sequence[Gate | str], *, min_photos: int | None = None) -> list[str]:
        """One sentence for each reason why the audit fails by ``gates``, see `gates`; empty when it passes."""
        return failures(self.gates(gates, min_photos=min_photos))

    def report(self, *, certificates: str | Path | None = None) -> Path:
        """Writes summary.json and report.html into its directory; returns the path of the report.

        Args:
            certificates: a folder of ``underfire certify`` of its photos, labels, targets and model. The page has a
                chapter of it until it is written again.

        Raises:
            InputError: two rows are of the same map, a study is damaged, or the folder is none of its photos.
            OSError: the disk refused.
        """
        certified = None if certificates is None else certificates_of(self, Path(certificates))
        page = build_report(self, certified=certified)
        write_json(self.path / "summary.json", self.summary.to_json())
        return page


def load_run(path: str | Path, *, model: str | ModelSettings | None = None, rts: str | None = None) -> AuditRun:
    """The audit in the directory ``path``; `Run.finished` tells whether it came to its end.

    Args:
        path: the run directory. It may be anybody's: all of it is verified, and nothing in it names code.
        model: how `Run.classifier` loads the model, needed unless it is one that comes with the package; a name, or
            with a checkpoint or a file of class names.
        rts: the file of RTS's weights, where the run was made with one.

    Raises:
        InputError: it is none, it is damaged, or a part does not belong to it.
    """
    named = Named(ModelSettings(model) if isinstance(model, str) else model, rts)
    found = open_run(Path(path), named)
    return AuditRun(found.path, found.facts, found.found, found.named)


def rebuild(path: Path, *, certificates: Path | None = None) -> AuditRun:
    """The run in ``path`` with its summary and report written again, as far as it got.

    Args:
        path: the run directory.
        certificates: see `AuditRun.report`.

    Raises:
        InputError: it is none, or a part, a study or certificates cannot be read or do not belong to it.
        OSError: the disk refused.
    """
    run = load_run(path)
    run.report(certificates=certificates)
    return run


def audit(
    classifier: Classifier,
    photos: PhotosGiven = None,
    *,
    interpreters: Sequence[str | Interpreter] | None = None,
    attacks: Sequence[str | JointAttack] = AuditPlan.attacks,
    out: str | Path = "underfire-run",
    shard: Shard = WHOLE,
    engine: EngineName = "local",
    ray: RaySettings = ANY_RAY,
    strict: bool = False,
    keep: Keep = "all",
    command: str | None = None,
    listener: AuditListener | None = None,
    **settings: Unpack[AuditSettings],
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
        shard: the share of the audit to do.
        engine: local, or ray for the processes of a Ray cluster.
        ray: how the engine ray uses its cluster.
        strict: refuse a photo that cannot be used, rather than leave it out.
        keep: which images and maps stay: all, those of attacks ("adversarial", images alone), or none. The report can
            show only those, and studies need all.
        command: what the report names as the command that made it.
        listener: follows the work; by default, in a notebook, a progress bar.
        settings: see `AuditSettings`.

    Returns:
        The run, unfinished where other shards have parts to do.

    Raises:
        InputError: something that was given cannot be used, does not fit the rest or what is in ``out``.
    """
    plan, given = _planned(classifier, interpreters, attacks, settings)
    run_audit(
        plan,
        photos_given(photos, classifier),
        classifier,
        Path(out),
        shard=shard,
        engine=engine,
        ray=ray,
        strict=strict,
        command=command,
        listener=NotebookProgress() if listener is None and in_notebook() else listener,
        given=given,
        keep=keep,
    )
    with describing(RunDirectory(Path(out)).lock_file):  # of two shards the later one sees what the other did
        return load_run(out, model=plan.model, rts=plan.rts)


def _planned(
    classifier: Classifier,
    interpreters: Sequence[str | Interpreter] | None,
    attacks: Sequence[str | JointAttack],
    settings: AuditSettings,
) -> tuple[AuditPlan, GivenParts]:
    names, instances = named_interpreters(interpreters, classifier)
    selection = select_interpreters(
        names,
        classifier,
        preset=settings.get("preset", AuditPlan.preset),
        attacks=[attack for attack in attacks if isinstance(attack, str)],
        rts=settings.get("rts"),
        given=instances,
    )
    attack_names, given_attacks = named_attacks(attacks, selection.interpreters, classifier)
    settings.setdefault("model", ModelSettings(spec=classifier.name, layer=classifier.layer))
    plan = AuditPlan(interpreters=selection.interpreters, left_out=selection.left_out, attacks=attack_names, **settings)
    return plan, GivenParts(instances, given_attacks)
