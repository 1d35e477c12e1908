"""Training of the masking network, on photos where it is known what the classifier sees."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from support.planted import BLUE, RED, planted, planted_classifier, write_planted
from support.traces import untouched
from underfire.errors import InputError
from underfire.images import find_photos
from underfire.images.dataset import Split, drawn, read_sources, split_photos
from underfire.interpreters.masking.network import MaskingNetwork
from underfire.interpreters.rts import RTS
from underfire.models.classifier import Classifier
from underfire.training.plan import RtsPlan
from underfire.training.rts import train_rts
from underfire.training.scores import Score

SHORT = RtsPlan(epochs=3, batch_size=4)
LONG = RtsPlan(epochs=30, batch_size=4, learning_rate=5e-3)


class Heard:
    """A listener that remembers, and may have enough after an epoch."""

    def __init__(self, *, until: int | None = None) -> None:
        self.until, self.scores = until, list[Any]()
        self.began_at: int | None = None
        self.steps = 0

    def began(self, epochs: int, finished: int, steps: int) -> None:
        self.began_at = finished

    def stepped(self) -> None:
        self.steps += 1

    def scored(self, epoch: int, score: Score) -> None:
        self.scores.append(score)
        if epoch == self.until:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted") / "photos", 20)


def split_of(folder: Path, classifier: Classifier, *, held_out: int = 6) -> Split:
    sources, skipped = read_sources(find_photos([folder], class_names=("nothing", "red", "blue")).photos, classifier)
    assert not skipped
    return split_photos(sources, drawn(sources, held_out, 0), classifier)


def train(folder: Path, out: Path, plan: RtsPlan, *, heard: Heard | None = None) -> MaskingNetwork:
    classifier = planted_classifier()
    listener = Heard() if heard is None else heard
    return train_rts(classifier, split_of(folder, classifier), out, plan=plan, listener=listener)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_it_learns_where_the_planted_patch_is(folder: Path, tmp_path: Path) -> None:
    heard = Heard()
    network = train(folder, tmp_path / "w.safetensors", LONG, heard=heard)
    x, where = planted(16, seed=9)
    rts = RTS(planted_classifier(), network=network)
    maps = rts(x, torch.full((16,), RED))
    inside = (maps * where).sum(dim=(1, 2)) / where.sum(dim=(1, 2))
    outside = (maps * (1 - where)).sum(dim=(1, 2)) / (1 - where).sum(dim=(1, 2))
    assert float(inside.min()) > 0.5
    assert float(outside.max()) < 0.3
    assert float(rts(x, torch.full((16,), BLUE)).mean()) < 0.05, "the map of a class that is not there is not empty"
    first, last = heard.scores[0], heard.scores[-1]
    assert last.loss < first.loss
    assert (last.clean, last.kept) > (0.9, 0.9)
    assert last.destroyed < 0.5


def test_an_interrupted_training_ends_in_the_same_bits(folder: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    straight = Heard()
    train(folder, whole, SHORT, heard=straight)
    for until in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            train(folder, parts, SHORT, heard=Heard(until=until))
        assert not parts.exists()
    resumed = Heard()
    network = train(folder, parts, SHORT, heard=resumed)
    assert resumed.began_at == 2
    assert resumed.steps == 4
    assert resumed.scores == straight.scores[2:]
    assert same(weights(whole), weights(parts))
    assert len(network.about["history"]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.safetensors", "whole.safetensors"]


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a short training."""
    out = tmp_path_factory.mktemp("finished") / "w.safetensors"
    train(folder, out, SHORT)
    return out


@pytest.fixture(scope="module")
def begun(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the weights of a training will be that was stopped after an epoch."""
    out = tmp_path_factory.mktemp("begun") / "w.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(folder, out, SHORT, heard=Heard(until=1))
    return out


def test_finished_weights_are_not_trained_again(folder: Path, finished: Path) -> None:
    before, heard = finished.read_bytes(), Heard()
    assert train(folder, finished, SHORT, heard=heard).about["history"]
    assert finished.read_bytes() == before
    assert heard.steps == 0


@pytest.mark.parametrize("change", [{"seed": 1}, {"epochs": 4}, {"batch_size": 2}], ids=str)
def test_other_settings_are_refused(folder: Path, begun: Path, finished: Path, change: dict[str, int]) -> None:
    other = replace(SHORT, **change)
    with pytest.raises(
        InputError, match=r"checkpoint '.*w.checkpoint.safetensors' is of a training with other settings"
    ):
        train(folder, begun, other)
    with pytest.raises(InputError, match=r"'.*w.safetensors' was trained with other settings"):
        train(folder, finished, other)


def test_other_photos_are_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="other settings"):
        train(write_planted(tmp_path / "others", 20, seed=1), finished, SHORT)


def test_a_damaged_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "w.checkpoint.safetensors").write_bytes(b"\x10" * 100)
    with pytest.raises(InputError, match=r"'.*w.checkpoint.safetensors' is damaged"):
        train(folder, tmp_path / "w.safetensors", SHORT)


def test_the_seed_decides_the_weights(folder: Path, finished: Path, tmp_path: Path) -> None:
    for name, plan in (("again", SHORT), ("other", replace(SHORT, seed=1))):
        train(folder, tmp_path / f"{name}.safetensors", plan)
    first = weights(finished)
    assert same(first, weights(tmp_path / "again.safetensors"))
    assert not same(first, weights(tmp_path / "other.safetensors"))


def test_it_leaves_no_trace(folder: Path, tmp_path: Path) -> None:
    classifier = planted_classifier()
    classifier.module.train()
    with untouched(classifier.module):
        split = split_of(folder, classifier)
        train_rts(classifier, split, tmp_path / "w.safetensors", plan=replace(SHORT, epochs=1), listener=Heard())


def test_an_encoder_of_its_own_is_trained_on(folder: Path, tmp_path: Path) -> None:
    classifier, encoder = planted_classifier(), planted_classifier()
    next(encoder.module.parameters()).data.mul_(1.1)
    encoder.name = "another"
    out = tmp_path / "w.safetensors"
    train_rts(classifier, split_of(folder, classifier), out, plan=SHORT, listener=Heard(), encoder=encoder)
    assert MaskingNetwork.load(out, classifier, encoder=encoder).encoder is encoder
    with pytest.raises(InputError, match=r"holds weights for encoder 'another' .*, not for none"):
        MaskingNetwork.load(out, classifier)


def test_a_loss_that_is_no_number_names_the_photo_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match=r"training loss is not a finite number for photo '\d\d.png'; take that photo"):
        train(folder, out, replace(SHORT, learning_rate=1e30))
    assert not out.exists()


def test_photos_must_be_left_on_both_sides(folder: Path) -> None:
    with pytest.raises(InputError, match="0 photos are left for training and 20 are held out"):
        split_of(folder, planted_classifier(), held_out=20)


def test_held_out_photos_are_drawn_by_the_seed(folder: Path) -> None:
    sources, _ = read_sources(
        find_photos([folder], class_names=("nothing", "red", "blue")).photos, planted_classifier()
    )
    few, more = drawn(sources, 4, 0), drawn(sources, 8, 0)
    assert len(few) == 4
    assert few < more
    assert drawn(sources[::-1], 4, 0) == few
    assert drawn(sources, 4, 1) != few


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"area": -1.0}, "area is -1.0"),
        ({"area_power": 0.0}, "area_power is 0"),
        ({"smallest_crop": 1.5}, "smallest_crop is 1.5"),
        ({"brightness": 1.0}, "brightness is 1"),
    ],
)
def test_a_plan_is_checked(change: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        replace(SHORT, **change)  # type: ignore[arg-type]
