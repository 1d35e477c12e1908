"""The one loop of all trainings: order, steps of Adam, scores, checkpoints, the file."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from underfire.errors import InputError
from underfire.images.dataset import Photos, Split
from underfire.models.classifier import Classifier
from underfire.seeding import generator
from underfire.training.batches import Batch, random_batch, whole_batches
from underfire.training.checkpoint import State, checkpoint_path, read_state, write_state
from underfire.training.plan import TrainingPlan
from underfire.training.scores import Score
from underfire.weights import read_about

_LONGEST = 5.0  # norm of a gradient above which it is shortened


class Listener(Protocol):
    """Hears how a training comes along."""

    def began(self, epochs: int, finished: int, steps: int) -> None:
        """``finished`` of ``epochs`` epochs of ``steps`` steps are there already."""
        ...

    def stepped(self) -> None:
        """One more step is done."""
        ...

    def scored(self, epoch: int, score: Score) -> None:
        """``epoch``, counted from 1, is done and saved."""
        ...


class Lesson(Protocol):
    """What a training teaches: where it starts, the loss of a step, the score of an epoch."""

    @property
    def network(self) -> nn.Module:
        """What is trained, and nothing else."""
        ...

    def losses(self, batch: Batch, done: float) -> Tensor:
        """The losses (N,) of a batch, attached to the network, when the share ``done`` of all steps is done."""
        ...

    def score(self, held_out: Iterable[Batch]) -> Score:
        """How good the network is by now."""
        ...

    def save(self, out: Path, about: Mapping[str, Any]) -> None:
        """Write the weights to ``out``, by `write_weights`, with JSON values ``about`` how they came to be."""
        ...


def train(
    lesson_of: Callable[[], Lesson],
    classifier: Classifier,
    photos: Split,
    out: Path,
    *,
    plan: TrainingPlan,
    listener: Listener,
    **method: str | None,
) -> None:
    """Train a network by a lesson and write it to ``out``.

    A checkpoint stands beside ``out`` after each epoch; called again, training goes on from there and ends, on a CPU,
    in the same bits as one that was never interrupted. Where ``out`` is there already, it is left as it is.

    Args:
        lesson_of: makes the lesson at its start; not called where there is nothing left to train.
        classifier: what it is trained for; it is left as it was.
        photos: photos to train on and to keep out, with or without labels: the classifier's own top class counts.
        out: the file of weights.
        plan: the settings.
        listener: hears how it comes along.
        method: what else decides the weights, by name; it is kept among the settings in the file.

    Raises:
        InputError: there is a file or a checkpoint of other settings, or the loss of a photo is not a number.
    """
    settings = {**_settings(classifier, photos, plan), **method}
    if out.exists():
        if read_about(out).get("settings") != settings:
            raise InputError(f"'{out}' was trained with other settings; give another file, or remove it.")
        return
    lesson = lesson_of()
    training = _Training(lesson, classifier, photos, plan)
    place = checkpoint_path(out)
    if place.exists():
        training.resume(read_state(place, settings))
    listener.began(plan.epochs, len(training.history), training.steps)
    while len(training.history) < plan.epochs:
        score = training.epoch(listener)
        write_state(place, training.state(), settings)
        listener.scored(len(training.history), score)
    made_with = {"underfire": version("underfire"), "torch": torch.__version__}
    about = {"settings": settings, "made_with": made_with, "seconds": training.seconds, "history": training.history}
    lesson.save(out, about)
    place.unlink(missing_ok=True)


def _settings(classifier: Classifier, photos: Split, plan: TrainingPlan) -> dict[str, Any]:
    """What decides the weights, as JSON values."""
    return {
        "plan": json.loads(json.dumps(asdict(plan))),  # tuples are lists there
        "classifier": classifier.fingerprint(),
        "photos": len(photos.train),
        "photos_sha256": _hash(photos.train),
        "held_out": len(photos.held_out),
        "held_out_sha256": _hash(photos.held_out),
    }


def _hash(photos: Photos) -> str:
    names = [(source.image_id, source.sha256) for source in photos.sources]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


class _Training:
    """A network under training, epoch after epoch. All its randomness belongs to the seed, the epoch and the photo."""

    def __init__(self, lesson: Lesson, classifier: Classifier, photos: Split, plan: TrainingPlan) -> None:
        self._lesson, self._classifier, self._photos, self._plan = lesson, classifier, photos, plan
        self.network = lesson.network
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=plan.learning_rate)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self._photos.train) / self._plan.batch_size)

    def epoch(self, listener: Listener) -> Score:
        """See each photo once, and the held-out ones."""
        began, number, plan, photos = time.monotonic(), len(self.history), self._plan, self._photos
        shuffle = torch.randperm(len(photos.train), generator=generator(plan.seed, "order", number)).tolist()
        with self._trainable():
            for step in range(self.steps):
                chosen = shuffle[step * plan.batch_size : (step + 1) * plan.batch_size]
                done = (number * self.steps + step) / (plan.epochs * self.steps)
                self._step(random_batch(photos.train, chosen, number, self._classifier, plan), done)
                listener.stepped()
        with torch.no_grad():
            score = self._lesson.score(whole_batches(photos.held_out, self._classifier, plan))
        self.history.append(asdict(score))
        self.seconds += time.monotonic() - began
        return score

    def state(self) -> State:
        """All that a later process needs to go on."""
        moments = {}
        for name, parameter in self.network.named_parameters():
            kept = self._optimiser.state[parameter]
            if kept:  # not of what took no part
                moments[name] = (kept["exp_avg"], kept["exp_avg_sq"])
        steps = len(self.history) * self.steps
        return State(self.network.state_dict(), moments, steps, self.history, self.seconds)

    def resume(self, state: State) -> None:
        """Go on from ``state``."""
        self.network.load_state_dict(state.weights)
        parameters = dict(self.network.named_parameters())
        for name, moments in state.moments.items():
            parameter = parameters[name]
            first, second = (moment.to(parameter) for moment in moments)
            step = torch.tensor(float(state.steps))
            self._optimiser.state[parameter] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
        self.history, self.seconds = list(state.history), state.seconds

    @contextmanager
    def _trainable(self) -> Iterator[None]:
        self.network.requires_grad_(True)
        try:
            yield
        finally:
            self.network.requires_grad_(False)

    def _step(self, batch: Batch, done: float) -> None:
        """One step of Adam, when the share ``done`` of all is done."""
        for group in self._optimiser.param_groups:
            group["lr"] = self._plan.learning_rate * (1 + math.cos(math.pi * done)) / 2
        self._optimiser.zero_grad()
        self._lesson.losses(batch, done).mean().backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _LONGEST)
        self._optimiser.step()
