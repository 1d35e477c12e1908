"""The classifier under audit: any ``nn.Module`` with its preprocessing inside."""

import copy
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn

from underfire.choices import Crop, Interpolation, Outputs
from underfire.errors import InputError, ModelError
from underfire.images.preprocessing import Preprocessing
from underfire.models.decisions import Decision
from underfire.models.frozen import alone, frozen, is_frozen
from underfire.models.outputs import OutputReading, described_output, reading_of, scores_in
from underfire.plugins import described
from underfire.weights import fingerprint

REPEAT = 1e-4
"""Two identical calls may differ by this share of the logits' spread: some kernels of a GPU add up in no fixed order.
On a CPU they don't differ at all."""

_LATER = ("interpolation", "crop", "bgr")


class Classifier:
    """A classifier ``f``: images in [0, 1] in, logits out.

    Args:
        module: maps normalised images (N, C, H, W) to scores (N, K): a tensor, a dictionary or object with
            ``logits``, or a tuple that begins with them. It is used as it is and left as it was: for the time of a
            call it is in evaluation mode with frozen parameters, and afterwards it is not. Threads may share it: they
            work with it one after the other. Of one with weights of 16 bits a copy with 32 is used, where it stands.
        mean, std: normalisation, applied inside; one number per channel, or one for all channels, or none for a
            module that takes [0, 1] itself. These and what follows make up the `Preprocessing`.
        input_size: height and width of the input in pixels, one number for a square.
        resize: of photos, in pixels, before ``input_size`` is cut out of their middle; by default the short side of
            ``input_size``.
        interpolation: of photos: nearest, box, bilinear, hamming, bicubic or lanczos.
        crop: of photos: center, squash or letterbox.
        bgr: the module takes blue first, as do ``mean`` and ``std``; ``x`` and all pictures are RGB nevertheless.
        class_names: readable names, one per class, in the order of the outputs.
        outputs: ``"logits"``, whose softmax are the probabilities of K classes; of one logit, of two classes.
            ``"probabilities"`` for a module that ends in a softmax, or of one output a sigmoid: logits are computed of
            them, so that every user of the classifier may rely on these. ``"sigmoid"`` for K labels that don't exclude
            each other, with or without a last sigmoid: each is a decision of its own (see
            ``docs/how-to/your-model.md``).
        name: what reports call it.
        layer: name of the layer of ``module`` whose output interpreters of one activation read; by default the last
            one that serves (see :func:`underfire.models.features.find_features`).

    Attributes:
        is_random: the module draws random numbers: when it was given the same images twice, its outputs differed.

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
        if outputs not in get_args(Outputs):
            raise InputError(f"outputs {outputs!r} is unknown; give {', '.join(map(repr, get_args(Outputs)))}.")
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
        self._check_tensors()
        self.module = _lengthened(self.module)
        if self.dtype not in (torch.float32, torch.float64):
            raise InputError(f"the module has parameters of {self.dtype}; convert it with .float() first.")
        self.one_by_one = False
        self.preprocessing, self.reading = self._probe(channels, outputs)
        self.is_random = self._draws()
        names = [f"class {index}" for index in range(self.num_classes)] if class_names is None else class_names
        if len(names) != self.num_classes:
            raise InputError(
                f"{len(names)} class names were given for a module of {self.num_classes} outputs; give one for each."
            )
        self.class_names = tuple(str(n) for n in names)

    @property
    def outputs(self) -> Outputs:
        """What the module returns."""
        return self.reading.outputs

    @property
    def decision(self) -> Decision:
        """What logits decide: one class of many, or each label by itself."""
        return self.reading.decision

    @property
    def num_classes(self) -> int:
        """K, the number of classes or labels."""
        return self.reading.num_classes

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
            return self.decision.probabilities(self(x))

    def scores(self, x: Tensor) -> Tensor:
        """Logits of ``x``, which is not checked, for loops that made ``x`` themselves, inside :meth:`frozen`.

        Raises:
            ModelError: the module fails, or returns something else than K scores for each image.
        """
        n = x.shape[0]
        batch = filled(x) if n and x.device.type == "cpu" and not self.one_by_one else x
        z = self.preprocessing.normalised(batch)
        parts = [self._read(part) for part in (z.split(1) if self.one_by_one else (z,))]
        scores = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self.reading.logits(scores[:n].to(x.dtype))  # under autocast they may be of a shorter type

    def _read(self, z: Tensor) -> Tensor:
        """The scores (N, columns) of normalised images."""
        returned = self._returned(z)
        scores = self.reading.scores(returned, len(z))
        if scores is None:
            raise ModelError(
                f"the model {self.name!r} returned {described_output(returned)} for {len(z)} images;"
                f" before, it returned ({len(z)}, {self.reading.columns})."
            )
        return scores

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

    def _check_tensors(self) -> None:
        for tensors in (self.module.named_parameters(), self.module.named_buffers()):
            for name, tensor in tensors:
                if nn.parameter.is_lazy(tensor):
                    raise InputError(
                        f"the module's {name!r} has no shape before the first call; call the module once on an image, "
                        "then give it."
                    )
                if tensor.is_inference():
                    raise InputError(
                        f"the module's {name!r} was made in torch.inference_mode, and no gradient goes through it; "
                        "make the module, or load its weights, outside that block."
                    )

    def _probe(self, channels: Sequence[int], outputs: Outputs) -> tuple[Preprocessing, OutputReading]:
        """The preprocessing with the first of ``channels`` that the module takes, and how its answers are read."""
        refusal: InputError | None = None
        for count in channels:
            taken = False
            self.preprocessing = replace(self.preprocessing, channels=count)  # of the patterns
            x = self.patterns()
            for self.one_by_one in (False, True):  # exported modules may be made for one image
                try:
                    with torch.no_grad():
                        scores = self._tried(x)
                except ModelError as error:
                    refusal = refusal or self._cannot_take(x, error)
                except InputError as error:
                    refusal, taken = refusal or error, True
                else:
                    if outputs == "sigmoid" or scores.shape[1] == 1:
                        with torch.inference_mode(False), torch.enable_grad():
                            scores = self._tried(x.clone().requires_grad_(True).clone())
                    return self.preprocessing, reading_of(scores, outputs)
            if taken:  # and it is no classifier
                break
        raise refusal or ValueError("no number of channels was given")

    def _draws(self) -> bool:
        """Whether two identical calls on the patterns differ."""
        x = self.patterns()
        with torch.no_grad(), self.frozen():
            scores = self.scores(x)
            return bool(differing(scores, self.scores(x)).any())

    def _tried(self, x: Tensor) -> Tensor:
        """The scores (N, columns) in what the module returns for ``x``, one image after another if it must be so."""
        parts = x.split(1) if self.one_by_one else (x,)
        with self.frozen():
            returned = [self._returned(part) for part in parts]
        scores = [scores_in(one, len(part)) for one, part in zip(returned, parts, strict=True)]
        found = [one for one in scores if one is not None]
        if len(found) < len(parts) or len({one.shape[1] for one in found}) > 1:
            raise InputError(
                f"the module returns {described_output(returned[0])} for {len(parts[0])} images; a classifier returns"
                f" scores ({len(parts[0])}, K) of K classes, or one logit of two, as a tensor, as 'logits' of a"
                " dictionary, or first in a tuple."
            )
        return found[0] if len(found) == 1 else torch.cat(found)

    def _cannot_take(self, x: Tensor, error: ModelError) -> InputError:
        refusal = InputError(
            f"the module cannot take images of shape {tuple(x.shape)}: it fails with"
            f" {described(error.__cause__ or error)}; check input_size, and give mean one number per channel."
        )
        refusal.__cause__ = error.__cause__
        return refusal


def _lengthened(module: nn.Module) -> nn.Module:
    """``module``, or where weights of it have 16 bits a copy with 32 in place of them: attacks need the digits."""
    tensors = (*module.parameters(), *module.buffers())
    short = next((tensor.dtype for tensor in tensors if tensor.dtype in (torch.float16, torch.bfloat16)), None)
    if short is None:
        return module
    try:
        return copy.deepcopy(module).float()
    except Exception as error:  # a stranger's module may hold anything, and raise anything
        raise InputError(
            f"the module has parameters of {short} and cannot be copied ({described(error)}); convert it with .float()"
            " first."
        ) from error


def _channels_taken(module: nn.Module) -> Sequence[int]:
    """The channels that ``module`` may read, the likeliest first: those of its first convolution, colour, grey."""
    first = [m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d)][:1]
    return list(dict.fromkeys([*first, 3, 1]))


def _numbers(value: float | Sequence[float]) -> tuple[float, ...]:
    return (float(value),) if isinstance(value, int | float) else tuple(float(v) for v in value)


def differing(scores: Tensor, again: Tensor) -> Tensor:
    """(N,) bool: where the logits (N, K) of two identical calls differ by more than rounding."""
    return ((scores - again).abs() > REPEAT * scores.std()).any(dim=1)


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
