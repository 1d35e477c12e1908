"""AttnLRP against its rules by hand and LXT; the same class on every library's transformers."""

import json
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oracles.lxt_attn_lrp import FIGURES, SETTINGS, vision_transformer
from oracles.subjects import MEAN, SIZE, STD, cells, pictures
from support.toys import images, relu_net
from support.traces import untouched
from underfire import ADV2, LRP, PGD, AttnLRP, Classifier, InputError
from underfire.interpreters import ForwardPass, MapTarget
from underfire.testing import check_interpreter

WIDTH, HEADS, CLASSES = 12, 2, 5


class _Attention(nn.Module):
    """Self-attention (N, L, C) in one of the ways in which people write it, all with the same weights."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.how = how

    def forward(self, z: Tensor) -> Tensor:
        if self.how in ("module", "module with weights"):
            out: Tensor = self.own(z, z, z, need_weights=self.how == "module with weights")[0]
            return out
        joined = F.linear(z, self.own.in_proj_weight, self.own.in_proj_bias)
        q, k, v = joined.reshape(*z.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.how == "fused":
            mixed = F.scaled_dot_product_attention(q, k, v)
        elif self.how == "einsum":
            weights = torch.einsum("nhqc,nhkc->nhqk", q * q.shape[-1] ** -0.5, k).softmax(dim=-1)
            mixed = torch.einsum("nhqk,nhkc->nhqc", weights, v)
        else:
            weights = F.softmax(torch.matmul(q, k.transpose(-2, -1)) / q.shape[-1] ** 0.5, dim=-1)
            mixed = weights @ v
        projected: Tensor = self.own.out_proj(mixed.transpose(1, 2).flatten(2))
        return projected


class _Transformer(nn.Module):
    """Patches of 4×4 pixels, one block of attention and one of two layers, the mean of tokens, a linear head."""

    def __init__(self, how: str = "module") -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.attention = _Attention(how)
        self.layers = nn.Sequential(nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patches(x).flatten(2).transpose(1, 2)
        z = z + self.attention(self.norms[0](z))
        z = z + self.layers(self.norms[1](z))
        logits: Tensor = self.head(self.norms[2](z).mean(dim=1))
        return logits


def _transformer(how: str = "module", *, dtype: torch.dtype = torch.float64) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = _Transformer(how)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.5)
    return Classifier(net.to(dtype).eval(), mean=0.5, std=0.25, input_size=16, name=how)


X, Y = images(3, 16, dtype=torch.float64), torch.tensor([0, 3, 4])


@pytest.mark.parametrize("setting", SETTINGS)
def test_lxt_has_the_same_in_torchvision_s_vit(setting: str, torchvision: ModuleType) -> None:
    x, y = pictures()
    classifier = Classifier(vision_transformer(torchvision), mean=MEAN, std=STD, input_size=SIZE)
    found = cells(AttnLRP(classifier, softmax=SETTINGS[setting]).signed(x, y))
    wanted = torch.tensor(json.loads(FIGURES.read_text())[setting], dtype=torch.float64).reshape(found.shape)
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("options", [{}, {"softmax": False}, {"gamma": 0.1}])
def test_attention_is_met_however_it_is_written(options: dict[str, Any]) -> None:
    wanted = AttnLRP(_transformer(), **options).signed(X, Y)
    for how in ("module with weights", "fused", "by hand", "einsum"):
        torch.testing.assert_close(AttnLRP(_transformer(how), **options).signed(X, Y), wanted)


def test_one_head_by_hand() -> None:
    """Scores H·(A·v) with A = softmax(x·kᵀ) of tokens x: half of the relevance by v, half by the softmax to x and k."""
    draw = torch.Generator().manual_seed(1)
    head, wk, wv = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((5, 48), (3, 3), (3, 3)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterList((head, wk, wv))

        def forward(self, x: Tensor) -> Tensor:
            z = x.flatten(2).transpose(1, 2)
            return F.linear(F.scaled_dot_product_attention(z, z @ wk, z @ wv, scale=1.0).flatten(1), head)

    x, y = images(2, 4, dtype=torch.float64), torch.tensor([1, 4])
    z = x.flatten(2).transpose(1, 2)
    a, v, k = (z @ (z @ wk).transpose(1, 2)).softmax(dim=2), z @ wv, z @ wk
    coming = head[y].reshape(2, 16, 3)
    of_a = 0.5 * a * (coming @ v.transpose(1, 2))  # relevance of the weights
    scores = z @ k.transpose(1, 2)
    of_scores = scores * (of_a - a * of_a.sum(dim=2, keepdim=True))  # proposition 3.1
    ratio = of_scores / scores
    of_q, of_k = 0.5 * z * (ratio @ k), 0.5 * k * (ratio.transpose(1, 2) @ z)
    of_v = 0.5 * v * (a.transpose(1, 2) @ coming)
    wanted = of_q + z * ((of_k / k) @ wk.T) + z * ((of_v / v) @ wv.T)
    found = AttnLRP(Classifier(Net(), input_size=4)).signed(x, y)
    torch.testing.assert_close(found, wanted.transpose(1, 2).reshape(x.shape))


def test_values_alone_conserve_relevance_without_biases() -> None:
    classifier = _transformer()
    for name, parameter in classifier.module.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
    linear = Classifier(classifier.module, mean=0.5, std=0.25, input_size=16)
    logits = linear(X).gather(1, Y[:, None]).squeeze(1).detach()
    torch.testing.assert_close(AttnLRP(linear, softmax=False).signed(X, Y).sum(dim=(1, 2, 3)), logits)


def test_it_is_for_attention_and_lrp_for_the_rest() -> None:
    convolutional, transformer = Classifier(relu_net(), input_size=32), _transformer()
    assert "lrp has rules" in (AttnLRP.available(convolutional) or "")
    assert AttnLRP.available(transformer) is None
    assert "'multi_head_attention_forward'" in (LRP.available(transformer) or "")
    assert LRP.available(convolutional) is None


def test_attention_that_is_not_known_is_refused() -> None:
    classifier = _transformer()
    attention = classifier.module.get_submodule("attention.own")
    attention.add_zero_attn = True  # type: ignore[assignment]
    with pytest.raises(InputError, match="add_zero_attn"):
        AttnLRP(classifier)


def test_no_trace_and_the_same_rows_in_any_batch() -> None:
    classifier = _transformer("fused", dtype=torch.float32)
    with untouched(classifier.module):
        interpreter = AttnLRP(classifier)
        maps = interpreter(X.float(), Y)
    torch.testing.assert_close(interpreter(X[1:2].float(), Y[1:2]), maps[1:2])


class TestTheAttack:
    @pytest.mark.parametrize("options", [{}, {"softmax": False}])
    def test_it_keeps_the_contract_to_four_digits(self, options: dict[str, Any]) -> None:
        check_interpreter(lambda classifier: AttnLRP(classifier, **options), tolerance=1e-4)

    @pytest.mark.parametrize("how", ["module", "fused", "by hand"])
    def test_the_direction_goes_through_attention_and_is_that_of_finite_differences(self, how: str) -> None:
        classifier = _transformer(how)
        interpreter = AttnLRP(classifier)
        target = interpreter(X, Y).roll(1, dims=0)
        objective = interpreter.objective(MapTarget(Y, target, ("a", "b", "c"), 0))
        d = torch.randn(X.shape, generator=torch.Generator().manual_seed(0), dtype=X.dtype)
        with classifier.frozen():
            answer = objective(ForwardPass(classifier, X))
            ahead, behind = (objective(ForwardPass(classifier, X + s * d)).loss for s in (1e-6, -1e-6))
        torch.testing.assert_close(
            (answer.direction * d).sum(dim=(1, 2, 3)), (ahead - behind) / 2e-6, rtol=1e-4, atol=0
        )

    def test_adv2_brings_the_map_back(self) -> None:
        classifier = _transformer("fused", dtype=torch.float32)
        x, interpreter = X.float(), AttnLRP(classifier)
        own = interpreter(x, classifier(x).argmax(dim=1))
        target = classifier(x).topk(2).indices[:, 1]
        moved = ADV2(interpreter, eps=32 / 255, passes=300)(x, target, target_map=own)
        alone = PGD(interpreter.classifier, eps=32 / 255)(x, target)
        reached, drifted = ((interpreter(found.x_adv, target) - own).abs().mean(dim=(1, 2)) for found in (moved, alone))
        assert bool(moved.success.all() and alone.success.all())
        assert float(reached.mean()) < 0.6 * float(drifted.mean())
