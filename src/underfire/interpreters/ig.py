"""IG: integrated gradients (Sundararajan et al. 2017), and an attack at a few passes a step."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.interpreters.base import ForwardPass, Interpreter, MapGradient, MapObjective, MapTarget
from underfire.interpreters.directional import Linearised, along
from underfire.interpreters.maps import RawLoss, saliency, saliency_grid, shape_distance
from underfire.interpreters.outputs import Output, check_output, of_class
from underfire.interpreters.quadrature import Rule, nodes
from underfire.models.classifier import Classifier
from underfire.seeding import generator, twin, uniform


@dataclass(frozen=True)
class Attribution:
    """Signed attributions of a batch and how far they are from complete.

    Attributes:
        values: (N, C, H, W), the attribution of each input value, never scaled.
        residual: (N,) |Σ values − (f(x) − f(x̄))|: zero for the exact integral (completeness).
    """

    values: Tensor
    residual: Tensor


class IG(Interpreter):
    """Integrated gradients of the class's output along the straight path from a baseline.

    The map is the channel maximum of |attribution|, 4×4 mean pooled and min–max scaled. Path points are
    visited one after the other, so that memory does not grow with their number.

    Args:
        classifier: the classifier to explain.
        points: path points of the quadrature.
        rule: ``"midpoint"`` or ``"gauss-legendre"``.
        output: what is integrated, the class's ``"probability"`` or its ``"logit"``.
        baseline: x̄, one value for all pixels; 0 is black.
        strata: parts of the path that an attack keeps a gradient of; each step renews one of them.
        probe: length of the directional difference in pixel values, as in GRAD.

    Raises:
        InputError: an argument is out of range.
    """

    name = "ig"
    family = "back-propagation"
    summary = "gradients integrated along the path from a black image"
    passes_per_map = 32
    passes_per_step = 3
    remembers = True

    def __init__(
        self,
        classifier: Classifier,
        *,
        points: int = 32,
        rule: Rule = "midpoint",
        output: Output = "probability",
        baseline: float = 0.0,
        strata: int = 8,
        probe: float = 5e-4,
    ) -> None:
        super().__init__(classifier)
        check_output(output)
        if not 0 <= baseline <= 1:
            raise InputError(f"baseline {baseline:g} is not a pixel value in [0, 1].")
        if strata < 1:
            raise InputError(f"strata is {strata}; the path has at least 1 part.")
        self.nodes = nodes(points, rule)
        self.passes_per_map = len(self.nodes)
        self.output: Output = output
        self.baseline = baseline
        self.strata = strata
        self.probe = probe
        self.grid = saliency_grid(classifier.input_size)

    def integrate(self, x: Tensor, y: Tensor) -> Attribution:
        """Signed attributions of images ``x`` (N, C, H, W) in [0, 1] for classes ``y`` (N,), and their residual.

        Raises:
            InputError: ``x`` or ``y`` is not what the classifier takes.
        """
        self.classifier.check_images(x)
        self.classifier.check_classes(y, x.shape[0])
        with self.classifier.frozen(), torch.no_grad():
            values = self._integral(x, y)
            ends = [self.outputs(self.classifier.scores(z), y) for z in (x, torch.full_like(x, self.baseline))]
        return Attribution(values, (values.sum(dim=(1, 2, 3)) - (ends[0] - ends[1])).abs())

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:  # noqa: ARG002 - draws nothing
        """The maps (N, H/4, W/4) of ``x`` for ``y``."""
        return saliency(self._integral(x, y))

    def objective(self, target: MapTarget) -> MapObjective:
        """The distance to the target map of an estimate of the integral, of which each step renews a part."""
        return PathObjective(self, target, self.linearised, shape_distance)

    def linearised(self, classifier: Classifier, x: Tensor, y: Tensor) -> Linearised:
        """∂f_c/∂x at the points ``x`` (N, C, H, W), and H·v by a directional difference; each takes one pass."""

        def gradient_at(points: Tensor) -> Tensor:
            return self.gradient_at(classifier, points, y)

        g = gradient_at(x)
        return g, lambda v: along(gradient_at, x, g, v, self.probe)

    def further_passes(self, looks: int) -> int:
        """Two for each look, and two for each other part of the path at the first."""
        return super().further_passes(looks) + (2 * (self.strata - 1) if looks else 0)

    def gradient_at(self, classifier: Classifier, x: Tensor, y: Tensor) -> Tensor:
        """∂f_c/∂x (N, C, H, W) at the points ``x`` themselves, detached."""
        view = ForwardPass(classifier, x)
        with torch.enable_grad():
            outputs = self.outputs(view.logits, y)
        return view.gradient(outputs, last=True)

    def _integral(self, x: Tensor, y: Tensor) -> Tensor:
        reach, total = x - self.baseline, torch.zeros_like(x)
        for position, weight in self.nodes:
            total += weight * self.gradient_at(self.classifier, self.baseline + position * reach, y)
        return reach * total

    def outputs(self, logits: Tensor, y: Tensor) -> Tensor:
        """What is integrated: f_c (N,) of ``logits`` (N, K) for classes ``y`` (N,)."""
        return of_class(self.classifier.decision, logits, y, self.output)


class PathObjective:
    """The path's gradients, as an attack on one batch last saw them, part by part.

    The attribution is (x − x̄) ⊙ ∫ ∇f, estimated by one random point in each part of the path. An image moves
    by a grey level or so a step, so the gradients of the parts that were not renewed are nearly right; renewing a
    part takes two passes, however many points the evaluation has. The first look takes all parts. A probability rises
    on a small piece of the path, where nearly all of the integral lies, so for each later look an image draws a part
    with a chance that grows with the size of the part's gradient. The loss depends on x through the factor x − x̄ and
    through the gradients, ∂/∂x = slope ⊙ ∫ ∇f + ∫ t·H·w dt with w = (x − x̄) ⊙ slope; the second integral is
    estimated by what was renewed alone, divided by its chance, since one remembered from another slope misleads. For a
    given w that is unbiased; w itself rests on the estimate of the map.

    Args:
        ig: the interpreter under attack.
        target: what the maps shall become.
        linearise: the field ∂f_c/∂z of a classifier near path points (N, C, H, W), for classes (N,).
        loss: what is descended.
        even: the share of the chance that all parts have alike, in (0, 1]; 1 draws them whatever their size.
    """

    taps = ()
    needs_backward = False

    def __init__(
        self,
        ig: IG,
        target: MapTarget,
        linearise: Callable[[Classifier, Tensor, Tensor], Linearised],
        loss: RawLoss,
        *,
        even: float = 0.25,
    ) -> None:
        self._ig = ig
        self._target = target
        self._linearise, self._loss = linearise, loss
        self._even = even
        self._draws = [generator(target.seed, key, ig.name) for key in target.keys]
        self._gradients: Tensor | None = None  # (N, strata, C, H, W): ∇f in each part, once they were looked at

    def __call__(self, view: ForwardPass) -> MapGradient:
        """The loss by the present estimate, and the direction that lowers it."""
        ig, reach = self._ig, view.x.detach() - self._ig.baseline
        rows = torch.arange(len(reach), device=reach.device)
        if self._gradients is None:
            self._gradients = reach.new_empty(len(reach), ig.strata, *reach.shape[1:])
            renewed = [(torch.full_like(rows, part), torch.ones_like(reach[:, 0, 0, 0])) for part in range(ig.strata)]
        else:
            renewed = [self._draw_part(self._gradients)]
        fields = []
        for part, chance in renewed:
            t = ((part + uniform(self._draws, reach)) / ig.strata).reshape(-1, 1, 1, 1)
            gradient, product = self._linearise(view.classifier, ig.baseline + t * reach, self._target.classes)
            self._gradients[rows, part] = gradient
            fields.append((t / (ig.strata * chance.reshape(-1, 1, 1, 1)), product))
        mean_gradient = self._gradients.mean(dim=1)
        map_distance, loss, slope = self._target.saliency_slope(reach * mean_gradient, self._loss)
        direction = slope * mean_gradient
        for factor, product in fields:
            direction = direction + factor * product(reach * slope)
        return MapGradient(map_distance, loss, direction, passes=2 * len(fields))

    def select(self, places: Tensor) -> None:
        """Go on with the images at ``places`` only."""
        self._target = self._target.select(places)
        self._draws = [twin(self._draws[place]) for place in places.tolist()]
        self._gradients = None if self._gradients is None else self._gradients[places]

    def _draw_part(self, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """The part (N,) that each image renews, and the chance (N,) that it had."""
        sizes = gradients.abs().mean(dim=(2, 3, 4))
        shares = sizes / sizes.sum(dim=1, keepdim=True)
        equal = torch.full_like(shares, 1 / self._ig.strata)
        chances = self._even * equal + (1 - self._even) * shares.where(shares.isfinite(), equal)
        part = (chances.cumsum(dim=1)[:, :-1] <= uniform(self._draws, gradients)[:, None]).sum(dim=1)
        return part, chances.gather(1, part[:, None]).squeeze(1)
