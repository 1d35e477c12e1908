"""What of a computation a GPU would have to be waited for, found on the CPU."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

import underfire

_PACKAGE = str(Path(underfire.__file__).parent)

_READ = frozenset(
    {
        *("item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__", "__contains__"),
        *("is_nonzero", "equal", "allclose", "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive"),
        "bincount",
    }
)
"""Functions whose result, or its size, the host has to know."""

_COPIED = frozenset(["tensor", "as_tensor", "asarray", "new_tensor", "scalar_tensor"])
"""Functions that make a tensor of numbers of the host."""


class Waits(TorchFunctionMode):
    """Inside the block tensors made on an explicit ``torch.device`` count as those of a GPU, though it be the CPU.

    Those made without, or for the device ``"cpu"``, are the host's, and so is what is computed from these alone. What
    there was before belongs to the GPU.

    Attributes:
        found: what had to be waited for while it was :meth:`counting`, each as function and place in the package.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._host = WeakTensorKeyDictionary()
        self._counts = self._known = False
        self._below = _Below(self)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Inside the block waits are noted."""
        before, self._counts = self._counts, True
        try:
            with self._below:
                yield
        finally:
            self._counts = before

    def __enter__(self) -> Self:
        """Begin to tell the host's tensors from others."""
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The call ``func``, looked at."""
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        where = self._where_to(name, args, named)
        waits = self._waits(name, args, named, on_host=where)
        if waits:
            self.note(name)
        before, self._known = self._known, self._known or waits
        try:
            out = func(*args, **named)
        finally:
            self._known = before
        if where:
            self._host.update(dict.fromkeys(_tensors(out), True))
        elif isinstance(out, Tensor) and self.is_host(out):  # the copy on the GPU is another tensor
            out = out.view_as(out)
        return out

    def note(self, what: str) -> None:
        """``what`` had to be waited for, where the package called it; once for the outermost call."""
        if self._counts and not self._known:
            self.found.append(f"{what} in {_place()}")

    def is_host(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` is the host's."""
        return tensor in self._host

    def _where_to(self, name: str, args: Sequence[Any], named: Mapping[str, Any]) -> bool:
        """Whether what comes out is the host's."""
        tensors = _tensors([args, named])
        if name in ("cpu", "numpy", "from_numpy"):
            return True
        given = [named.get("device"), *(args[1:2] if name == "to" else ())]
        for device in given:
            if isinstance(device, torch.device):
                return False
            if isinstance(device, str):
                return device == "cpu"
            if isinstance(device, Tensor):
                return self.is_host(device)
        return all(map(self.is_host, tensors))

    def _waits(self, name: str, args: Sequence[Any], named: Mapping[str, Any], *, on_host: bool) -> bool:
        tensors = _tensors([args, named])
        if name in _COPIED:
            return not on_host
        if not tensors or (on_host and all(map(self.is_host, tensors))):
            return False
        if name in _READ:
            return True
        if name == "repeat_interleave":
            return len(tensors) > 1 and "output_size" not in named
        if name in ("__getitem__", "__setitem__"):
            index = [leaf for leaf in tree_leaves(args[1]) if not isinstance(leaf, int | slice | None)]
            return any(
                isinstance(leaf, Tensor) and (leaf.dtype == torch.bool or self.is_host(leaf)) for leaf in index
            ) or isinstance(args[1], list)
        if name in ("to", "cpu", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            target = self.is_host(args[0]) if name == "copy_" else on_host
            return self.is_host(source) != target and (target or not named.get("non_blocking", False))
        return False


class _Below(TorchDispatchMode):
    """Sees the calls that torch makes by itself."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._waits = waits

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The call of the operator ``func``, looked at."""
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", *_READ) or name.startswith(("linalg_", "_linalg_")):
            if not all(map(self._waits.is_host, _tensors(args))):
                self._waits.note(name)
        elif name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        ):
            self._waits.note(name)
        return func(*args, **dict(kwargs or {}))


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _place() -> str:
    """File and function of the package that is being run."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_PACKAGE):
            return f"{Path(code.co_filename).name}, {code.co_name}"
        frame = frame.f_back
    return "no part of the package"
