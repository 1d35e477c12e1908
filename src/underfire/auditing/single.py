"""One joint attack on one photo, measured as an audit measures it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from underfire import metrics
from underfire.attacks import ADV2, AttackResult
from underfire.attacks.budget import Effort
from underfire.attacks.joint import Terms
from underfire.attacks.perturbations import Perturbation
from underfire.attacks.registry import entry_of
from underfire.auditing.condition import Condition
from underfire.auditing.look import ModelView, calling, look, predict
from underfire.auditing.measured import Treated, rows_of
from underfire.auditing.plan import PlannedPhoto, Preset
from underfire.auditing.rows import Row
from underfire.auditing.unit import save_and_read
from underfire.errors import InputError
from underfire.files import quoted
from underfire.images import Pixels
from underfire.images.png import from_8bit
from underfire.interpreters import Interpreter


@dataclass(frozen=True)
class SingleAttack:
    """An attacked photo and how it is seen; all views are of one image."""

    rows: tuple[Row, ...]
    """One per attacked interpreter; their l1 and iou compare with the benign map."""
    benign: ModelView
    adversarial: ModelView
    """On the image as saved."""
    target_maps: Mapping[str, Tensor]
    """(h, w) each."""
    target_l1: Mapping[str, float]
    """Mean L1 distance to the target map, on the image as saved."""


def attack_photo(
    interpreters: Sequence[Interpreter],
    pixels: Pixels,
    *,
    image_id: str,
    file: str,
    target: int,
    target_maps: Mapping[str, Tensor] | None,
    attack: str = ADV2.name,
    preset: Preset,
    perturbation: Perturbation,
    effort: Effort,
    seed: int,
    out: Path,
) -> SingleAttack:
    """Attacks a photo and its maps at once, with ``attack``, and saves benign.png and adversarial.png in ``out``.

    The label is the model's own prediction. ``target_maps`` (h, w) by interpreter; None for the benign maps.
    Raises `InputError` if the photo is seen as the target class already, or a number is not finite.
    """
    classifier = interpreters[0].classifier
    x = from_8bit(pixels.pixels[None], classifier.dtype)
    names = [image_id]
    label = predict(classifier, x, names=names).argmax(dim=1)
    if int(label) == target:
        raise InputError(
            f"photo {quoted(image_id)} is '{classifier.class_names[target]}' to the model already; "
            "give another target class"
        )
    benign = look(classifier, interpreters, x, label, names=names)
    wanted = {i.name: benign.maps[i.name] if target_maps is None else target_maps[i.name][None] for i in interpreters}
    targets = torch.tensor([target])
    with calling(names):
        terms = Terms(perturbation, effort, seed)
        result = entry_of(attack).make(classifier, interpreters, terms, preset=preset)(
            x.to(classifier.device),
            targets.to(classifier.device),
            target_map={name: maps.to(classifier.device) for name, maps in wanted.items()},
            keys=names,
        )
    x_adv = result.x_adv.detach().cpu()
    save_and_read(x, x, perturbation, [out / "benign.png"])
    saved = save_and_read(x_adv, x, perturbation, [out / "adversarial.png"])
    view = look(classifier, interpreters, x_adv, targets, names=names, known=result.maps)
    saved_view = look(classifier, interpreters, saved, targets, names=names)
    condition = Condition.on(entry_of(attack).name, *(i.name for i in interpreters))
    treated = _treated(condition, result, x, x_adv, benign, view, saved_view)
    photo = PlannedPhoto(image_id, "", pixels.sha256, file, int(label), False, target, None)
    (rows,) = rows_of([photo], treated, seed=seed)
    return SingleAttack(
        tuple(rows),
        benign,
        saved_view,
        {name: maps[0] for name, maps in wanted.items()},
        {name: float(metrics.l1(saved_view.maps[name], maps)) for name, maps in wanted.items()},
    )


def _treated(
    condition: Condition,
    result: AttackResult,
    x: Tensor,
    x_adv: Tensor,
    benign: ModelView,
    view: ModelView,
    saved: ModelView,
) -> Treated:
    return Treated(
        condition,
        benign_x=x,
        x=x_adv,
        benign=benign,
        view=view,
        saved=saved,
        classes=result.target.cpu(),
        perturbation=result.perturbation,
        used=result.used.cpu(),
        steps=result.steps,
        passes=result.passes.tolist(),
        seconds=result.seconds,
        trace=result.trace,
    )
