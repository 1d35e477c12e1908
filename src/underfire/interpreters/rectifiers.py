"""The calls of torch that are a ReLU, a ReLU6 or a hardtanh, however they are written."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import functional as F

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class Rectified:
    """``z`` cut to [low, high], either of which may be infinite; in place or not."""

    z: Tensor
    low: float
    high: float
    inplace: bool = False


def rectified(func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Rectified | None:
    """What the call ``func(*args, **named)`` cuts; None if it is no rectifier."""
    read = _READERS.get(func.overloadpacket if isinstance(func, OpOverload) else func)
    return None if read is None else read(*args, **named)


def _relu(input: Tensor, inplace: bool = False) -> Rectified:  # noqa: A002 - as torch calls it, here and below
    return Rectified(input, 0, math.inf, inplace)


def _relu6(input: Tensor, inplace: bool = False) -> Rectified:  # noqa: A002
    return Rectified(input, 0, 6, inplace)


def _hardtanh(
    input: Tensor,  # noqa: A002
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
) -> Rectified:
    return Rectified(input, min_val, max_val, inplace)


def _clamp(input: Tensor, min: Any = None, max: Any = None) -> Rectified | None:  # noqa: A002
    """A bound at 0; others keep numbers apart from where they cannot be, and are no activation."""
    high = math.inf if max is None else max
    return Rectified(input, 0, high) if _is_zero(min) and not isinstance(high, Tensor) and high > 0 else None


def _threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Rectified | None:  # noqa: A002
    return Rectified(input, 0, math.inf, inplace) if threshold == value == 0 else None


def _maximum(input: Tensor, other: Any = None, *_: Any, **__: Any) -> Rectified | None:  # noqa: A002
    """The larger of a tensor and zeros, in either order; the largest of one tensor is another function."""
    if not isinstance(other, Tensor):
        return None
    for z, zeros in ((input, other), (other, input)):
        if _is_zero(zeros) and torch.broadcast_shapes(z.shape, zeros.shape) == z.shape:
            return Rectified(z, 0, math.inf)
    return None


def _where(condition: Tensor, input: Any = None, other: Any = None) -> Rectified | None:  # noqa: A002
    if isinstance(input, Tensor) and _is_zero(other) and _is_gate(condition, input):
        return Rectified(input, 0, math.inf)
    return None


def _mul(input: Any, other: Any, **_: Any) -> Rectified | None:  # noqa: A002
    """A tensor times where it is above 0."""
    for z, gate in ((input, other), (other, input)):
        if isinstance(z, Tensor) and isinstance(gate, Tensor) and _is_gate(gate, z):
            return Rectified(z, 0, math.inf)
    return None


def _masked_fill(input: Tensor, mask: Tensor, value: Any) -> Rectified | None:  # noqa: A002
    return Rectified(input, 0, math.inf) if _is_zero(value) and _is_gate(~mask, input) else None


def _is_zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.requires_grad and not bool(value.any())
    return value is not None and value == 0


def _is_gate(gate: Tensor, z: Tensor) -> bool:
    """Whether ``gate`` is 1, or True, where ``z`` is above 0 and 0 elsewhere; at 0 it may be either."""
    if gate.requires_grad or gate is z or gate.shape != z.shape or not z.requires_grad:
        return False
    return any(bool((gate == opened).all()) for opened in (z > 0, z >= 0))


def _in_place(read: Callable[..., Rectified | None]) -> Callable[..., Rectified | None]:
    def read_in_place(*args: Any, **named: Any) -> Rectified | None:
        found = read(*args, **named)
        return None if found is None else Rectified(found.z, found.low, found.high, inplace=True)

    return read_in_place


_READERS: Mapping[Any, Callable[..., Rectified | None]] = MappingProxyType(
    {
        **dict.fromkeys((F.relu, torch.relu, Tensor.relu, _ATEN.relu), _relu),
        **dict.fromkeys((torch.relu_, Tensor.relu_, _ATEN.relu_), _in_place(_relu)),
        **dict.fromkeys((F.relu6, _ATEN.relu6), _relu6),
        **dict.fromkeys((F.hardtanh, _ATEN.hardtanh), _hardtanh),
        **dict.fromkeys((F.hardtanh_, _ATEN.hardtanh_), _in_place(_hardtanh)),
        **dict.fromkeys((torch.clamp, torch.clip, Tensor.clamp, Tensor.clip, _ATEN.clamp, _ATEN.clip), _clamp),
        **dict.fromkeys((torch.clamp_min, Tensor.clamp_min, _ATEN.clamp_min), _clamp),
        **dict.fromkeys(
            (torch.clamp_, torch.clip_, Tensor.clamp_, Tensor.clip_, _ATEN.clamp_, torch.clamp_min_),
            _in_place(_clamp),
        ),
        **dict.fromkeys((Tensor.clamp_min_, _ATEN.clamp_min_), _in_place(_clamp)),
        **dict.fromkeys((F.threshold, torch.threshold, _ATEN.threshold), _threshold),
        **dict.fromkeys((F.threshold_, _ATEN.threshold_), _in_place(_threshold)),  # type: ignore[attr-defined]
        **dict.fromkeys(
            (torch.maximum, Tensor.maximum, torch.max, Tensor.max, torch.fmax, Tensor.fmax, _ATEN.maximum), _maximum
        ),
        **dict.fromkeys((torch.where, _ATEN.where), _where),
        **dict.fromkeys((torch.mul, Tensor.mul, torch.multiply, Tensor.multiply, _ATEN.mul), _mul),
        **dict.fromkeys((torch.masked_fill, Tensor.masked_fill, _ATEN.masked_fill), _masked_fill),
    }
)
"""From a function of torch, or an operator of an exported graph, to what says whether a call of it rectifies."""

HARD_SIGMOIDS = frozenset({F.hardsigmoid, _ATEN.hardsigmoid, _ATEN.hardsigmoid.default})
"""Hard sigmoids: relu6(z + 3)/6, whose derivative torch cannot differentiate."""
