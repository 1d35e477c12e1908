"""Captum: any attribution of the package captum as an interpreter (the extra ``captum``)."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from inspect import isclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from underfire.errors import InputError
from underfire.interpreters.attached import Attached, drawing, draws_noticed, quiet, undone
from underfire.interpreters.base import (
    ForwardPass,
    Interpreter,
    MapGradient,
    MapObjective,
    MapTarget,
    twice_differentiable,
)
from underfire.interpreters.clipping import Clipping
from underfire.interpreters.gates import gated_clip
from underfire.interpreters.maps import min_max, pooled, saliency_grid, scaled_distance, shape_distance
from underfire.models.classifier import Classifier, filled
from underfire.models.features import FeatureMap, check_kept, find_features
from underfire.seeding import derive_seed

ATTACKABLE = frozenset(
    {
        "Deconvolution",
        "DeepLift",
        "DeepLiftShap",
        "FeatureAblation",
        "GradientShap",
        "GuidedBackprop",
        "InputXGradient",
        "IntegratedGradients",
        "LayerConductance",
        "LayerDeepLift",
        "LayerGradCam",
        "LayerGradientXActivation",
        "LayerIntegratedGradients",
        "NoiseTunnel",
        "Occlusion",
        "Saliency",
    }
)
"""Captum's attributions whose answers to an attack are those of finite differences, by ``check_interpreter``."""


class Captum(Interpreter):
    """The map of one of Captum's attributions.

    Attributions of the image's own size become a saliency map: channel maximum of their magnitude, 4×4 mean pool.
    Those of a layer are summed over its channels. Either is min–max scaled.

    Args:
        classifier: the classifier to explain.
        method: a class of ``captum.attr``, or any function that makes such an attribution of a module that takes
            images in [0, 1] and returns logits, such as ``lambda f: NoiseTunnel(Saliency(f))``. It is called for
            each batch, since an attack explains a copy of the classifier.
        layer: the layer that ``method`` is given beside the module, by name or as a module; for a class of Captum's
            that explains a layer it is the one that Grad-CAM reads if none is named.
        options: further arguments of the attribution's ``attribute``.
        name: what rows call it, by default ``captum-`` and the name of the attribution's class.
        seed: of the random numbers that it draws, if any.
        attackable: whether an attack may follow its gradient, by default whether it is in :data:`ATTACKABLE`. Say so
            for one of your own that ``underfire.testing.check_interpreter`` passes.

    Raises:
        InputError: captum is not installed, the attribution fails on this classifier, or it returns no map.
    """

    name = "captum"
    family = "captum"
    summary = "an attribution of the package captum"

    def __init__(
        self,
        classifier: Classifier,
        method: Callable[..., Any],
        *,
        layer: str | nn.Module | None = None,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
        seed: int = 0,
        attackable: bool | None = None,
    ) -> None:
        super().__init__(classifier)
        self._call = _CaptumCall(method, _features(classifier, method, layer), dict(options or {}))
        trial, self._draws = _try(self._call, classifier)
        title, (h, w) = type(trial.by).__name__, trial.values.shape[2:]
        self.name = f"captum-{title.lower()}" if name is None else name
        self.summary = f"Captum's {title}"
        self.seed = seed
        self.attackable = _is_known(trial.by) if attackable is None else attackable
        self.passes_per_map = trial.images
        self.passes_per_step = 1 + 2 * trial.images
        self.pixelwise = (h, w) == classifier.input_size
        self.grid = saliency_grid(classifier.input_size) if self.pixelwise else (h, w)

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        """The maps (N, h, w) of ``x`` for ``y``."""
        return min_max(self.raw_maps(self.classifier, x, y, keys).detach())

    def objective(self, target: MapTarget) -> MapObjective:
        """The distance to the target map, and its gradient by autograd through all that Captum does.

        Raises:
            InputError: it is not known to be attackable, or its layer is another one where attacks work.
        """
        if not self.attackable:
            raise InputError(
                f"{self.name} is not known to give an attack its true gradient, so no attack follows it; look at maps"
                " with it, or give attackable=True if underfire.testing.check_interpreter passes it."
            )
        if self._call.features is not None:
            check_kept(self.name, self._call.features)
        return _CaptumObjective(self, target)

    def raw_maps(
        self, classifier: Classifier, x: Tensor, y: Tensor, keys: tuple[str, ...], *, attached: bool = False
    ) -> Tensor:
        """Unscaled maps (N, h, w) of ``x`` (N, C, H, W) for ``y`` (N,), as ``classifier`` gives them.

        ``keys`` own the random numbers. With ``attached`` the maps are attached to ``x``.
        """
        if self._draws:  # each image by itself, from its own seed
            parts = []
            for place, key in enumerate(keys):
                with drawing(derive_seed(self.seed, key, self.name), x.device):
                    one = slice(place, place + 1)
                    parts.append(self._call(classifier, x[one], y[one], attached=attached).values)
            attributions = torch.cat(parts)
        else:
            attributions = self._call(classifier, x, y, attached=attached).values
        return pooled(attributions) if self.pixelwise else attributions.sum(dim=1)


class _CaptumObjective:
    """Goes back through the attribution, ReLU gates given a derivative (see :mod:`underfire.interpreters.gates`)."""

    taps = ()
    needs_backward = False

    def __init__(self, interpreter: Captum, target: MapTarget) -> None:
        self._interpreter, self._target = interpreter, target
        self._loss = shape_distance if interpreter.pixelwise else scaled_distance

    def __call__(self, view: ForwardPass) -> MapGradient:
        interpreter, target = self._interpreter, self._target
        with torch.enable_grad():
            x = view.x.detach().requires_grad_(True)
            raw = interpreter.raw_maps(view.classifier, x, target.classes, target.keys, attached=True)
            loss = target.loss(raw, self._loss)
            direction = torch.zeros_like(x)
            if loss.requires_grad:  # not where the attribution is the same for any image
                (direction,) = torch.autograd.grad(loss.sum(), x, allow_unused=True, materialize_grads=True)
        passes = 2 * interpreter.passes_per_map
        return MapGradient(target.distance(min_max(raw.detach())), loss.detach(), direction, passes=passes)

    def select(self, places: Tensor) -> None:
        self._target = self._target.select(places)


@dataclass(frozen=True)
class _Answer:
    """What Captum attributes (N, C, h, w), by which attribution, and how many images went through the classifier."""

    values: Tensor
    by: Any
    images: int


@dataclass(frozen=True)
class _CaptumCall:
    """How an attribution is made and asked."""

    method: Callable[..., Any]
    features: FeatureMap | None
    options: Mapping[str, Any]

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, *, attached: bool) -> _Answer:
        """The attributions to ``x`` (N, C, H, W) for ``y`` (N,), inside ``classifier.frozen()``."""
        # DeepLift takes each batch for two halves of equal size, so that nothing may be added to it further in.
        rows = filled(x) if x.device.type == "cpu" else x
        classes = torch.cat([y, y[-1:].expand(len(rows) - len(y))])
        scores = _Scores(classifier)
        at = self.features
        parts = (scores,) if at is None else (scores, classifier.module.get_submodule(at.module))
        with torch.enable_grad(), ExitStack() as stack:
            stack.enter_context(undone(classifier.module))
            stack.enter_context(quiet("captum"))
            if attached:
                stack.enter_context(twice_differentiable())
                stack.enter_context(Clipping(gated_clip))
                stack.enter_context(Attached())
            else:
                rows = rows.detach().requires_grad_(True)
            attribution = self.method(*parts)
            values = attribution.attribute(rows, target=classes, **self.options)
        if isinstance(values, tuple) and len(values) == 1:
            (values,) = values
        if at is not None and isinstance(values, Tensor) and at.layout.fits(values):
            values = at.picture(values)
        elif at is not None and at.layout.kind != "channels first":
            raise InputError(
                f"Captum's {type(attribution).__name__} cannot read layer {at.module!r}, which is laid out as"
                f" {at.layout.kind}; use gradcam, or give a layer that returns (N, C, h, w)."
            )
        if not isinstance(values, Tensor) or values.ndim != 4 or len(values) != len(rows):
            seen = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise InputError(
                f"Captum's {type(attribution).__name__} returns {seen} for {len(rows)} images; maps are made of"
                " attributions (N, C, h, w) of the image or of one convolutional layer."
            )
        return _Answer(values[: len(x)].to(x.dtype), attribution, scores.images * len(x) // len(rows))


class _Scores(nn.Module):
    """The classifier as the module that Captum asks for; it counts the images that pass."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.module = classifier.module
        self.images = 0
        self._classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of ``x`` (N, C, H, W)."""
        self.images += len(x)
        return self._classifier.scores(x)


def _try(call: _CaptumCall, classifier: Classifier) -> tuple[_Answer, bool]:
    """The answer for a pattern, and whether random numbers were drawn for it.

    Raises:
        InputError: it fails, or what it returns is no map.
    """
    x, y = classifier.patterns()[:1], torch.zeros(1, dtype=torch.int64, device=classifier.device)
    title = getattr(call.method, "__name__", "attribution")
    try:
        with classifier.frozen(), draws_noticed(x.device) as drawn:
            answer = call(classifier, x, y, attached=False)
    except InputError:
        raise
    except Exception as error:  # a stranger's code may raise anything
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise InputError(
            f"Captum's {title} cannot explain {classifier.name!r}: {reason}; give another attribution or other options."
        ) from error
    return answer, drawn[0]


def _features(classifier: Classifier, method: Callable[..., Any], layer: str | nn.Module | None) -> FeatureMap | None:
    """The output of the layer that ``method`` is given; None if it is given none.

    Raises:
        InputError: captum is not installed, the layer does not serve, or one is needed and there is none.
    """
    captum = _captum()
    needs_one = isclass(method) and issubclass(method, captum.LayerAttribution)
    return find_features(classifier, layer) if needs_one or layer is not None else None


def _captum() -> ModuleType:
    try:
        import captum.attr  # here, since the package is an extra
    except ImportError as error:
        raise InputError(
            "Captum(...) needs the package captum, which is missing; install underfire[captum]."
        ) from error
    module: ModuleType = captum.attr
    return module


def _is_known(attribution: Any) -> bool:
    """Whether ``attribution``, and the one inside it, if there is one, are among :data:`ATTACKABLE`."""
    inner = getattr(attribution, "attribution_method", None)
    cls = type(attribution)
    ours = cls.__module__.startswith("captum.") and cls.__name__ in ATTACKABLE
    return ours and (inner is None or _is_known(inner))
