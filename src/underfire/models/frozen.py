"""A module as all that looks at it needs it: used by one thread, in evaluation mode, with frozen parameters.

Flags, hooks and weights in use are the module's own, so two threads that each set them for the time of a call would
undo each other's. Each module has one lock, whoever wraps it.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from underfire.errors import ModelError
from underfire.plugins import described

# Which kernel computes the general matrix product on a CPU depends on the number of rows: modulo 4 on some processors,
# below 16 on others. Padding the rows of a linear layer to a multiple makes an image's logits the same bits whatever
# else is in the batch.
_ROWS = 16


class _Use:
    """The thread that works with a module, and how many blocks it is in."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.thread: int | None = None
        self.depth = 0


_USES: WeakKeyDictionary[nn.Module, _Use] = WeakKeyDictionary()
_ADDING = threading.Lock()


@contextmanager
def alone(module: nn.Module) -> Iterator[None]:
    """Inside the block no other thread works with ``module``; blocks of one thread nest."""
    with _use_of(module).lock:
        yield


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and frozen parameters inside the block, everything as it was after it.

    Other threads wait. Blocks nest at no cost. A caller in ``torch.inference_mode`` is out of it inside the block, and
    under ``no_grad`` in its place.

    Raises:
        ModelError: the module's own ``eval`` fails.
    """
    use = _use_of(module)
    with use.lock, ExitStack() as stack:
        if not use.depth:
            stack.enter_context(ordinary())
            stack.enter_context(_settled(module))
        use.thread, use.depth = threading.get_ident(), use.depth + 1
        try:
            yield
        finally:
            use.depth -= 1


def is_frozen(module: nn.Module) -> bool:
    """Whether this thread is inside a :func:`frozen` block of ``module``."""
    use = _use_of(module)
    return use.depth > 0 and use.thread == threading.get_ident()


@contextmanager
def ordinary() -> Iterator[None]:
    """Inside the block tensors are ordinary ones, though the caller be in ``torch.inference_mode``."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(mode=False), torch.no_grad():
        yield


def detached(x: Tensor) -> Tensor:
    """``x`` without its graph, and as an ordinary tensor where it was made in ``torch.inference_mode``."""
    return x.clone() if x.is_inference() else x.detach()


def _use_of(module: nn.Module) -> _Use:
    with _ADDING:
        return _USES.setdefault(module, _Use())


@contextmanager
def _settled(module: nn.Module) -> Iterator[None]:
    modules = list(module.modules())
    modes = [(m, m.training) for m in modules if hasattr(m, "training")]
    flags = [(p, p.requires_grad) for p in module.parameters()]
    with ExitStack() as stack:
        stack.enter_context(_uncompiled(modules))
        try:
            _evaluate(module, training=any(mode for _, mode in modes))
            for p, flag in flags:
                if flag:
                    p.requires_grad_(False)
            for m in modules:
                if isinstance(m, nn.Linear):
                    stack.enter_context(_padded_rows(m))
            yield
        finally:
            for p, flag in flags:
                if p.requires_grad != flag:
                    p.requires_grad_(flag)
            for m, mode in modes:
                if m.training != mode and not _is_exported(m):
                    m.train(mode)  # its own, which may do more than set a flag, as LoRA's does
            for m, mode in modes:
                if m.training != mode:
                    m.training = mode


def _is_exported(module: nn.Module) -> bool:
    """Whether ``module`` is the graph of an exported program, whose mode was decided when it was made."""
    return isinstance(module, GraphModule) and "eval" in vars(module)


def _evaluate(module: nn.Module, *, training: bool) -> None:
    """Put ``module`` into evaluation mode by its own ``eval``: some layers stay on in it by intent."""
    if not training:
        return
    try:
        if any(map(_is_exported, module.modules())):
            for m in module.modules():
                m.training = False
        else:
            module.eval()
    except Exception as error:  # a stranger's module may raise anything
        raise ModelError(
            f"the model cannot be put into evaluation mode: eval() fails with {described(error)}."
        ) from error


@contextmanager
def _uncompiled(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside the block ``modules`` run as they were written, and not what ``torch.compile`` made of them.

    Compiled code calls the hooks that were there when it was made, and none that came later.
    """
    kept = []
    for m in modules:
        own = vars(m)
        if own.get("_compiled_call_impl") is not None:
            kept.append((own, "_compiled_call_impl", own["_compiled_call_impl"]))
            own["_compiled_call_impl"] = None
        if hasattr(m, "_orig_mod") and "forward" in own:
            kept.append((own, "forward", own["forward"]))
            own["forward"] = m._orig_mod
    try:
        yield
    finally:
        for own, name, value in kept:
            own[name] = value


@contextmanager
def _padded_rows(linear: nn.Linear) -> Iterator[None]:
    """Inside the block, ``linear`` sees a number of rows that is a multiple of ``_ROWS``; its output is cut back."""
    rows: list[int | None] = []  # how many rows to keep of each call under way; None: all

    def pad(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        z = args[0] if args else None
        if z is None or z.ndim != 2 or z.device.type != "cpu" or z.shape[0] % _ROWS == 0:
            rows.append(None)
            return None
        rows.append(z.shape[0])
        return (torch.cat([z, z[-1:].expand(-z.shape[0] % _ROWS, -1)]),)

    def cut(_: nn.Module, __: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        kept = rows.pop()
        return None if kept is None else out[:kept]

    handles = (linear.register_forward_pre_hook(pad), linear.register_forward_hook(cut))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
