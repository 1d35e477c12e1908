"""SmoothGrad: the gradient, averaged over noisy copies of the image (Smilkov et al. 2017)."""

import torch
from torch import Tensor

from underfire.devices import sent
from underfire.errors import InputError
from underfire.interpreters.base import ForwardPass, Interpreter, MapGradient, MapObjective, MapTarget
from underfire.interpreters.directional import along
from underfire.interpreters.grad import nll_field
from underfire.interpreters.maps import saliency, saliency_grid
from underfire.models.classifier import Classifier
from underfire.seeding import generator


class SmoothGrad(Interpreter):
    """Channel maximum of |mean of ∂(−log p_c)/∂x at x + noise|, 4×4 mean pool, min–max scaled.

    The noise is Gaussian and each image's own, by ``seed`` and the image's key; noisy copies are not cut to [0, 1].

    Args:
        classifier: the classifier to explain.
        samples: noisy copies of an image.
        sigma: standard deviation of the noise, in pixel values.
        probe: length of the directional difference in pixel values, as in GRAD.
        seed: of the noise.

    Raises:
        InputError: an argument is out of range.
    """

    name = "smoothgrad"
    title = "SmoothGrad"
    family = "back-propagation"
    summary = "gradient of −log p, averaged over noisy copies of the image"
    passes_per_map = 16
    passes_per_step = 3
    remembers = True

    def __init__(
        self, classifier: Classifier, *, samples: int = 16, sigma: float = 0.15, probe: float = 5e-4, seed: int = 0
    ) -> None:
        super().__init__(classifier)
        if samples < 1:
            raise InputError(f"samples is {samples}; a mean takes at least 1 noisy copy.")
        if not 0 <= sigma <= 1:
            raise InputError(f"sigma {sigma:g} is not a standard deviation in pixel values, from 0 to 1.")
        self.samples = samples
        self.sigma = sigma
        self.probe = probe
        self.seed = seed
        self.passes_per_map = samples
        self.grid = saliency_grid(classifier.input_size)

    def noise(self, x: Tensor, keys: tuple[str, ...], sample: int) -> Tensor:
        """The noise (N, C, H, W) of copy number ``sample`` of the images ``x`` that ``keys`` name."""
        draws = [generator(self.seed, key, self.name, sample) for key in keys]
        parts = [torch.randn(x.shape[1:], generator=draw, dtype=x.dtype) for draw in draws]
        return self.sigma * sent(torch.stack(parts), x)

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        """The maps (N, H/4, W/4) of ``x`` for ``y``."""
        gradient_at, total = nll_field(self.classifier, y), torch.zeros_like(x)
        for sample in range(self.samples):  # one after the other, so that memory does not grow with their number
            total += gradient_at(x + self.noise(x, keys, sample))
        return saliency(total / self.samples)

    def objective(self, target: MapTarget) -> MapObjective:
        """The distance of the map's shape to the target's, by gradients of which one copy's is renewed a step."""
        return _NoisyObjective(self, target)

    def further_passes(self, looks: int) -> int:
        """Two for each look, and two for each other copy at the first."""
        return super().further_passes(looks) + (2 * (self.samples - 1) if looks else 0)


class _NoisyObjective:
    """The gradients at the noisy copies, as an attack on one batch last saw them.

    The noise is that of the maps that are looked at. The first look takes all copies, each later one renews a copy, in
    turn. The direction wanted is the mean over the copies of H·v; it is that of the renewed ones, by a directional
    difference at each. So a copy takes two passes, and a step's cost does not grow with their number.
    """

    taps = ()
    needs_backward = False

    def __init__(self, interpreter: SmoothGrad, target: MapTarget) -> None:
        self._interpreter, self._target = interpreter, target
        self._gradients: dict[int, Tensor] = {}
        self._due = list(range(interpreter.samples))  # the copies to renew at the next look: at first all, then in turn

    def __call__(self, view: ForwardPass) -> MapGradient:
        interpreter, target, x = self._interpreter, self._target, view.x.detach()
        gradient_at = nll_field(view.classifier, target.classes)
        points = {sample: x + interpreter.noise(x, target.keys, sample) for sample in self._due}
        self._gradients.update({sample: gradient_at(point) for sample, point in points.items()})
        map_distance, loss, v = target.saliency_slope(_mean(list(self._gradients.values())))
        curved = [along(gradient_at, z, self._gradients[k], v, interpreter.probe) for k, z in points.items()]
        self._due = [(self._due[-1] + 1) % interpreter.samples]
        return MapGradient(map_distance, loss, _mean(curved), passes=2 * len(points))

    def select(self, places: Tensor) -> None:
        self._target = self._target.select(places)
        self._gradients = {sample: gradient[places] for sample, gradient in self._gradients.items()}


def _mean(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).mean(dim=0)
