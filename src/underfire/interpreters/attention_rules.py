"""The rules by which relevance goes back through attention, however it is called (Achtibat et al. 2024)."""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from underfire.interpreters.function_rules import gate
from underfire.interpreters.relevance import Propagation, Rule, linear
from underfire.models.attention import opened


def attention_rules(*, softmax: bool) -> Mapping[str, Rule]:
    """The rules of attention by the names of its functions; without ``softmax`` its weights are gates."""
    return {
        "softmax": linear if softmax else gate,  # its Taylor expansion with bias is what autograd brings back
        "scaled_dot_product_attention": partial(_attention, softmax),
        "multi_head_attention_forward": _multi_head,
    }


def _attention(softmax: bool, mode: Propagation, func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
    """Each product gives half to either factor: half to the values, a quarter to queries and keys each."""
    call = inspect.signature(_attention_arguments).bind(*args, **named)
    if mode.carries(call.arguments.get("attn_mask")):
        raise mode.refuse("a mask of attention that depends on the image")
    query, key, value = (call.arguments[name] for name in ("query", "key", "value"))
    with_query, with_key, with_value = map(mode.carries, (query, key, value))
    of_weights = (0.5 if with_value else 1.0) if softmax else 0.0
    shares = {
        "query": (with_query, of_weights * (0.5 if with_key else 1.0)),
        "key": (with_key, of_weights * (0.5 if with_query else 1.0)),
        "value": (with_value, 0.5 if softmax and (with_query or with_key) else 1.0),
    }
    for name, (carries, share) in shares.items():
        if carries:
            call.arguments[name] = mode.scaled(call.arguments[name], share)
    return linear(mode, func, call.args, call.kwargs)  # type: ignore[no-any-return]


def _attention_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> None:
    """What ``scaled_dot_product_attention`` takes, whose own signature cannot be read."""


def _multi_head(mode: Propagation, func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """The function that ``nn.MultiheadAttention`` calls, by the functions in it, which have rules."""
    call = inspect.signature(func).bind(*args, **named)
    call.apply_defaults()
    given = call.arguments
    unknown = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v")
    odd = [name for name in unknown if given[name] is not None] + ["add_zero_attn"] * given["add_zero_attn"]
    if odd or given["query"].ndim != 3:
        raise mode.refuse(f"multi-head attention with {odd[0] if odd else 'no batch'}")
    with mode:
        return opened(func)(*args, **named)
