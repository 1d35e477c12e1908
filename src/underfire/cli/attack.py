"""``underfire attack``: one photo, one joint attack on the prediction and its explanation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from torch import Tensor

from underfire.attacks.target_maps import random_patch
from underfire.auditing.condition import Condition
from underfire.auditing.look import look, predict
from underfire.auditing.names import make_interpreters, make_perturbation
from underfire.auditing.plan import PASSES, AuditPlan, ModelSettings, Preset
from underfire.auditing.selection import select_interpreters
from underfire.auditing.single import SingleAttack, attack_photo
from underfire.auditing.store import write_json
from underfire.auditing.targets import class_index
from underfire.cli.console import print_table
from underfire.cli.options import DEFAULTS, INTERPRETERS, attack_options, load_model, model_options, rts_option
from underfire.cli.pictures import save_maps
from underfire.errors import InputError
from underfire.images import Photo, builtin_photos, find_photos, load_photo
from underfire.images.files import printable, quoted
from underfire.images.levels import from_8bit
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.present.pictures import read_photo


@click.command()
@click.argument("photo", required=False)
@model_options
@click.option(
    "--interpreter",
    "interpreters",
    type=INTERPRETERS,
    default="cam",
    show_default=True,
    help="Whose map is attacked; several, comma-separated, are attacked at once.",
)
@rts_option
@click.option("--target-class", required=True, metavar="CLASS", help="The class to reach, by index or name.")
@click.option(
    "--target-map",
    default="benign",
    show_default=True,
    metavar="benign|patch|PHOTO",
    help="The map to show: the photo's own, a random patch, or another photo's.",
)
@click.option(
    "--preset",
    type=click.Choice(list(PASSES)),
    default=DEFAULTS.preset,
    show_default=True,
    help="Passes; with authors, the attack of the authors of ADV² on one interpreter.",
)
@attack_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="underfire-attack",
    show_default=True,
    metavar="DIR",
    help="Where images, maps and result.json go.",
)
def attack(
    photo: str | None,
    settings: ModelSettings,
    device: str,
    interpreters: tuple[str, ...],
    rts: str | None,
    target_class: str,
    target_map: str,
    preset: Preset,
    plan: AuditPlan,
    out: Path,
) -> None:
    """Makes a photo look like TARGET_CLASS to the model while its map stays, or becomes the map that you choose.

    Without PHOTO the first built-in one is taken.
    """
    plan = replace(plan, preset=preset, attacks=("adv2",), interpreters=interpreters, rts=rts)
    classifier = load_model(settings, device)
    selection = select_interpreters(interpreters, classifier, preset=preset, rts=rts)
    explainers = make_interpreters(selection.interpreters, classifier, rts=rts)
    target = class_index(target_class, classifier.class_names)
    chosen = builtin_photos().photos[0] if photo is None else _one_photo(photo, classifier)
    pixels = load_photo(chosen.path, resize=classifier.resize, input_size=classifier.input_size)
    aims = _target_maps(target_map, explainers, seed=plan.seed, key=chosen.image_id)
    out.mkdir(parents=True, exist_ok=True)
    result = attack_photo(
        explainers,
        pixels,
        image_id=chosen.image_id,
        file=str(chosen.path),
        target=target,
        target_maps=aims,
        preset=preset,
        perturbation=make_perturbation(plan.perturbation, plan.eps),
        effort=plan.effort_of(Condition.on("adv2", interpreters[0])),
        seed=plan.seed,
        out=out,
    )
    _save(result, out)
    _print(result, classifier)
    click.echo(f"Images, maps and result.json: {printable(out)}")


def _one_photo(source: str, classifier: Classifier) -> Photo:
    found = find_photos([source], class_names=classifier.class_names)
    if len(found.photos) != 1:
        why = f" ({found.skipped[0].reason})" if found.skipped else ""
        raise InputError(f"{quoted(source)} holds {len(found.photos)} photos{why}; give one photo")
    return found.photos[0]


def _target_maps(text: str, interpreters: Sequence[Interpreter], *, seed: int, key: str) -> dict[str, Tensor] | None:
    """The target maps (h, w) that ``text`` means, by interpreter; None for the photo's own."""
    if text == "benign":
        return None
    if text == "patch":
        return {i.name: random_patch(i.grid, seed=seed, key=key) for i in interpreters}
    classifier = interpreters[0].classifier
    other = _one_photo(text, classifier)
    loaded = load_photo(other.path, resize=classifier.resize, input_size=classifier.input_size)
    x = from_8bit(loaded.pixels[None], classifier.dtype)
    seen = predict(classifier, x, names=[other.image_id]).argmax(dim=1)
    view = look(classifier, interpreters, x, seen, names=[other.image_id])
    return {name: maps[0] for name, maps in view.maps.items()}


def _save(result: SingleAttack, out: Path) -> None:
    pictures = {name: read_photo(out / f"{name}.png") for name in ("benign", "adversarial")}
    for name, aim in result.target_maps.items():
        save_maps(pictures["benign"], result.benign.maps[name][0], out / f"benign-{name}")
        save_maps(pictures["adversarial"], result.adversarial.maps[name][0], out / f"adversarial-{name}")
        save_maps(pictures["adversarial"], aim, out / f"target-{name}")
    write_json(
        out / "result.json",
        {
            "rows": [row.columns() for row in result.rows],
            "target_maps": {name: {"l1_8bit": value} for name, value in result.target_l1.items()},
        },
    )


def _print(result: SingleAttack, classifier: Classifier) -> None:
    """What was found, on the image as saved."""
    names = classifier.class_names
    adversarial = int(result.adversarial.prediction)
    (first, *_) = result.rows
    print_table(
        ("image", "prediction", "confidence"),
        [
            ("benign", names[first.photo.label], f"{first.answer.clean_confidence:.3f}"),
            ("adversarial", names[adversarial], f"{float(result.adversarial.probabilities.max()):.3f}"),
        ],
    )
    click.echo(f"The target class '{names[first.target]}' was {'' if first.saved.success else 'not '}reached.")
    print_table(
        ("interpreter", "L1 to target map", "L1 to benign map", "IoU with benign map"),
        [
            (
                row.interpreter,
                f"{result.target_l1[row.interpreter]:.3f}",
                f"{row.saved.distances.l1:.3f}",
                f"{row.saved.distances.iou_50:.3f}",
            )
            for row in result.rows
        ],
    )
