"""How an attack on GRAD finds which way an image moves its own gradient: cost and quality of four ways.

With g the gradient of −log p_t in the pixels and v that of the loss on the map in g, the direction wanted is H·v.
A ReLU network has H = 0 almost everywhere: a difference of finite length sees its kinks, the others smooth them.

``python -m benchmarks.second_order``
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import click
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from benchmarks.steps import forward_backward
from benchmarks.subject import Recipe, Subject
from benchmarks.tables import Table
from benchmarks.timing import Ratio, clock_of, in_turn, ratio
from underfire import ADV2, GRAD, PGD, metrics
from underfire.attacks.engine import Outcome, descend
from underfire.attacks.smoothed import TAU, Rise, smoothed_clip
from underfire.interpreters import ForwardPass, MapGradient, MapObjective, MapTarget
from underfire.interpreters.clipping import Clip, Clipping, double_backward
from underfire.interpreters.directional import Linearised, along
from underfire.interpreters.maps import pooled, saliency_slope, scaled_distance
from underfire.models import DEFAULT_MODEL
from underfire.models.classifier import Classifier
from underfire.models.folded import prepared

BATCH = 4


@dataclass(frozen=True)
class Way:
    """One way to H·v.

    Attributes:
        linearise: from a forward pass and classes (N,) to g and H·v.
        shares: g is the gradient that the prediction loss needs anyway; otherwise the way takes a pass of its own.
    """

    linearise: Callable[[ForwardPass, Tensor], Linearised]
    shares: bool


class BranchFreeClip(torch.autograd.Function):
    """Values cut to [low, high], differentiated by ½(1 + z/√(z² + τ)) at either end, forwards and backwards."""

    @staticmethod
    def forward(z: Tensor, low: float, high: float) -> Tensor:
        return z.clamp(low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:  # noqa: ARG004
        z, ctx.low, ctx.high = inputs
        ctx.save_for_backward(z)
        ctx.save_for_forward(z)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] * _slope(ctx.saved_tensors[0], ctx.low, ctx.high), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        tangent: Tensor = tangents[0]
        return tangent * _slope(ctx.saved_tensors[0], ctx.low, ctx.high)


def branch_free_clip(z: Tensor, low: float, high: float) -> Tensor:
    cut: Tensor = BranchFreeClip.apply(z, low, high)  # type: ignore[no-untyped-call]
    return cut


def _slope(z: Tensor, low: float, high: float) -> Tensor:
    return 0.5 * (_rise(z - low) + 1) if high == torch.inf else 0.5 * (_rise(z - low) - _rise(z - high))


class _RiseBothWays(Rise):
    """The same, differentiated forwards as well."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        risen = Rise.forward(ctx, u)
        ctx.save_for_forward(*ctx.to_save)
        return risen

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        tangent: Tensor = tangents[0]
        inverse: Tensor = ctx.saved_tensors[0]
        return tangent * TAU * inverse.pow(3)


def _rise(u: Tensor) -> Tensor:
    risen: Tensor = _RiseBothWays.apply(u)  # type: ignore[no-untyped-call]
    return risen


def difference(view: ForwardPass, classes: Tensor) -> Linearised:
    """What ADV² does; see ``GRAD``."""

    def gradient_at(x: Tensor) -> Tensor:
        return ForwardPass(view.classifier, x).nll_gradient(classes)

    g, probe = view.nll_gradient(classes), GRAD(view.classifier).probe
    return g, lambda v: along(gradient_at, view.x.detach(), g, v, probe)


def twice(clip: Clip) -> Callable[[ForwardPass, Tensor], Linearised]:
    def linearise(view: ForwardPass, classes: Tensor) -> Linearised:
        return double_backward(lambda z: _nll(view.classifier, z, classes), view.x, clip)

    return linearise


def forward_over_reverse(view: ForwardPass, classes: Tensor) -> Linearised:
    def product(v: Tensor) -> Tensor:
        with forward_ad.dual_level(), Clipping(branch_free_clip), torch.enable_grad():
            dual = forward_ad.make_dual(view.x.detach().requires_grad_(), v)
            (gradient,) = torch.autograd.grad(_nll(view.classifier, dual, classes).sum(), dual)
            tangent: Tensor = forward_ad.unpack_dual(gradient).tangent
        return tangent.detach()

    return view.nll_gradient(classes), product


def _nll(classifier: Classifier, x: Tensor, classes: Tensor) -> Tensor:
    return -F.log_softmax(classifier.scores(x), dim=1).gather(1, classes[:, None]).squeeze(1)


WAYS: Mapping[str, Way] = {
    "directional difference": Way(difference, shares=True),
    "the authors' smoothing, double backward": Way(twice(smoothed_clip), shares=False),
    "branch-free smoothing, double backward": Way(twice(branch_free_clip), shares=False),
    "branch-free smoothing, forward over reverse": Way(forward_over_reverse, shares=True),
}


class WayObjective:
    """GRAD's objective with another way to its direction; the distance is that of the network as it is."""

    taps = ()
    needs_backward = False

    def __init__(self, way: Way, task: MapTarget) -> None:
        self._way, self._task = way, task

    def __call__(self, view: ForwardPass) -> MapGradient:
        task = self._task
        g, product = self._way.linearise(view, task.classes)
        _, loss, v = saliency_slope(g, task.maps)
        distance = scaled_distance(pooled(view.nll_gradient(task.classes)), task.maps)
        return MapGradient(distance, loss, product(v), passes=1)

    def select(self, places: Tensor) -> None:
        self._task = self._task.select(places)


@dataclass(frozen=True)
class Cost:
    """What one way takes, in raw forward and backward passes.

    Attributes:
        product: g and one H·v.
        look: all that a step of the attack takes: the prediction loss, its gradient, the map's loss and direction.
    """

    product: Ratio
    look: Ratio


def costs(subject: Subject, *, turns: int) -> Mapping[str, Cost]:
    """All ways and the raw pass taken in turn, on the prepared model."""
    twin, x, target, grad = prepared(subject.classifier), subject.x, subject.target, GRAD(subject.classifier)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    task = MapTarget(target, grad(x, subject.label), tuple(str(i) for i in range(len(x))), seed=0)
    with twin.frozen():
        made = ForwardPass(twin, x)

        def product(way: Way) -> Callable[[], object]:
            return lambda: way.linearise(ForwardPass(twin, x) if way.shares else made, target)[1](v)

        def look(way: Way) -> Callable[[], object]:
            return lambda: WayObjective(way, task)(ForwardPass(twin, x))

        contenders: dict[str, Callable[[], object]] = {"raw": lambda: forward_backward(twin, x, target)}
        contenders |= {f"{name}, product": product(way) for name, way in WAYS.items()}
        contenders |= {f"{name}, look": look(way) for name, way in WAYS.items()}
        seconds = in_turn(contenders, turns=turns, clock=clock_of(x.device))
    return {
        name: Cost(*(ratio(seconds[f"{name}, {what}"], seconds["raw"]) for what in ("product", "look")))
        for name in WAYS
    }


def cost_table(subject: Subject, found: Mapping[str, Cost]) -> Table:
    return Table(
        f"Directions for GRAD ({subject})",
        ("way", "g and H·v", "all of a step"),
        [(name, str(cost.product), str(cost.look)) for name, cost in found.items()],
        ("In raw forward and backward passes of the prepared model, taken in turn; medians with 95 % intervals.",),
    )


@dataclass(frozen=True)
class Reached:
    """How far one way came on all photos, on the unmodified classifier."""

    success: float
    confidence: float
    l1: float
    iou: float

    def cells(self) -> tuple[str, ...]:
        return tuple(f"{number:.3f}" for number in (self.success, self.confidence, self.l1, self.iou))


COLUMNS = ("way", "steps", "time", "success", "mean p_t", "mean L1", "mean IoU at 0.5")


def quality(subject: Subject, found: Mapping[str, Cost], *, steps: int) -> Iterator[Table]:
    """ADV² on GRAD with every way in place, for as many steps, and for as long as the directional difference takes."""
    grad = GRAD(subject.classifier)
    fastest = min(cost.look.value for cost in found.values())
    fitting = {name: max(1, round(steps * fastest / cost.look.value)) for name, cost in found.items()}
    blind = _scored(subject, grad, lambda x, target, _: PGD(subject.classifier, steps=steps)(x, target).x_adv)
    done: dict[tuple[str, int], Reached] = {}
    for what, counts in (("steps", dict.fromkeys(WAYS, steps)), ("time", fitting)):
        rows = []
        for name, n in counts.items():
            if (name, n) not in done:
                done[name, n] = reached(subject, grad, WAYS[name], steps=n)
            rows.append((name, str(n), f"{n * found[name].look.value:.0f}", *done[name, n].cells()))
        yield Table(
            f"ADV² on GRAD by every way, equal {what} ({subject.classifier.name}, {len(subject.photos)} photos)",
            COLUMNS,
            [*rows, ("PGD, for comparison", str(steps), str(steps), *blind.cells())],
            (
                "Targets half of all classes on, maps of the benign photos; the loop and its setting are ADV²'s. The"
                " time is in raw forward and backward passes, from the cost of a step.",
            ),
        )


def reached(subject: Subject, grad: GRAD, way: Way, *, steps: int) -> Reached:
    """ADV²'s loop on all photos with ``way`` in place of GRAD's own."""
    twin, setting = prepared(subject.classifier), ADV2(grad, steps=steps).setting

    def attack(x: Tensor, target: Tensor, maps: Tensor) -> Tensor:
        objective: MapObjective = WayObjective(
            way, MapTarget(target, maps, tuple(str(i) for i in range(len(x))), seed=0)
        )
        outcome: Outcome = descend(twin, x, target, [objective], setting)
        return outcome.x_adv

    return _scored(subject, grad, attack)


def _scored(subject: Subject, grad: GRAD, attack: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Reached:
    columns: list[tuple[Tensor, ...]] = []
    for x, label, target in zip(*(t.split(BATCH) for t in _once(subject)), strict=True):
        maps = grad(x, label)
        x_adv = attack(x, target, maps)
        p, found = subject.classifier.probabilities(x_adv), grad(x_adv, target)
        p_t = p.gather(1, target[:, None]).squeeze(1)
        columns.append(
            (p.argmax(dim=1) == target, p_t, metrics.l1(found, maps), metrics.iou(found, maps, threshold=0.5))
        )
    success, confidence, l1, iou = (float(torch.cat(column).double().mean()) for column in zip(*columns, strict=True))
    return Reached(success, confidence, l1, iou)


def _once(subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """Every photo once, what the classifier says, and the class aimed at."""
    photos = subject.photos
    label = subject.classifier.probabilities(photos).argmax(dim=1)
    return photos, label, (label + subject.classifier.num_classes // 2) % subject.classifier.num_classes


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--steps", type=click.IntRange(1), default=300, show_default=True, help="Of the attack.")
@click.option("--limit", type=click.IntRange(1), default=8, show_default=True, help="How many photos are attacked.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Timings of everything.")
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--photos", type=click.Path(exists=True), help="Photo, folder or manifest instead of the built-in photos."
)
def main(steps: int, limit: int, repeats: int, device: str, photos: str | None) -> None:
    """Compare four ways to the direction of an attack on GRAD."""
    subject = Subject.make(Recipe(DEFAULT_MODEL, device, BATCH, photos))
    subject = replace(subject, photos=subject.photos[:limit])
    found = costs(subject, turns=repeats)
    click.echo(cost_table(subject, found))
    for table in quality(subject, found, steps=steps):
        click.echo(table)


if __name__ == "__main__":
    main()
