"""Calls of another package's code, made differentiable and kept from leaving a trace."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Attached(TorchFunctionMode):
    """Inside the block nothing is cut from the graph: gradients are differentiable, whoever takes them.

    ``torch.autograd.grad`` keeps the graph of what it gives, and ``no_grad`` is without effect. So an attribution that
    was written for looking at depends on the image through all its parts. Hooks that change gradients, and ``detach``,
    which ends them, act inside the block only: they are part of the way back, and not of its derivative.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open = False

    def __enter__(self) -> Self:
        """Begin."""
        self._open = True
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: object) -> None:
        """End, for hooks too."""
        self._open = False
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The call ``func``, or what takes its place."""
        named = dict(kwargs or {})
        if func in (torch.detach, Tensor.detach):
            return _Held.apply(args[0] if args else named["input"], self)  # type: ignore[no-untyped-call]
        if func is Tensor.requires_grad_ and False in (*args[1:], *named.values()):
            return args[0]
        if func is torch._C._set_grad_enabled and not args[0]:
            return None
        if func is Tensor.float and args[0].dtype == torch.float64:  # a rounding, which no derivative goes through
            return args[0]
        if func is torch.autograd.grad:
            named |= {"create_graph": True, "retain_graph": True}
        if func is Tensor.register_hook:
            tensor, hook = args
            return func(tensor, self._within(hook))  # type: ignore[no-untyped-call]
        return func(*args, **named)

    @property
    def is_open(self) -> bool:
        """Whether we are inside the block."""
        return self._open

    def _within(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[Tensor], Tensor | None]:
        def within(gradient: Tensor) -> Tensor | None:
            if not self._open:
                return None
            with _Quotients():  # no mode of ours is on while gradients are taken
                return hook(gradient)

        return within


class _Held(torch.autograd.Function):
    """A copy through which nothing comes back inside the block, and everything after it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, block: Attached) -> Tensor:
        ctx.block = block
        return z.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        return None if ctx.block.is_open else grads[0], None


class _Quotients(TorchFunctionMode):
    """Inside the block a quotient whose denominator is 0 has a derivative of 0, in place of no number.

    A rule that divides by a difference gives another value where it is 0, but its derivative would hold 0·∞.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The call ``func``, or the quotient."""
        named = dict(kwargs or {})
        if func not in (torch.div, Tensor.div) or named or not isinstance(args[1], Tensor):
            return func(*args, **named)
        numerator, denominator = args
        zero = denominator == 0
        return torch.where(zero, (numerator / denominator).detach(), numerator / denominator.masked_fill(zero, 1))


def differentiable_once(outputs: Tensor) -> bool:
    """Whether part of the graph of ``outputs`` is a way back that has no derivative, which torch passes over."""
    seen, left = set(), [outputs.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        if node.name() == "torch::autograd::Error":
            return True
        seen.add(node)
        left += [before for before, _ in node.next_functions]
    return False


@contextmanager
def undone(module: nn.Module) -> Iterator[None]:
    """Inside the block no layer of ``module`` works in place; after it all hooks and attributes are as they were.

    Hooks on gradients do not go with layers that overwrite what they were given.
    """
    before = [
        (m, dict(vars(m)), {key: dict(vars(m)[key]) for key in _HOOKS if key in vars(m)}) for m in module.modules()
    ]
    try:
        for m, _, _ in before:
            if getattr(m, "inplace", False) is True:
                vars(m)["inplace"] = False
        yield
    finally:
        for m, attributes, hooks in before:
            vars(m).clear()
            vars(m).update(attributes)
            for key, kept in hooks.items():
                vars(m)[key].clear()
                vars(m)[key].update(kept)


@contextmanager
def drawing(seed: int, device: torch.device) -> Iterator[None]:
    """Inside the block the global random states of torch and numpy begin at ``seed``; after it they are as before."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(state)


@contextmanager
def draws_noticed(device: torch.device) -> Iterator[list[bool]]:
    """After the block the list yielded holds whether anything was drawn inside; the states are as before."""
    found: list[bool] = []
    with drawing(0, device):
        before = _states(device)
        yield found
        found.append(_states(device) != before)


@contextmanager
def quiet(package: str) -> Iterator[None]:
    """Inside the block warnings that the code of ``package`` gives are not shown."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=package)
        yield


_HOOKS = (
    "_backward_pre_hooks",
    "_backward_hooks",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


def _states(device: torch.device) -> tuple[bytes, ...]:
    torch_states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    numpy_state = np.random.get_state(legacy=False)["state"]
    return (*(state.numpy().tobytes() for state in torch_states), repr(numpy_state).encode())
