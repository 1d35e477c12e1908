"""What a deployed system with noise shows for the images of an audit, by votes over draws that no attack has seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.attacks.goals import TARGET_KEPT, Goal
from underfire.auditing.condition import NONE, Condition
from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.run import Run
from underfire.certificates import Smoothed, SmoothedResult
from underfire.certificates.certification import IOU, SHIFT
from underfire.errors import InputError
from underfire.images.png import read_pngs
from underfire.stats import Share, wilson

_AT_ONCE = 8  # images
_MAP_KEPT = TARGET_KEPT  # of its map's part


@dataclass(frozen=True)
class SmoothedScore:
    """How often the system shows what an attack wanted, one query for each photo.

    Of the benign photos and of noise, which want nothing: how often it shows the right label, and a map that is kept.

    Attributes:
        condition: under which the images are.
        goal: LABEL/MAP, empty where nothing is wanted.
        abstained: on how many photos it shows nothing, which meets no goal.
        label: the label's part is met.
        both: the map's too, by the measures of certificates.
        in_run: the label's part on the classifier that the run attacked, None where nothing is wanted. Where that has
            the system's noise held and this is much more than ``label``, the randomness is the defence.
    """

    condition: Condition
    goal: str
    abstained: Share
    label: Share
    both: Share
    in_run: Share | None


@dataclass(frozen=True)
class SmoothedScores:
    """Of every condition of a run; ``samples`` is how many draws vote for each image."""

    samples: int
    scores: tuple[SmoothedScore, ...]

    def rows(self) -> list[dict[str, float | int | str | None]]:
        """One flat record per condition, ready for a table: counts of ``n`` photos, and the interval of ``both``."""
        return [
            {
                "condition": str(score.condition),
                "goal": score.goal,
                "n": score.both.n,
                "abstained": score.abstained.k,
                "label": score.label.k,
                "both": score.both.k,
                "both_low": score.both.low,
                "both_high": score.both.high,
                "label_in_run": None if score.in_run is None else score.in_run.k,
            }
            for score in self.scores
        ]


def score_smoothed(run: Run, system: Smoothed) -> SmoothedScores:
    """Show the images that ``run`` saved to ``system``, and count how often the attacks' goals are met.

    The attacks are adaptive where the run is of ``fixed_draws(system.as_classifier(), draws=16)``, whose gradients are
    means over so many draws. Maps are compared with that of the benign photo for its label without noise, as in
    `certify`. Each image has fresh draws.

    Args:
        run: an audit, with its images kept.
        system: with an interpreter of its own, whether that was attacked or not.

    Raises:
        InputError: the system is no `Smoothed`, the run's model has other classes or another input than it, nothing was
            attacked, or images are missing.
        NonFiniteError: a draw's logits or map contain NaN or infinity.
    """
    if not isinstance(system, Smoothed):
        raise InputError(f"the system is {system!r}; give one that votes over noisy draws, a Smoothed.")
    classifier, model = system.classifier, run.facts.model
    fits = (model.num_classes, tuple(model.input_size)) == (classifier.num_classes, classifier.input_size)
    if not fits or run.picture_shape[0] != classifier.channels:
        raise InputError(
            f"the run is of {model.num_classes} classes and images of {run.picture_shape}, and the system of"
            f" {classifier.num_classes} and {(classifier.channels, *classifier.input_size)}; give a run of its"
            " classifier."
        )
    if not run.attacked:
        raise InputError("the run attacked no photo; give one that did.")
    scores = tuple(_score(run, system, condition) for condition in run.summary.conditions)
    return SmoothedScores(system.samples, scores)


def _score(run: Run, system: Smoothed, condition: Condition) -> SmoothedScore:
    goal = condition.wanted
    abstained, label, both = (torch.cat(parts) for parts in zip(*_outcomes(run, system, condition), strict=True))
    figures = next((found for found in run.summary.attacks if found.condition == condition), None)
    return SmoothedScore(
        condition, "" if goal is None else str(goal), _share(abstained), _share(label), _share(both),
        None if goal is None or figures is None else figures.asr_8bit,
    )  # fmt: skip


def _outcomes(run: Run, system: Smoothed, condition: Condition) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Some photos at a time: where (N,) the system abstains, the label's part of the goal is met, and both are."""
    goal = condition.wanted
    for start in range(0, len(run.attacked), _AT_ONCE):
        photos = run.attacked[start : start + _AT_ONCE]
        label = torch.tensor([photo.label for photo in photos], device=system.classifier.device)
        target = torch.tensor([photo.target for photo in photos], device=system.classifier.device)
        names = [photo.image_id for photo in photos]
        shown = system(_images(run, photos, condition, system), keys=[f"{name} {condition}" for name in names])
        benign = system.interpreter(_images(run, photos, NONE, system), label, keys=names)
        met = _label_met(goal, shown, label, target)
        tau = SHIFT if goal is not None and goal.map == "center" else IOU
        maps = (_MAP_KEPT if goal is None else goal).map_met(shown.maps, benign, tau=tau)
        yield shown.abstained, met, met & maps


def _images(run: Run, photos: Sequence[PlannedPhoto], condition: Condition, system: Smoothed) -> Tensor:
    paths = [run.picture(photo, condition) for photo in photos]
    return read_pngs(paths, run.picture_shape, system.classifier.dtype).to(system.classifier.device)


def _label_met(goal: Goal | None, shown: SmoothedResult, label: Tensor, target: Tensor) -> Tensor:
    if goal is None or goal.label == "kept":
        return shown.labels == label
    if goal.label == "target":
        return shown.labels == target
    return (shown.labels != label) & ~shown.abstained


def _share(outcomes: Tensor) -> Share:
    return wilson(int(outcomes.sum()), len(outcomes))
