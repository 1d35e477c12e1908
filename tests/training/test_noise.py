"""Training on noise, on a classifier that noise deceives and whose head can learn better."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from torch import nn

import underfire as uf
from support.planted import NOTHING, SIZE, flat_net, planted, tinted_net
from underfire.cli import cli
from underfire.errors import InputError
from underfire.images import find_photos, save_png
from underfire.images.dataset import Split, drawn, read_sources, split_photos
from underfire.models import load_classifier
from underfire.models.classifier import Classifier
from underfire.training.noise import NoiseScore, train_noise
from underfire.training.plan import NoisePlan
from underfire.training.scores import Score

SIGMA = 0.5
PLAN = NoisePlan(epochs=12, batch_size=4, learning_rate=1.0, sigma=SIGMA)
"""Noise of this σ makes colours out of grey: the features are those of values above a bound."""

MODEL = ("--model", "support.planted:tinted_net", "--input-size", "32")


class Heard:
    """A listener that remembers, and may have enough after an epoch."""

    def __init__(self, *, until: int | None = None) -> None:
        self.until, self.scores = until, list[Any]()

    def began(self, epochs: int, finished: int, steps: int) -> None: ...

    def stepped(self) -> None: ...

    def scored(self, epoch: int, score: Score) -> None:
        self.scores.append(score)
        if epoch == self.until:
            raise KeyboardInterrupt


def tinted() -> Classifier:
    return Classifier(tinted_net(), input_size=SIZE, name="tinted")


def grey(n: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(5)
    return (0.3 + 0.2 * torch.rand(n, 1, SIZE, SIZE, generator=draw)).expand(n, 3, SIZE, SIZE).clone()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos with a red patch, and eight with nothing."""
    made = tmp_path_factory.mktemp("photos")
    for index, picture in enumerate(torch.cat([planted(8)[0], grey(8)])):
        save_png(picture, made / f"{index:02}.png")
    return made


def split_of(folder: Path) -> Split:
    sources, _ = read_sources(find_photos([folder], class_names=("nothing", "red", "blue")).photos, tinted())
    return split_photos(sources, drawn(sources, 6, 0), tinted())


def train(folder: Path, out: Path, plan: NoisePlan, heard: Heard | None = None) -> NoiseScore:
    heard = heard or Heard()
    train_noise(tinted(), split_of(folder), out, plan=plan, listener=heard)
    last: NoiseScore = heard.scores[-1]
    return last


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NoiseScore]:
    out = tmp_path_factory.mktemp("trained") / "w.safetensors"
    return out, train(folder, out, PLAN)


def loaded(out: Path) -> Classifier:
    return load_classifier("support.planted:tinted_net", checkpoint=out, input_size=SIZE)


def changed(out: Path) -> set[str]:
    before = tinted_net().state_dict()
    return {name for name, value in safetensors.torch.load_file(out).items() if not torch.equal(value, before[name])}


def test_noise_deceives_less_and_photos_are_read_as_before(trained: tuple[Path, NoiseScore]) -> None:
    _, score = trained
    assert score.noisy_before < 0.8
    assert score.noisy > 0.95
    assert score.clean == 1


def test_certificates_grow_longer(trained: tuple[Path, NoiseScore]) -> None:
    """Without a patch the label was wrong under nearly all noise, so that nothing was certified."""
    x, y = grey(3), torch.full((3,), NOTHING)
    before, after = (
        uf.certify(uf.CAM(classifier), x, y, sigma=SIGMA, samples=60, goals=["other/free"])
        for classifier in (tinted(), loaded(trained[0]))
    )
    assert before.abstained.all()
    assert (after.label_radius > 0.1).all()


def test_the_head_alone_is_trained_and_the_file_says_how(trained: tuple[Path, NoiseScore]) -> None:
    out, score = trained
    assert changed(out) == {"6.weight", "6.bias"}
    about = uf.weights.read_about(out)
    assert about["settings"]["method"] == "training on noise"
    assert about["settings"]["plan"]["sigma"] == SIGMA
    assert about["history"][-1]["noisy"] == score.noisy
    assert loaded(out).fingerprint() != tinted().fingerprint()


def test_layers_that_are_named_are_trained_and_no_others(folder: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, epochs=1, learning_rate=1e-3, layers=("2", "6"))
    train(folder, tmp_path / "w.safetensors", plan)
    assert changed(tmp_path / "w.safetensors") == {"2.weight", "2.bias", "6.weight", "6.bias"}


def test_the_classifier_is_left_as_it_was(folder: Path, tmp_path: Path) -> None:
    classifier = tinted()
    before = classifier.fingerprint()
    train_noise(
        classifier, split_of(folder), tmp_path / "w.safetensors", plan=replace(PLAN, epochs=1), listener=Heard()
    )
    assert classifier.fingerprint() == before
    assert all(weight.requires_grad for weight in classifier.module.parameters())


def test_an_interrupted_training_ends_in_the_same_bits(folder: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, epochs=2)
    train(folder, tmp_path / "whole.safetensors", plan)
    with pytest.raises(KeyboardInterrupt):
        train(folder, tmp_path / "parts.safetensors", plan, Heard(until=1))
    assert not (tmp_path / "parts.safetensors").exists()
    train(folder, tmp_path / "parts.safetensors", plan)
    whole, parts = (safetensors.torch.load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layers": ("7",)}, "layer '7' is none of 'tinted'"),
        ({"layers": ("1",)}, "layer '1' of 'tinted' has no weights"),
        ({"sigma": 0.0}, "sigma is 0"),
        ({"sigma": -1.0}, "sigma is -1; .* above 0"),
        ({"sigma": float("nan")}, "sigma is nan"),
        ({"draws": 0}, "draws is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_what_cannot_be_trained_is_refused(folder: Path, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        train(folder, tmp_path / "w.safetensors", replace(PLAN, **change))
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_pooled_head_names_its_layers(folder: Path, tmp_path: Path) -> None:
    classifier = Classifier(flat_net(), input_size=SIZE, name="flat")
    with pytest.raises(InputError, match="--layers"):
        train_noise(classifier, split_of(folder), tmp_path / "w.safetensors", plan=PLAN, listener=Heard())
    plan = replace(PLAN, epochs=1, layers=("2",))
    train_noise(classifier, split_of(folder), tmp_path / "w.safetensors", plan=plan, listener=Heard())
    assert (tmp_path / "w.safetensors").is_file()


def test_a_layer_that_the_classes_do_not_depend_on_is_refused(folder: Path, tmp_path: Path) -> None:
    net = tinted_net()
    net[-1].register_module("unused", nn.Linear(2, 2))
    classifier = Classifier(net, input_size=SIZE, name="tinted")
    plan = replace(PLAN, layers=("6.unused",))
    with pytest.raises(InputError, match=r"'tinted' does not use the weights of '6\.unused'"):
        train_noise(classifier, split_of(folder), tmp_path / "w.safetensors", plan=plan, listener=Heard())
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_checkpoint_that_commands_take(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--epochs", "1", "--batch-size", "4", "--held-out", "6", "--sigma", "0.5")
    done = CliRunner().invoke(cli, ["train", "noise", str(folder), *MODEL, *options, "--out", "w.safetensors"])
    assert done.exit_code == 0, done.output
    assert "Weights: w.safetensors" in done.stdout
    shown = CliRunner().invoke(
        cli, ["explain", str(folder / "00.png"), *MODEL, "--checkpoint", "w.safetensors", "--out", "maps"]
    )
    assert shown.exit_code == 0, shown.output
    refused = CliRunner().invoke(
        cli, ["train", "noise", str(folder), *MODEL, *options, "--layers", "7", "--out", "v.safetensors"]
    )
    assert refused.exit_code == 2
    assert "layer '7' is none of" in refused.stderr
    assert not Path("v.safetensors").exists()
