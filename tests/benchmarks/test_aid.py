"""The comparison of two networks: its numbers are those of the maps, and its tables hold them."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.aid import (
    AFTER,
    BEFORE,
    NOISE,
    Networks,
    Seen,
    attack_table,
    attacked,
    attacks,
    main,
    noise_table,
    noisy,
    quality,
    quality_table,
)
from benchmarks.quality.measure import Batch
from support.planted import planted_classifier, write_planted
from support.toys import images
from underfire import RTS, Classifier, MaskingNetwork
from underfire.images import find_photos
from underfire.images.dataset import Photos, read_sources
from underfire.training.plan import RtsPlan


def networks_of(classifier: Classifier) -> Networks:
    made = {name: MaskingNetwork.untrained(classifier, seed=seed) for seed, name in enumerate((BEFORE, AFTER))}
    return {name: RTS(classifier, network=network) for name, network in made.items()}


@pytest.fixture
def parts(relu_classifier: Classifier) -> list[Batch]:
    x = (images(3, 32) * 255).round() / 255
    label = relu_classifier(x).argmax(dim=1)
    target = (label + 1) % relu_classifier.num_classes
    return [Batch(("a", "b"), x[:2], label[:2], target[:2]), Batch(("c",), x[2:], label[2:], target[2:])]


def test_an_attack_is_seen_through_both_networks_each_beside_its_own_benign_maps(
    relu_classifier: Classifier, parts: list[Batch]
) -> None:
    networks = networks_of(relu_classifier)
    seen = attacked(parts, networks, lambda batch: (batch.x + 0.001).clamp(0, 1))
    assert len(seen.success) == len(seen.p) == 3, "less than half a grey level is none"
    x, label, target = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "label", "target"))
    for name, g in networks.items():
        wanted = (g(x, target) - g(x, label)).abs().mean(dim=(1, 2))
        torch.testing.assert_close(torch.tensor(seen.l1[name]), wanted)
    assert seen.success == (relu_classifier(x).argmax(dim=1) == target).tolist()


def test_the_attacks_know_the_network_that_they_are_named_after(
    relu_classifier: Classifier, parts: list[Batch]
) -> None:
    networks = networks_of(relu_classifier)
    seen = {name: attacked(parts, networks, attack) for name, attack in attacks(networks, 40).items()}
    assert list(seen) == ["PGD", f"ADV² on the network {BEFORE}", f"ADV² on the network {AFTER}"]
    assert all(any(one.success) for one in seen.values())
    for name in (BEFORE, AFTER):
        own, pgd = seen[f"ADV² on the network {name}"], seen["PGD"]
        assert sum(own.l1[name]) < sum(pgd.l1[name])


def test_noise_belongs_to_the_photo_and_the_seed(relu_classifier: Classifier, parts: list[Batch]) -> None:
    networks = networks_of(relu_classifier)
    found = noisy(parts, networks, 0)
    assert found == noisy(parts, networks, 0)
    assert found != noisy(parts, networks, 1)
    (last,) = (noisy(parts[1:], networks, 0)[BEFORE][level] for level in NOISE[:1])
    assert found[BEFORE][NOISE[0]][2:] == last
    assert sum(found[BEFORE][NOISE[0]]) < sum(found[BEFORE][NOISE[1]])


def test_tables_hold_what_was_measured() -> None:
    seen = Seen([True, False, True], [0.9, 0.1, 0.8], {BEFORE: [0.1, 0.9, 0.3], AFTER: [0.4, 0.0, 0.8]})
    (row,) = attack_table({"PGD": seen}, 10).rows
    assert row[0] == "PGD"
    assert [cell.split(" ")[0] for cell in row[1:]] == [
        "0.667",
        "0.850",
        "2",
        "0.200",
        "0.600",
        "+0.400",
        "0.433",
        "0.400",
    ]
    noise = noise_table({BEFORE: {4: [0.1, 0.3], 8: [0.2, 0.2]}, AFTER: {4: [0.5, 0.5], 8: [0.1, 0.1]}})
    assert [[cell.split(" ")[0] for cell in row[1:]] for row in noise.rows] == [
        ["0.200", "0.500", "+0.300"],
        ["0.200", "0.100", "-0.100"],
    ]


def test_quality_is_the_score_of_each_photo(tmp_path: Path) -> None:
    classifier = planted_classifier()
    found = find_photos([write_planted(tmp_path / "photos", 3)], class_names=("nothing", "red", "blue")).photos
    sources, _ = read_sources(found, classifier)
    networks = networks_of(classifier)
    scores = quality(Photos(sources, classifier), networks, RtsPlan(batch_size=2))
    assert scores[BEFORE]["moved"] == [0.0] * 3
    x = torch.stack([Photos(sources, classifier)[i] for i in range(3)])
    top = classifier(x).argmax(dim=1)
    before, after = (g(x, top) for g in networks.values())
    assert scores[AFTER]["moved"] == pytest.approx((after - before).abs().mean(dim=(1, 2)).tolist(), abs=1e-5)
    assert scores[AFTER]["area"] == pytest.approx(after.mean(dim=(1, 2)).tolist(), abs=1e-5)
    table = quality_table(scores)
    assert [row[0] for row in table.rows] == ["loss", "clean", "kept", "destroyed", "area", "absent area", "moved"]
    assert "n = 3" in table.title


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["--help"]).exit_code == 0
    refused = CliRunner().invoke(main, [str(tmp_path), "--rts", str(tmp_path / "gone.safetensors")])
    assert refused.exit_code == 1
    assert "is no file" in refused.output
