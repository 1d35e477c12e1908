import sys

import pytest

from underfire.errors import InputError
from underfire.images import builtin, builtin_photos, load_photo


def test_the_built_in_photos() -> None:
    found = builtin_photos()
    assert not found.skipped
    assert len(found.photos) == 20
    assert [photo.image_id for photo in found.photos] == sorted(photo.image_id for photo in found.photos)
    assert found.photos[0].image_id == "imagenet_00_243.jpg"
    assert [photo.label for photo in found.photos[:4]] == [243, 559, 438, 990]
    assert all(photo.target is None for photo in found.photos)
    loaded = load_photo(found.photos[10].path, resize=256, input_size=(224, 224))
    assert loaded.original_size == (1024, 683)


def test_foolbox_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "foolbox"]:
        monkeypatch.delitem(sys.modules, name)
    assert builtin_photos().photos
    assert "foolbox" not in sys.modules


def test_a_missing_dependency_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="install foolbox"):
        builtin_photos()
