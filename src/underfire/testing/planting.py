"""Planting an optimum into a classifier of the user's own: a class's row of its linear head is solved for.

After Zimmermann et al. (2022), who alter the last layer so that a known point in the ball is adversarial; here the
point has the benign CAM as well.
"""

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor

from underfire.attacks.perturbations import Linf
from underfire.attacks.pgd import PGD
from underfire.errors import InputError
from underfire.interpreters.base import ForwardPass
from underfire.interpreters.cam import CAM
from underfire.models.classifier import Classifier
from underfire.models.features import FeatureMap, head_weight
from underfire.plugins import described
from underfire.seeding import generator, owners
from underfire.testing.planted import TARGET_KEPT, PlantedOptimum, measure_validity, random_points

MARGIN = 10.0
"""Nats by which the target class leads at the planted point and is behind at the benign image.

Chosen on two built-in photos: with 4 an attack on the label alone ends too near the benign map, at L1 of .09 to .12.
"""

_STEPS = 12  # of the attack whose end is planted
_CLASSES = 3  # at least
_POINTS = 12  # random points that are kept from the target class


def plant_optimum(
    classifier: Classifier,
    x: Tensor,
    label: Tensor,
    *,
    eps: float = Linf.eps,
    margin: float = MARGIN,
    seed: int = 0,
    key: str | None = None,
) -> PlantedOptimum:
    """Plant a point into ``classifier`` that has a target class and the benign CAM, within ``eps`` of ``x``.

    The point is where 12 steps of PGD towards a third class end, since its features must be far from those of ``x``.
    The target's row of the linear head becomes the shortest one with which the point's CAM is the benign one, cell by
    cell, and ``x`` and 12 random points of the ball stay behind their own class by ``margin``; its bias lets the target
    lead by ``margin`` at the point. Nothing else changes, and ``classifier`` does not.

    Args:
        classifier: with global average pooling and one linear layer whose bias is a parameter.
        x: one image (1, C, H, W) in [0, 1].
        label: its class (1,), int64.
        eps: L∞ budget in pixel values of [0, 1].
        margin: in nats, above 0.
        seed: of the target class, the third one and the random points.
        key: the owner of the image's random numbers, by default its content.

    Raises:
        InputError: the classifier has another head or fewer than three classes, or takes ``x`` for another class.
    """
    cam, model = CAM(classifier), Linf(eps)
    head = _checked(classifier, cam.features, x, label, margin)
    (name,) = owners(x, None if key is None else (key,))
    draw = generator(seed, name, "planted optimum")
    drawn = [c for c in torch.randperm(classifier.num_classes, generator=draw).tolist() if c != int(label)]
    target, third = (torch.tensor([c], device=x.device) for c in drawn[:2])
    x = model.rounded(x, x).to(x.dtype) / 255
    moved = PGD(classifier, eps=eps, steps=_STEPS, keep="last")(x, third, keys=(name,)).x_adv
    point = model.rounded(x, moved).to(x.dtype) / 255
    others = torch.cat([x, random_points(model, x[0], draw, _POINTS)])

    (cells, at_point), (mine, _), (away, behind) = (_seen(classifier, cam.features, z) for z in (point, x, others))
    benign = head_weight(classifier, cam.features)[label[0]].double()
    wanted = mine[0].flatten(1).T @ benign
    bias = _best_other(at_point, target)[0] + margin - wanted.mean()
    rows = torch.cat([cells[0].flatten(1).T, away.mean(dim=(2, 3))])
    values = torch.cat([wanted, _best_other(behind, target) - margin - bias])
    solved = torch.linalg.lstsq(rows.cpu(), values[:, None].cpu(), driver="gelsd")
    row = solved.solution[:, 0].to(rows.device)
    altered = CAM(_altered(classifier, head, int(target), row, bias))
    planted = PlantedOptimum(TARGET_KEPT, altered, model, x, label, target, point, altered(x, label), (name,))
    found = measure_validity(planted, seed=seed)
    validity = replace(found, rank=int(solved.rank), rows=len(rows), norm_ratio=float(row.norm() / benign.norm()))
    return replace(planted, validity=validity)


def _checked(
    classifier: Classifier, features: FeatureMap, x: Tensor, label: Tensor, margin: float
) -> tuple[str, str, bool]:
    """The names of the head's weight and bias, and whether that is transposed; refuses what does not serve."""
    classifier.check_images(x)
    if len(x) != 1:
        raise InputError(f"{len(x)} images were given; an optimum is planted for one, so give each by itself.")
    classifier.check_classes(label, 1)
    if not 0 < margin < math.inf:
        raise InputError(f"margin {margin:g} is not a finite number above 0.")
    head = features.head
    if head is None or head.weight is None or head.bias is None:
        raise InputError(
            f"no tensor of {classifier.name!r} is the weight of its linear head, or none its bias, so that no row of"
            " it can be replaced; give a classifier that ends in nn.Linear with a bias."
        )
    if classifier.num_classes < _CLASSES:
        raise InputError(
            f"{classifier.name!r} has {classifier.num_classes} classes; planting takes {_CLASSES}: the benign one, the"
            " target, and one to move away from both."
        )
    predicted = int(classifier(x).argmax(dim=1))
    if predicted != int(label):
        raise InputError(
            f"the classifier takes the image for class {predicted}, not for the label {int(label)}; give one that it"
            " gets right."
        )
    return head.weight, head.bias, head.transposed


def _seen(classifier: Classifier, features: FeatureMap, x: Tensor) -> tuple[Tensor, Tensor]:
    """The activation (N, C, h, w) and the logits (N, K) of ``x``, in float64."""
    with torch.no_grad(), classifier.frozen():
        view = ForwardPass(classifier, x, taps=(features,), attached=False)
        return view.activation(features).double(), view.logits.double()


def _best_other(logits: Tensor, target: Tensor) -> Tensor:
    """(N,) the largest of ``logits`` (N, K) but that of the class ``target`` (1,)."""
    return logits.index_fill(1, target, -torch.inf).amax(dim=1)


def _altered(classifier: Classifier, head: tuple[str, str, bool], target: int, row: Tensor, bias: Tensor) -> Classifier:
    """``classifier`` with a module of its own, in whose head the class ``target`` has this ``row`` (C,) and ``bias``.

    Raises:
        InputError: the module cannot be copied.
    """
    twin = copy.copy(classifier)
    try:
        with classifier.alone():
            twin.module = copy.deepcopy(classifier.module)
    except Exception as error:  # a stranger's module may hold anything, and raise anything
        raise InputError(
            f"the module of {classifier.name!r} cannot be copied, {described(error)}, and is not to be altered itself;"
            " give one that can."
        ) from error
    tensors = {**dict(twin.module.named_parameters()), **dict(twin.module.named_buffers())}
    name, of_bias, transposed = head
    weight, biases = tensors[name].detach().squeeze(), tensors[of_bias].detach().squeeze()
    (weight.T if transposed else weight)[target] = row.to(weight)
    biases[target] = bias.to(biases)
    return twin
