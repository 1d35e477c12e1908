"""The ways to H·v: two of them are the same numbers, one is GRAD's own, and the tables hold what they promise."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.second_order import COLUMNS, WAYS, Cost, WayObjective, branch_free_clip, cost_table, costs, quality
from benchmarks.subject import Recipe, Subject
from benchmarks.timing import Ratio
from support.toys import images, relu_net, smooth_net
from underfire import GRAD, Classifier
from underfire.attacks.smoothed import TAU
from underfire.interpreters import ForwardPass, MapTarget
from underfire.interpreters.clipping import Clipping

DIFFERENCE, AUTHORS, BRANCH_FREE, FORWARD = WAYS


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    x = images(3, 32, dtype=torch.float64)
    return x, torch.tensor([1, 4, 7]), torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double()


def _products(classifier: Classifier, x: Tensor, y: Tensor, v: Tensor) -> dict[str, Tensor]:
    with classifier.frozen():
        view = ForwardPass(classifier, x)
        return {name: way.linearise(view, y)[1](v) for name, way in WAYS.items()}


def test_forward_over_reverse_is_double_backward(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    found = _products(Classifier(relu_net().double(), input_size=32), *batch)
    assert float(found[BRANCH_FREE].abs().max()) > 1
    torch.testing.assert_close(found[FORWARD], found[BRANCH_FREE])
    assert not torch.allclose(found[AUTHORS], found[BRANCH_FREE])


def test_without_kinks_all_ways_agree() -> None:
    classifier = Classifier(smooth_net().double(), mean=0.5, std=0.25, input_size=16)
    x, y = images(3, 16, dtype=torch.float64), torch.tensor([1, 4, 7])
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double()
    found = _products(classifier, x, y, v)
    for name in (AUTHORS, FORWARD):
        torch.testing.assert_close(found[name], found[BRANCH_FREE])
    similar = F.cosine_similarity(found[DIFFERENCE].flatten(1), found[BRANCH_FREE].flatten(1))
    assert float(similar.min()) > 0.99


def test_the_branch_free_clip_is_the_clip_with_a_slope_of_one_half_at_its_kinks() -> None:
    z = torch.tensor([-3.0, 0.0, 0.01, 2.0, 6.0, 9.0], dtype=torch.float64, requires_grad=True)
    with Clipping(branch_free_clip):
        rectified, clipped = F.relu(z), F.relu6(z)
    assert torch.equal(rectified, z.detach().clamp(min=0))
    assert torch.equal(clipped, z.detach().clamp(0, 6))
    for out, kinks in ((rectified, (0,)), (clipped, (0, 6))):
        (slope,) = torch.autograd.grad(out.sum(), z)
        rises = [[(u - kink) / math.hypot(u - kink, math.sqrt(TAU)) for u in z.tolist()] for kink in kinks]
        ends = [*rises, [-1.0] * len(z)][:2] if len(kinks) == 1 else rises
        assert slope.tolist() == pytest.approx([(a - b) / 2 for a, b in zip(*ends, strict=True)])


def test_the_difference_is_what_grad_does(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    classifier = Classifier(relu_net().double(), input_size=32)
    (x, y, _), grad = batch, GRAD(classifier)
    task = MapTarget(y, grad(x, y).roll(1, dims=0), ("a", "b", "c"), seed=0)
    with classifier.frozen():
        ours, own = (
            objective(ForwardPass(classifier, x))
            for objective in (WayObjective(WAYS[DIFFERENCE], task), grad.objective(task))
        )
    assert torch.equal(ours.direction, own.direction)
    assert torch.equal(ours.distance, own.distance)
    assert torch.equal(ours.loss, own.loss)


@pytest.mark.slow
def test_the_tables(relu_classifier: Classifier) -> None:
    subject = Subject.of(Recipe("toy", "cpu", 4), relu_classifier, images(4, 32))
    subject = replace(subject, photos=subject.photos[:3])
    found = costs(subject, turns=2)
    assert [row[0] for row in cost_table(subject, found).rows] == list(WAYS)
    slow = {name: Cost(cost.product, Ratio(turns, turns, turns)) for turns, (name, cost) in enumerate(found.items(), 2)}
    equal_steps, equal_time = quality(subject, slow, steps=6)
    for table in (equal_steps, equal_time):
        assert table.columns == COLUMNS
        assert [row[0] for row in table.rows][:-1] == list(WAYS)
        for row in table.rows:
            assert all(0 <= float(cell) <= 1 for cell in row[3:])
    assert [row[1:3] for row in equal_steps.rows][:-1] == [("6", "12"), ("6", "18"), ("6", "24"), ("6", "30")]
    assert [row[1] for row in equal_time.rows][:-1] == ["6", "4", "3", "2"]
    assert equal_steps.rows[0] == equal_time.rows[0]
