"""RTS: real-time saliency by a trained masking network (Dabkowski & Gal 2017)."""

from pathlib import Path

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.interpreters.base import ForwardPass, Interpreter, MapGradient, MapObjective, MapReading, MapTarget
from underfire.interpreters.maps import distance
from underfire.interpreters.masking.network import MaskingNetwork, gated_features
from underfire.models.classifier import Classifier
from underfire.weights import read_about, shipped

_ENCODER_WEIGHT = 0.1  # of the own classes of an encoder of its own, beside the classifier's (ADV²'s published code)


class RTS(Interpreter):
    """The map that a masking network makes of the classifier's features in one pass.

    Its values are shares in [0, 1] by themselves: no min–max, so that the map of a class that is not there is empty.

    Args:
        classifier: the classifier to explain.
        network: a network trained for it; by default the one that comes with the package for this very classifier.

    Raises:
        InputError: no network was given and none comes with the package, the network is for another classifier, or
            the classifier has no linear head.
    """

    name = "rts"
    family = "model"
    summary = "output of a masking network that was trained for the classifier"
    needs = "global average pooling and one linear layer at the end, and weights of `underfire train rts`"
    passes_per_step = 2

    def __init__(self, classifier: Classifier, *, network: MaskingNetwork | None = None) -> None:
        super().__init__(classifier)
        own = MaskingNetwork.load(default_weights(classifier), classifier) if network is None else network
        self.network = _of(classifier, own)
        self.grid = self.network.grid

    @classmethod
    def available(cls, classifier: Classifier) -> str | None:
        """That no weights come with the package for the classifier, or that it has no linear head, if so."""
        try:
            default_weights(classifier)
        except InputError as error:
            return str(error)
        return None

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:  # noqa: ARG002 - draws nothing
        """The maps (N, H/4, W/4) of ``x`` for ``y``."""
        encoder = self.network.encoder or self.classifier
        with encoder.frozen():
            return self._read(ForwardPass(encoder, x, taps=self.network.taps, attached=False), y)

    def _read(self, view: ForwardPass, classes: Tensor) -> Tensor:
        with torch.no_grad():
            return self.network.maps(view, classes)

    def reading(self) -> MapReading | None:
        """From the features of the classifier's own pass, unless there is an encoder beside it."""
        return MapReading(self.network.taps, False, self._read) if self.network.encoder is None else None

    def objective(self, target: MapTarget) -> MapObjective:
        """The mean absolute distance to the target map, and its exact gradient through decoder and encoder."""
        if self.network.encoder is None:
            return _SharedObjective(self.network, target)
        return _OwnObjective(self.network, self.network.encoder, target)


class _SharedObjective:
    """Reads the features of the attacked classifier itself: a backward pass more, and no forward pass."""

    needs_backward = True

    def __init__(self, network: MaskingNetwork, target: MapTarget) -> None:
        self.taps = network.taps
        self._network, self._target = network, target

    def __call__(self, view: ForwardPass) -> MapGradient:
        with torch.enable_grad():
            maps = self._network.maps(view, self._target.classes)
            loss = self._target.loss(maps, distance)
        return MapGradient(self._target.distance(maps.detach()), loss.detach(), view.gradient(loss), passes=1)

    def select(self, places: Tensor) -> None:
        self._target = self._target.select(places)


class _OwnObjective:
    """Reads an encoder apart from the classifier, a pass of its own.

    The encoder has to see the target class too, or its gate stays shut: its own −log p joins the loss, as in ADV².
    """

    taps = ()
    needs_backward = False

    def __init__(self, network: MaskingNetwork, encoder: Classifier, target: MapTarget) -> None:
        self._network, self._encoder, self._target = network, encoder, target

    def __call__(self, view: ForwardPass) -> MapGradient:
        classes = self._target.classes
        with self._encoder.frozen():
            own = ForwardPass(self._encoder, view.x, taps=self._network.taps)
            with torch.enable_grad():
                maps = self._network.maps(own, classes)
                loss = self._target.loss(maps, distance) + _ENCODER_WEIGHT * own.nll(classes)
            map_distance = self._target.distance(maps.detach())
            return MapGradient(map_distance, loss.detach(), own.gradient(loss, last=True), passes=1)

    def select(self, places: Tensor) -> None:
        self._target = self._target.select(places)


def _of(classifier: Classifier, network: MaskingNetwork) -> MaskingNetwork:
    """``network``, if it is for ``classifier``.

    Raises:
        InputError: it is for another.
    """
    fingerprint = classifier.fingerprint()
    if network.fingerprint != fingerprint:
        raise InputError(
            f"the masking network given is for a classifier of fingerprint {network.fingerprint[:12]}, and"
            f" {classifier.name!r} has {fingerprint[:12]}; train one with `underfire train rts`."
        )
    return network


def shipped_weights(classifier: Classifier) -> Path | None:
    """The file that comes with the package for ``classifier``, by its fingerprint; None if there is none."""
    fingerprint = classifier.fingerprint()
    return next((path for path in shipped() if read_about(path)["classifier"]["fingerprint"] == fingerprint), None)


def default_weights(classifier: Classifier) -> Path:
    """The file that comes with the package for ``classifier``.

    Raises:
        InputError: there is none, or the classifier has no linear head.
    """
    gated_features(classifier)
    path = shipped_weights(classifier)
    if path is not None:
        return path
    raise InputError(
        f"RTS needs a masking network trained for {classifier.name!r}, and none comes with the package; train one with"
        " `underfire train rts` and give its file as --rts FILE, or as network=MaskingNetwork.load(FILE, classifier)."
    )
