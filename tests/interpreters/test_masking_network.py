"""The masking network: its layers, its files, and the files that are refused."""

import copy
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from support.toys import images, relu_net
from underfire.errors import InputError
from underfire.interpreters import ForwardPass
from underfire.interpreters.masking.decoder import Decoder, resized, share
from underfire.interpreters.masking.gate import ClassGate, class_evidence
from underfire.interpreters.masking.network import MaskingNetwork
from underfire.models.classifier import Classifier
from underfire.weights import read_about, write_weights


@pytest.fixture
def network(relu_classifier: Classifier) -> MaskingNetwork:
    return MaskingNetwork.untrained(relu_classifier)


@pytest.fixture
def saved(network: MaskingNetwork, relu_classifier: Classifier, tmp_path: Path) -> Path:
    network.save(tmp_path / "w.safetensors", relu_classifier, history=[{"loss": 1.5}])
    return tmp_path / "w.safetensors"


def altered(path: Path, about: Any, **tensors: torch.Tensor) -> Path:
    """The weights at ``path`` saying ``about`` of themselves, some of their ``tensors`` changed."""
    content = safetensors.torch.load_file(path) | {name.replace("__", "."): value for name, value in tensors.items()}
    write_weights(path, content, about)
    return path


def test_a_share_is_of_the_magnitudes_and_zero_of_nothing() -> None:
    pair = torch.tensor([[3.0, -1.0], [-2.0, 2.0], [0.0, 5.0], [0.0, 0.0]]).reshape(4, 2, 1, 1).requires_grad_(True)
    maps = share(pair)
    assert maps.flatten().tolist() == [0.75, 0.5, 0.0, 0.0]
    (gradient,) = torch.autograd.grad(maps.sum(), pair)
    assert bool(torch.isfinite(gradient).all())
    assert gradient[0].flatten().tolist() == [1 / 16, 3 / 16]  # |b|/(|a|+|b|)² and, b being negative, |a|/(|a|+|b|)²


def test_values_are_averaged_onto_a_coarser_grid_and_interpolated_onto_a_finer_one() -> None:
    values = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert resized(values, (4, 4)) is values
    assert resized(values, (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    torch.testing.assert_close(resized(torch.full((1, 1, 3, 3), 7.0), (5, 8)), torch.full((1, 1, 5, 8), 7.0))


@pytest.mark.parametrize(
    ("grids", "grid"),
    [([(7, 7), (14, 14), (28, 28), (56, 56)], (56, 56)), ([(5, 9), (11, 17)], (20, 33)), ([(16, 16)], (8, 8))],
    ids=["224", "odd", "one"],
)
def test_a_decoder_ends_on_its_grid_whatever_those_of_the_features(
    grids: list[tuple[int, int]], grid: tuple[int, int]
) -> None:
    with torch.random.fork_rng(devices=[]):
        decoder = Decoder([6] * len(grids), [1.0] * len(grids), grid)
    maps = decoder([torch.randn(2, 6, *size) for size in grids], torch.rand(2, 1, *grids[0])).detach()
    assert maps.shape == (2, *grid)
    assert 0 <= float(maps.min()) <= float(maps.max()) <= 1


def test_a_gate_opens_where_the_class_is_seen() -> None:
    gate = ClassGate()(torch.tensor([-20.0, 0.0, 4.0, 20.0]).reshape(1, 1, 2, 2)).flatten().tolist()
    assert gate[0] < 1e-6
    assert gate[1] < 0.05
    assert gate[2] == pytest.approx(0.5)
    assert gate[3] > 0.999


def test_evidence_averages_to_the_logit_over_that_of_all_classes(
    relu_classifier: Classifier, network: MaskingNetwork
) -> None:
    x, y = images(4, 32), torch.tensor([0, 3, 5, 9])
    with relu_classifier.frozen():
        view = ForwardPass(relu_classifier, x, taps=network.taps, attached=False)
        evidence = class_evidence(view, network.taps[0], y)
    centred = view.logits - view.logits.mean(dim=1, keepdim=True)
    assert evidence.shape == (4, 1, 8, 8)
    torch.testing.assert_close(evidence.mean(dim=(1, 2, 3)), centred[torch.arange(4), y], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_a_gate_is_the_same_bits_in_any_batch(n: int) -> None:
    """A sigmoid over the batch is not: its last 49·n mod 32 values, say, are taken by another kernel."""
    evidence = 4 * torch.randn(n, 1, 7, 7, generator=torch.Generator().manual_seed(n))
    gate = ClassGate().requires_grad_(False)
    assert torch.equal(gate(evidence), torch.cat([gate(cells[None]) for cells in evidence]))


def test_a_shut_gate_hides_the_class(relu_classifier: Classifier, network: MaskingNetwork) -> None:
    """All that the network knows of the class comes through the gate."""
    network.gate.level.data.fill_(1e6)
    x = images(1, 32).expand(3, -1, -1, -1)
    with relu_classifier.frozen():
        maps = network.maps(ForwardPass(relu_classifier, x, taps=network.taps, attached=False), torch.tensor([0, 1, 2]))
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[2])


def test_random_weights_belong_to_the_seed(relu_classifier: Classifier) -> None:
    a, b, c = (MaskingNetwork.untrained(relu_classifier, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_saved_weights_come_back(relu_classifier: Classifier, network: MaskingNetwork, saved: Path) -> None:
    found = MaskingNetwork.load(saved, relu_classifier)
    wanted = network.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in found.state_dict().items())
    assert found.about["history"] == [{"loss": 1.5}]
    assert found.about["grid"] == [8, 8]
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_weights_of_another_classifier_are_refused(saved: Path) -> None:
    other = Classifier(relu_net(1), input_size=32, name="another")
    with pytest.raises(
        InputError, match=r"holds weights for classifier 'relu toy' \(\w{12}\), not for 'another' \(\w{12}\)"
    ):
        MaskingNetwork.load(saved, other)


def test_a_classifier_may_bear_another_name(relu_classifier: Classifier, saved: Path) -> None:
    renamed = copy.copy(relu_classifier)
    renamed.name = "another"
    assert MaskingNetwork.load(saved, renamed).fingerprint == relu_classifier.fingerprint()


def test_weights_of_the_same_name_for_other_parameters_are_refused(relu_classifier: Classifier, saved: Path) -> None:
    relu_classifier.module.get_submodule("head").bias.data.add_(1)  # type: ignore[operator]
    with pytest.raises(InputError, match="holds weights for classifier"):
        MaskingNetwork.load(saved, relu_classifier)


def test_weights_that_read_other_activations_are_refused(relu_classifier: Classifier, saved: Path) -> None:
    with pytest.raises(InputError, match="reads other activations of 'relu toy'"):
        MaskingNetwork.load(altered(saved, read_about(saved) | {"taps": [["head", 0, 1, 1]]}), relu_classifier)


def test_weights_that_are_no_numbers_are_refused(relu_classifier: Classifier, saved: Path) -> None:
    nan = altered(saved, read_about(saved), gate__slope=torch.tensor(torch.nan))
    with pytest.raises(InputError, match="NaN or infinite"):
        MaskingNetwork.load(nan, relu_classifier)


def test_weights_of_another_shape_are_refused(relu_classifier: Classifier, saved: Path) -> None:
    wrong = altered(saved, read_about(saved), gate__slope=torch.zeros(3))
    with pytest.raises(InputError, match=r"does not fit the model.*gate\.slope"):
        MaskingNetwork.load(wrong, relu_classifier)


def test_a_missing_file_is_refused(relu_classifier: Classifier, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(InputError, match="is no file; give weights that `underfire train` wrote"):
            MaskingNetwork.load(path, relu_classifier)


def test_a_damaged_file_is_refused(relu_classifier: Classifier, saved: Path) -> None:
    whole = saved.read_bytes()
    header = json.dumps({"__metadata__": {"underfire": "{" * 5000}}).encode()
    for content in (b"", b"not weights", whole[:50], whole[:-9], struct.pack("<Q", 2**60), _file(header)):
        saved.write_bytes(content)
        with pytest.raises(InputError, match=r"w.safetensors' is damaged"):
            MaskingNetwork.load(saved, relu_classifier)


def test_a_file_that_does_not_say_what_it_is_is_refused(relu_classifier: Classifier, saved: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, saved)
    with pytest.raises(InputError, match="does not say what it was trained for"):
        MaskingNetwork.load(saved, relu_classifier)
    for about in ({}, {"classifier": 5}, {"classifier": {"name": ["x"]}}, [1]):
        altered(saved, about)
        with pytest.raises(InputError, match=r"does not say what|holds weights for classifier"):
            MaskingNetwork.load(saved, relu_classifier)


def test_half_a_file_never_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, {"a": torch.zeros(1)}, {"n": 1})

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_weights(path, {"a": torch.ones(1)}, {"n": 2})
    assert read_about(path) == {"n": 1}


def _file(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def test_a_network_with_several_resolutions_reads_them_all() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    network = MaskingNetwork.untrained(Classifier(net, input_size=(36, 60), name="three"))
    assert [tap.grid for tap in network.taps] == [(3, 4), (5, 8), (9, 15)]
    assert network.grid == (9, 15)
