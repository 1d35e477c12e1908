"""Rollout and gradient × attention relevance against their formulas, on attention written in many ways."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from support.layouts import WIDTH, Attention, Block, ChannelsFirst, TokenNet, seeded
from support.toys import OF_TOKENS, images
from support.traces import untouched
from underfire import (
    ADV2,
    PGD,
    AttentionRelevance,
    Classifier,
    GradCAM,
    InputError,
    Interpreter,
    NonFiniteError,
    Rollout,
)
from underfire.interpreters import ForwardPass, MapTarget
from underfire.interpreters.attention import AttentionInterpreter
from underfire.interpreters.maps import distance, min_max, shape_distance
from underfire.models.attention import Attending, find_attention
from underfire.models.layout import far, places
from underfire.testing import check_interpreter, token_classifier

HEADS = 2
Y = torch.tensor([0, 3, 4])
CELLS = (4, 4)

both = pytest.mark.parametrize("make", OF_TOKENS, ids=lambda g: g.name)


class _Written(Attention):
    """The same attention, written in one way or another."""

    way: Callable[[Tensor, Tensor, Tensor], Tensor]

    def forward(self, z: Tensor) -> Tensor:
        query, key, value = self.qkv(z).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        out: Tensor = self.out(self.way(query, key, value).transpose(1, 2).flatten(2))
        return out


def _scores(query: Tensor, key: Tensor) -> Tensor:
    scores: Tensor = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return scores


def _by_bmm(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    joined = [z.flatten(0, 1) for z in (query, key, value)]
    weights = F.softmax(_scores(joined[0], joined[1]), dim=2)
    read: Tensor = torch.bmm(F.dropout(weights, 0.1, training=False), joined[2]).unflatten(0, (-1, HEADS))
    return read


def _by_einsum(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = torch.softmax(torch.einsum("bhqc,bhkc->bhqk", query, key) / query.shape[-1] ** 0.5, -1)
    return torch.einsum("bhqk,bhkc->bhqc", weights, value)


def _by_module(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.matmul(nn.Softmax(dim=-1)(_scores(query, key)).to(value.dtype).contiguous(), value)


def _masked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    mask = torch.zeros(query.shape[-2], key.shape[-2], dtype=query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=query.shape[-1] ** -0.5)


def _with_all_allowed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, torch.ones(query.shape[-2], key.shape[-2]).bool())


class _MultiHead(Attention):
    """By ``nn.MultiheadAttention``, which has its own parameters: here those of the other ways."""

    options: Mapping[str, Any]

    def forward(self, z: Tensor) -> Tensor:
        first = self.options["batch_first"]
        joint = nn.MultiheadAttention(WIDTH, HEADS, batch_first=first).to(z).eval().requires_grad_(False)
        named = {"in_proj_weight": self.qkv.weight, "in_proj_bias": self.qkv.bias}
        joint.load_state_dict(named | {f"out_proj.{name}": value for name, value in self.out.named_parameters()})
        given = z if first else z.transpose(0, 1)
        out: Tensor = joint(given, given, given, need_weights=self.options["need_weights"])[0]
        return out if first else out.transpose(0, 1)


def _written(way: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[TokenNet], None]:
    return _changed(type("Written", (_Written,), {"way": staticmethod(way)}))


def _multi_head(**options: bool) -> Callable[[TokenNet], None]:
    return _changed(type("MultiHead", (_MultiHead,), {"options": options}))


def _changed(cls: Any) -> Callable[[TokenNet], None]:
    def change(net: TokenNet) -> None:
        for block in net.blocks:
            assert isinstance(block, Block)
            block.attn.__class__ = cls

    return change


WAYS: dict[str, Callable[[TokenNet], None]] = {
    "fused": lambda net: None,
    "bmm": _written(_by_bmm),
    "einsum": _written(_by_einsum),
    "module": _written(_by_module),
    "masked": _written(_masked),
    "all allowed": _written(_with_all_allowed),
    "multi-head": _multi_head(batch_first=True, need_weights=False),
    "multi-head that gives weights": _multi_head(batch_first=True, need_weights=True),
    "multi-head, tokens first": _multi_head(batch_first=False, need_weights=False),
}

READ: dict[str, tuple[Callable[[], TokenNet], list[int]]] = {
    "a class token": (TokenNet, [0]),
    "two class tokens": (lambda: TokenNet(prefix=2), [0, 1]),
    "two of five": (lambda: TokenNet(prefix=5), [0, 1]),
    "the mean": (lambda: TokenNet(prefix=0, pooled=True), list(range(16))),
    "the mean beside a token": (lambda: TokenNet(pooled=True), list(range(1, 17))),
}


def _net(make: Callable[[], TokenNet] = TokenNet, dtype: torch.dtype = torch.float64) -> TokenNet:
    net = seeded(make).to(dtype)
    assert isinstance(net, TokenNet)
    return net


def _by_hand(net: TokenNet, x: Tensor, rows: list[int]) -> dict[str, Tensor]:
    """The maps of both by whole matrices; each attention is computed by hand, its weights seen at a layer."""
    seen: list[Tensor] = []
    handles = []
    for block in net.blocks:
        assert isinstance(block, Block)
        block.attn.fused = False
        handles.append(block.attn.weights_drop.register_forward_hook(lambda *call: seen.append(call[2])))
    chosen = net(x).gather(1, Y[:, None]).sum()
    slopes = torch.autograd.grad(chosen, seen)
    for block, handle in zip(net.blocks, handles, strict=True):
        assert isinstance(block, Block)
        block.attn.fused = True
        handle.remove()
    same = torch.eye(seen[0].shape[-1], dtype=x.dtype).expand(len(x), -1, -1)
    rollout = relevance = same
    for weights, slope in zip(seen, slopes, strict=True):
        rollout = (0.5 * weights.detach().mean(dim=1) + 0.5 * same) @ rollout
        relevance = relevance + (slope * weights.detach()).clamp_min(0).mean(dim=1) @ relevance
    first = net.prefix.shape[1]
    found = {"rollout": rollout, "attentionrelevance": relevance}
    return {name: min_max(flow[:, rows, first:].mean(dim=1).unflatten(1, CELLS)) for name, flow in found.items()}


class TestMaps:
    @both
    @pytest.mark.parametrize("way", WAYS)
    def test_they_are_those_by_hand_however_attention_is_written(
        self, way: str, make: type[AttentionInterpreter]
    ) -> None:
        net, x = _net(), images(3, 32, dtype=torch.float64)
        wanted = _by_hand(net, x, [0])[make.name]
        WAYS[way](net)
        torch.testing.assert_close(make(Classifier(net, input_size=32))(x, Y), wanted, rtol=1e-9, atol=1e-9)

    @both
    @pytest.mark.parametrize("read", READ)
    def test_rows_are_those_of_the_tokens_that_the_head_reads(
        self, read: str, make: type[AttentionInterpreter]
    ) -> None:
        net_of, rows = READ[read]
        net, x = _net(net_of), images(3, 32, dtype=torch.float64)
        classifier = Classifier(net, input_size=32)
        assert find_attention(classifier).read == tuple(rows)
        torch.testing.assert_close(make(classifier)(x, Y), _by_hand(net, x, rows)[make.name], rtol=1e-9, atol=1e-9)

    @both
    def test_an_exported_program_has_the_same(self, make: type[AttentionInterpreter]) -> None:
        net, x = _net(), images(3, 32, dtype=torch.float64)
        batch = torch.export.Dim("batch", min=2, max=64)
        program = torch.export.export(net, (x,), dynamic_shapes=({0: batch},)).module()
        torch.testing.assert_close(
            make(Classifier(program, input_size=32))(x, Y), _by_hand(net, x, [0])[make.name], rtol=1e-9, atol=1e-9
        )

    def test_a_class_token_comes_before_a_mean_read_beside_it(self) -> None:
        class Beside(TokenNet):
            def forward(self, x: Tensor) -> Tensor:
                z = self.patch(x).flatten(2).transpose(1, 2)
                z = self.norm(self.blocks(torch.cat([self.prefix.expand(len(z), -1, -1), z], dim=1)))
                logits: Tensor = self.head(z[:, 0] + z[:, 1:].mean(dim=1))
                return logits

        classifier = Classifier(_net(Beside), input_size=128)
        assert (find_attention(classifier).read, find_attention(classifier).grid) == ((0,), (16, 16))

    def test_other_shapes_of_images_have_their_grid(self) -> None:
        found = find_attention(Classifier(_net(lambda: TokenNet(prefix=2)), input_size=(32, 64)))
        assert (found.grid, found.layout.prefix, found.tokens, found.heads) == ((4, 8), 2, 34, (2, 2, 2))

    def test_no_class_changes_a_rollout(self) -> None:
        g, x = Rollout(Classifier(_net(), input_size=32)), images(3, 32, dtype=torch.float64)
        assert torch.equal(g(x, Y), g(x, Y.flip(0)))

    @both
    def test_nan_stops_with_the_image_s_place(self, make: type[AttentionInterpreter]) -> None:
        class Poisoned(TokenNet):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x + torch.where(x[:, :1, :1, :1] == 1, torch.nan, 0.0))

        g, x = make(Classifier(_net(Poisoned), input_size=32)), images(3, 32, dtype=torch.float64)
        x[1, 0, 0, 0] = 1
        with pytest.raises(NonFiniteError, match=f"the {make.name} map of image 1 contains NaN"):
            g(x, Y)


class TestModel:
    @pytest.mark.parametrize("way", WAYS)
    def test_its_logits_are_the_same_where_attention_is_read(self, way: str) -> None:
        net = _net(dtype=torch.float32)
        WAYS[way](net)
        classifier, x = Classifier(net, input_size=32), images(4, 32)
        with classifier.frozen(), torch.no_grad():
            plain = classifier.scores(x)
            with Attending() as attending:
                read = classifier.scores(x)
        assert len(attending.found) == 3
        torch.testing.assert_close(read, plain, rtol=0, atol=1e-5)

    @both
    def test_nothing_is_left_on_it(self, make: type[AttentionInterpreter]) -> None:
        classifier, x = Classifier(_net(dtype=torch.float32), input_size=32), images(3, 32)
        with untouched(classifier.module):
            make(classifier)(x, Y)


class TestAttack:
    @both
    def test_the_contract_is_kept_to_four_digits(self, make: type[AttentionInterpreter]) -> None:
        check_interpreter(make, tolerance=1e-4, subject=token_classifier)

    @both
    @pytest.mark.parametrize("way", ["fused", "multi-head"])
    def test_it_is_told_the_gradient_of_the_map(self, way: str, make: type[AttentionInterpreter]) -> None:
        net, x = _net(), images(3, 32, dtype=torch.float64)
        WAYS[way](net)
        classifier = Classifier(net, input_size=32)
        g = make(classifier)
        target = torch.rand(3, *g.grid, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        with classifier.frozen():
            objective = g.objective(MapTarget(Y, target, tuple("abc"), seed=0))
            direction = objective(ForwardPass(classifier, x, taps=objective.taps)).direction
        step = 1e-6
        for seed in range(3):
            d = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            ahead, behind = (shape_distance(g(x + s * d, Y), target) for s in (step, -step))
            torch.testing.assert_close(
                (direction * d).sum(dim=(1, 2, 3)), (ahead - behind) / (2 * step), rtol=1e-3, atol=1e-6
            )

    @both
    def test_it_brings_the_map_nearer_than_pgd_does(self, make: type[AttentionInterpreter]) -> None:
        classifier = token_classifier(dtype=torch.float32)
        g, x = make(classifier), images(8, 16)
        label, target = classifier(x).topk(2).indices.unbind(dim=1)
        benign = g(x, label)
        joint, plain = (attack(x, target) for attack in (ADV2(g, steps=150), PGD(classifier, steps=150)))
        assert bool(joint.success.all())
        near, far_off = (distance(g(result.x_adv, target), benign).mean() for result in (joint, plain))
        assert float(near) < 0.25 * float(far_off)

    def test_several_are_attacked_at_once(self) -> None:
        classifier, x = Classifier(_net(dtype=torch.float32), input_size=32), images(3, 32)
        several: list[Interpreter] = [Rollout(classifier), AttentionRelevance(classifier), GradCAM(classifier)]
        result = ADV2(several, steps=3)(x, Y)
        assert {name: maps.shape for name, maps in result.maps.items()} == {g.name: (3, 4, 4) for g in several}


class _Windows(Block):
    """Attention inside halves of the tokens."""

    def forward(self, z: Tensor) -> Tensor:
        n, t, c = z.shape
        return super().forward(z.reshape(2 * n, t // 2, c)).reshape(n, t, c)


class _Unseen(Attention):
    """A softmax by hand, which nobody can tell from other arithmetic."""

    def forward(self, z: Tensor) -> Tensor:
        query, key, value = self.qkv(z).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        weights = _scores(query, key).exp()
        out: Tensor = self.out(((weights / weights.sum(-1, keepdim=True)) @ value).transpose(1, 2).flatten(2))
        return out


class _TalkingHeads(_Written):
    """Heads are mixed between the softmax and the values."""

    @staticmethod
    def way(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = _scores(query, key).softmax(dim=-1)
        return (0.9 * weights + 0.1 * weights.flip(1)) @ value


class _Beside(Block):
    """Two attentions of the same tokens, side by side."""

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = z + self.attn(self.norm1(z)) + self.attn(self.norm2(z))
        return out


class _Pooling(TokenNet):
    """A query that was learnt reads all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.blocks(self.patch(x).flatten(2).transpose(1, 2))
        logits: Tensor = self.head(F.scaled_dot_product_attention(self.prefix.expand(len(z), -1, -1), z, z)[:, 0])
        return logits


def _with(cls: Any, *blocks: int, attention: bool = True) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        net = TokenNet(prefix=0, pooled=True)
        for index in blocks:
            block = net.blocks[index]
            assert isinstance(block, Block)
            (block.attn if attention else block).__class__ = cls
        return net

    return make


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "convolutions": (ChannelsFirst, "'toy' has no attention that can be read"),
    "windows": (
        _with(_Windows, 0, attention=False),
        r"as in windows .* for 4 images there are weights \(8, 2, 8, 8\)",
    ),
    "a pooling query": (_Pooling, r"a query pools: for 4 images there are weights \(4, 1, 16\)"),
    "unseen first": (_with(_Unseen, 0), "see more of the image than the attention that can be read brings them"),
    "unseen between": (_with(_Unseen, 1), "see more of the image than the attention that can be read brings them"),
    "all unseen": (_with(_Unseen, 0, 1, 2), "'toy' has no attention that can be read"),
    "talking heads": (_with(_TalkingHeads, 0, 1, 2), "'toy' has no attention that can be read"),
    "side by side": (_with(_Beside, 1, attention=False), "'toy' has attentions side by side"),
}


class TestRefusals:
    @both
    @pytest.mark.parametrize("name", REFUSED)
    def test_they_are_sentences(self, name: str, make: type[AttentionInterpreter]) -> None:
        net_of, why = REFUSED[name]
        classifier = Classifier(seeded(net_of), input_size=32, name="toy")
        with pytest.raises(InputError, match=f"{why}.*; use gradcam instead"):
            make(classifier)
        reason = make.available(classifier)
        assert reason is not None
        assert "use gradcam" in reason

    def test_what_reads_cells_behind_the_last_attention_that_is_seen(self) -> None:
        class Reading(TokenNet):
            def __init__(self) -> None:
                super().__init__()
                self.last = _Unseen(fused=False)

            def forward(self, x: Tensor) -> Tensor:
                z = self.patch(x).flatten(2).transpose(1, 2)
                z = self.last(self.blocks(torch.cat([self.prefix.expand(len(z), -1, -1), z], dim=1)))
                logits: Tensor = self.head(z[:, 0])
                return logits

        found = find_attention(Classifier(seeded(Reading), input_size=32))
        assert len(found.read) == 17  # whatever is behind it, the logits are made of all these tokens

    def test_a_model_without_gradients(self) -> None:
        class Detached(TokenNet):
            def forward(self, x: Tensor) -> Tensor:
                with torch.no_grad():
                    return super().forward(x)

        with pytest.raises(InputError, match="'classifier' has no attention that can be read"):
            Rollout(Classifier(seeded(Detached), input_size=32))


def test_cells_far_from_a_place_are_those_of_no_neighbour() -> None:
    size, grid = (32, 32), (8, 8)
    away = far(size, grid).unflatten(1, grid)
    assert away.shape == (len(places(size)), *grid)
    assert away[0].logical_not().nonzero().amax(dim=0).tolist() == [3, 3]
    assert int(away[5].logical_not().sum()) == 36
