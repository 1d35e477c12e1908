"""Nothing may leave a trace on the model: one check of all that a trace could be."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Assert that the block, even one left by an exception, leaves the module and the global state as they were."""
    state = copy.deepcopy(module.state_dict())
    grads = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    marks = _marks(module)
    random_state, enabled, threads = torch.get_rng_state(), torch.is_grad_enabled(), torch.get_num_threads()
    try:
        yield
    finally:
        after = module.state_dict()
        assert after.keys() == state.keys()
        for key, value in after.items():
            assert torch.equal(value, state[key]), f"{key} changed"
        for was, p in zip(grads, module.parameters(), strict=True):
            assert (p.grad is None) == (was is None)
            assert p.grad is None or was is None or torch.equal(p.grad, was)
        assert _marks(module) == marks
        assert torch.equal(torch.get_rng_state(), random_state), "the global random state changed"
        assert torch.is_grad_enabled() == enabled
        assert torch.get_num_threads() == threads


def scramble(module: nn.Module) -> None:
    """Give a module training flags, gradient flags, gradients and a hook that no code would leave by chance."""
    for index, m in enumerate(module.modules()):
        m.training = index % 2 == 0
    for index, p in enumerate(module.parameters()):
        p.grad = torch.full_like(p, 0.5 + index)
        p.requires_grad_(index % 3 != 0)
    module.register_forward_hook(lambda *_: None)


def _marks(module: nn.Module) -> list[object]:
    parameters = [(name, id(p), p.requires_grad, p.data_ptr()) for name, p in module.named_parameters()]
    modules = [
        (
            name,
            type(m),
            m.training,
            list(m._forward_hooks),
            list(m._forward_pre_hooks),
            list(m._backward_hooks),
            list(m._backward_pre_hooks),
        )
        for name, m in module.named_modules()
    ]
    return [parameters, modules]
