"""The ways to run a classifier that ``benchmarks.gpu`` compares."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch._functorch.config as functorch
from torch import Tensor, nn

from benchmarks.subject import Subject
from underfire import CAM, Classifier
from underfire.errors import InputError
from underfire.models.folded import prepared

BACKEND = "inductor"


@dataclass(frozen=True)
class Stage:
    """One way to run the classifier.

    Attributes:
        classifier: as the loop shall have it.
        precision: of its passes, as a context.
        channels_last: images are laid out that way.
        shows: whether hooks reach the activation that CAM reads.
    """

    classifier: Classifier
    precision: Callable[[], AbstractContextManager[object]] = nullcontext
    channels_last: bool = True
    shows: bool = True

    def images(self, x: Tensor) -> Tensor:
        """``x`` as this stage lays images out."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x


class Open(nn.Module):
    """A layer that is left out of compilation, between two compiled graphs, so that its hooks are called."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.eval()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, *inputs: Any) -> Any:
        """The layer's output."""
        return super().__call__(*inputs)

    def forward(self, *inputs: Any) -> Any:
        """The layer's output."""
        return self.layer(*inputs)


def bf16(device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Passes in bfloat16 on ``device``, as a context to enter."""
    # Weights are not kept in both precisions: they are frozen, and a cache of them would not outlive a graph.
    return partial(torch.autocast, device.type, torch.bfloat16, cache_enabled=False)


def eager(subject: Subject) -> Stage:
    """As it was loaded."""
    return Stage(subject.classifier, channels_last=False)


def folded(subject: Subject) -> Stage:
    """Norms folded, channels last."""
    return Stage(prepared(subject.classifier))


def half(subject: Subject) -> Stage:
    """The same in bfloat16."""
    return replace(folded(subject), precision=bf16(subject.x.device))


def compiled(subject: Subject) -> Stage:
    """The same, compiled, but for the layer that CAM reads."""
    functorch.donated_buffer = False  # a joint step goes back through its graph twice
    stage = half(subject)
    module = stage.classifier.module
    try:
        _open(module, CAM(subject.classifier).features.module)
    except InputError:  # there is no CAM
        stage = replace(stage, shows=False)
    module.forward = torch.compile(module.forward, dynamic=False, backend=BACKEND)  # hooks of the module stay outside
    return stage


def _open(module: nn.Module, name: str) -> None:
    """Put an :class:`Open` layer in the place of the one of that name."""
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, Open(module.get_submodule(name)))


def graphed(subject: Subject) -> Stage:
    """In bfloat16 as a CUDA graph of the forward and one of the backward pass."""
    stage = replace(half(subject), shows=False)
    classifier = stage.classifier
    sample = classifier.preprocessing.normalised(stage.images(subject.x)).detach().requires_grad_()
    with classifier.frozen(), stage.precision():
        torch.cuda.make_graphed_callables(classifier.module, (sample,))  # which gives the module another forward
    return stage


STAGES: Mapping[str, Callable[[Subject], Stage]] = {
    "eager": eager,
    "prepared": folded,
    "bf16": half,
    "compile": compiled,
    "CUDA graph": graphed,
}


ROUNDS = (("eager", "prepared", "bf16"), ("compile", "CUDA graph"))
"""All batches of the first stages come before any of the others, which may leave a card unusable."""
