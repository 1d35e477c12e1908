"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import click

from underfire import parsing
from underfire.auditing.plan import ANY_RAY, PASSES, AuditPlan, ModelSettings, RaySettings
from underfire.choices import EVERY, PERTURBATIONS, Crop, EngineName, Interpolation, Outputs
from underfire.cli.console import QUIET
from underfire.errors import InputError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from underfire.auditing.gates import Gate
    from underfire.images import PhotoSet
    from underfire.models.classifier import Classifier

DEFAULTS = AuditPlan
"""The one place of defaults is the plan; its class has them without the checks of a whole plan."""

Command: TypeAlias = Callable[..., Any]
"""A function that options are added to."""


class Group(click.Group):
    """A group that knows what its commands were once called; help does not list the old names.

    Args:
        old_names: from a command's old name to its name.
        rest: as `click.Group`.
    """

    def __init__(self, *rest: Any, old_names: Mapping[str, str] | None = None, **named: Any) -> None:
        super().__init__(*rest, **named)
        self.old_names = old_names or {}

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names, under its own name."""
        return super().resolve_command(ctx, [self.old_names.get(args[0], args[0]), *args[1:]])


class Option(click.Option):
    """An option that knows what it, and its values, were once called; help and errors have the new names alone.

    Args:
        old_names: what the option was called, as ``--also``.
        old_values: from a value's old name to its name.
        rest: as `click.Option`.
    """

    def __init__(
        self,
        *rest: Any,
        old_names: Sequence[str] = (),
        old_values: Mapping[str, str] | None = None,
        **named: Any,
    ) -> None:
        super().__init__(*rest, **named)
        self.old_names = tuple(old_names)
        self.old_values = old_values or {}

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Lets the parser take the old names too."""
        shown = self.opts
        self.opts = [*shown, *self.old_names]
        super().add_to_parser(parser, ctx)
        self.opts = shown

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """The value, or values, in the option's type, read by their names of today."""
        if isinstance(value, str):
            value = self.old_values.get(value, value)
        elif self.multiple and value:
            value = tuple(self.old_values.get(one, one) if isinstance(one, str) else one for one in value)
        return super().type_cast_value(ctx, value)


class Parsed(click.ParamType[Any]):
    """A value that ``parse`` reads from text; what it refuses is a usage error.

    Args:
        name: what help calls the value.
        parse: text to value; it raises ValueError, of which `InputError` is one, with a sentence.
    """

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value; one that is no text has been read already."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _part_names(kind: Literal["interpreters", "attacks"], besides: tuple[str, ...] = ()) -> Parsed:
    """Comma-separated names of parts, built-in, installed or the user's own; or one of the words ``besides``."""

    def parse(text: str) -> tuple[str, ...]:
        from underfire.attacks.registry import ATTACKS
        from underfire.auditing.names import split_parts
        from underfire.interpreters.registry import INTERPRETERS as PARTS

        return split_parts(text, ATTACKS if kind == "attacks" else PARTS, besides=besides)

    return Parsed("names", parse)


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the name of a file or folder, as the shell does."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _keep_quiet(context: click.Context, _parameter: click.Parameter, given: bool) -> None:
    if given:
        context.meta[QUIET] = True


quiet_option = click.option(
    "--quiet",
    "-q",
    is_flag=True,
    expose_value=False,
    callback=_keep_quiet,
    help="Say nothing on stderr of progress and of what is left out; warnings and errors stay.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def photos_argument(metavar: str = "[PHOTO_OR_FOLDER]...") -> Callable[[Command], Command]:
    """The argument ``photos``: any number of them, of folders and of manifests."""
    return click.argument("photos", nargs=-1, metavar=metavar, shell_complete=files)


Number = Parsed("number", parsing.number)
"""A number; whether it is in its range is for what takes it to say."""
Numbers = Parsed("numbers", parsing.numbers)
Size = Parsed("size", parsing.size)
Count = Parsed("count", parsing.count)
Seed = Parsed("seed", parsing.seed)

ATTACKS = _part_names("attacks")
GOALS = Parsed("goals", parsing.names)
INTERPRETERS = _part_names("interpreters")
INTERPRETERS_OR_ALL = _part_names("interpreters", (EVERY,))

_MODEL_OPTIONS = (
    click.option(
        "--model",
        "spec",
        default=DEFAULTS.model.spec,
        show_default=True,
        metavar="NAME",
        help="One of those that underfire models lists, as timm:NAME, or your own package.module:function or"
        " ./file.py:function.",
    ),
    click.option(
        "--checkpoint",
        metavar="FILE",
        shell_complete=files,
        help="Weights: safetensors, or a state dict of torch.save.",
    ),
    click.option(
        "--class-names", metavar="FILE", shell_complete=files, help="The classes' names, one a line, or JSON."
    ),
    click.option("--mean", type=Numbers, metavar="R,G,B", help="Normalisation of a bare module, as 0.5 or 127/255."),
    click.option("--std", type=Numbers, metavar="R,G,B", help="Normalisation of a bare module, as 0.25 or 1/255."),
    click.option("--input-size", type=Size, metavar="PIXELS", help="Input of a bare module: 224, or 224x160."),
    click.option("--resize", type=Count, metavar="PIXELS", help="Short side before the crop."),
    click.option("--interpolation", type=click.Choice(get_args(Interpolation)), help="How photos are resized."),
    click.option(
        "--crop",
        type=click.Choice(get_args(Crop)),
        help="What becomes of photos of another shape than the input: cut, squashed, or with bars.",
    ),
    click.option("--bgr", is_flag=True, default=None, help="The model takes blue first, as do --mean and --std."),
    click.option(
        "--outputs",
        type=click.Choice(get_args(Outputs)),
        help="What the model returns: logits of classes, their probabilities, or labels of their own each (sigmoid).",
    ),
    click.option(
        "--layer", metavar="NAME", help="The layer whose output cam, gradcam and rts read; by default it is found."
    ),
    click.option(
        "--device",
        show_default="cpu; where your own function leaves the model",
        help="Where the model works: cpu, cuda, cuda:1 …",
    ),
)

_ATTACK_OPTIONS = (
    click.option(
        "--perturbation",
        type=click.Choice(PERTURBATIONS),
        default=DEFAULTS.perturbation,
        show_default=True,
        help="What an attack may change: each pixel value a little (linf), all together a little (l2), or where "
        "pixels lie (flow).",
    ),
    click.option(
        "--eps",
        type=Number,
        show_default="8/255 of the pixel range for linf, 3 of its length for l2, 1 pixel for flow",
        help="The budget, in the perturbation's unit.",
    ),
    click.option(
        "--passes",
        type=Count,
        help="How many forward and backward passes each attack may spend on a photo; by default the preset's.",
    ),
    click.option("--steps", type=Count, help="Steps of every attack, whatever each costs, in place of passes."),
    click.option("--seed", type=Seed, default=DEFAULTS.seed, show_default=True, help="Of all random numbers."),
)


def with_room(ctx: click.Context, param: click.Parameter, out: Path | None) -> Path | None:  # noqa: ARG001 - click's
    """``out``; where the system has no folder for temporary files, as in a read-only container, they go beside it."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:  # matplotlib cannot even be imported then
        place = next((folder for folder in (out, *out.absolute().parents) if folder.is_dir()), None) if out else None
        with suppress(OSError):
            tempfile.tempdir = tempfile.mkdtemp(prefix=".", dir=place)
            atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
    return out


def out_folder(words: str, **named: Any) -> Callable[[Command], Command]:
    """The option ``--out`` of a command that fills a folder."""
    kind = click.Path(path_type=Path, file_okay=False)
    return click.option("--out", type=kind, metavar="DIR", callback=with_room, help=words, **named)


def out_file(words: str) -> Callable[[Command], Command]:
    """The option ``--out`` of a command that writes one safetensors file; what cannot be written is refused at once."""

    def parse(text: str) -> Path:
        out = Path(text)
        if out.suffix != ".safetensors":
            raise InputError(f"'{out}' is not named .safetensors; give a name that is.")
        if out.is_dir():
            raise InputError(f"'{out}' is a folder; give a file.")
        if not out.parent.is_dir():
            raise InputError(f"'{out}' lies in no folder; create '{out.parent}' first.")
        return out

    kind = Parsed("file", parse)
    return click.option("--out", type=kind, metavar="FILE.safetensors", callback=with_room, required=True, help=words)


rts_option = click.option(
    "--rts", metavar="FILE", shell_complete=files, help="Weights of RTS for this model, by: underfire train rts."
)
limit_option = click.option("--limit", type=Count, help="At most so many photos, the first ones.")

_INTERPRETERS_OPTION = click.option(
    "--interpreters",
    type=INTERPRETERS_OR_ALL,
    show_default="grad,ig,cam; mask as well with standard and paper; rts where there are weights",
    help="Whose maps are attacked and compared, comma-separated, or 'all'.",
)
_WHICH_ATTACKS_OPTIONS = (
    click.option(
        "--attacks",
        type=ATTACKS,
        default=DEFAULTS.attacks,
        show_default=",".join(DEFAULTS.attacks),
        help="Comma-separated.",
    ),
    click.option(
        "--goals",
        type=GOALS,
        default=DEFAULTS.goals,
        show_default="those of the attacks",
        metavar="LABEL/MAP,...",
        help="What label and map shall become, such as target/kept,kept/topk.",
    ),
    click.option(
        "--preset",
        type=click.Choice(list(PASSES)),
        default=DEFAULTS.preset,
        show_default=True,
        help="How long the attacks may work (see: underfire attacks); with authors, ADV² as its authors published it.",
    ),
    click.option(
        "--targets",
        default=DEFAULTS.targets,
        show_default=True,
        metavar="random|next|given|CLASS",
        help="The class that attacks aim at; given: the manifest's column 'target'.",
    ),
)
_HOW_MANY_OPTIONS = (
    click.option(
        "--batch-size",
        type=Count,
        default=DEFAULTS.batch_size,
        show_default=True,
        help="Photos attacked together; what is kept when the audit is stopped.",
    ),
    limit_option,
)


def _gate(text: str) -> Gate:
    """``iou>0.5``."""
    from underfire.auditing.gates import parse_gate

    return parse_gate(text)


_GATE_OPTIONS = (
    click.option(
        "--fail-if",
        "gates",
        type=Parsed("gate", _gate),
        multiple=True,
        metavar="GATE",
        help="Exit with 1 if this holds of any interpreter, as 'iou>0.5'; repeatable.",
    ),
    click.option(
        "--min-photos",
        type=Count,
        show_default="where there is a gate, half of those found",
        help="Exit with 1 if fewer photos than this could be attacked.",
    ),
)
_PLAN_FIELDS = ("rts", "attacks", "goals", "preset", "targets", "batch_size", "limit", "device")


_ENGINE_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(get_args(EngineName)),
        default="local",
        show_default=True,
        help="Where to work: in this process, or on a Ray cluster.",
    ),
    click.option(
        "--ray-address",
        "address",
        metavar="ADDRESS",
        help="With --engine ray: HOST:PORT of the head of a cluster that is running already, or auto.",
    ),
    click.option(
        "--gpus-per-worker",
        type=Number,
        default=ANY_RAY.gpus_per_worker,
        show_default=True,
        metavar="F",
        help="With --engine ray and --device cuda: what a worker takes, such as 0.25 for four on a GPU.",
    ),
    click.option(
        "--shared-disk/--no-shared-disk",
        default=ANY_RAY.shared_disk,
        show_default=True,
        help="With --engine ray: all machines see photos and DIR; without, both travel through this process.",
    ),
)


def gate_options(command: Command) -> Command:
    """Adds the options that make a command fail; their values arrive in ``gates`` and ``min_photos``."""
    return _with_options(_GATE_OPTIONS, command)


def engine_options(command: Command) -> Command:
    """Adds the options that say where the work is done; their values arrive as ``engine`` and ``ray: RaySettings``."""
    names = tuple(field.name for field in fields(RaySettings))
    return _with_options(_ENGINE_OPTIONS, _gathered(command, "ray", names, RaySettings))


def model_options(command: Command) -> Command:
    """Adds the options that say which classifier; their values arrive as ``settings: ModelSettings`` and ``device``."""
    names = tuple(field.name for field in fields(ModelSettings))
    return _with_options(_MODEL_OPTIONS, _gathered(command, "settings", names, ModelSettings))


def attack_options(command: Command) -> Command:
    """Adds the options that say what an attack may do; their values arrive in ``plan: AuditPlan``."""
    return _with_options(
        _ATTACK_OPTIONS, _gathered(command, "plan", ("perturbation", "eps", "passes", "steps", "seed"), AuditPlan)
    )


def plan_options(command: Command) -> Command:
    """Adds the options that make an audit's plan; their values arrive in ``plan`` and ``interpreters``.

    ``plan: AuditPlan`` has all but the interpreters; `completed` puts in the names that ``interpreters`` means.
    """

    @wraps(command)
    def call(*args: Any, settings: ModelSettings, plan: AuditPlan, **values: Any) -> Any:
        chosen = {name: values.pop(name) for name in _PLAN_FIELDS}
        return command(*args, plan=replace(plan, model=settings, **chosen), **values)

    options = (
        model_options,
        _INTERPRETERS_OPTION,
        rts_option,
        *_WHICH_ATTACKS_OPTIONS,
        attack_options,
        *_HOW_MANY_OPTIONS,
    )
    return _with_options(options, call)


def completed(plan: AuditPlan, interpreters: tuple[str, ...] | None, classifier: Classifier) -> AuditPlan:
    """``plan`` with the interpreters that the user named, or those that suit it."""
    from underfire.auditing.selection import select_interpreters

    selection = select_interpreters(interpreters, classifier, preset=plan.preset, attacks=plan.attacks, rts=plan.rts)
    return replace(plan, interpreters=selection.interpreters, left_out=selection.left_out)


def _gathered(command: Command, name: str, gathered: Sequence[str], make: Callable[..., object]) -> Command:
    """``command`` with the values of the options ``gathered`` as one argument ``name``, made of them by ``make``."""

    @wraps(command)
    def call(*args: Any, **values: Any) -> Any:
        value = make(**{option: values.pop(option) for option in gathered})
        return command(*args, **{name: value}, **values)

    return call


def _with_options(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def load_model(settings: ModelSettings, device: str | None) -> Classifier:
    """The classifier that the options name."""
    from underfire.models import load_classifier

    named = asdict(settings)
    return load_classifier(named.pop("spec"), **named, device=device)


def photos_of(sources: tuple[str, ...], classifier: Classifier) -> PhotoSet:
    """The photos that the user names, or the built-in ones."""
    from underfire.auditing.given import photos_given

    return photos_given(sources or None, classifier)
