"""The maps' benchmark measures what it says; its numbers on real photos are asserted nowhere."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageDraw

from benchmarks.contenders import contenders
from benchmarks.faithfulness import SHARES, main, measure, tables
from benchmarks.localisation import energy_inside, points_inside
from benchmarks.localisation import table as localisation_table
from benchmarks.quality.measure import Batch
from benchmarks.stamps import SIZES, compose, find_stamps, scenes
from benchmarks.tables import interval
from support.toys import images
from underfire import Classifier
from underfire.errors import InputError
from underfire.interpreters.faithfulness import Probe
from underfire.stats import Estimate

RED = (255, 0, 0)


@pytest.fixture
def stamps(tmp_path: Path) -> Path:
    """Red discs and bars on nothing, in Tux Paint's folders; a drawing, a speck and an empty one among them."""
    for name, box in {
        "animals/birds/disc.png": (20, 30, 120, 130),
        "animals/bar.png": (0, 60, 149, 80),
        "food/egg.png": (10, 10, 90, 140),
        "animals/cartoon/drawing.png": (10, 10, 100, 100),
        "vehicles/speck.png": (10, 10, 40, 40),
        "vehicles/empty.png": (0, 0, 0, 0),
        "symbols/star.png": (10, 10, 100, 100),
    }.items():
        picture = Image.new("RGBA", (150, 150), (0, 255, 0, 0))  # green behind the outline
        if any(box):
            ImageDraw.Draw(picture).ellipse(box, fill=(*RED, 255))
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / name)
    return tmp_path


def test_stamps_of_photos_are_found(stamps: Path) -> None:
    found = [path.relative_to(stamps).as_posix() for path in find_stamps(stamps)]
    assert found == sorted(found)
    assert {Path(name).stem for name in found} == {"disc", "bar", "egg", "speck", "empty"}
    assert [path.stem for path in find_stamps(stamps / "symbols")] == ["star"]  # a folder of one's own
    (stamps / "none").mkdir()
    with pytest.raises(InputError, match="holds no PNG"):
        find_stamps(stamps / "none")


def test_a_scene_shows_its_stamp_where_the_mask_says(stamps: Path) -> None:
    size = (96, 160)
    seen = set()
    for seed in range(12):
        made = compose(stamps / "animals/birds/disc.png", size, seed=seed, key="disc")
        assert made is not None
        x, inside = made
        assert x.shape == (3, *size)
        assert inside.shape == size
        assert torch.equal((x * 255).round() / 255, x)
        torch.testing.assert_close(x[:, inside].mean(dim=1), torch.tensor([1.0, 0.0, 0.0]), atol=0.05, rtol=0)
        outside = x[:, ~inside]
        assert 0.2 < outside[0].mean() < 0.8
        assert (outside[1] - outside[0]).max() < 0.35  # the green behind the outline is nowhere
        rows, columns = inside.any(dim=1).nonzero(), inside.any(dim=0).nonzero()
        height, width = (int(ends.max() - ends.min()) + 1 for ends in (rows, columns))
        assert abs(height - width) <= 2
        assert SIZES[0] * 96 - 2 <= height <= SIZES[1] * 96 + 2
        assert inside.sum().item() == pytest.approx(torch.pi / 4 * height * width, rel=0.04)
        seen.add((int(rows.min()), int(columns.min()), height))
    assert len(seen) == 12
    again = compose(stamps / "animals/birds/disc.png", size, seed=0, key="disc")
    first = compose(stamps / "animals/birds/disc.png", size, seed=0, key="disc")
    assert again is not None
    assert first is not None
    assert torch.equal(again[0], first[0])


@pytest.mark.parametrize("name", ["vehicles/speck.png", "vehicles/empty.png"])
def test_stamps_too_small_to_be_shown_are_left_out(stamps: Path, name: str) -> None:
    assert compose(stamps / name, (64, 64), seed=0, key=name) is None


def test_scenes_are_those_of_which_the_classifier_is_sure(stamps: Path, relu_classifier: Classifier) -> None:
    found = scenes(relu_classifier, find_stamps(stamps), stamps, limit=9, confidence=0.0)
    assert set(found.names) == {"animals/birds/disc.png", "animals/bar.png", "food/egg.png"}
    assert found.tried == 3
    p = relu_classifier.probabilities(found.x)
    assert torch.equal(p.argmax(dim=1), found.classes)
    order = p.amax(dim=1).sort(descending=True)
    some = scenes(relu_classifier, find_stamps(stamps), stamps, limit=9, confidence=float(order.values[1]) - 1e-6)
    assert some.tried == 3
    assert set(some.names) == {found.names[place] for place in order.indices[:2].tolist()}
    assert scenes(relu_classifier, find_stamps(stamps), stamps, limit=1, confidence=0.0).tried == 1
    with pytest.raises(InputError, match=r"on none of the 3 stamps .* a class at 1.1; give others"):
        scenes(relu_classifier, find_stamps(stamps), stamps, limit=9, confidence=1.1)


def test_energy_and_pointing_in_closed_form() -> None:
    inside = torch.zeros(5, 16, 16, dtype=torch.bool)
    inside[:, :, :4] = True
    maps = torch.zeros(5, 4, 4)
    maps[0] = 1  # constant: the object's share of the picture
    maps[2, 1, 3] = 1  # far away
    maps[3, 2, 0] = 0.3  # half of its column's mass bleeds over the edge of a cell, none of it beyond the next one
    maps[4, :, 0], maps[4, :, 3] = 1, 1  # two maxima as large
    expected = [0.25, 0.25, 0.0]
    assert energy_inside(maps, inside)[:3].tolist() == pytest.approx(expected)
    assert 0.6 < energy_inside(maps, inside)[3].item() < 1
    assert points_inside(maps, inside).tolist() == pytest.approx([0.25, 0.25, 0.0, 1.0, 0.5])
    pixels = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(0))
    share = (pixels * inside).sum(dim=(1, 2)) / pixels.sum(dim=(1, 2))
    torch.testing.assert_close(energy_inside(pixels, inside).float(), share)
    torch.testing.assert_close(energy_inside(pixels * 1e-9, inside), energy_inside(pixels, inside))


def test_the_controls_know_nothing_and_belong_to_their_photo(relu_classifier: Classifier) -> None:
    makers = contenders(relu_classifier, ["cam"])
    assert list(makers) == ["cam", "random 7×7", "random 56×56", "centre"]
    x, y = images(2, 32), torch.tensor([1, 2])
    for name in list(makers)[1:]:
        maps = makers[name](x, y, ["a", "b"])
        assert torch.equal(maps, makers[name](1 - x, y + 3, ["a", "b"]))
        assert torch.equal(maps[1:], makers[name](x[1:], y[1:], ["b"]))
    assert not torch.equal(*makers["random 7×7"](x, y, ["a", "b"]))
    (centre,) = makers["centre"](x[:1], y[:1], ["a"])
    torch.testing.assert_close(centre, centre.flip(0))
    torch.testing.assert_close(centre, centre.T)
    assert centre.max() == centre[28, 28]
    with pytest.raises(InputError, match="'gard'"):
        contenders(relu_classifier, ["gard"])


def test_tables_hold_what_was_measured(stamps: Path, relu_classifier: Classifier) -> None:
    x = images(3, 32)
    label = relu_classifier(x).argmax(dim=1)
    parts = [Batch(("a", "b"), x[:2], label[:2], label[:2]), Batch(("c",), x[2:], label[2:], label[2:])]
    makers, probe = contenders(relu_classifier, ["grad", "cam"]), Probe()
    scores = measure(relu_classifier, makers, parts, probe)
    values, differences, sweep = tables(scores, "grad", probe)
    assert [row[0] for row in values.rows] == [row[0] for row in sweep.rows] == list(makers)
    assert [row[0] for row in differences.rows] == list(makers)[1:]
    (cam,) = [row for row in values.rows if row[0] == "cam"]
    assert cam[1].startswith(f"{sum(scores['cam'].deletion) / 3:.3f} [")
    assert cam[4].startswith(f"{sum(scores['cam'].holds[0.2]) / 3:.3f} [")
    (less,) = [row for row in differences.rows if row[0] == "cam"]
    gain = sum(scores["cam"].insertion) / 3 - sum(scores["grad"].insertion) / 3
    assert less[2].startswith(f"{gain:+.3f} [")
    assert len(sweep.columns) == 1 + len(SHARES)

    found = scenes(relu_classifier, find_stamps(stamps), stamps, limit=3, confidence=0.0)
    located = localisation_table(found, makers, "grad", 2)
    assert [row[0] for row in located.rows] == list(makers)
    assert located.notes[0].startswith("n = 3 of 3 stamps")
    whole = localisation_table(found, makers, "grad", 3)
    assert located.rows == whole.records


def test_intervals_are_shown_where_there_are_any() -> None:
    assert interval(Estimate(0.5, 0.25, 0.75, 3)) == "0.500 [0.250, 0.750]"
    assert interval(Estimate(0.5, -0.25, 0.75, 3), signed=True) == "+0.500 [-0.250, +0.750]"
    assert interval(Estimate(0.5, None, None, 1)) == "0.500"
    assert interval(Estimate(None, None, None, 0)) == "-"


def test_the_command_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["--help"]).exit_code == 0
    refused = CliRunner().invoke(main, [str(tmp_path), "--interpreters", "gard"])
    assert refused.exit_code == 1
    assert "did you mean 'grad'" in refused.output
