"""The transformer that comes with the package, on pages drawn here."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import underfire as uf
from benchmarks.pages import TURNS, drawn_page, turned
from benchmarks.pages import main as draw
from underfire.images import find_photos, load_photo
from underfire.models.pages_vit import CLASSES, WEIGHTS, PagesViT

PAGES, SEED = 20, 3  # pages of this seed took no part in training, nor in what the card says
LOGITS = (4.1575, -1.5809, -2.5761, -1.1234)


@pytest.fixture(scope="module")
def classifier() -> uf.Classifier:
    return uf.load_classifier("pages-vit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    result = CliRunner().invoke(draw, [str(folder), "--pages", str(PAGES), "--seed", str(SEED)])
    assert result.exit_code == 0, result.output
    return folder


def test_it_knows_which_way_up_a_page_lies(classifier: uf.Classifier, folder: Path) -> None:
    found = find_photos([folder], class_names=classifier.class_names)
    assert not found.skipped
    labels = [photo.label for photo in found.photos if photo.label is not None]
    assert sorted(labels) == sorted([0, 1, 2, 3] * (PAGES // 4))
    x = torch.stack([load_photo(photo.path, classifier.preprocessing).pixels for photo in found.photos]) / 255
    right = classifier(x).argmax(dim=1) == torch.tensor(labels)
    assert int(right.sum()) >= PAGES - 1


def test_its_logits_are_those_of_the_weights_that_were_measured(classifier: uf.Classifier) -> None:
    height, width = classifier.input_size
    waves = torch.sin(torch.arange(3 * height * width) / 50).reshape(1, 3, height, width) / 2 + 0.5
    assert torch.allclose(classifier(waves), torch.tensor([LOGITS]), atol=1e-3)
    assert WEIGHTS.stat().st_size <= 3 * 2**20


def test_its_picture_is_the_patches_that_the_last_block_is_given(classifier: uf.Classifier) -> None:
    features = uf.GradCAM(classifier).features
    assert (features.module, features.grid, features.layout.prefix) == ("blocks.2", (8, 8), 1)


def test_an_audit_needs_its_name_and_a_folder_of_pages(folder: Path, tmp_path: Path) -> None:
    page = folder / "90" / f"page-{SEED}-0001.png"
    run = uf.audit(uf.load_classifier("pages-vit"), page, interpreters=["gradcam"], steps=3, out=tmp_path / "run")
    assert set(run.rows["label"].to_pylist()) == {1}


def test_a_checkpoint_may_have_other_classes(tmp_path: Path) -> None:
    torch.save(PagesViT(2).state_dict(), tmp_path / "weights.pt")
    classifier = uf.load_classifier("pages-vit", checkpoint=tmp_path / "weights.pt", class_names=["up", "down"])
    assert classifier.class_names == ("up", "down")
    torch.save(PagesViT().state_dict(), tmp_path / "weights.pt")
    assert uf.load_classifier("pages-vit", checkpoint=tmp_path / "weights.pt").class_names == CLASSES


def test_a_page_is_the_same_every_time() -> None:
    assert drawn_page(SEED, 0).tobytes() == drawn_page(SEED, 0).tobytes() != drawn_page(SEED, 1).tobytes()


def test_pages_turn_clockwise() -> None:
    page = Image.new("L", (4, 4))
    page.putpixel((0, 0), 255)
    corners = ((0, 0), (3, 0), (3, 3), (0, 3))
    assert [turned(page, turn).getpixel(corner) for turn, corner in zip(TURNS, corners, strict=True)] == [255] * 4
