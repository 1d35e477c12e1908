"""``python -m benchmarks.aid PHOTOS --rts NEW``: what adversarial interpretation training did to RTS's maps.

The network before and after: its maps of benign photos, under noise, and of adversarial images. ADV² knows the one
network or the other; against the one after the training it is the adaptive attack.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import click
import torch
from torch import Tensor

from benchmarks.header import header
from benchmarks.quality.measure import Batch, batches
from benchmarks.tables import Table, interval
from underfire import ADV2, PGD, RTS, MaskingNetwork, load_classifier, metrics, stats
from underfire.errors import InputError
from underfire.images import find_photos
from underfire.images.dataset import Photos, read_sources
from underfire.interpreters.rts import default_weights
from underfire.seeding import generator
from underfire.training.batches import whole_batches
from underfire.training.plan import RtsPlan
from underfire.training.scores import RtsScore, numbers
from underfire.training.step import TrainingStep

BEFORE, AFTER = "before", "after"
NOISE = (4, 8)
"""Standard deviations of the noise, in grey levels."""


Networks = Mapping[str, RTS]
"""The interpreters with the weights before and after."""


@dataclass(frozen=True)
class Seen:
    """One attack on all photos, the images rounded to whole grey levels.

    Attributes:
        success: per photo, whether the target class is the prediction.
        p: per photo, the probability of the target class.
        l1: by network, per photo the L1 distance of the map for the target class from the benign map for the label,
            both by that network.
    """

    success: list[bool]
    p: list[float]
    l1: dict[str, list[float]]

    def of_successes(self, name: str) -> list[float]:
        """The distances by the network ``name`` on photos that got the target class."""
        return [value for value, reached in zip(self.l1[name], self.success, strict=True) if reached]


def quality(photos: Photos, networks: Networks, plan: RtsPlan) -> dict[str, dict[str, list[float]]]:
    """By network the numbers of its score and ``moved``, the L1 distance of its map from that before, one per photo."""
    found: dict[str, list[Mapping[str, Tensor]]] = {name: [] for name in networks}
    steps = {name: TrainingStep.of(g.network, g.classifier, plan) for name, g in networks.items()}
    for batch in whole_batches(photos, networks[BEFORE].classifier, plan):
        with torch.no_grad():
            seen = {name: step(batch) for name, step in steps.items()}
        for name, one in seen.items():
            found[name].append(numbers(one) | {"moved": metrics.l1(one.maps, seen[BEFORE].maps)})
    return {name: _joined(parts) for name, parts in found.items()}


def noisy(parts: Sequence[Batch], networks: Networks, seed: int) -> dict[str, dict[int, list[float]]]:
    """By network and level of noise, per photo, the L1 distance of the map under noise from the map without."""
    found: dict[str, dict[int, list[float]]] = {name: {level: [] for level in NOISE} for name in networks}
    for batch in parts:
        for level in NOISE:
            draws = [torch.randn(x.shape, generator=generator(seed, name, "noise", level))
                     for name, x in zip(batch.names, batch.x, strict=True)]  # fmt: skip
            x = (batch.x + torch.stack(draws).to(batch.x) * level / 255).clamp(0, 1)
            for name, g in networks.items():
                distance = metrics.l1(g(x, batch.label), g(batch.x, batch.label))
                found[name][level] += distance.tolist()
    return found


def attacked(parts: Sequence[Batch], networks: Networks, attack: Callable[[Batch], Tensor]) -> Seen:
    """What both networks show of the images that ``attack`` makes of the photos."""
    seen = Seen([], [], {name: [] for name in networks})
    classifier = networks[BEFORE].classifier
    for batch in parts:
        x = (attack(batch) * 255).round() / 255
        with torch.no_grad():
            logits = classifier(x)
        seen.success.extend((logits.argmax(dim=1) == batch.target).tolist())
        seen.p.extend(logits.softmax(dim=1).gather(1, batch.target[:, None]).flatten().tolist())
        for name, g in networks.items():
            seen.l1[name] += metrics.l1(g(x, batch.target), g(batch.x, batch.label)).tolist()
    return seen


def attacks(networks: Networks, passes: int) -> dict[str, Callable[[Batch], Tensor]]:
    """PGD, and ADV² on each network, each with ``passes``, by what the table calls it."""
    pgd = PGD(networks[BEFORE].classifier, passes=passes)

    def joint(g: RTS) -> Callable[[Batch], Tensor]:
        attack = ADV2(g, passes=passes)
        return lambda batch: attack(batch.x, batch.target, label=batch.label, keys=batch.names).x_adv

    found: dict[str, Callable[[Batch], Tensor]] = {
        "PGD": lambda batch: pgd(batch.x, batch.target, keys=batch.names).x_adv
    }
    return found | {f"ADV² on the network {name}": joint(g) for name, g in networks.items()}


def quality_table(found: Mapping[str, Mapping[str, Sequence[float]]]) -> Table:
    """A line for each number: both networks and their paired difference."""
    n = len(found[BEFORE]["moved"])
    rows = [
        (
            name.replace("_", " "),
            *(interval(stats.bootstrap_mean(found[network][name])) for network in (BEFORE, AFTER)),
            interval(stats.bootstrap_paired(found[AFTER][name], found[BEFORE][name]), signed=True),
        )
        for name in found[BEFORE]
    ]
    notes = ("The score of a training; moved: L1 distance of the map of the top class from that before.",)
    return Table(f"Benign photos, n = {n}, means [95 %]", ("", BEFORE, AFTER, "after less before"), rows, notes)


def noise_table(found: Mapping[str, Mapping[int, Sequence[float]]]) -> Table:
    """A line for each level of noise."""
    n = len(found[BEFORE][NOISE[0]])
    rows = [
        (
            f"σ {level}/255",
            *(interval(stats.bootstrap_mean(found[network][level])) for network in (BEFORE, AFTER)),
            interval(stats.bootstrap_paired(found[AFTER][level], found[BEFORE][level]), signed=True),
        )
        for level in NOISE
    ]
    return Table(
        f"L1 distance of maps under Gaussian noise, n = {n}, means [95 %]",
        ("noise", BEFORE, AFTER, "after less before"),
        rows,
    )


def attack_table(found: Mapping[str, Seen], passes: int) -> Table:
    """A line for each attack: how often it got there, and how far its maps are from benign ones."""
    rows = []
    for name, seen in found.items():
        before, after = (seen.of_successes(network) for network in (BEFORE, AFTER))
        rows.append(
            (
                name,
                interval(stats.wilson(sum(seen.success), len(seen.success))),
                interval(stats.bootstrap_mean([p for p, ok in zip(seen.p, seen.success, strict=True) if ok])),
                str(len(before)),
                *(interval(stats.bootstrap_mean(one)) for one in (before, after)),
                interval(stats.bootstrap_paired(after, before), signed=True),
                *(interval(stats.bootstrap_mean(seen.l1[network])) for network in (BEFORE, AFTER)),
            )
        )
    columns = (
        "attack",
        "ASR",
        "p_t",
        "successes",
        f"L1 {BEFORE}",
        f"L1 {AFTER}",
        "after less before",
        f"L1 {BEFORE}, all",
        f"L1 {AFTER}, all",
    )
    n = max(len(seen.success) for seen in found.values())
    notes = (
        "L1 distance of the adversarial map for the target class from the benign one for the label, both by the network"
        f" before or after; {passes} passes, ε 8/255, random targets, images as saved in 8 bits. Of successes, and in"
        " the last two columns of all photos.",
    )
    return Table(f"Adversarial maps, n = {n}, means [95 %]", columns, rows, notes)


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, list[float]]:
    names = (*(field.name for field in fields(RtsScore)), "moved")
    return {name: torch.cat([part[name] for part in parts]).tolist() for name in names}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.option("--rts", type=click.Path(path_type=Path), required=True, help="Weights by `underfire train aid`.")
@click.option("--before", type=click.Path(path_type=Path), help="Weights it began with; by default the package's.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many are attacked.")
@click.option("--passes", type=click.IntRange(1), default=300, show_default=True, help="Of each attack on a photo.")
@click.option("--batch-size", type=click.IntRange(1), default=10, show_default=True, help="Photos attacked together.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise; targets are those of seed 0.")
@click.option("--device", default="cpu", show_default=True)
def main(
    photos: Path, rts: Path, before: Path | None, limit: int, passes: int, batch_size: int, seed: int, device: str
) -> None:
    """Compare two networks on PHOTOS that neither was trained on, and attack those that the classifier gets right."""
    try:
        classifier = load_classifier(device=device)
        files = {BEFORE: before or default_weights(classifier), AFTER: rts}
        networks = {
            name: RTS(classifier, network=MaskingNetwork.load(file, classifier)) for name, file in files.items()
        }
        found = find_photos([photos], class_names=classifier.class_names).photos
        parts = list(batches(classifier, found, limit=limit, size=batch_size))
        if not parts:
            raise InputError(f"the classifier gets none of the {len(found)} photos right; give others")
        click.echo(header())
        sources, _ = read_sources(found, classifier)
        click.echo(quality_table(quality(Photos(sources, classifier), networks, RtsPlan(seed=seed))))
        click.echo(noise_table(noisy(parts, networks, seed)))
        seen = {name: attacked(parts, networks, attack) for name, attack in attacks(networks, passes).items()}
        click.echo(attack_table(seen, passes))
    except InputError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
