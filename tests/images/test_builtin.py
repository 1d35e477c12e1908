import re

import pytest
import torch

from underfire.images import Preprocessing, builtin_photos, find_photos, load_photo
from underfire.models.class_names import imagenet_names
from underfire.models.classifier import Classifier


def test_the_built_in_photos() -> None:
    found = builtin_photos()
    assert not found.skipped
    assert len(found.photos) == 12
    assert [photo.image_id for photo in found.photos] == sorted(photo.image_id for photo in found.photos)
    assert found.photos[0].image_id == "00_german_shepherd.jpg"
    assert [photo.label for photo in found.photos[:4]] == [235, 967, 387, 567]
    assert all(photo.target is None for photo in found.photos)
    loaded = load_photo(found.photos[10].path, Preprocessing(resize=256, input_size=(224, 224)))
    assert loaded.original_size == (450, 300)


def test_their_folder_named_as_a_source_holds_the_same_photos() -> None:
    found = builtin_photos()
    folder = found.photos[0].path.parent
    assert find_photos([folder], class_names=imagenet_names()) == found
    assert {path.name for path in folder.glob("*.jpg")} == {photo.image_id for photo in found.photos}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 600_000


def test_the_credits_name_class_author_licence_and_source_of_every_photo() -> None:
    photos = builtin_photos().photos
    text = (photos[0].path.parent / "README.md").read_text(encoding="utf-8")
    credited = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")
    ]
    names = imagenet_names()
    assert [row[:2] for row in credited] == [[f"`{p.image_id}`", names[p.label or 0]] for p in photos]
    for _, _, author, licence, source in credited:
        assert author
        assert licence in ("Public domain", "CC0-1.0")
        assert re.search(r"https://\S+\), GCompris$|^scikit-image, `data\.\w+`", source)


@pytest.mark.real
def test_the_built_in_model_gets_all_of_them_right(efficientnet: Classifier) -> None:
    photos = builtin_photos().photos
    x = torch.stack([load_photo(photo.path, efficientnet.preprocessing).pixels for photo in photos]) / 255
    p, predicted = efficientnet.probabilities(x).max(dim=1)
    assert predicted.tolist() == [photo.label for photo in photos]
    assert float(p.min()) > 0.7
