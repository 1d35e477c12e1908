"""The contract of an attack."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from underfire.attacks.joint import JointAttack
from underfire.attacks.result import AttackResult
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter
from underfire.interpreters.cam import CAM
from underfire.interpreters.grad import GRAD
from underfire.models.classifier import Classifier
from underfire.testing.common import hold, hold_named, keys_of, no_trace, smooth_classifier, some_images
from underfire.testing.planted import GOALS, PlantedOptimum
from underfire.testing.swapped import swapped_optimum

MakeAttack = Callable[[Classifier], JointAttack]

_CLOSE = 1e-9
_SEED = 1  # of the network of the default planted problems; in that of 0 a random point reaches kept/l1 of GRAD
_OVERHEAD = 20  # images for each attacked one that may be looked at and not counted: benign maps, scores, preparation


def check_attack(make: MakeAttack) -> None:
    """Hold an attack to its contract.

    Args:
        make: makes the attack from a classifier of 16×16 images in float64, on it or on interpreters of it; of 40 to
            some hundred steps, so that passes that are not counted show.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    x, label = some_images()
    target = (label + 2) % 5
    attack = make(smooth_classifier())
    hold_named(attack.name, "attack")
    result = attack(x.clone(), target.clone(), keys=keys_of(len(x)))
    _check_shapes(attack, result, x, target)
    _check_budget(attack.name, result)
    _check_scores(attack, result)
    _check_batches(attack, result)
    _check_untouched(make, x, target)
    _check_passes(make, x, target)
    _check_refusals(attack, x, target)


def check_planted(
    make: Callable[[Interpreter], JointAttack],
    problems: Iterable[PlantedOptimum] | None = None,
    *,
    goal: str = "target/kept",
) -> None:
    """Demand that an attack finds what was planted: the value of the goal, not the very point.

    Args:
        make: makes the attack, in its standard budget, from the interpreter under attack; the class of an attack will
            often do.
        problems: by default CAM and GRAD of a small network, some seconds.
        goal: LABEL/MAP, of the default problems: one of ``GOALS``, where it says what is asked for.

    Raises:
        InputError: a problem is not valid, or the goal is none of those.
        AssertionError: the attack leaves its budget or misses the goal on an image; the message says by how much.
    """
    for planted in _default_problems(goal) if problems is None else problems:
        planted.require_valid()
        attack = make(planted.interpreter)
        result = attack(planted.x.clone(), planted.aim, target_map=planted.target_map, keys=planted.keys)
        on = f"{attack.name} on a planted optimum of {planted.interpreter.name}"
        inside = planted.perturbation.contains(planted.x, result.x_adv)
        hold(bool(inside.all()), f"{on}: an image is outside the budget of {planted.perturbation.eps:g}")
        found = planted.judge(result.x_adv)
        for key, label, value in zip(planted.keys, found.label.tolist(), found.value.tolist(), strict=True):
            hold(label, f"{on}: {key} has not the label that {planted.goal.goal} wants, and a point in its budget has")
            hold(
                value <= planted.goal.limit,
                f"{on}: {key} ends at {value:.3f}, and a point in its budget has at most {planted.goal.limit:.3g}",
            )


def _default_problems(goal: str) -> Iterator[PlantedOptimum]:
    if goal not in GOALS:
        raise InputError(f"goal {goal!r} has no planted optimum; give one of {', '.join(GOALS)}.")
    for make in (CAM, GRAD):
        yield swapped_optimum(make, goal=GOALS[goal], seed=_SEED)


def _check_shapes(attack: JointAttack, result: AttackResult, x: Tensor, target: Tensor) -> None:
    name, n = attack.name, len(x)
    hold(isinstance(result, AttackResult), f"{name}: returns a {type(result).__name__} and no AttackResult")
    hold(result.attack == name, f"{name}: its result is one of {result.attack!r}")
    hold(torch.equal(result.x, x), f"{name}: the benign images of its result are others than those given")
    hold(torch.equal(result.target, target), f"{name}: the targets of its result are others than those given")
    hold(result.x_adv.shape == x.shape, f"{name}: images {tuple(result.x_adv.shape)} for {tuple(x.shape)} (N, C, H, W)")
    hold(result.x_adv.dtype == x.dtype, f"{name}: images of {result.x_adv.dtype} for {x.dtype}")
    hold(not result.x_adv.requires_grad, f"{name}: its images are not detached")
    for what in ("prediction", "success", "confidence", "passes", "used"):
        hold(getattr(result, what).shape == (n,), f"{name}: {what} is not one number per image")
    hold(result.keys == keys_of(n), f"{name}: the keys of its result are not those given")
    empty = attack(x[:0], target[:0])
    hold(empty.x_adv.shape == (0, *x.shape[1:]), f"{name}: no image does not give no image")


def _check_budget(name: str, result: AttackResult) -> None:
    model, x_adv = result.perturbation, result.x_adv
    inside = bool(((x_adv >= 0) & (x_adv <= 1)).all())
    hold(inside, f"{name}: images leave [0, 1]")
    hold(bool(model.contains(result.x, x_adv).all()), f"{name}: an image is outside its budget of {model.eps:g}")
    hold(bool((result.used <= model.eps * (1 + 1e-6)).all()), f"{name}: more than the budget of {model.eps:g} is used")
    hold(not torch.equal(x_adv, result.x), f"{name}: no image is changed")


def _check_scores(attack: JointAttack, result: AttackResult) -> None:
    """What the result says is what the unmodified classifier and the interpreters say of its images."""
    name, classifier = attack.name, attack.classifier
    with torch.no_grad():
        probabilities = classifier.probabilities(result.x_adv)
    said = probabilities.argmax(dim=1)
    hold(torch.equal(result.prediction, said), f"{name}: the predictions are not the classifier's")
    hold(torch.equal(result.success, said == result.target), f"{name}: success is not whether the target is predicted")
    confidence = probabilities.gather(1, result.target[:, None]).squeeze(1)
    hold(torch.allclose(result.confidence, confidence, atol=_CLOSE), f"{name}: the confidence is not the classifier's")
    wanted = {g.name for g in attack.interpreters}
    hold(set(result.maps) == wanted == set(result.target_maps), f"{name}: maps of {sorted(result.maps)}")
    for g in attack.interpreters:
        maps = g(result.x_adv, result.target, keys=result.keys)
        hold(torch.allclose(result.maps[g.name], maps, atol=_CLOSE), f"{name}: the {g.name} maps are not its images'")


def _check_batches(attack: JointAttack, whole: AttackResult) -> None:
    name, keys = attack.name, whole.keys
    again = attack(whole.x, whole.target, keys=keys)
    hold(torch.equal(again.x_adv, whole.x_adv), f"{name}: the same call makes other images")
    for chosen in ([1], [3, 0], [4, 2, 1]):
        rows = torch.tensor(chosen)
        part = attack(whole.x[rows], whole.target[rows], keys=[keys[row] for row in chosen])
        worst = float((part.x_adv - whole.x_adv[rows]).abs().max())
        hold(worst < _CLOSE, f"{name}: what else is in the batch changes an image, by {worst:.3g}")
        hold(torch.equal(part.passes, whole.passes[rows]), f"{name}: what else is in the batch changes the passes")


def _check_untouched(make: MakeAttack, x: Tensor, target: Tensor) -> None:
    classifier = smooth_classifier()
    classifier.module.train()
    attack, images, wanted = make(classifier), x.clone().requires_grad_(True), target.clone()
    with no_trace(classifier, attack.name):
        attack(images, wanted)
    hold(images.grad is None, f"{attack.name}: leaves a gradient on the images")
    hold(torch.equal(images.detach(), x), f"{attack.name}: changes the images given")
    hold(torch.equal(wanted, target), f"{attack.name}: changes the targets given")


def _check_passes(make: MakeAttack, x: Tensor, target: Tensor) -> None:
    """The passes that it reports are no fewer than half of the images that the classifier saw."""
    classifier = smooth_classifier()
    attack = make(classifier)
    with _seen(classifier.module) as seen:
        result = attack(x, target)
    told, uncounted = int(result.passes.sum()), _OVERHEAD * len(x)
    hold(result.passes.dtype == torch.int64, f"{attack.name}: passes are {result.passes.dtype}, not int64")
    hold(
        2 * told >= sum(seen) - uncounted,
        f"{attack.name}: tells of {told} passes, and the classifier saw {sum(seen)} images",
    )


@contextmanager
def _seen(module: nn.Module) -> Iterator[list[int]]:
    """How many images each call of ``module``, or of a copy that is made of it inside the block, is given."""
    seen = _Counter()
    handle = module.register_forward_hook(seen)
    try:
        yield seen.counts
    finally:
        handle.remove()


class _Counter:
    def __init__(self) -> None:
        self.counts: list[int] = []

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...], _output: object) -> None:
        self.counts.append(len(inputs[0]))

    def __deepcopy__(self, _memo: object) -> "_Counter":
        """Itself: copies of the module count on."""
        return self


def _check_refusals(attack: JointAttack, x: Tensor, target: Tensor) -> None:
    for what, images, classes in (
        ("images that are not (N, C, H, W)", x[0], target[:1]),
        ("images of another size", x[:, :, :8], target),
        ("values beyond [0, 1]", 255 * x, target),
        ("fewer targets than images", x, target[:2]),
        ("a class that does not exist", x, target + 100),
    ):
        try:
            attack(images, classes)
        except InputError:
            continue
        except Exception as error:
            raise AssertionError(f"{attack.name}: {what} raise {type(error).__name__}, not InputError") from error
        raise AssertionError(f"{attack.name}: {what} are not refused")
