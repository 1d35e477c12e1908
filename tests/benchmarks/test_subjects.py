"""The networks that studies are run on: a binary one, and the residual ones for CIFAR-10."""

import pytest
import torch
from torch import nn

from benchmarks.cifar import Block, resnet20, resnet56
from benchmarks.two_classes import ANIMALS, AnimalOrObject


class TestAnimalOrObject:
    def test_each_probability_is_that_of_all_its_classes(self) -> None:
        logits = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = AnimalOrObject(nn.Identity())(logits).softmax(dim=1)
        animals = logits.softmax(dim=1)[:, :ANIMALS].sum(dim=1)
        torch.testing.assert_close(found, torch.stack([1 - animals, animals], dim=1))

    def test_the_last_animal_is_one_and_the_first_object_is_not(self) -> None:
        logits = torch.full((2, 1000), -30.0)
        logits[0, 397] = logits[1, 398] = 0
        assert AnimalOrObject(nn.Identity())(logits).argmax(dim=1).tolist() == [1, 0]


class TestResNets:
    @pytest.mark.parametrize(
        ("make", "layers", "parameters"), [(resnet20, 20, 269_722), (resnet56, 56, 853_018)], ids=["20", "56"]
    )
    def test_they_are_as_deep_and_large_as_the_paper_says(self, make: type, layers: int, parameters: int) -> None:
        """He et al. 2016, table 6: 0.27 and 0.85 million parameters."""
        net = make()
        assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == layers
        assert sum(p.numel() for p in net.parameters()) == parameters
        assert net.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 10)

    def test_a_shortcut_that_shrinks_takes_every_second_pixel_and_pads_channels_on_both_sides(self) -> None:
        block = Block(2, 4, stride=2).eval()
        for convolution in (block.conv1, block.conv2):
            nn.init.zeros_(convolution.weight)
        x = torch.rand(1, 2, 4, 4)
        padded = torch.zeros(1, 4, 2, 2)
        padded[:, 1:3] = x[:, :, ::2, ::2]
        torch.testing.assert_close(block(x), padded)
