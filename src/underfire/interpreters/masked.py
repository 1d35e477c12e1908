"""Interpreters by masks: what the classifier says of the image with parts of it hidden.

Each of them shows the classifier K images x ⊙ M_k + x̄ ⊙ (1 − M_k) and makes of the K values f of the class a map
Σ_k f_k·w_k, with masks M_k and weights w_k that depend on no value: the map is linear in f.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.interpreters.base import ForwardPass, Interpreter, MapGradient, MapObjective, MapTarget
from underfire.interpreters.maps import min_max
from underfire.interpreters.mask_sets import MaskSet
from underfire.interpreters.outputs import Output, check_output, of_class
from underfire.interpreters.subsets import inclusion_chances, systematic
from underfire.models.classifier import Classifier
from underfire.models.frozen import detached
from underfire.seeding import generator, owners, twin, uniform

_TOGETHER = 32  # masked images of one pass: memory is that of such a batch, however many masks there are
_FADE = 0.9  # of what is remembered of gradients, from one to the next
_EVEN = 0.25  # the share of the chance to be drawn that all masks have alike


class Masked(Interpreter):
    """The base of interpreters whose map is linear in f at masked images; min–max scaled, signed before.

    A new one gives :meth:`masks_of`.

    Args:
        classifier: the classifier to explain.
        masks: how many there are, K.
        grid: (h, w) of the maps.
        baseline: x̄, the value of a hidden pixel in [0, 1]; 0 is black.
        output: f, the class's ``"probability"`` or its ``"logit"``.
        per_step: how many masks each attack step goes backward through, drawn at random; None: all of them,
            which gives the exact gradient.
        renewed: how many others it evaluates again by a forward pass, in turn; all where ``per_step`` is None.
        seed: of the masks, which every image draws for itself.

    Raises:
        InputError: an argument is out of range.
    """

    family = "perturbation"
    draws = True
    remembers = True
    slow = True

    def __init__(
        self,
        classifier: Classifier,
        *,
        masks: int,
        grid: tuple[int, int],
        baseline: float,
        output: Output,
        per_step: int | None,
        renewed: int,
        seed: int = 0,
    ) -> None:
        super().__init__(classifier)
        check_output(output)
        if not 0 <= baseline <= 1:
            raise InputError(f"baseline {baseline:g} is not a pixel value in [0, 1].")
        if per_step is not None and per_step < 1:
            raise InputError(f"per_step is {per_step}; a step takes the gradient of at least 1 mask.")
        if renewed < 0:
            raise InputError(f"renewed is {renewed}; give 0 masks or more.")
        self.grid = grid
        self.baseline, self.seed = baseline, seed
        self.output: Output = output
        self.passes_per_map = masks
        self.per_step = masks if per_step is None else min(per_step, masks)
        self.renewed = masks if per_step is None else min(renewed, masks)
        self.passes_per_step = 1 + self.per_step + self.renewed
        self.draws = per_step is not None
        self.remembers = self.renewed < masks

    def signed(self, x: Tensor, y: Tensor, *, keys: Sequence[str] | None = None) -> Tensor:
        """Signed attributions (N, h, w) of images ``x`` (N, C, H, W) in [0, 1] for classes ``y`` (N,), never scaled.

        ``keys`` as in a call.

        Raises:
            InputError: ``x`` or ``y`` is not what the classifier takes.
        """
        self.classifier.check_images(x)
        self.classifier.check_classes(y, x.shape[0])
        with self.classifier.frozen():
            return self._attributions(detached(x), detached(y), owners(x, keys))

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        """The maps (N, h, w) of ``x`` for ``y``."""
        return min_max(self._attributions(x, y, keys))

    def pulled_back(self, x: Tensor, y: Tensor, keys: tuple[str, ...], cotangent: Tensor) -> Tensor:
        """Jᵀ·``cotangent`` (N, C, H, W), by two looks at each mask, some at a time."""
        products = []
        for image, key in enumerate(keys):
            one, masks = slice(image, image + 1), self.masks_of(key, x)
            with torch.enable_grad():
                raw = masks.maps(self.values(self.classifier, x[one], y[one], masks)).requires_grad_(True)
                (slope,) = torch.autograd.grad(min_max(raw), raw, cotangent[one])
            (slopes,) = masks.slopes(slope)
            product = torch.zeros_like(x[image])
            for places in torch.arange(len(masks), device=x.device).split(_TOGETHER):
                pixels = masks.pixels(torch.zeros_like(places), places, self.classifier.input_size)
                view = ForwardPass(self.classifier, self.masked(x[image], pixels))
                with torch.enable_grad():
                    weighed = slopes[places] * self.outputs(view.logits, y[one].expand(len(places)))
                product += (pixels[:, None] * view.gradient(weighed, last=True)).sum(dim=0)
            products.append(product)
        return torch.stack(products)

    def objective(self, target: MapTarget) -> MapObjective:
        """The distance of the map's shape to the target's, and an unbiased estimate of its gradient by a few masks."""
        return MaskedObjective(self, target)

    def further_passes(self, looks: int) -> int:
        """The first look takes the values of all masks."""
        return super().further_passes(looks) + (self.passes_per_map - self.renewed if looks else 0)

    @abstractmethod
    def masks_of(self, key: str, like: Tensor) -> MaskSet:
        """The masks of the one image that ``key`` names, on the device and in the type of ``like``."""

    def masks(self, keys: Sequence[str], like: Tensor) -> MaskSet:
        """Those of several images."""
        return MaskSet.joined([self.masks_of(key, like) for key in keys])

    def values(self, classifier: Classifier, x: Tensor, y: Tensor, masks: MaskSet) -> Tensor:
        """The values f (N, K) of ``x`` for ``y`` under all masks; an image is looked at by itself, in any batch."""
        return torch.stack([self._values_of(classifier, x, y, masks, image) for image in range(len(x))])

    def masked(self, x: Tensor, pixels: Tensor) -> Tensor:
        """Images (n, C, H, W) under masks ``pixels`` (n, H, W)."""
        return self.baseline + pixels[:, None] * (x - self.baseline)

    def outputs(self, logits: Tensor, y: Tensor) -> Tensor:
        """The values f (N,) by ``logits`` (N, K) for classes ``y`` (N,)."""
        return of_class(self.classifier.decision, logits, y, self.output)

    def _attributions(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        maps = []
        for image, key in enumerate(keys):
            one, masks = slice(image, image + 1), self.masks_of(key, x)
            maps.append(masks.maps(self.values(self.classifier, x[one], y[one], masks)))
        return torch.cat(maps) if maps else x.new_zeros((0, *self.grid))

    def _values_of(self, classifier: Classifier, x: Tensor, y: Tensor, masks: MaskSet, image: int) -> Tensor:
        parts = []
        for places in torch.arange(len(masks), device=x.device).split(_TOGETHER):
            images = torch.full_like(places, image)
            pixels = masks.pixels(images, places, classifier.input_size)
            view = ForwardPass(classifier, self.masked(x[image], pixels), attached=False)
            parts.append(self.outputs(view.logits, y[images]))
        return torch.cat(parts)


class MaskedObjective:
    """Follows f at all masked images by a few of them a step.

    With s the slope of the loss at the map, the gradient is Σ_k ⟨s, w_k⟩ M_k ⊙ ∇f(x ⊙ M_k). A step draws a few masks,
    with chances π_k that grow with what they weigh, and divides each part by its chance: for a given s that is
    unbiased. s is that of the whole map, whose values were all taken at the first look; each later look renews those of
    a few masks in turn, by forward passes alone, and of the drawn ones. With s by the drawn masks alone, part and slope
    would err together, and the estimate be wrong in the mean.
    """

    taps = ()
    needs_backward = False

    def __init__(self, interpreter: Masked, target: MapTarget) -> None:
        self._interpreter, self._target = interpreter, target
        self._masks = interpreter.masks(target.keys, target.maps)
        self._draws = [generator(target.seed, key, interpreter.name) for key in target.keys]
        self._values: Tensor | None = None  # (N, K): f under each mask, as it was last seen
        self._due = 0  # the mask to renew next
        size = (len(target.keys), interpreter.classifier.channels, *interpreter.classifier.input_size)
        self._seen = (target.maps.new_zeros(size), target.maps.new_zeros(size[0]))  # ∇f and steepness, fading sums

    def __call__(self, view: ForwardPass) -> MapGradient:
        """The loss by the present values, and an estimate of its gradient."""
        interpreter, target, x = self._interpreter, self._target, view.x.detach()
        values, taken = self._renew(view.classifier, x)
        map_distance, loss, slope = target.map_slope(self._masks.maps(values))
        slopes, steep = self._masks.slopes(slope), self._steepness(values)
        chances = self._chances(slopes * steep)
        shares = slopes / chances.to(x.dtype)
        expected = self._expected()
        rows = torch.arange(len(x), device=x.device)
        direction = self._masks.together(slopes * steep, interpreter.classifier.input_size)[:, None] * expected
        for place in systematic(chances, uniform(self._draws, chances), interpreter.per_step).T:
            value, gradient, pixels = self._look(view.classifier, x, rows, place)
            surprise = gradient - _wide(steep[rows, place]) * expected
            direction += _wide(shares[rows, place]) * pixels[:, None] * surprise
            values[rows, place] = value
            self._remember(gradient, self._steepness(value))
        return MapGradient(map_distance, loss, direction, passes=taken + interpreter.per_step)

    def select(self, places: Tensor) -> None:
        """Go on with the images at ``places`` only."""
        self._target, self._masks = self._target.select(places), self._masks.select(places)
        self._draws = [twin(self._draws[place]) for place in places.tolist()]
        self._values = None if self._values is None else self._values[places]
        self._seen = (self._seen[0][places], self._seen[1][places])

    def _renew(self, classifier: Classifier, x: Tensor) -> tuple[Tensor, int]:
        """The values (N, K), some of them taken afresh, and passes that took."""
        interpreter, classes = self._interpreter, self._target.classes
        count = interpreter.renewed
        if self._values is None or count == len(self._masks):
            self._values = interpreter.values(classifier, x, classes, self._masks)
            return self._values, len(self._masks)
        rows = torch.arange(len(x), device=x.device)
        for mask in range(self._due, self._due + count):
            place = torch.full_like(rows, mask % len(self._masks))
            pixels = self._masks.pixels(rows, place, classifier.input_size)
            logits = ForwardPass(classifier, interpreter.masked(x, pixels), attached=False).logits
            self._values[rows, place] = interpreter.outputs(logits, classes)
        self._due = (self._due + count) % len(self._masks)
        return self._values, count

    def _look(self, classifier: Classifier, x: Tensor, rows: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Under the mask at each image's ``place`` (N,): f (N,), ∇f there (N, C, H, W), and the mask (N, H, W)."""
        pixels = self._masks.pixels(rows, place, classifier.input_size)
        point = ForwardPass(classifier, self._interpreter.masked(x, pixels))
        with torch.enable_grad():
            value = self._interpreter.outputs(point.logits, self._target.classes)
        return value.detach(), point.gradient(value, last=True), pixels

    def _steepness(self, values: Tensor) -> Tensor:
        """How steep f of ``values`` (…) is, up to a factor that they share: p(1 − p), that of log-odds, or 1."""
        return values * (1 - values) if self._interpreter.output == "probability" else torch.ones_like(values)

    def _expected(self) -> Tensor:
        """∇f (N, C, H, W) at a masked image of steepness 1, by those seen before."""
        gradient, steep = self._seen
        return gradient / _wide(steep.where(steep > 0, 1.0))

    def _remember(self, gradient: Tensor, steep: Tensor) -> None:
        self._seen = (_FADE * self._seen[0] + gradient, _FADE * self._seen[1] + steep)

    def _chances(self, weighed: Tensor) -> Tensor:
        """The chance (N, K) of each mask to be drawn, in float64; never 0."""
        sizes = weighed.abs().double()
        total, alike = sizes.sum(dim=1, keepdim=True), torch.full_like(sizes, 1 / sizes.shape[1])
        shares = torch.where(total > 0, sizes / total.where(total > 0, 1.0), alike)
        return inclusion_chances(_EVEN * alike + (1 - _EVEN) * shares, self._interpreter.per_step)


def _wide(numbers: Tensor) -> Tensor:
    """``numbers`` (N,), each for a whole image."""
    return numbers[:, None, None, None]
