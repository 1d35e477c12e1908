"""Feature squeezing: a photo whose prediction hangs on details that no person needs is suspect.

Source: Xu, Evans and Qi, "Feature squeezing: Detecting adversarial examples in deep neural networks", NDSS 2018. An
image is squeezed in several ways, and the score is the largest L1 distance between the probabilities of the squeezed
image and of the image itself. The default squeezers are those that they chose for ImageNet.

The squeezers are written in PyTorch, on one image or many, on any device and in the images' own precision. Pillow's
median filter takes odd sizes and 8 bits alone, and the authors' is 2×2. Median and non-local means can be
differentiated; a number of bits cannot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.attacks.transforms import ImageTransform
from underfire.defenses.density import Density
from underfire.defenses.detector import Detector
from underfire.defenses.views import Unmoving, described
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter, require_finite
from underfire.models.classifier import Classifier
from underfire.models.decisions import check_exclusive
from underfire.seeding import owners


class Squeezer(Protocol):
    """A loss of detail."""

    @property
    def name(self) -> str:
        """What signals call it, one word."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Images ``x`` (N, C, H, W) in [0, 1], squeezed: of the same shape and range."""
        ...


@dataclass(frozen=True)
class BitDepth:
    """Fewer levels of each colour.

    Attributes:
        bits: of a value; 2^bits levels are left.

    Raises:
        InputError: ``bits`` is not from 1 to 8.
    """

    bits: int = 5

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise InputError(f"bits is {self.bits}; give 1 to 8 bits.")

    @property
    def name(self) -> str:
        """Such as ``bits-5``."""
        return f"bits-{self.bits}"

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` at the nearest levels."""
        steps = float(2**self.bits - 1)
        return (x * steps).round() / steps


WIDEST = 31
"""Pixels on a side of the window of a median, which takes memory for its square of images."""


@dataclass(frozen=True)
class Median:
    """The median of a window, in each colour; pixels at the edges are repeated beyond them.

    An even window lies up and to the left of its pixel, and of its two middle values the larger is taken, as in the
    authors' filter (SciPy's).

    Attributes:
        size: of the window's side in pixels.

    Raises:
        InputError: ``size`` is below 2 or above `WIDEST`.
    """

    size: int = 2

    def __post_init__(self) -> None:
        if not 2 <= self.size <= WIDEST:
            raise InputError(f"size is {self.size}; give a window of 2 to {WIDEST} pixels on a side.")

    @property
    def name(self) -> str:
        """Such as ``median-2``."""
        return f"median-{self.size}"

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` filtered."""
        before = self.size // 2
        after = self.size - 1 - before
        h, w = x.shape[2:]
        wide = F.pad(x, (before, after, before, after), mode="replicate")
        window = [wide[:, :, i : i + h, j : j + w] for i in range(self.size) for j in range(self.size)]
        return torch.stack(window).kthvalue(self.size**2 // 2 + 1, dim=0).values


@dataclass(frozen=True)
class NonLocalMeans:
    """Each pixel becomes a mean of those around it, weighted by how alike their surroundings are.

    The weight of pixel q for pixel p is exp(−d²/h²), d² the mean squared difference, over cells and colours, of the
    patches around p and q. Source: Buades, Coll and Morel, "A non-local algorithm for image denoising", CVPR 2005. The
    picture is mirrored at its edges. The defaults are the authors' 11-3-4; their library works on another colour space.

    Attributes:
        search: side in pixels of the window around p, an odd number.
        patch: side in pixels of a patch, an odd number.
        strength: h in levels of 255.

    Raises:
        InputError: a side is even or below 1, or ``strength`` is not above 0.
    """

    search: int = 11
    patch: int = 3
    strength: float = 4.0

    def __post_init__(self) -> None:
        for what in ("search", "patch"):
            side = getattr(self, what)
            if side < 1 or side % 2 == 0:
                raise InputError(f"{what} is {side}; give an odd number of pixels.")
        if not self.strength > 0:
            raise InputError(f"strength {self.strength:g} is not above 0; give it in levels of 255.")

    @property
    def name(self) -> str:
        """Such as ``nlm-11-3-4``."""
        return f"nlm-{self.search}-{self.patch}-{self.strength:g}"

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` denoised.

        Raises:
            InputError: the images are too small for the windows.
        """
        reach, edge = self.search // 2, self.patch // 2
        h, w = x.shape[2:]
        if min(h, w) <= reach + edge:
            raise InputError(f"images of {h}×{w} pixels are too small for {self.name}; give smaller windows.")
        wide = F.pad(x, (reach + edge,) * 4, mode="reflect")
        framed = wide[:, :, reach : reach + h + 2 * edge, reach : reach + w + 2 * edge]
        total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
        for i in range(self.search):
            for j in range(self.search):
                other = wide[:, :, i : i + h + 2 * edge, j : j + w + 2 * edge]
                apart = F.avg_pool2d((framed - other).square().mean(dim=1, keepdim=True), self.patch, stride=1)
                weight = torch.exp(-apart / (self.strength / 255) ** 2)
                total = total + weight * other[:, :, edge : edge + h, edge : edge + w]
                weights = weights + weight
        return total / weights


XU: tuple[Squeezer, ...] = (BitDepth(5), Median(2), NonLocalMeans(11, 3, 4.0))
"""The squeezers that the authors chose for ImageNet."""


@dataclass(frozen=True)
class _Squeezed(Unmoving):
    """Images as a squeezer leaves them; a direction goes back through it unchanged."""

    squeezer: Squeezer
    maps: bool = field(default=False, init=False)

    def apply(self, images: Tensor, _rows: Tensor, _keys: Sequence[str], _step: int, /) -> Tensor:
        """``images``, squeezed."""
        with torch.no_grad():
            moved = self.squeezer(images).clamp(0, 1) - images
        return images + moved


class SqueezingSignals:
    """The L1 distance, from 0 to 2, that each squeezer moves the probabilities by.

    Args:
        classifier: whose probabilities they are.
        squeezers: one or several, of different names.

    Attributes:
        interpreters: none is watched.

    Raises:
        InputError: there is no squeezer, or two share a name.
    """

    interpreters: tuple[Interpreter, ...] = ()

    def __init__(self, classifier: Classifier, squeezers: Sequence[Squeezer] = XU) -> None:
        check_exclusive("detectors", exclusive=classifier.decision.exclusive)
        self._classifier = classifier
        self.squeezers = tuple(squeezers)
        self.names: tuple[str, ...] = tuple(f"{squeezer.name} distance" for squeezer in self.squeezers)
        if not self.names or len(set(self.names)) < len(self.names):
            raise InputError(f"the squeezers are {[s.name for s in self.squeezers]}; give at least one, each once.")

    @property
    def classifier(self) -> Classifier:
        """Whose probabilities they are."""
        return self._classifier

    @property
    def passes_per_image(self) -> int:
        """Forward passes of :meth:`measure` for an image: one for itself and one for each squeezer."""
        return 1 + len(self.squeezers)

    def measure(self, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """The distances (N, S), float64 on the CPU, of images ``x`` (N, C, H, W) in [0, 1]; nothing is drawn.

        Raises:
            InputError: ``x`` is not what the classifier takes, or there is not one key per image.
            NonFiniteError: a probability is NaN.
        """
        self.classifier.check_images(x)
        owners(x, keys)  # the check of their number
        if not x.shape[0]:
            return torch.zeros((0, len(self.names)), dtype=torch.float64)
        with torch.no_grad():
            own = self._probabilities(x)
            # A sum may round by 1 in the last place, and images end at 1.
            squeezed = [self._probabilities(squeezer(x).clamp(0, 1)) for squeezer in self.squeezers]
        # Row by row, so that a batch gives the same bits split or whole.
        apart = [[float((p - q).abs().sum()) for p, q in zip(own, other, strict=True)] for other in squeezed]
        return torch.tensor(apart, dtype=torch.float64).T.contiguous()

    def maps(self, _x: Tensor, _keys: Sequence[str] | None = None) -> Mapping[str, Tensor]:
        """None: the distances rest on no map."""
        return {}

    def transforms(self, _target_maps: Mapping[str, Tensor], _seed: int) -> tuple[ImageTransform, ...]:
        """The squeezers, for the prediction alone."""
        return tuple(map(_Squeezed, self.squeezers))

    def _probabilities(self, x: Tensor) -> Tensor:
        """(N, K), float64 on the CPU."""
        probabilities = self.classifier(x).to("cpu", torch.float64).softmax(dim=1)
        require_finite(probabilities, "the classifier's output")
        return probabilities


class _Largest(Density):
    """The largest signal alone counts, as it is: whoever is less moved than clean photos is no more suspect."""

    def contributions(self, values: Tensor) -> Tensor:
        """(N, S): the square of each row's first largest value, and 0 for the others."""
        first = F.one_hot(values.argmax(dim=1), values.shape[1]).bool()
        return values.square() * first


class FeatureSqueezing(Detector):
    """Flags images by the largest distance of :class:`SqueezingSignals`, s: the score is −½·s².

    Args:
        classifier: whose predictions are guarded.
        squeezers: one or several, of different names.
        fpr: the rate of clean photos that may be flagged, in (0, 1).
        seed: which clean photos go to which half.

    Raises:
        InputError: an argument is out of its range.
    """

    kind: ClassVar[str] = "squeezing"
    density_type = _Largest
    signals: SqueezingSignals

    def __init__(
        self, classifier: Classifier, *, squeezers: Sequence[Squeezer] = XU, fpr: float = 0.05, seed: int = 0
    ) -> None:
        super().__init__(SqueezingSignals(classifier, squeezers), fpr=fpr, seed=seed)

    def settings(self) -> dict[str, Any]:
        """The kinds of the squeezers and their settings."""
        return {"squeezers": [described(squeezer) for squeezer in self.signals.squeezers]}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], classifier: Classifier, *, fpr: float, seed: int) -> Self:
        """The detector, not fitted, with the squeezers that ``settings`` name.

        Raises:
            InputError: a squeezer is none of this module's.
        """
        squeezers = [_made(name, arguments) for name, arguments in settings["squeezers"]]
        return cls(classifier, squeezers=squeezers, fpr=fpr, seed=seed)


def _made(name: str, arguments: Mapping[str, Any]) -> Squeezer:
    """The squeezer of the class ``name`` with these ``arguments``."""
    kinds: tuple[type[BitDepth | Median | NonLocalMeans], ...] = (BitDepth, Median, NonLocalMeans)
    kind = next((kind for kind in kinds if kind.__name__ == name), None)
    if kind is None:
        raise InputError(
            f"{name!r} is no squeezer of this package; make the detector with yours, and call its restore."
        )
    return kind(**arguments)
