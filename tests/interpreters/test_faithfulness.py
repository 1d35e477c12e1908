"""Areas that are known in closed form: a classifier whose probability counts the object's pixels that are shown."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from support.nets import board, poison, poisoned
from support.toys import images, relu_net
from underfire.errors import InputError, NonFiniteError
from underfire.interpreters.faithfulness import Faithfulness, Probe, blurred, faithfulness, ranks, upsampled
from underfire.models.classifier import Classifier

SIZE = 16
FLOOR, RISE = 0.38, 0.38  # p of class 1 with nothing and, more, with everything of the object shown
LEVELS = 8
PROBE = Probe(levels=LEVELS, share=0.25, blur=0.25)


class _Counting(nn.Module):
    """Probability of class 1: FLOOR + RISE · the share of the object (H, W) whose pixels show the checkerboard."""

    weight: Tensor

    def __init__(self, inside: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", inside.double() * board(SIZE).double() / inside.sum())

    def forward(self, x: Tensor) -> Tensor:
        shown = ((2 * x - 1).mean(dim=1) * self.weight).sum(dim=(1, 2))
        p = FLOOR + RISE * shown
        return torch.stack([1 - p, p], dim=1)


def counting(inside: Tensor) -> Classifier:
    return Classifier(_Counting(inside), input_size=SIZE, outputs="probabilities")


def checkerboard(n: int = 1) -> Tensor:
    """Pictures (n, 3, 16, 16) of the finest checkerboard, whose blur is grey everywhere."""
    return ((board(SIZE).double() + 1) / 2).expand(n, 3, SIZE, SIZE).clone()


def left(columns: int) -> Tensor:
    """The object (16, 16): the leftmost columns."""
    return (torch.arange(SIZE) < columns).expand(SIZE, SIZE)


def measured(inside: Tensor, maps: Tensor, probe: Probe = PROBE) -> Faithfulness:
    n = len(maps)
    return faithfulness(counting(inside), checkerboard(n), torch.ones(n, dtype=torch.int64), maps, probe=probe)


@pytest.mark.parametrize("columns", [4, 8, 12, 16])
@pytest.mark.parametrize("grid", [4, 8, 16, 32])
def test_the_perfect_map_has_the_area_of_a_straight_line(columns: int, grid: int) -> None:
    """p falls to FLOOR while the object, a share a of the picture, goes, and then stays: FLOOR + RISE·a/2."""
    cells = (torch.arange(grid) < columns * grid // SIZE).double().expand(1, grid, grid)
    found = measured(left(columns), cells)
    a = columns / SIZE
    assert found.deletion.item() == pytest.approx(FLOOR + RISE * a / 2, abs=1e-6)
    assert found.insertion.item() == pytest.approx(FLOOR + RISE * (1 - a / 2), abs=1e-6)
    upside_down = measured(left(columns), 1 - cells)
    assert upside_down.deletion.item() == pytest.approx(FLOOR + RISE * (1 - a / 2), abs=1e-6)
    assert upside_down.insertion.item() == pytest.approx(FLOOR + RISE * a / 2, abs=1e-6)


def test_the_curves_point_by_point() -> None:
    found = measured(left(8), left(8).double()[None])
    shares = torch.arange(LEVELS + 1) / LEVELS
    assert found.deleted[0].tolist() == pytest.approx((FLOOR + RISE * (1 - 2 * shares).clamp(min=0)).tolist(), abs=1e-6)
    assert found.inserted[0].tolist() == pytest.approx((FLOOR + RISE * (2 * shares).clamp(max=1)).tolist(), abs=1e-6)
    # Class 1 is the prediction from p > 0.5 on, when more than 0.32 of the object is shown.
    assert found.holds[0].tolist() == [k / 4 > 0.32 for k in range(LEVELS + 1)]
    for share, wanted, holding in ((None, 0.57, True), (1 / 8, 0.475, False)):
        p, holds = found.kept(share)
        assert p.item() == pytest.approx(wanted)
        assert holds.item() is holding


def test_a_better_map_scores_better() -> None:
    """From perfect to upside down by way of chance, on a round object: deletion rises and insertion falls."""
    place = torch.arange(SIZE) - (SIZE - 1) / 2
    distance = (place[:, None] ** 2 + place**2).double()
    inside = distance < 30
    draw = torch.Generator().manual_seed(0)
    noise = torch.rand((SIZE, SIZE), generator=draw, dtype=torch.float64)
    maps = torch.stack(
        [-distance, 0.5 * noise + inside, 0.6 * inside + noise, noise, -(0.6 * inside) + noise, distance]
    )
    found = measured(inside, maps)
    for values in (found.deletion, -found.insertion):
        assert (values.diff() > 0).tolist() == [False, True, True, True, True]
        assert values[0].item() == pytest.approx(values[1].item())  # the order inside the object does not matter
    assert found.deletion[3].item() == pytest.approx(FLOOR + RISE / 2, abs=0.03)  # chance
    assert found.insertion[3].item() == pytest.approx(FLOOR + RISE / 2, abs=0.03)


def test_a_constant_map_is_worth_what_random_ones_are() -> None:
    """Whatever corner the object is in: an index order would find the first rows first."""
    for inside in (left(4), left(4).T, left(4).flip(1), left(4).T.flip(0)):
        for constant in (0.0, 0.3, 1.0):
            flat = torch.full((1, 8, 8), constant, dtype=torch.float64)
            areas = [measured(inside, flat, replace(PROBE, seed=seed)).deletion.item() for seed in range(24)]
            assert sum(areas) / len(areas) == pytest.approx(FLOOR + RISE / 2, abs=0.02)


def test_ties_follow_a_random_map_of_the_same_grid() -> None:
    flat = torch.zeros(4, 4)
    order = ranks(flat, (SIZE, SIZE), seed=0, key="a")
    assert sorted(order.flatten().tolist()) == list(range(SIZE * SIZE))
    assert torch.equal(order, ranks(flat + 7, (SIZE, SIZE), seed=0, key="a"))
    for seed, key in ((1, "a"), (0, "b")):
        assert not torch.equal(order, ranks(flat, (SIZE, SIZE), seed=seed, key=key))
    # The first tenth lies together, in a few cells, as it would for a map of that grid.
    first = (order < SIZE * SIZE // 10).reshape(4, 4, 4, 4).transpose(1, 2).flatten(2).sum(dim=2)
    assert (first > 0).sum() <= 8
    # Where a map is flat in part, its own order comes first.
    half = torch.zeros(4, 4)
    half[:, 2:] = 1
    halves = ranks(half, (SIZE, SIZE), seed=0, key="a")
    assert (halves[:, 8:] < SIZE * SIZE // 2).all()


def test_scale_and_offset_of_a_map_change_nothing() -> None:
    maps = images(3, 8)[:, 0].double()
    found = measured(left(8), maps)
    for other in (maps * 1e-20, maps * 1e6 + 5):
        scaled = measured(left(8), other)
        assert torch.equal(scaled.deleted, found.deleted)
        assert torch.equal(scaled.inserted, found.inserted)


def test_split_is_whole(relu_classifier: Classifier) -> None:
    x, y, maps = images(3, 32), torch.tensor([1, 4, 7]), images(3, 7)[:, 0].round()
    probe = Probe(levels=5)
    whole = faithfulness(relu_classifier, x, y, maps, probe=probe)
    for batch_size in (1, 3, 64):
        sized = replace(probe, batch_size=batch_size)
        parts = [
            faithfulness(relu_classifier, x[i : i + 1], y[i : i + 1], maps[i : i + 1], probe=sized) for i in range(3)
        ]
        for name in ("deleted", "inserted", "holds"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


def test_the_ends_are_the_image_and_its_blur(relu_classifier: Classifier) -> None:
    x, y = images(2, 32), torch.tensor([3, 5])
    found = faithfulness(relu_classifier, x, y, images(2, 8)[:, 0], probe=PROBE)
    for picture, deleted, inserted in ((x, 0, -1), (blurred(x, 0.25 * 32), -1, 0)):
        p = relu_classifier.probabilities(picture).gather(1, y[:, None])[:, 0]
        torch.testing.assert_close(found.deleted[:, deleted], p)
        torch.testing.assert_close(found.inserted[:, inserted], p)
    assert torch.equal(found.holds[:, -1], relu_classifier(x).argmax(dim=1) == y)


@pytest.mark.parametrize(("levels", "batch_size", "calls"), [(4, 32, [8]), (4, 3, [3, 3, 2]), (1, 32, [2])])
def test_forward_passes(levels: int, batch_size: int, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, seen = counting(left(8)), list[int]()
    scores = classifier.scores

    def counted(x: Tensor) -> Tensor:
        seen.append(len(x))
        return scores(x)

    monkeypatch.setattr(classifier, "scores", counted)
    probe = Probe(levels=levels, share=1.0, batch_size=batch_size)
    faithfulness(classifier, checkerboard(), torch.tensor([1]), torch.rand(1, 4, 4), probe=probe)
    assert seen == calls
    assert sum(calls) == 2 * levels


def test_no_image_gives_no_value(relu_classifier: Classifier) -> None:
    found = faithfulness(relu_classifier, images(0, 32), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 7, 7))
    assert found.deletion.shape == found.insertion.shape == found.kept()[0].shape == (0,)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 40.0])
def test_the_blur(sigma: float) -> None:
    x = images(2, SIZE, dtype=torch.float64)
    soft = blurred(x, sigma)
    assert (x.amin() <= soft).all()
    assert (soft <= x.amax()).all()
    torch.testing.assert_close(blurred(torch.full_like(x, 0.7), sigma), torch.full_like(x, 0.7))
    torch.testing.assert_close(blurred(x.flip(3), sigma), soft.flip(3))
    torch.testing.assert_close(blurred(x.mT, sigma), soft.mT)


def test_the_blur_of_a_point_is_a_bell() -> None:
    x = torch.zeros(1, 1, 33, 33, dtype=torch.float64)
    x[..., 16, 16] = 1
    soft = blurred(x, 2.0)[0, 0]
    assert (soft[16, 18] / soft[16, 16]).item() == pytest.approx(math.exp(-0.5))
    assert (soft[18, 18] / soft[16, 16]).item() == pytest.approx(math.exp(-1))
    assert soft.sum().item() == pytest.approx(1)


def test_interpolation_keeps_cells_where_they_are() -> None:
    maps = torch.zeros(1, 4, 4)
    maps[0, 1, 2] = 1
    seen = upsampled(maps, (SIZE, SIZE))
    rows, columns = (seen[0] > 0.5).nonzero().double().mean(dim=0).tolist()
    assert (rows, columns) == (5.5, 9.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": 0}, "levels is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"blur": 0.0}, "blur 0.0"),
        ({"blur": math.nan}, "blur nan"),
        ({"share": 0.33}, "a share of 0.33 is none of the 20 levels; give a multiple of 0.05"),
        ({"share": 1.2}, "a share of 1.2"),
        ({"share": 0.5, "levels": 3}, "none of the 3 levels"),
    ],
)
def test_bad_settings(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Probe(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.rand(2, 8, 8), r"maps are \(2, 8, 8\) for 3 images; give a tensor \(3, h, w\)"),
        (torch.rand(3, 1, 8, 8), "give a tensor"),
        (torch.rand(3, 0, 8), "give a tensor"),
        (torch.ones(3, 8, 8, dtype=torch.int64), "give floating point"),
    ],
)
def test_bad_maps(relu_classifier: Classifier, maps: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        faithfulness(relu_classifier, images(3, 32), torch.tensor([0, 1, 2]), maps)


def test_bad_images_classes_and_keys(relu_classifier: Classifier) -> None:
    x, y, maps = images(2, 32), torch.tensor([0, 1]), torch.rand(2, 8, 8)
    with pytest.raises(InputError, match="outside"):
        faithfulness(relu_classifier, x * 2, y, maps)
    with pytest.raises(InputError, match="class 10"):
        faithfulness(relu_classifier, x, y + 9, maps)
    with pytest.raises(InputError, match="1 keys"):
        faithfulness(relu_classifier, x, y, maps, keys=["a"])


def test_what_is_not_finite_is_named() -> None:
    x, y, maps = images(2, 32), torch.tensor([0, 1]), torch.rand(2, 8, 8)
    net = relu_net()
    broken = maps.clone()
    broken[1, 0, 0] = math.nan
    with pytest.raises(NonFiniteError) as caught:
        faithfulness(Classifier(net, input_size=32), x, y, broken)
    assert (caught.value.what, caught.value.index) == ("the map", 1)
    with pytest.raises(NonFiniteError) as caught:
        faithfulness(poisoned(net, size=32), poison(x, 1), y, maps)
    assert caught.value.index == 1
