"""The masking network: from a classifier's features to the map of a class in one pass."""

import math
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from underfire.errors import InputError
from underfire.interpreters.base import ForwardPass
from underfire.interpreters.maps import saliency_grid
from underfire.interpreters.masking.decoder import SHUFFLED, Decoder
from underfire.interpreters.masking.gate import ClassGate, class_evidence
from underfire.models.checkpoints import load_checkpoint
from underfire.models.classifier import Classifier, filled
from underfire.models.features import FeatureMap, find_features, find_trunk
from underfire.seeding import generator
from underfire.weights import read_about, write_weights


class MaskingNetwork(nn.Module):
    """A gate and a decoder over the features of an encoder, the audited classifier by default.

    Attributes:
        taps: the encoder's activations that it reads, coarsest first.
        grid: (h, w) of its maps, a quarter of the input.
        encoder: a classifier of its own whose features it reads, or None for those of the audited one.
        fingerprint: of the classifier that it is for.
        about: how its weights came to be, as the file says; empty for untrained ones.
    """

    def __init__(
        self, taps: tuple[FeatureMap, ...], decoder: Decoder, fingerprint: str, *, encoder: Classifier | None = None
    ) -> None:
        super().__init__()
        self.fingerprint = fingerprint
        self.taps = taps
        self.grid = decoder.grid
        self.encoder = encoder
        self.about: dict[str, Any] = {}
        self.gate = ClassGate()
        self.decoder = decoder

    @classmethod
    def untrained(cls, classifier: Classifier, *, encoder: Classifier | None = None, seed: int = 0) -> Self:
        """A network for ``classifier`` with random weights of ``seed``, on its device and in its type.

        Raises:
            InputError: the encoder has no linear head over a convolutional activation, or does not take the
                classifier's images or know its classes.
        """
        source = classifier if encoder is None else _fitting(encoder, classifier)
        last = gated_features(source)
        grid = saliency_grid(source.input_size)
        taps = find_trunk(source, last, finest=grid)
        with torch.no_grad(), source.frozen():
            seen = ForwardPass(source, source.patterns(), taps=taps, attached=False)
            activations = [seen.activation(tap) for tap in taps]
        scales = [max(float(values.square().mean().sqrt()), 1e-3) for values in activations]
        with torch.random.fork_rng(devices=[]):  # layers draw initial weights, which are replaced
            decoder = Decoder([a.shape[1] for a in activations], scales, grid)
            network = cls(taps, decoder, classifier.fingerprint(), encoder=encoder)
        network._draw(seed)
        return network.to(source.device, source.dtype).requires_grad_(False)

    @classmethod
    def load(cls, path: str | Path, classifier: Classifier, *, encoder: Classifier | None = None) -> Self:
        """The network for ``classifier`` (and ``encoder``) whose weights :meth:`save` wrote to ``path``.

        Raises:
            InputError: the file is missing or damaged, or its weights belong to another classifier or encoder.
        """
        path = Path(path)
        about = read_about(path)
        for what, subject in (("classifier", classifier), ("encoder", encoder)):
            found, wanted = about.get(what), _identity(subject)
            if _fingerprint(found) != _fingerprint(wanted):
                raise InputError(
                    f"'{path}' holds weights for {what} {_described(found)}, not for {_described(wanted)};"
                    " train some with `underfire train rts`."
                )
        network = cls.untrained(classifier, encoder=encoder)
        if about.get("taps") != network._tap_names():
            raise InputError(f"'{path}' reads other activations of {classifier.name!r}; train the weights again.")
        load_checkpoint(network, path)
        if not all(bool(torch.isfinite(values).all()) for values in network.state_dict().values()):
            raise InputError(f"'{path}' holds weights that are NaN or infinite; train them again.")
        network.about = about
        return network

    def save(self, path: str | Path, classifier: Classifier, **about: Any) -> None:
        """Write the weights for ``classifier`` to ``path``, with JSON values ``about`` how they came to be."""
        identity = {
            "classifier": _identity(classifier),
            "encoder": _identity(self.encoder),
            "taps": self._tap_names(),
            "grid": list(self.grid),
        }
        write_weights(Path(path), self.state_dict(), {**about, **identity})

    def maps(self, view: ForwardPass, classes: Tensor) -> Tensor:
        """Maps (N, h, w) in [0, 1] of a ``view`` of the encoder for ``classes`` (N,), attached to it."""
        n = classes.shape[0]
        evidence = class_evidence(view, self.taps[0], classes)
        activations = [view.activation(tap) for tap in self.taps]
        if evidence.device.type == "cpu":  # the same bits for an image in any batch, as in Classifier.scores
            evidence, activations = filled(evidence), [filled(values) for values in activations]
        maps: Tensor = self.decoder(activations, self.gate(evidence))[:n]
        return maps

    def _tap_names(self) -> list[list[str | int]]:
        return [[tap.module, tap.spot.call, *tap.grid] for tap in self.taps]

    def _draw(self, seed: int) -> None:
        """He-scaled weights and zero biases, the same for a seed wherever they are drawn."""
        with torch.no_grad():
            for name, parameter in self.decoder.named_parameters():
                if parameter.ndim == 1:
                    parameter.zero_()
                    continue
                draw = generator(seed, "masking network", name)
                copies = SHUFFLED if name.endswith("up.weight") else 1  # one colour at first, no checkerboard
                shape = (parameter.shape[0] // copies, *parameter.shape[1:])
                values = torch.randn(shape, generator=draw, dtype=torch.float64) * math.sqrt(2 / parameter[0].numel())
                parameter.copy_(values.repeat_interleave(copies, dim=0))


def gated_features(classifier: Classifier) -> FeatureMap:
    """The last activation of ``classifier``, whose linear head says where a class is seen.

    Raises:
        InputError: it has none.
    """
    last = find_features(classifier)
    if last.head is None:
        raise InputError(
            f"RTS needs global average pooling and one linear layer, by which to tell where a class is seen, and"
            f" {classifier.name!r} has another head; use grad, or give a network with an encoder that ends so."
        )
    return last


def _identity(classifier: Classifier | None) -> dict[str, str] | None:
    return None if classifier is None else {"name": classifier.name, "fingerprint": classifier.fingerprint()}


def _fingerprint(identity: object) -> object:
    """What decides; a classifier may bear several names."""
    return identity.get("fingerprint") if isinstance(identity, dict) else identity


def _described(identity: object) -> str:
    """A classifier by its name and the first digits of its fingerprint."""
    if not isinstance(identity, dict):
        return "none"
    return f"{str(identity.get('name'))!r} ({str(identity.get('fingerprint'))[:12]})"


def _fitting(encoder: Classifier, classifier: Classifier) -> Classifier:
    """``encoder``, if it takes the images of ``classifier`` and knows its classes."""
    if encoder.input_size != classifier.input_size or encoder.channels != classifier.channels:
        raise InputError(
            f"encoder {encoder.name!r} takes images of {encoder.channels} × {encoder.input_size} and"
            f" {classifier.name!r} of {classifier.channels} × {classifier.input_size}; give one of the same size."
        )
    if encoder.num_classes != classifier.num_classes:
        raise InputError(
            f"encoder {encoder.name!r} has {encoder.num_classes} classes and {classifier.name!r}"
            f" {classifier.num_classes}; give one with the same classes."
        )
    if (encoder.device, encoder.dtype) != (classifier.device, classifier.dtype):
        raise InputError(f"encoder {encoder.name!r} is of another device or type than {classifier.name!r}; move it.")
    return encoder
