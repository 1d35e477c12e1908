"""The classifier under audit: any ``nn.Module`` with its preprocessing inside."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from underfire.choices import Crop, Interpolation
from underfire.errors import InputError, ModelError
from underfire.images.preprocessing import Preprocessing
from underfire.models.frozen import alone, frozen, is_frozen
from underfire.plugins import described
from underfire.weights import fingerprint, oddity

Outputs = Literal["logits", "probabilities"]

_LATER = ("interpolation", "crop", "bgr")


class Classifier:
    """A classifier ``f``: images in [0, 1] in, logits out.

    Args:
        module: maps normalised images (N, C, H, W) to scores (N, K). It is used as it is and left as it was: for
            the time of a call it is in evaluation mode with frozen parameters, and afterwards it is not. Threads
            may share it: they work with it one after the other.
        mean, std: normalisation, applied inside; one number per channel, or one for all channels, or none for a
            module that takes [0, 1] itself. These and what follows make up the `Preprocessing`.
        input_size: height and width of the input in pixels, one number for a square.
        resize: of photos, in pixels, before ``input_size`` is cut out of their middle; by default the short side of
            ``input_size``.
        interpolation: of photos: nearest, box, bilinear, hamming, bicubic or lanczos.
        crop: of photos: center, squash or letterbox.
        bgr: the module takes blue first, as do ``mean`` and ``std``; ``x`` and all pictures are RGB nevertheless.
        class_names: readable names, one per class, in the order of the outputs.
        outputs: ``"probabilities"`` for a module that ends in a softmax: its logarithm is taken, so that every
            user of the classifier may rely on logits.
        name: what reports call it.
        layer: name of the layer of ``module`` whose output interpreters of one activation read; by default the last
            one that serves (see :func:`underfire.models.features.find_features`).

    Raises:
        InputError: the arguments contradict the module or each other, or the module returns probabilities
            where logits were promised.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        input_size: int | tuple[int, int],
        resize: int | None = None,
        interpolation: Interpolation = Preprocessing.interpolation,
        crop: Crop = Preprocessing.crop,
        bgr: bool = Preprocessing.bgr,
        class_names: Sequence[str] | None = None,
        outputs: Outputs = "logits",
        name: str = "classifier",
        layer: str | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise InputError(f"a classifier is made from an nn.Module, not from {type(module).__name__!r}.")
        self.module: nn.Module = getattr(module, "_orig_mod", module)  # compiled code doesn't show its layers
        self.name = name
        self.layer = layer
        if outputs not in ("logits", "probabilities"):
            raise InputError(f"outputs {outputs!r} is unknown; give 'logits' or 'probabilities'.")
        self.outputs: Outputs = outputs
        means, stds = _numbers(mean), _numbers(std)
        named = [count for count in (len(means), len(stds), 3 if bgr else 1) if count > 1]
        channels = named[:1] or _channels_taken(self.module)
        size = (input_size, input_size) if isinstance(input_size, int) else input_size
        self.preprocessing = Preprocessing(
            input_size=size,
            resize=min(size, default=0) if resize is None else resize,
            mean=means,
            std=stds,
            interpolation=interpolation,
            crop=crop,
            channels=channels[0],
            bgr=bgr,
        )
        if self.dtype not in (torch.float32, torch.float64):
            raise InputError(f"the module has parameters of {self.dtype}; convert it with .float() first.")
        self._refuse_inference_tensors()
        self.preprocessing, self.num_classes = self._probe(channels)
        names = [f"class {index}" for index in range(self.num_classes)] if class_names is None else class_names
        if len(names) != self.num_classes:
            raise InputError(
                f"{len(names)} class names were given for a module of {self.num_classes} outputs; give one for each."
            )
        self.class_names = tuple(str(n) for n in names)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of images in pixels."""
        return self.preprocessing.input_size

    @property
    def channels(self) -> int:
        """Of images."""
        return self.preprocessing.channels

    @property
    def device(self) -> torch.device:
        """The device of the module's parameters, where images must be."""
        tensor = self._any_tensor()
        return torch.device("cpu") if tensor is None else tensor.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the module's parameters, which images must have."""
        tensor = self._any_tensor()
        return torch.float32 if tensor is None else tensor.dtype

    @property
    def is_frozen(self) -> bool:
        """Whether we are inside a :meth:`frozen` block."""
        return is_frozen(self.module)

    def to(self, device: torch.device | str) -> Self:
        """Move the module to ``device`` and return self."""
        self.module.to(device)
        return self

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images ``x`` (N, C, H, W) in [0, 1]; differentiable in ``x``.

        Raises:
            InputError: ``x`` has the wrong shape, type or range.
        """
        self.check_images(x)
        with self.frozen():
            return self.scores(x)

    def probabilities(self, x: Tensor) -> Tensor:
        """Class probabilities (N, K) of images ``x`` as in a call, without gradient."""
        with torch.no_grad():
            return self(x).softmax(dim=1)

    def scores(self, x: Tensor) -> Tensor:
        """Logits of ``x``, which is not checked, for loops that made ``x`` themselves, inside :meth:`frozen`.

        Raises:
            ModelError: the module fails, or returns something else than K scores for each image.
        """
        n = x.shape[0]
        batch = filled(x) if n and x.device.type == "cpu" else x
        returned = self._returned(self.preprocessing.normalised(batch))
        if not _are_scores(returned, len(batch)) or returned.shape[1] != self.num_classes:
            raise ModelError(
                f"the model {self.name!r} returned {_seen(returned)} for {len(batch)} images;"
                f" before, it returned ({len(batch)}, {self.num_classes})."
            )
        out: Tensor = returned[:n].to(x.dtype)  # under autocast it may be a shorter float
        if self.outputs == "probabilities":
            out = out.clamp_min(torch.finfo(out.dtype).tiny).log()
        return out

    def _returned(self, z: Tensor) -> Any:
        """What the module returns for normalised images."""
        try:
            return self.module(z)
        except InputError:  # of a hook of ours
            raise
        except (Exception, SystemExit) as error:  # a stranger's module may raise anything
            raise ModelError(f"the model {self.name!r} fails with {described(error)}.") from error

    def frozen(self) -> AbstractContextManager[None]:
        """Evaluation mode and frozen parameters inside the block, everything as it was after it.

        Blocks nest at no cost: a loop opens one around all its calls. Other threads that want the module wait.
        """
        return frozen(self.module)

    def alone(self) -> AbstractContextManager[None]:
        """Inside the block no other thread works with the module, as whoever copies it or adds hooks needs."""
        return alone(self.module)

    def check_images(self, x: Tensor) -> None:
        """Refuse images that are not what a call promises.

        Raises:
            InputError: not a tensor (N, C, H, W) of the module's type with values in [0, 1].
        """
        c, (h, w) = self.channels, self.input_size
        if not isinstance(x, Tensor):
            raise InputError(f"images are a tensor (N, {c}, {h}, {w}), not {type(x).__name__!r}.")
        if x.ndim != 4 or x.shape[1:] != (c, h, w):
            raise InputError(f"images of shape {tuple(x.shape)} don't fit the classifier; give (N, {c}, {h}, {w}).")
        if x.dtype != self.dtype:
            hint = "; divide 8-bit images by 255" if x.dtype == torch.uint8 else ""
            raise InputError(
                f"images of type {x.dtype} were given to a classifier of {self.dtype}{hint}; convert them first."
            )
        if x.device != self.device:
            raise InputError(f"images on {x.device} were given to a classifier on {self.device}; move one of them.")
        if x.numel():
            low, high = (v.item() for v in torch.aminmax(x.detach()))
            if not (math.isfinite(low) and math.isfinite(high)):
                raise InputError("the images contain NaN or infinity; every pixel must be a number in [0, 1].")
            if low < 0 or high > 1:
                hint = "; divide by 255 first" if high > 2 and low >= 0 else "; give images before normalisation"
                raise InputError(f"pixel values from {low:.4g} to {high:.4g} are outside [0, 1]{hint}.")

    def check_classes(self, y: Tensor, n: int) -> None:
        """Refuse class indices that are not int64 (n,) in [0, K).

        Raises:
            InputError: wrong shape, type or range.
        """
        if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != (n,):
            seen = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise InputError(f"classes are an int64 tensor of shape ({n},), not {seen}.")
        if y.device != self.device:
            raise InputError(f"classes on {y.device} were given to a classifier on {self.device}; move one of them.")
        if n and not 0 <= int(y.min()) <= int(y.max()) < self.num_classes:
            wrong = next(int(c) for c in y if not 0 <= int(c) < self.num_classes)
            raise InputError(f"class {wrong} does not exist: the classifier has classes 0 to {self.num_classes - 1}.")

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the structure's names, all parameters and buffers, and the preprocessing."""
        own = self.preprocessing
        # What was not known when runs began to have fingerprints counts where it is not as it was then.
        later = {name: getattr(own, name) for name in _LATER if getattr(own, name) != getattr(Preprocessing, name)}
        told = (own.mean, own.std, own.input_size, own.resize, self.outputs, *later.items())
        return fingerprint(self.module.state_dict(), preprocessing=told)

    def _any_tensor(self) -> Tensor | None:
        """A floating-point parameter or buffer of the module, if it has one."""
        for tensors in (self.module.parameters(), self.module.buffers()):
            for tensor in tensors:
                if tensor.is_floating_point():
                    return tensor
        return None

    def patterns(self) -> Tensor:
        """Four fixed images (4, C, H, W) of waves of different lengths, to find out with what the module does."""
        h, w = self.input_size
        step = torch.arange(self.channels * h * w, dtype=torch.float64)
        waves = [(step * math.tau / length).sin() * 0.5 + 0.5 for length in (5.3, 17.9, 61.7, 211.1)]
        return torch.stack(waves).reshape(4, self.channels, h, w).to(self.device, self.dtype)

    def _refuse_inference_tensors(self) -> None:
        for tensors in (self.module.named_parameters(), self.module.named_buffers()):
            for name, tensor in tensors:
                if tensor.is_inference():
                    raise InputError(
                        f"the module's {name!r} was made in torch.inference_mode, and no gradient goes through it; "
                        "make the module, or load its weights, outside that block."
                    )

    def _probe(self, channels: Sequence[int]) -> tuple[Preprocessing, int]:
        """The preprocessing with the first of ``channels`` that the module takes, and the number K of its classes."""
        refusal: InputError | None = None
        for count in channels:
            self.preprocessing = replace(self.preprocessing, channels=count)  # of the patterns
            x = self.patterns()
            try:
                with torch.no_grad(), self.frozen():
                    returned = self._returned(x)
            except ModelError as error:
                refusal = refusal or self._cannot_take(x, error)
                continue
            self._check_scores(returned)
            return self.preprocessing, returned.shape[1]
        raise refusal or ValueError("no number of channels was given")

    def _cannot_take(self, x: Tensor, error: ModelError) -> InputError:
        refusal = InputError(
            f"the module cannot take images of shape {tuple(x.shape)}: it fails with"
            f" {described(error.__cause__ or error)}; check input_size, and give mean one number per channel."
        )
        refusal.__cause__ = error.__cause__
        return refusal

    def _check_scores(self, out: Any) -> None:
        """Refuse what no classifier returns for the patterns, or other ``outputs`` than were declared."""
        if not _are_scores(out, 4) or out.shape[1] < 2:
            raise InputError(
                f"the module returns {_seen(out)} for 4 images; a classifier returns scores (4, K) of K classes, "
                "at least 2."
            )
        if self.outputs == "logits" and is_probabilities(out):
            raise InputError(
                "the module returns probabilities, not logits; remove its softmax, or say outputs='probabilities'."
            )
        if self.outputs == "probabilities" and not is_probabilities(out):
            raise InputError(
                "outputs='probabilities' was given, but the module's outputs don't sum to 1; drop the option."
            )


def _are_scores(out: Any, n: int) -> bool:
    """Whether the module returned a row of real numbers for each of ``n`` images."""
    plain = isinstance(out, Tensor) and out.ndim == 2 and len(out) == n and out.is_floating_point()
    return plain and oddity(out) is None


def _seen(out: Any) -> str:
    """What a module returned, in two words."""
    if not isinstance(out, Tensor):
        return type(out).__name__
    kind = oddity(out) or ("" if out.is_floating_point() else f"of {out.dtype}")
    return f"{tuple(out.shape)} {kind}".rstrip()


def is_probabilities(scores: Tensor) -> bool:
    """Whether every row of ``scores`` (N, K) lies in [0, 1] and sums to 1, as a softmax's does."""
    tolerance = 1e-3
    inside = bool((scores >= -tolerance).all()) and bool((scores <= 1 + tolerance).all())
    return inside and bool(((scores.sum(dim=1) - 1).abs() < tolerance).all())


def _channels_taken(module: nn.Module) -> Sequence[int]:
    """The channels that ``module`` may read, the likeliest first: those of its first convolution, colour, grey."""
    first = [m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d)][:1]
    return list(dict.fromkeys([*first, 3, 1]))


def _numbers(value: float | Sequence[float]) -> tuple[float, ...]:
    return (float(value),) if isinstance(value, int | float) else tuple(float(v) for v in value)


def filled(x: Tensor) -> Tensor:
    """``x`` (N, …) with its last row repeated until the number of rows suits the kernels of a CPU.

    One image alone takes other kernels than two, and backward passes of convolutions divide a batch among the
    threads: how a row is summed up depends on whether it divides evenly. The same bits for an image in any batch are
    worth a few rows, none in a batch that is a multiple of the number of threads.
    """
    n = x.shape[0]
    threads = torch.get_num_threads()
    extra = 1 if n == threads == 1 else -n % threads
    return torch.cat([x, x[-1:].expand(extra, *x.shape[1:])]) if extra else x
