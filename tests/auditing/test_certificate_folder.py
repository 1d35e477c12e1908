"""Folders of certificates that others filled: what holds is read, and what cannot be is refused in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.certified import SETTINGS, counts, write_certificates
from underfire.auditing.certificate_folder import read_certificates
from underfire.auditing.certified import part_key
from underfire.auditing.plan import PlannedPhoto
from underfire.errors import InputError

MODEL = "ab" * 32
PHOTOS = [PlannedPhoto(f"{c}.png", c, c * 64, f"{c}.png", 3, True, 5, None) for c in "abc"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_certificates(tmp_path / "certified", PHOTOS, MODEL, (20, 0))
    return tmp_path / "certified"


def test_what_holds_is_read(folder: Path) -> None:
    found = read_certificates(folder, PHOTOS, MODEL)
    assert found.settings == SETTINGS
    assert found.interpreters == {"cam": {"class": "cam", "points": 32}}
    assert [(one.interpreter, one.sigma) for one in found.certificates] == [("cam", 0.12), ("cam", 0.25)]
    for one in found.certificates:
        assert one.keys == ("a.png", "b.png")
        assert (one.samples, one.alpha, one.radii) == (100, 0.0025, (0.0, 0.1))
        assert {goal: found.tolist() for goal, found in one.counts.items()} == {
            goal: [counts(20)[goal], counts(0)[goal]] for goal in ("other/free", "other/kept", "kept/topk")
        }


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 0}, "version"),
        ({"model": "cd" * 32}, "another model"),
        ({"interpreters": []}, "no interpreters"),
        ({"samples": 0}, "samples is 0"),
        ({"samples": "many"}, "samples"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"sigmas": [-0.12, 0.25]}, "sigma is -0.12"),
        ({"sigmas": [0.12, 1e308]}, "sigma is 1e+308"),
        ({"sigmas": [1e-308]}, "sigma is 1e-308"),
        ({"sigmas": []}, "sigma"),
        ({"interpreters": {"cam": []}}, "no interpreters"),
        ({"radii": [-1]}, "radii"),
        ({"goals": ["other/moved"]}, "other/moved"),
        ({"goals": ["kept/led"]}, "kept/led"),
        ({"share": 0.01}, "share"),
        ({"alpha": 0.02}, "share"),
        ({"interpreters": {str(k): {} for k in range(5001)}, "share": 0.01 / (2 * 5001 * 2)}, "more than"),
        ({"more": 1}, "'more'"),
    ],
)
def test_settings_that_do_not_hold_are_refused(folder: Path, change: dict[str, Any], why: str) -> None:
    path = folder / "certify.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=r"certify\.json") as caught:
        read_certificates(folder, PHOTOS, MODEL)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted({"alpha", "goals", "version", "model", "interpreters"}))
def test_settings_that_are_missing_are_refused(folder: Path, name: str) -> None:
    path = folder / "certify.json"
    told = json.loads(path.read_text())
    del told[name]
    path.write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"certify\.json"):
        read_certificates(folder, PHOTOS, MODEL)


Spoil = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda part: part.update(image_id="b.png"), "'b.png'"),
        (lambda part: part.update(label=4), "label"),
        (lambda part: part.update(target=4), "target"),
        (lambda part: part["found"].pop(), "other interpreters"),
        (lambda part: part["found"].append(part["found"][0]), "other interpreters"),
        (lambda part: part["found"][0].update(interpreter="\x1b[31mcam"), "other interpreters"),
        (lambda part: part["found"][0].update(sigma=0.5), "other interpreters"),
        (lambda part: part["found"][0]["counts"].pop("kept/topk"), "its counts of 'cam'"),
        (lambda part: part["found"][0]["counts"].pop("other/free"), "its counts of 'cam'"),
        (lambda part: part["found"][0]["counts"].update({"other/l1": 1}), "its counts of 'cam'"),
        (lambda part: part["found"][0]["counts"].update({"other/free": 101}), "its counts"),
        (lambda part: part["found"][0]["counts"].update({"other/free": -1}), "its counts"),
        (lambda part: part["found"][0]["counts"].update({"other/kept": 21}), "its counts"),
        (lambda part: part["found"][0]["counts"].update({"kept/topk": 81}), "its counts"),
        (lambda part: part["found"][0]["counts"].update({"kept/topk": 1.5}), "1.5"),
        (lambda part: part["found"][0].update(cells=[-1, 0, 0]), "cells"),
        (lambda part: part["found"][0].update(cells_iou=1.5), "cells"),
    ],
)
def test_parts_that_no_draws_made_are_refused(folder: Path, spoil: Spoil, why: str) -> None:
    path = folder / "photos" / f"{part_key(PHOTOS[0])}.json"
    part = json.loads(path.read_text())
    spoil(part)
    path.write_text(json.dumps(part))
    with pytest.raises(InputError, match=path.name) as caught:
        read_certificates(folder, PHOTOS, MODEL)
    assert why in str(caught.value)
    assert str(caught.value).isprintable()


def test_interpreters_that_saw_different_labels_in_the_same_draws_are_refused(tmp_path: Path) -> None:
    write_certificates(tmp_path, PHOTOS, MODEL, (20,), ("cam", "grad"))
    assert len(read_certificates(tmp_path, PHOTOS, MODEL).certificates) == 4
    path = tmp_path / "photos" / f"{part_key(PHOTOS[0])}.json"
    part = json.loads(path.read_text())
    part["found"][0]["counts"]["other/free"] += 1
    path.write_text(json.dumps(part))
    with pytest.raises(InputError, match="different labels"):
        read_certificates(tmp_path, PHOTOS, MODEL)


def test_what_is_no_folder_of_these_photos_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the 1 photos"):
        read_certificates(folder, PHOTOS[2:], MODEL)
    for other in (tmp_path / "none", folder / "photos"):
        with pytest.raises(InputError, match=r"certify\.json"):
            read_certificates(other, PHOTOS, MODEL)
    (folder / "photos" / f"{part_key(PHOTOS[2])}.json").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="cannot be used"):
        read_certificates(folder, PHOTOS, MODEL)
