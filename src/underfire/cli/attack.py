"""``underfire attack``: one photo, one joint attack on the prediction and its explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from underfire.auditing.condition import Condition
from underfire.auditing.plan import PASSES, AuditPlan, ModelSettings, Preset
from underfire.cli.console import print_table
from underfire.cli.options import (
    ATTACKS,
    DEFAULTS,
    INTERPRETERS,
    attack_options,
    load_model,
    model_options,
    out_folder,
    rts_option,
)
from underfire.errors import InputError
from underfire.files import make_output, printable, quoted

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.attacks.registry import AttackEntry
    from underfire.auditing.single import SingleAttack
    from underfire.images import Photo
    from underfire.interpreters import Interpreter
    from underfire.models.classifier import Classifier


@click.command()
@click.argument("photo", required=False)
@model_options
@click.option(
    "--interpreter",
    "interpreters",
    type=INTERPRETERS,
    default=("cam",),
    show_default="cam",
    help="Whose map is attacked; several, comma-separated, are attacked at once.",
)
@rts_option
@click.option(
    "--attack",
    "attack_name",
    type=ATTACKS,
    default=("adv2",),
    show_default="adv2",
    metavar="NAME",
    help="Which one: its name (see: underfire attacks), or your own as package.module:Name.",
)
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
@out_folder("Where images, maps and result.json go.", default="underfire-attack", show_default=True)
def attack(
    photo: str | None,
    settings: ModelSettings,
    device: str | None,
    interpreters: tuple[str, ...],
    rts: str | None,
    attack_name: tuple[str, ...],
    target_class: str,
    target_map: str,
    preset: Preset,
    plan: AuditPlan,
    out: Path,
) -> None:
    """Makes a photo look like TARGET_CLASS to the model while its map stays, or becomes the map that you choose.

    Without PHOTO the first built-in one is taken.
    """
    from underfire.auditing.names import make_interpreters, make_perturbation
    from underfire.auditing.selection import select_interpreters
    from underfire.auditing.single import attack_photo
    from underfire.auditing.targets import class_index
    from underfire.images import builtin_photos, load_photo

    plan = replace(plan, preset=preset, attacks=attack_name, interpreters=interpreters, rts=rts)
    attack_entry = _one_attack(attack_name)
    classifier = load_model(settings, device)
    selection = select_interpreters(interpreters, classifier, preset=preset, rts=rts)
    explainers = make_interpreters(selection.interpreters, classifier, rts=rts)
    target = class_index(target_class, classifier.class_names)
    chosen = builtin_photos().photos[0] if photo is None else _one_photo(photo, classifier)
    pixels = load_photo(chosen.path, classifier.preprocessing)
    wanted = _target_maps(target_map, explainers, seed=plan.seed, key=chosen.image_id)
    make_output(out)
    result = attack_photo(
        explainers,
        pixels,
        image_id=chosen.image_id,
        file=str(chosen.path),
        target=target,
        target_maps=wanted,
        attack=attack_entry.name,
        preset=preset,
        perturbation=attack_entry.within(make_perturbation(plan.perturbation, plan.eps)),
        effort=plan.effort_of(Condition.on(attack_entry.name, explainers[0].name)),
        seed=plan.seed,
        out=out,
    )
    _save(result, out)
    _print(result, classifier)
    click.echo(f"Images, maps and result.json: {printable(out)}")


def _one_attack(names: tuple[str, ...]) -> AttackEntry:
    from underfire.attacks.registry import entry_of

    if len(names) != 1:
        raise InputError(f"--attack '{','.join(names)}' names {len(names)} attacks; give one")
    entry = entry_of(names[0])
    if not entry.attack.joint:
        raise InputError(f"--attack '{names[0]}' attacks the prediction alone and no map; give another, such as 'adv2'")
    own = entry.attack.goals[0]
    if own.label != "target":
        raise InputError(f"--attack '{names[0]}' is for the goal {own} and leads to no class; audit with --goals {own}")
    return entry


def _one_photo(source: str, classifier: Classifier) -> Photo:
    from underfire.images import find_photos

    found = find_photos([source], class_names=classifier.class_names)
    if len(found.photos) != 1:
        why = f" ({found.skipped[0].reason})" if found.skipped else ""
        raise InputError(f"{quoted(source)} holds {len(found.photos)} photos{why}; give one photo")
    return found.photos[0]


def _target_maps(text: str, interpreters: Sequence[Interpreter], *, seed: int, key: str) -> dict[str, Tensor] | None:
    """The target maps (h, w) that ``text`` means, by interpreter; None for the photo's own."""
    from underfire.attacks.target_maps import random_patch
    from underfire.auditing.look import look, predict
    from underfire.images import load_photo
    from underfire.images.png import from_8bit

    if text == "benign":
        return None
    if text == "patch":
        return {i.name: random_patch(i.grid, seed=seed, key=key) for i in interpreters}
    classifier = interpreters[0].classifier
    other = _one_photo(text, classifier)
    loaded = load_photo(other.path, classifier.preprocessing)
    x = from_8bit(loaded.pixels[None], classifier.dtype)
    seen = predict(classifier, x, names=[other.image_id]).argmax(dim=1)
    view = look(classifier, interpreters, x, seen, names=[other.image_id])
    return {name: maps[0] for name, maps in view.maps.items()}


def _save(result: SingleAttack, out: Path) -> None:
    from underfire.auditing.store import write_json
    from underfire.cli.pictures import save_maps
    from underfire.images.png import read_shown

    pictures = {name: read_shown(out / f"{name}.png") for name in ("benign", "adversarial")}
    for name, maps in result.target_maps.items():
        save_maps(pictures["benign"], result.benign.maps[name][0], out / f"benign-{name}")
        save_maps(pictures["adversarial"], result.adversarial.maps[name][0], out / f"adversarial-{name}")
        save_maps(pictures["adversarial"], maps, out / f"target-{name}")
    write_json(
        out / "result.json",
        {
            "rows": [row.columns() for row in result.rows],
            "target_maps": {name: {"l1_8bit": value} for name, value in result.target_l1.items()},
        },
    )


def _print(result: SingleAttack, classifier: Classifier) -> None:
    """What was found, on the image as saved."""
    import torch

    names = classifier.class_names
    (first, *_) = result.rows
    adversarial = int(result.adversarial.predict(torch.tensor([first.target])))
    print_table(
        ("image", "prediction", "confidence"),
        [
            ("benign", names[first.photo.label], f"{first.answer.clean_confidence:.3f}"),
            ("adversarial", names[adversarial], f"{float(result.adversarial.probabilities[0, adversarial]):.3f}"),
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
