"""What an interpreter is: the two questions that every one of them answers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, TypeAlias, overload
from weakref import ReferenceType, ref

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.weak import WeakTensorKeyDictionary

from underfire import metrics
from underfire.errors import InputError, NonFiniteError
from underfire.interpreters.attached import Attached, differentiable_once
from underfire.interpreters.map_goals import NEAR, MapGoal
from underfire.interpreters.maps import RawLoss, map_slope, saliency_slope, shape_distance
from underfire.models.attention import Attending, Attention
from underfire.models.classifier import Classifier
from underfire.models.features import FeatureMap, capture
from underfire.models.frozen import detached, ordinary
from underfire.models.gradients import gradient, gradients
from underfire.plugins import described
from underfire.seeding import owners

BACK_PROPAGATION = "back-propagation"
"""The family of interpreters whose map is a gradient of the model, or of a path of its inputs."""

Classes: TypeAlias = int | Sequence[int] | Tensor | None
"""One class for all images, one for each, or by None those that are predicted."""

Tap = FeatureMap | Attention
"""What can be read from a pass."""


_SAME = 1e-3  # of a map's range: so near is a map that is computed once more, with a graph


def twice_differentiable() -> AbstractContextManager[None]:
    """Inside the block attention is computed by parts that have second derivatives; fused kernels have none."""
    return sdpa_kernel(SDPBackend.MATH)


class ForwardPass:
    """One forward pass of a classifier on a batch, paid once and shared by all that read it.

    Made inside ``classifier.frozen()``.

    Attributes:
        classifier: the classifier that made it.
        x: the images (N, C, H, W), a leaf that requires grad.
        logits: (N, K), attached to ``x``.

    With ``attached=False`` nothing is kept for a backward pass: only values can be read. With ``detach_at`` the graph
    begins at that one of the taps, and ``x`` requires no grad: gradients in the activation are all there is.
    """

    def __init__(
        self,
        classifier: Classifier,
        x: Tensor,
        *,
        taps: Sequence[Tap] = (),
        attached: bool = True,
        detach_at: FeatureMap | None = None,
    ) -> None:
        self.classifier = classifier
        self.x = detached(x).requires_grad_(attached and detach_at is None)
        with ExitStack() as stack, torch.set_grad_enabled(attached):
            features = [tap for tap in taps if isinstance(tap, FeatureMap)]
            if attached and any(tap.head is None for tap in features):  # what is behind may be differentiated once more
                stack.enter_context(twice_differentiable())
            seen = {tap: stack.enter_context(capture(classifier, tap, detach=tap is detach_at)) for tap in features}
            attending = stack.enter_context(Attending()) if len(features) < len(taps) else None
            self.logits = classifier.scores(self.x)
        self._activations = {tap: outputs[0] for tap, outputs in seen.items()}
        self._attentions = [] if attending is None else attending.found
        self._nll_gradient: tuple[Tensor, Tensor] | None = None

    def activation(self, tap: FeatureMap) -> Tensor:
        """The activation (N, C, h, w) at ``tap``, attached to ``x`` and in its type, if autocast chose another."""
        return tap.picture(self._activations[tap][: self.x.shape[0]].to(self.x.dtype))

    def activation_gradient(self, tap: FeatureMap, outputs: Tensor, *, attackable: bool) -> Tensor:
        """Gradient (N, C, h, w) of the per-sample ``outputs`` (N,) in the activation at ``tap``.

        With ``attackable`` it is itself attached to ``x``, through everything behind the activation.
        """
        full = self._activations[tap]
        with torch.enable_grad():
            total = outputs.sum()
        slope = gradient(total, full, attached=attackable)[: self.x.shape[0]]
        return tap.picture(slope.to(self.x.dtype))

    def attention(self, tap: Attention) -> list[Tensor]:
        """The attention weights (N, heads, T, T) of each layer of ``tap``, attached to ``x``."""
        return self._of_images(tap, tap.weights(self._attentions))

    def attention_gradient(self, tap: Attention, outputs: Tensor, *, attackable: bool) -> list[Tensor]:
        """Gradients (N, heads, T, T) of the per-sample ``outputs`` (N,) in the weights of each layer of ``tap``.

        With ``attackable`` they are themselves attached to ``x``.
        """
        weights = tap.weights(self._attentions)
        with torch.enable_grad():
            total = outputs.sum()
        found = gradients(total, weights, attached=attackable)
        return self._of_images(
            tap, [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
        )

    def _of_images(self, tap: Attention, values: Sequence[Tensor]) -> list[Tensor]:
        return [value[: self.x.shape[0]].to(self.x.dtype) for value in tap.by_head(values)]

    def nll(self, classes: Tensor) -> Tensor:
        """Negative log-likelihood (N,) of ``classes`` in nats, attached to ``x``."""
        with torch.enable_grad():
            return self.classifier.decision.nll(self.logits, classes)

    def nll_gradient(self, classes: Tensor, *, last: bool = False) -> Tensor:
        """∂(−log p_c)/∂x (N, C, H, W), detached; computed once for the same ``classes``.

        With ``last`` nobody goes backward through this pass afterwards, so that its memory is given back on the way.
        """
        if self._nll_gradient is not None:
            known, found = self._nll_gradient
            if _alike(known, classes):
                return found
        self._nll_gradient = (classes, self.gradient(self.nll(classes), last=last))
        return self._nll_gradient[1]

    def gradient_at(self, tap: FeatureMap, losses: Tensor) -> Tensor:
        """Gradient (N, C, h, w) of the per-sample ``losses`` (N,) in the activation at ``tap``, detached."""
        return self.activation_gradient(tap, losses, attackable=False)

    def carried(self, tap: FeatureMap, cotangent: Tensor, *, last: bool = False) -> Tensor:
        """A direction (N, C, h, w) in the activation at ``tap`` carried back to ``x``: a backward pass, detached."""
        with torch.enable_grad():
            activation = self.activation(tap)
        return gradient(activation, self.x, cotangent, keep=not last)

    def gradient(self, losses: Tensor, *, last: bool = False) -> Tensor:
        """Gradient in ``x`` (N, C, H, W) of the per-sample ``losses`` (N,), detached; ``last`` as above."""
        with torch.enable_grad():  # the sum needs a graph even for a caller under no_grad
            total = losses.sum()
        return gradient(total, self.x, keep=not last)


@dataclass(frozen=True)
class MapGradient:
    """What an interpreter answers at one step of an attack.

    Attributes:
        distance: (N,) how far the present map is from the goal, by the goal's measure, which is L1 where a map is led
            to its target; detached.
        loss: (N,) interpretation loss, which ``direction`` lowers: that distance itself, or a distance that is easier
            to descend and zero where that is. Detached.
        direction: the gradient of ``loss``, or an estimate; the attack moves against it. Detached. (N, C, H, W),
            in x, or where ``at`` names an activation, in that one.
        passes: forward and backward passes per image that it took beyond the shared one.
        at: the activation through which alone x reaches the loss; None for x itself.
    """

    distance: Tensor
    loss: Tensor
    direction: Tensor
    passes: int
    at: FeatureMap | None = None


class MapObjective(Protocol):
    """One attack's objective at a target map, with whatever must be remembered from step to step."""

    @property
    def taps(self) -> tuple[Tap, ...]:
        """What it reads from a view: activations, attention."""
        ...

    @property
    def needs_backward(self) -> bool:
        """Whether it goes backward through a view by itself; reading ``nll_gradient`` alone is no such thing."""
        ...

    def __call__(self, view: ForwardPass) -> MapGradient:
        """The loss and the direction that lowers it, at the images of ``view``."""
        ...

    def select(self, places: Tensor) -> None:
        """Go on with the images at ``places`` only: later views hold these, in this order."""
        ...


@dataclass(frozen=True)
class MapTarget:
    """What the map of an attacked batch shall become.

    An objective asks it for the loss and the distance of its maps, and so serves every goal; one that knows no more
    than ``maps`` leads its map there.

    Attributes:
        classes: int64 (N,), the class that the map explains: the attack's target class.
        maps: target maps (N, h, w) on the interpreter's native grid, in [0, 1]; those to be led to, where the goal is
            to move away from others.
        keys: one name per image, the owner of its random numbers.
        seed: the attack's seed.
        goal: what is descended, and what tells iterates from each other.
    """

    classes: Tensor
    maps: Tensor
    keys: tuple[str, ...]
    seed: int
    goal: MapGoal = NEAR

    def select(self, places: Tensor) -> "MapTarget":
        """The same for the images at ``places``."""
        keys = tuple(self.keys[place] for place in places.tolist())
        return replace(self, classes=self.classes[places], maps=self.maps[places], keys=keys)

    def distance(self, maps: Tensor) -> Tensor:
        """How far (N,) ``maps`` (N, h, w) in [0, 1] are from the goal; NaN where one is not finite."""
        return self._measure(maps, self.maps)

    def loss(self, raw: Tensor, own: RawLoss) -> Tensor:
        """The loss (N,) of unscaled maps ``raw`` (N, h, w), attached to them; ``own`` is of maps led to a target."""
        with metrics.unchecked():
            return self.goal.loss(own)(raw, self.maps)

    def saliency_slope(self, attributions: Tensor, own: RawLoss = shape_distance) -> tuple[Tensor, Tensor, Tensor]:
        """Distance, loss and its gradient of the saliency maps of pixel-wise ``attributions`` (N, C, H, W)."""
        with metrics.unchecked():
            return saliency_slope(attributions, self.maps, self.goal.loss(own), self._measure)

    def map_slope(self, raw: Tensor, own: RawLoss = shape_distance) -> tuple[Tensor, Tensor, Tensor]:
        """Distance, loss and its gradient of unscaled maps ``raw`` (N, h, w)."""
        with metrics.unchecked():
            return map_slope(raw, self.maps, self.goal.loss(own), self._measure)

    def _measure(self, maps: Tensor, aimed: Tensor) -> Tensor:
        with metrics.unchecked():
            return self.goal.distance(maps, aimed).where(~not_finite(maps), torch.nan)


@dataclass(frozen=True)
class MapReading:
    """How maps are read from one pass of the classifier, which others may read too.

    Attributes:
        taps: what is read from the pass besides its logits.
        attached: whether the maps go back through the pass.
        maps: from the pass and classes (N,) to maps (N, h, w) in [0, 1], detached.
    """

    taps: tuple[Tap, ...]
    attached: bool
    maps: Callable[[ForwardPass, Tensor], Tensor]


class Interpreter(ABC):
    """An interpreter ``g``: the attribution map of an image for a class, and the way to change it.

    A new interpreter gives :meth:`compute` and :meth:`objective`; ``underfire.testing.check_interpreter`` tells
    whether it keeps the contract.

    Attributes:
        name: what command lines and rows call it.
        title: the same as the literature writes it; the name in capitals, if empty.
        family: of which kind it is: back-propagation, representation, attention, model, perturbation.
        summary: in a few words, what its map shows.
        classifier: the classifier that it explains.
        grid: (h, w) of its maps, the native grid on which they are compared.
        needs: what a classifier must have for it, in words; empty if any will do.
        passes_per_map: forward and backward passes that one map of one image takes; of the class, by its defaults.
        passes_per_step: forward and backward passes of one joint attack step, the shared one included.
        estimates: an objective's answers rest on a fit under way: the distance is that of the fit, and the direction
            lowers the loss but is no gradient of it. Maps taken afresh decide over late iterates.
        draws: an objective's direction is drawn, and is the gradient of its loss in the mean.
        remembers: an objective's distance rests in part on what was seen at former steps, so that maps taken afresh
            decide among a few iterates.
        slow: every map takes so many passes that nothing asks for one at each of many looks.
        implied: names of public attributes that follow from the others, and so tell nothing apart.
    """

    name: str
    title: ClassVar[str] = ""
    family: ClassVar[str] = "other"
    summary: str = ""
    needs: ClassVar[str] = ""
    passes_per_map: int = 1
    passes_per_step: int = 1
    estimates: ClassVar[bool] = False
    draws: bool = False
    remembers: bool = False
    slow: ClassVar[bool] = False
    implied: ClassVar[frozenset[str]] = frozenset()
    grid: tuple[int, int]

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def __call__(self, x: Tensor, y: Tensor, *, keys: Sequence[str] | None = None) -> Tensor:
        """Attribution maps (N, h, w) in [0, 1] of images ``x`` (N, C, H, W) for classes ``y`` (N,), detached.

        ``keys`` names the owner of each image's random numbers where the interpreter draws any; by default the
        image's own content.

        Raises:
            InputError: ``x`` or ``y`` is not what the classifier takes.
            NonFiniteError: a map contains NaN or infinity.
        """
        self.classifier.check_images(x)
        self.classifier.check_classes(y, x.shape[0])
        if not x.shape[0]:
            return x.new_zeros((0, *self.grid))
        names = owners(x, keys)
        with ordinary(), self.classifier.frozen():
            maps = self.compute(detached(x), detached(y), names)
        require_finite(maps, f"the {self.name} map")
        return maps

    @overload
    def attribute(self, inputs: Tensor, target: Classes = None, *, upsample: bool = True) -> Tensor: ...

    @overload
    def attribute(self, inputs: tuple[Tensor], target: Classes = None, *, upsample: bool = True) -> tuple[Tensor]: ...

    def attribute(
        self, inputs: Tensor | tuple[Tensor], target: Classes = None, *, upsample: bool = True
    ) -> Tensor | tuple[Tensor]:
        """The maps as Captum's and Quantus' users ask for them, detached.

        Args:
            inputs: images (N, C, H, W) in [0, 1]; as a tuple of one, which Captum's measures make of them, the maps are
                one too.
            target: the class of all images, or one for each (N,); by default those that the classifier predicts.
            upsample: the maps are brought to the size of the images, (N, 1, H, W), bilinearly; else they are those of a
                call, (N, h, w).

        Raises:
            InputError: ``inputs`` or ``target`` is not what the classifier takes.
            NonFiniteError: a map contains NaN or infinity.
        """
        if isinstance(inputs, tuple):
            (images,) = inputs
            return (self.attribute(images, target, upsample=upsample),)
        self.classifier.check_images(inputs)
        if target is None:
            classes = self.classifier.probabilities(detached(inputs)).argmax(dim=1)
        elif isinstance(target, int):
            classes = torch.full((len(inputs),), target, device=inputs.device)
        else:
            classes = torch.as_tensor(target, device=inputs.device)
        maps = self(inputs, classes)
        return functional.interpolate(maps[:, None], inputs.shape[2:], mode="bilinear") if upsample else maps

    @classmethod
    def available(cls, classifier: Classifier) -> str | None:  # noqa: ARG003 - any will do, by default
        """In a sentence why ``classifier`` cannot have it, made from that alone; None if it can."""
        return None

    def further_passes(self, looks: int) -> int:
        """Passes that an objective takes for ``looks`` joint looks at an image, beyond the shared ones."""
        return looks * (self.passes_per_step - 1)

    def pulled_back(self, x: Tensor, y: Tensor, keys: tuple[str, ...], cotangent: Tensor) -> Tensor:
        """Jᵀ·``cotangent`` (N, C, H, W), J the Jacobian of :meth:`compute` in ``x``, by autograd; inside ``frozen``.

        Raises:
            InputError: there is no such derivative.
        """
        with torch.enable_grad(), twice_differentiable():
            leaf = x.clone().requires_grad_(True)
            try:
                with Attached():
                    maps = self.compute(leaf, y, keys)
            except Exception as error:  # a stranger's code may raise anything
                raise InputError(
                    f"{_underivable(self.name)}: with a graph it fails with {described(error)}."
                ) from error
        plain = self.compute(x, y, keys)
        if not torch.allclose(maps.detach(), plain, rtol=0, atol=_SAME):
            raise InputError(f"{_underivable(self.name)}: with a graph it is another map; let no_grad change no value.")
        return pulled_through(maps, leaf, cotangent, self.name)

    def reading(self) -> MapReading | None:
        """How the maps are read from a pass that others read too; None where they take passes of their own."""
        return None

    def predicted(self, x: Tensor, keys: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """The logits (N, K) of ``x`` and the maps (N, h, w) of the classes that they predict, detached.

        As :meth:`compute`, of a checked, non-empty batch. It takes a forward pass beside the maps', but for an
        interpreter with a :meth:`reading`.
        """
        reading = self.reading()
        if reading is not None:
            view = ForwardPass(self.classifier, x, taps=reading.taps, attached=reading.attached)
            logits = view.logits.detach()
            return logits, reading.maps(view, logits.argmax(dim=1))
        with torch.no_grad():
            logits = self.classifier.scores(x)
        return logits, self.compute(x, logits.argmax(dim=1), keys)

    @abstractmethod
    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        """The maps of a checked, non-empty batch, inside ``classifier.frozen()``; detached."""

    @abstractmethod
    def objective(self, target: MapTarget) -> MapObjective:
        """An objective for one attack; it works on the classifier of the views it is given, not on its own."""


def pulled_through(maps: Tensor, x: Tensor, cotangent: Tensor, name: str) -> Tensor:
    """Jᵀ·``cotangent`` (N, C, H, W) of the ``maps`` (N, h, w) of the interpreter ``name``, by their graph from ``x``.

    Raises:
        InputError: there is no such derivative.
    """
    if differentiable_once(maps):
        raise InputError(f"{_underivable(name)}: a part of the way back can be differentiated once only.")
    found = gradients(maps, (x,), cotangent)[0] if maps.requires_grad else None
    if found is None:
        raise InputError(f"{_underivable(name)}: it does not depend on the image by operations of torch.")
    return found


def attribution_gradient(
    interpreter: Interpreter, x: Tensor, y: Tensor, cotangent: Tensor, *, keys: Sequence[str] | None = None
) -> Tensor:
    """The vector–Jacobian product (N, C, H, W) of an interpreter's maps: ∂/∂x Σ ``cotangent`` · interpreter(x, y).

    It is that of the maps that a call gives, scaled where they are. It is exact for the map as a function of float
    numbers: a network of ReLUs has the second derivatives that it has between its kinks. Only where a map has none but
    at kinks, guided back-propagation's, are these smoothed (:mod:`underfire.interpreters.gates`). Memory grows with the
    passes of a map, except for interpreters by masks.

    Args:
        interpreter: any, also one of your own.
        x: images (N, C, H, W) in [0, 1].
        y: classes (N,), int64.
        cotangent: (N, h, w), what each cell of the map weighs, in the type of ``x``.
        keys: as in a call of the interpreter, whose random numbers are the same.

    Raises:
        InputError: an argument does not fit, or the map has no derivative: it is made outside of torch, or by something
            that can be differentiated once only.
        NonFiniteError: the product of an image contains NaN or infinity.
    """
    classifier = interpreter.classifier
    classifier.check_images(x)
    classifier.check_classes(y, x.shape[0])
    shape = (x.shape[0], *interpreter.grid)
    if cotangent.shape != shape or cotangent.dtype != x.dtype:
        seen = f"{tuple(cotangent.shape)} of {cotangent.dtype}"
        raise InputError(f"cotangent is {seen}; give {shape} of {x.dtype}, one number for each cell of the maps.")
    if not x.shape[0]:
        return torch.zeros_like(x)
    names = owners(x, keys)
    with ordinary(), classifier.frozen():
        product = interpreter.pulled_back(detached(x), detached(y), names, detached(cotangent))
    require_finite(product, f"the gradient of the {interpreter.name} map")
    return product


def _underivable(name: str) -> str:
    return f"the map of {name} has no derivative in the image"


_ALIKE: MutableMapping[Tensor, ReferenceType[Tensor]] = WeakTensorKeyDictionary()
"""From classes to others, in another place, that are the same."""


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of classes, which nobody writes to, are equal; for what is, a GPU is waited for once."""
    known = _ALIKE.get(one)
    if one is other or (known is not None and known() is other):
        return True
    alike = torch.equal(one, other)
    if alike:
        _ALIKE[one] = ref(other)
    return alike


def require_finite(values: Tensor, what: str) -> None:
    """Raise NonFiniteError naming the first row of ``values`` (N, …) that holds NaN or infinity."""
    if surely_finite(values):
        return
    bad = not_finite(values)
    if bad.any():
        raise NonFiniteError(what, int(bad.nonzero()[0]))


def surely_finite(values: Tensor) -> bool:
    """Whether ``values`` are finite, by reading them once; False also where they are and their sum overflows."""
    return bool(values.sum().isfinite())


def not_finite(values: Tensor) -> Tensor:
    """Which rows (N,) of ``values`` (N, …) hold NaN or infinity."""
    return ~torch.isfinite(values).flatten(1).all(dim=1)


def check_together(interpreters: Sequence[Interpreter]) -> None:
    """Refuse ``interpreters`` of which two share a name, or that explain different classifiers.

    Raises:
        InputError: they do.
    """
    names = [g.name for g in interpreters]
    if len(set(names)) < len(names):
        raise InputError(f"the interpreters {', '.join(names)} share a name; give each one once.")
    if any(g.classifier is not interpreters[0].classifier for g in interpreters):
        raise InputError(f"the interpreters {', '.join(names)} explain different classifiers; make them from one.")


def tried(interpreter: Interpreter) -> str | None:
    """In words why an attack cannot move the maps of ``interpreter``, by one look at a pattern; None if it can."""
    classifier = interpreter.classifier
    x = classifier.patterns()[:1]
    maps = torch.linspace(0, 1, math.prod(interpreter.grid), dtype=x.dtype, device=x.device)
    target = maps.reshape(1, *interpreter.grid)
    try:
        with classifier.frozen():
            classes = classifier.scores(x).argmax(dim=1).detach()
            objective = interpreter.objective(MapTarget(classes, target, ("pattern",), seed=0))
            view = ForwardPass(classifier, x, taps=objective.taps)
            answer = objective(view)
            if answer.at is not None:
                view.carried(answer.at, answer.direction)
    except (InputError, NotImplementedError) as error:
        return str(error) or "its objective is not implemented"
    return None
