"""LRP: layer-wise relevance propagation by the ε, γ and z^B rules (Bach et al. 2015; Montavon et al. 2019)."""

import math
from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.interpreters.base import (
    BACK_PROPAGATION,
    ForwardPass,
    Interpreter,
    MapGradient,
    MapObjective,
    MapTarget,
    pulled_through,
)
from underfire.interpreters.function_rules import FUNCTIONS
from underfire.interpreters.layer_rules import LayerRules, layer_rules
from underfire.interpreters.maps import saliency, saliency_grid
from underfire.interpreters.relevance import Propagation, Relevance, Rule, propagated
from underfire.models.classifier import Classifier
from underfire.models.draws import refuse_random
from underfire.models.gradients import gradient
from underfire.models.remembered import Remembered

_SAME = 1e-3  # largest difference of the logits that rules compute from the model's, relative to their spread
_HINT = "explain this model with grad or gradcam"


_met: Remembered[frozenset[str] | str] = Remembered()
"""By the settings of an interpreter: the functions it has met rules for, or in a sentence why it cannot be had."""


class RelevanceInterpreter(Interpreter):
    """An interpreter whose map is the relevance of pixels, propagated by a table of rules.

    Attributes:
        met: names of torch's functions that the classifier calls and rules are used for.
    """

    family = BACK_PROPAGATION
    hint: ClassVar[str] = _HINT

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        self._rules = self.rules()
        self.grid = saliency_grid(classifier.input_size)
        met = _met.get(classifier, self.settings, self._try)
        if isinstance(met, str):
            raise InputError(met)
        self.met = met

    @property
    @abstractmethod
    def settings(self) -> tuple[Hashable, ...]:
        """All that the rules depend on, the kind of interpreter included."""

    @abstractmethod
    def rules(self) -> Mapping[str, Rule]:
        """The rules by names of torch's functions."""

    @classmethod
    def available(cls, classifier: Classifier) -> str | None:
        """The function that has no rule, or what else keeps relevance from the pixels, if anything does."""
        try:
            cls(classifier)
        except InputError as error:
            return str(error)
        return None

    def signed(self, x: Tensor, y: Tensor) -> Tensor:
        """Relevance (N, C, H, W) of images ``x`` (N, C, H, W) in [0, 1] for the logits of classes ``y`` (N,), detached.

        It is that of the normalised image: a pixel of the classifier's mean has none unless z^B gives it some.

        Raises:
            InputError: ``x`` or ``y`` is not what the classifier takes.
        """
        self.classifier.check_images(x)
        self.classifier.check_classes(y, x.shape[0])
        with self.classifier.frozen():
            return self.propagate(self.classifier, x, y).values

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:  # noqa: ARG002 - draws nothing
        """The maps (N, H/4, W/4) of ``x`` for ``y``."""
        return saliency(self.propagate(self.classifier, x, y).values)

    def objective(self, target: MapTarget) -> MapObjective:
        """The distance of the map's shape to the target's; its gradient back through the propagation."""
        return _RelevanceObjective(self, target)

    def pulled_back(self, x: Tensor, y: Tensor, keys: tuple[str, ...], cotangent: Tensor) -> Tensor:  # noqa: ARG002
        """Jᵀ·``cotangent`` (N, C, H, W) of the maps' Jacobian J in ``x``, through the propagation."""
        found = self.propagate(self.classifier, x, y, attached=True)
        with torch.enable_grad():
            maps = saliency(found.values)
        return pulled_through(maps, found.x, cotangent, self.name)

    def propagate(self, classifier: Classifier, x: Tensor, y: Tensor, *, attached: bool = False) -> Relevance:
        """The relevance of ``x`` for ``y`` in ``classifier``, inside ``classifier.frozen()``.

        Raises:
            InputError: a function that ``classifier`` calls has no rule.
        """

        def refusal(what: str) -> str:
            return f"{self.name} has no rule for {what} in {classifier.name!r}; {self.hint}."

        return propagated(classifier, x, y, lambda: Propagation(self._rules, refusal), attached=attached)

    def _try(self) -> frozenset[str] | str:
        """The names of the functions met by propagating once; in a sentence what has no rule, or works in place."""
        try:
            return self._met_once()
        except InputError as error:
            return str(error)

    def _met_once(self) -> frozenset[str]:
        name = self.classifier.name
        if any(isinstance(module, torch.jit.ScriptModule) for module in self.classifier.module.modules()):
            raise InputError(
                f"{self.name} cannot see the functions of {name!r}, which is a scripted module; give the module that "
                "it was made from."
            )
        x = self.classifier.patterns()[:1]
        y = torch.zeros(1, dtype=torch.int64, device=x.device)
        with self.classifier.frozen():
            with torch.no_grad():
                wanted = self.classifier.scores(x)
            found = self.propagate(self.classifier, x, y)
        if float((found.logits - wanted).abs().max()) > _SAME * max(1.0, float(wanted.std())):
            refuse_random(self.classifier)
            raise InputError(f"{self.name} changes the logits of {name!r}, which works in place; {self.hint}.")
        return found.met


class LRP(RelevanceInterpreter):
    """The relevance of pixels for the class's logit, as a saliency map.

    The map is the channel maximum of its magnitude, 4×4 mean pooled and min–max scaled. Rules are those that Montavon
    et al. (2019) recommend: z^B for a convolution that reads the pixels, γ for the others, ε for linear layers; the
    relevance of an activation, a norm or a pooling goes on as it is. A batch norm right behind a layer counts as part
    of it. Gates and standard deviations get none; two factors of a product share it.

    Args:
        classifier: the classifier to explain.
        epsilon: added to the size of a linear layer's outputs, by which relevance is lost; in units of the outputs.
        gamma: by which contributions of an output's own sign count more, in convolutions; 0 for the ε rule with 0.
        box: whether the first convolution has z^B; without, it has γ.

    Raises:
        InputError: a setting is negative or not finite, or the model calls a function that has no rule.
    """

    name = "lrp"
    title = "LRP"
    summary = "relevance that layers hand back from the class logit to the pixels"
    needs = "convolutions and linear layers without attention"
    passes_per_step = 4
    hint = f"attnlrp has rules for attention, or {_HINT}"

    def __init__(self, classifier: Classifier, *, epsilon: float = 0.0, gamma: float = 0.25, box: bool = True) -> None:
        check_settings(epsilon=epsilon, gamma=gamma)
        self.epsilon, self.gamma, self.box = epsilon, gamma, box
        super().__init__(classifier)

    @property
    def settings(self) -> tuple[Hashable, ...]:
        """The numbers of the rules."""
        return self.name, self.epsilon, self.gamma, self.box

    def rules(self) -> Mapping[str, Rule]:
        """Those of layers with weights by the settings, and those of functions without."""
        layers = LayerRules(epsilon=self.epsilon, gamma=self.gamma, linear_gamma=0.0, box=self.box)
        return {**FUNCTIONS, **layer_rules(layers)}


class _RelevanceObjective:
    """Goes back through the propagation itself: a pass whose graph is kept, and one through both its directions.

    Relevance is no gradient of anything, and its Jacobian J not symmetric: a directional difference would give J·v
    where Jᵀ·v is wanted.
    """

    taps = ()
    needs_backward = False

    def __init__(self, interpreter: RelevanceInterpreter, target: MapTarget) -> None:
        self._interpreter, self._target = interpreter, target

    def __call__(self, view: ForwardPass) -> MapGradient:
        interpreter, target = self._interpreter, self._target
        found = interpreter.propagate(view.classifier, view.x.detach(), target.classes, attached=True)
        map_distance, loss, slope = target.saliency_slope(found.values)
        direction = gradient(found.values, found.x, slope, keep=False)
        return MapGradient(map_distance, loss, direction, passes=interpreter.passes_per_step - 1)

    def select(self, places: Tensor) -> None:
        self._target = self._target.select(places)


def check_settings(**settings: float) -> None:
    """Refuse numbers that are negative or not finite.

    Raises:
        InputError: one is.
    """
    for name, value in settings.items():
        if not 0 <= value < math.inf:
            raise InputError(f"{name} {value!r} is not a number from 0; give one such as 0.25.")
