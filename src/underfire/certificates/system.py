"""The randomised system that certificates are of: noise on the image, then the prediction and its map."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.attacks.budget import check_whole
from underfire.certificates.noise import NoiseSource, check_sigma, noisy
from underfire.errors import InputError
from underfire.interpreters.base import ForwardPass, Interpreter, require_finite
from underfire.models.classifier import Classifier, differing
from underfire.models.decisions import check_exclusive
from underfire.models.draws import refuse_random

Denoiser = Callable[[Tensor], Tensor]
"""What is done to noisy images (N, C, H, W), which may leave [0, 1], before the classifier sees them."""

BATCH = 16
"""Draws that go through the model together, where the caller doesn't say."""

_SAME_MAP = 0.01  # largest difference of a cell when the same draw goes through the model in other company


@dataclass(frozen=True)
class Shown:
    """What each of B draws shows.

    Attributes:
        images: (B, C, H, W) as the classifier sees them, in [0, 1].
        labels: (B,) its predictions.
        maps: (B, h, w) of these labels; (B, 0, 0) where nobody asks for them.
    """

    images: Tensor
    labels: Tensor
    maps: Tensor


@dataclass(frozen=True)
class NoisySystem:
    """Draws ε ~ N(0, σ²I), and shows the label of x + ε, cut to [0, 1], and that label's map of the same image.

    Attributes:
        interpreter: with the classifier that it explains.
        sigma: standard deviation σ of the noise, in pixel values.
        denoise: of what happens before the image is cut to [0, 1]; it must treat each image by itself, and draw nothing
            at random.
        batch_size: draws that go through the model together; it decides nothing but memory.

    Raises:
        InputError: σ is out of range, the batch is empty, or the classifier draws random numbers of its own or has
            labels that don't exclude each other.
    """

    interpreter: Interpreter
    sigma: float
    denoise: Denoiser | None = None
    batch_size: int = BATCH

    def __post_init__(self) -> None:
        if not isinstance(self.interpreter, Interpreter):
            raise InputError(
                f"{self.interpreter!r} is no interpreter; give one of a classifier, such as CAM(classifier)."
            )
        check_sigma(self.sigma)
        check_whole("batch_size", self.batch_size)
        if self.denoise is not None and not callable(self.denoise):
            raise InputError(f"denoise is {self.denoise!r}; give a function of images, such as Median(3).")
        if self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size}; it must be at least 1.")
        check_exclusive("certificates", exclusive=self.classifier.decision.exclusive)
        refuse_random(self.classifier)

    @property
    def classifier(self) -> Classifier:
        """Which the interpreter explains."""
        return self.interpreter.classifier

    def images(self, x: Tensor, source: NoiseSource, draws: range) -> Tensor:
        """What the classifier sees of one image ``x`` (C, H, W) in these ``draws``, (B, C, H, W)."""
        return self.seen(self._noisy(x, source, draws)).detach()

    def seen(self, z: Tensor) -> Tensor:
        """What the classifier sees of noisy images ``z`` (N, C, H, W); attached to them."""
        return (z if self.denoise is None else _denoised(self.denoise, z)).clamp(0, 1)

    def shown(self, x: Tensor, source: NoiseSource, draws: range, *, maps: bool = True) -> Iterator[Shown]:
        """What ``draws`` of one image ``x`` (C, H, W) show, a batch at a time; inside ``classifier.frozen()``.

        Without ``maps`` it is the labels alone, for a forward pass each.

        Raises:
            NonFiniteError: logits or a map contain NaN or infinity; its index counts within the batch.
        """
        for some in self.batches(draws):
            z = self.images(x, source, some)
            logits, found = self._looked_at(z, tuple(source.key(draw) for draw in some), maps=maps)
            require_finite(logits, "the logits of a draw")
            require_finite(found, f"the {self.interpreter.name} map of a draw")
            yield Shown(z, logits.argmax(dim=1), found)

    def maps_of(self, label: Tensor, x: Tensor, source: NoiseSource, draws: range) -> Iterator[Tensor]:
        """The maps (B, h, w) of one given ``label`` () in ``draws``, whatever is predicted; otherwise as above."""
        for some in self.batches(draws):
            z = self.images(x, source, some)
            keys = tuple(source.key(draw) for draw in some)
            maps = self.interpreter.compute(z, label.expand(len(some)), keys)
            require_finite(maps, f"the {self.interpreter.name} map of a draw")
            yield maps

    def batches(self, draws: range) -> list[range]:
        """``draws`` in order, so many at a time."""
        return [draws[start : start + self.batch_size] for start in range(0, len(draws), self.batch_size)]

    def check_rows(self, x: Tensor, source: NoiseSource, *, maps: bool = True) -> None:
        """Refuse a system whose draws depend on each other, or that shows another map than the interpreter's.

        It takes two draws of ``x`` (C, H, W), and each once more, alone, from the denoiser on; inside
        ``classifier.frozen()``. Without ``maps`` it looks at the logits alone.

        Raises:
            InputError: one shows something else alone.
            NonFiniteError: logits or a map contain NaN or infinity; its index counts within the two.
        """
        several = range(min(2, self.batch_size))
        before, keys = self._noisy(x, source, several), tuple(source.key(draw) for draw in several)
        z = self.seen(before.clone()).detach()  # a denoiser may work in place
        logits, beside = self._looked_at(z, keys, maps=maps)
        require_finite(logits, "the logits of a draw")
        require_finite(beside, f"the {self.interpreter.name} map of a draw")
        for row in several:  # what is scaled by the batch's largest value leaves the row that has it as it is
            one = slice(row, row + 1)
            own = self.seen(before[one].clone()).detach()
            with torch.no_grad():
                alone = self.classifier.scores(own)
            same = not differing(logits[one], alone).any()
            if same and maps:
                shown = self.interpreter.compute(own, logits[one].argmax(dim=1), keys[one])
                same = float((beside[one] - shown).abs().max()) <= _SAME_MAP
            if not same:
                raise InputError(
                    f"a draw of {self.interpreter.name} on {self.classifier.name!r} shows something else alone than"
                    " beside another: draws must not depend on each other. Give batch_size=1, or if that is no help let"
                    " the interpreter's predicted give the maps that its compute gives."
                )

    def _looked_at(self, z: Tensor, keys: tuple[str, ...], *, maps: bool) -> tuple[Tensor, Tensor]:
        """The logits (B, K) of images ``z``, and the maps (B, h, w) of their predictions, or (B, 0, 0)."""
        if maps:
            return self.interpreter.predicted(z, keys)
        with torch.no_grad():
            return self.classifier.scores(z), z.new_empty((len(z), 0, 0))

    def _noisy(self, x: Tensor, source: NoiseSource, draws: range) -> Tensor:
        """``x`` (C, H, W) with the noise of these ``draws`` (B, C, H, W), before a denoiser."""
        return torch.stack([noisy(x, self.sigma, source, draw) for draw in draws])


def shown_together(
    systems: Sequence[NoisySystem], x: Tensor, source: NoiseSource, draws: range, *, maps: bool = True
) -> Iterator[tuple[Shown, ...]]:
    """What ``draws`` of one image ``x`` (C, H, W) show on each of ``systems``, which differ in the interpreter alone.

    One forward pass serves all interpreters that have a reading, and the prediction. Otherwise as `NoisySystem.shown`.
    """
    first, *others = systems
    if not (others and maps):
        yield from ((shown,) * len(systems) for shown in first.shown(x, source, draws, maps=maps))
        return
    readings = [system.interpreter.reading() for system in systems]
    taps = tuple({tap: None for reading in readings if reading for tap in reading.taps})
    attached = any(reading.attached for reading in readings if reading)
    for some in first.batches(draws):
        z, keys = first.images(x, source, some), tuple(source.key(draw) for draw in some)
        view = ForwardPass(first.classifier, z, taps=taps, attached=attached)
        require_finite(view.logits.detach(), "the logits of a draw")
        labels = view.logits.detach().argmax(dim=1)
        found = []
        for system, reading in zip(systems, readings, strict=True):
            g = system.interpreter
            own = g.compute(z, labels, keys) if reading is None else reading.maps(view, labels)
            require_finite(own, f"the {g.name} map of a draw")
            found.append(Shown(z, labels, own))
        yield tuple(found)


def _denoised(denoise: Denoiser, z: Tensor) -> Tensor:
    found = denoise(z)
    if found.shape != z.shape or found.dtype != z.dtype:
        raise InputError(
            f"the denoiser returns {tuple(found.shape)} of {found.dtype} for images {tuple(z.shape)} of {z.dtype};"
            " it must return images like those it was given."
        )
    require_finite(found, "the denoised image of a draw")
    return found
