"""RTS: its contract, its maps, and the direction of an attack on it."""

import pytest
import torch
from torch import nn

from support.toys import CLASSES, images, relu_net, smooth_net
from support.traces import scramble, untouched
from underfire.errors import InputError
from underfire.interpreters import CAM, ForwardPass, MapTarget
from underfire.interpreters.maps import distance
from underfire.interpreters.masking.network import MaskingNetwork
from underfire.interpreters.rts import RTS
from underfire.models.classifier import Classifier
from underfire.models.folded import prepared
from underfire.testing import smooth_classifier
from underfire.weights import shipped


def untrained(classifier: Classifier) -> RTS:
    return RTS(classifier, network=MaskingNetwork.untrained(classifier))


def with_own_encoder(classifier: Classifier, encoder: Classifier) -> RTS:
    return RTS(classifier, network=MaskingNetwork.untrained(classifier, encoder=encoder))


def task(y: torch.Tensor, maps: torch.Tensor) -> MapTarget:
    return MapTarget(y, maps, tuple(map(str, range(len(y)))), seed=0)


def test_its_grid_is_a_quarter_of_the_input(relu_classifier: Classifier) -> None:
    assert untrained(relu_classifier).grid == (8, 8)
    wide = Classifier(relu_net(), input_size=(24, 40))
    maps = untrained(wide)(torch.rand(2, 3, 24, 40), torch.tensor([0, 1]))
    assert maps.shape == (2, 6, 10)


def test_a_network_of_another_classifier_is_refused(relu_classifier: Classifier) -> None:
    """Of the same structure, so that it would run."""
    other = Classifier(relu_net(seed=5), mean=0.25, std=0.5, input_size=32)
    with pytest.raises(InputError, match=f"fingerprint {other.fingerprint()[:12]}, and '{relu_classifier.name}'"):
        RTS(relu_classifier, network=MaskingNetwork.untrained(other))


def test_the_map_depends_on_the_class(toy_classifier: Classifier) -> None:
    x = images(1, toy_classifier.input_size[0]).expand(CLASSES, -1, -1, -1)
    maps = untrained(toy_classifier)(x, torch.arange(CLASSES))
    assert len({tuple(m.flatten().tolist()) for m in maps}) == CLASSES


def test_float32_maps_and_directions_are_the_same_bits_split_or_whole(relu_classifier: Classifier) -> None:
    rts, x, y = untrained(relu_classifier), images(5, 32), torch.arange(5)
    whole = rts(x, y)
    for rows in (slice(0, 1), slice(1, 3), slice(2, 5)):
        assert torch.equal(rts(x[rows], y[rows]), whole[rows])
    target = whole.roll(1, dims=0)
    with relu_classifier.frozen():
        pull = rts.objective(task(y, target))(ForwardPass(relu_classifier, x, taps=rts.network.taps))
        for rows in (slice(1, 3), slice(2, 5)):
            view = ForwardPass(relu_classifier, x[rows], taps=rts.network.taps)
            assert torch.equal(rts.objective(task(y[rows], target[rows]))(view).direction, pull.direction[rows])


def test_a_prepared_copy_gives_the_same_maps(toy_classifier: Classifier) -> None:
    rts, x = untrained(toy_classifier), images(4, toy_classifier.input_size[0])
    y, twin = torch.arange(4), prepared(toy_classifier)
    with twin.frozen():
        view = ForwardPass(twin, x, taps=rts.network.taps, attached=False)
        torch.testing.assert_close(rts.network.maps(view, y), rts(x, y), rtol=1e-4, atol=1e-5)


def test_it_leaves_no_trace(relu_classifier: Classifier) -> None:
    scramble(relu_classifier.module)
    x, y = images(2, 32), torch.tensor([0, 1])
    with untouched(relu_classifier.module):
        rts = untrained(relu_classifier)
        maps = rts(x, y)
        with relu_classifier.frozen():
            rts.objective(task(y, maps.flip(0)))(ForwardPass(relu_classifier, x, taps=rts.network.taps))
    assert all(parameter.grad is None for parameter in rts.network.parameters())


def test_the_gap_is_the_distance_of_the_maps(smooth_classifier64: Classifier) -> None:
    rts, x, y = untrained(smooth_classifier64), images(3, 16, dtype=torch.float64), torch.arange(3)
    target = torch.rand(3, *rts.grid, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with smooth_classifier64.frozen():
        pull = rts.objective(task(y, target))(ForwardPass(smooth_classifier64, x, taps=rts.network.taps))
    torch.testing.assert_close(pull.distance, distance(rts(x, y), target))
    assert pull.passes == rts.passes_per_step - 1 == 1


def test_an_encoder_of_its_own_is_read_in_place_of_the_classifier(smooth_classifier64: Classifier) -> None:
    encoder = Classifier(smooth_net(3).double(), mean=0.5, std=0.25, input_size=16, name="encoder")
    x, y = images(3, 16, dtype=torch.float64), torch.arange(3)
    rts = with_own_encoder(smooth_classifier64, encoder)
    assert torch.equal(rts(x, y), RTS(encoder, network=MaskingNetwork.untrained(encoder))(x, y))
    assert not torch.equal(rts(x, y), untrained(smooth_classifier64)(x, y))


def test_an_attack_minds_the_own_classes_of_the_encoder_too(smooth_classifier64: Classifier) -> None:
    encoder = Classifier(smooth_net(3).double(), mean=0.5, std=0.25, input_size=16, name="encoder")
    x, y = images(3, 16, dtype=torch.float64), torch.arange(3)
    rts = with_own_encoder(smooth_classifier64, encoder)
    target = rts(x, y).roll(1, dims=0)
    objective = rts.objective(task(y, target))
    assert (objective.taps, objective.needs_backward) == ((), False)

    def at(images: torch.Tensor) -> torch.Tensor:
        return distance(rts(images, y), target) + 0.1 * nn.functional.cross_entropy(
            encoder(images), y, reduction="none"
        )

    with smooth_classifier64.frozen():
        pull = objective(ForwardPass(smooth_classifier64, x))
    torch.testing.assert_close(pull.loss, at(x).detach())
    torch.testing.assert_close(pull.distance, distance(rts(x, y), target))
    assert pull.passes == 1
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    slope = (at(x + 1e-6 * along) - at(x - 1e-6 * along)).detach() / 2e-6
    torch.testing.assert_close((pull.direction * along).sum(dim=(1, 2, 3)), slope, rtol=1e-4, atol=1e-7)


def test_descending_the_direction_brings_the_map_nearer(relu_classifier: Classifier) -> None:
    rts, x, y = untrained(relu_classifier), images(4, 32), torch.arange(4)
    target = rts(x, y).roll(1, dims=0)
    start, near = distance(rts(x, y), target), x.clone()
    objective = rts.objective(task(y, target))
    for _ in range(40):
        with relu_classifier.frozen():
            pull = objective(ForwardPass(relu_classifier, near, taps=objective.taps))
        near = (near - pull.direction.sign() / 255).clamp(x - 16 / 255, x + 16 / 255).clamp(0, 1)
    assert float((distance(rts(near, y), target) / start).mean()) < 0.7


def test_without_weights_it_says_how_to_train_them(relu_classifier: Classifier) -> None:
    with pytest.raises(
        InputError,
        match=r"trained for 'relu toy', and none comes .* `underfire train rts` and give its file as --rts FILE",
    ):
        RTS(relu_classifier)


def test_a_classifier_without_a_linear_head_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    classifier = Classifier(net, input_size=8, name="flat head")
    for make in (RTS, untrained):
        with pytest.raises(InputError, match=r"RTS needs global average pooling and one linear layer.*'flat head'"):
            make(classifier)


@pytest.mark.parametrize(
    ("encoder", "sentence"),
    [
        (
            lambda: Classifier(relu_net(), input_size=24, name="small"),
            r"encoder 'small' takes images of 3 × \(24, 24\)",
        ),
        (lambda: smooth_classifier(), r"encoder 'smooth' takes images of 3 × \(16, 16\)"),
        (
            lambda: Classifier(_five_classes(), input_size=32, name="five"),
            "encoder 'five' has 5 classes and 'relu toy' 10",
        ),
        (lambda: Classifier(relu_net().double(), input_size=32, name="d"), "encoder 'd' is of another device or type"),
    ],
    ids=["size", "testing", "classes", "type"],
)
def test_an_encoder_that_does_not_fit_is_refused(relu_classifier: Classifier, encoder: object, sentence: str) -> None:
    assert callable(encoder)
    with pytest.raises(InputError, match=sentence):
        MaskingNetwork.untrained(relu_classifier, encoder=encoder())


def _five_classes() -> nn.Module:
    net = relu_net()
    net.head = nn.Linear(16, 5)
    return net


@pytest.mark.real
def test_the_shipped_weights_are_for_the_built_in_classifier(efficientnet: Classifier) -> None:
    rts = RTS(efficientnet)
    assert rts.grid == (56, 56)
    assert rts.network.about["classifier"]["name"] == efficientnet.name
    assert sum(path.stat().st_size for path in shipped()) < 5e6


@pytest.mark.real
def test_the_shipped_maps_are_empty_for_classes_that_are_not_there(efficientnet: Classifier) -> None:
    from underfire.images import builtin_photos, load_photo

    photos = builtin_photos().photos[:4]
    pixels = [load_photo(p.path, efficientnet.preprocessing).pixels for p in photos]
    x = torch.stack(pixels) / 255
    order = efficientnet(x).argsort(dim=1)
    rts = RTS(efficientnet)
    there, absent = rts(x, order[:, -1]), rts(x, order[:, 200])
    assert float(there.mean()) > 0.1
    assert float(absent.mean()) < 0.02
    # It shows what the head reads: cells that CAM finds salient are brighter than others.
    cam = nn.functional.interpolate(CAM(efficientnet)(x, order[:, -1])[:, None], size=rts.grid, mode="bilinear")[:, 0]
    assert float((there[cam > 0.5]).mean()) > 2 * float(there[cam < 0.25].mean())
