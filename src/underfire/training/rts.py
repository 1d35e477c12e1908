"""Training of RTS's masking network."""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from underfire.classifier import Classifier
from underfire.errors import InputError
from underfire.images.files import quoted
from underfire.interpreters.masking.network import MaskingNetwork
from underfire.interpreters.masking.weights import read_about
from underfire.prepared import prepared
from underfire.seeding import generator
from underfire.training.augment import blurred, random_fill, random_view
from underfire.training.checkpoint import State, checkpoint_path, read_state, write_state
from underfire.training.photos import Photos, Split, stacked
from underfire.training.plan import TrainingPlan
from underfire.training.step import Look, Subject, look

_LONGEST = 5.0  # norm of a gradient above which it is shortened


@dataclass(frozen=True)
class Score:
    """Means over the held-out photos, seen whole and without augmentation; parts are replaced by the blurred image.

    Attributes:
        loss: the training loss, the area at its full weight.
        clean, kept, destroyed: probability of the top class in the photo, in the salient part alone, and without it.
        area, absent_area: mean of the maps of the top class and of an absent one.
    """

    loss: float
    clean: float
    kept: float
    destroyed: float
    area: float
    absent_area: float


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


def train_rts(
    classifier: Classifier,
    photos: Split,
    out: Path,
    *,
    plan: TrainingPlan,
    listener: Listener,
    encoder: Classifier | None = None,
) -> MaskingNetwork:
    """Train a masking network for ``classifier`` and write it to ``out``.

    A checkpoint stands beside ``out`` after each epoch; called again, training goes on from there and ends, on a CPU,
    in the same bits as one that was never interrupted. Where ``out`` is there already, it is read and returned.

    Args:
        classifier: what the maps shall explain; it is left as it was.
        photos: photos to train on and to keep out, with or without labels: the classifier's own top class counts.
        out: the file of weights.
        plan: the settings.
        listener: hears how it comes along.
        encoder: a classifier whose features are read in place of the audited one's.

    Raises:
        InputError: there is a file or a checkpoint of other settings, the classifier has no linear head, or the loss of
            a photo is not a number.
    """
    settings = _settings(classifier, encoder, photos, plan)
    if out.exists():
        if read_about(out).get("settings") != settings:
            raise InputError(f"'{out}' was trained with other settings; give another file, or remove it.")
        return MaskingNetwork.load(out, classifier, encoder=encoder)
    training = _Training(classifier, encoder, photos, plan)
    place = checkpoint_path(out)
    if place.exists():
        training.resume(read_state(place, settings))
    listener.began(plan.epochs, len(training.history), training.steps)
    while len(training.history) < plan.epochs:
        training.epoch(listener)
        write_state(place, training.state(), settings)
        listener.scored(len(training.history), Score(**training.history[-1]))
    made_with = {"underfire": version("underfire"), "torch": torch.__version__}
    training.network.save(
        out, classifier, settings=settings, made_with=made_with, seconds=training.seconds, history=training.history
    )
    place.unlink(missing_ok=True)
    return MaskingNetwork.load(out, classifier, encoder=encoder)


def _settings(classifier: Classifier, encoder: Classifier | None, photos: Split, plan: TrainingPlan) -> dict[str, Any]:
    """What decides the weights, as JSON values."""
    return {
        "plan": asdict(plan),
        "classifier": classifier.fingerprint(),
        "encoder": None if encoder is None else encoder.fingerprint(),
        "photos": len(photos.train),
        "photos_sha256": _hash(photos.train),
        "held_out": len(photos.held_out),
        "held_out_sha256": _hash(photos.held_out),
    }


def _hash(photos: Photos) -> str:
    names = [(source.image_id, source.sha256) for source in photos.sources]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


@dataclass(frozen=True)
class _Batch:
    """Photos by name, their pixels (N, C, H, W), what replaces what is taken away, and (N,) which absent class."""

    names: tuple[str, ...]
    x: Tensor
    fill: Tensor
    pick: Tensor


class _Training:
    """A network under training, epoch after epoch. All its randomness belongs to the seed, the epoch and the photo."""

    def __init__(self, classifier: Classifier, encoder: Classifier | None, photos: Split, plan: TrainingPlan) -> None:
        self._classifier, self._photos, self._plan = classifier, photos, plan
        self.network = MaskingNetwork.untrained(classifier, encoder=encoder, seed=plan.seed)
        twin = prepared(classifier)
        self._subject = Subject(twin, twin if encoder is None else prepared(encoder))
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=plan.learning_rate)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self._photos.train) / self._plan.batch_size)

    def epoch(self, listener: Listener) -> None:
        """See each photo once, and the held-out ones."""
        began, number, plan = time.monotonic(), len(self.history), self._plan
        shuffle = torch.randperm(len(self._photos.train), generator=generator(plan.seed, "order", number)).tolist()
        with self._trainable():
            for step in range(self.steps):
                chosen = shuffle[step * plan.batch_size : (step + 1) * plan.batch_size]
                done = (number * self.steps + step) / (plan.epochs * self.steps)
                self._step(self._batch(chosen, number), done)
                listener.stepped()
        self.history.append(asdict(self._score()))
        self.seconds += time.monotonic() - began

    def state(self) -> State:
        """All that a later process needs to go on."""
        moments = {}
        for name, parameter in self.network.named_parameters():
            kept = self._optimiser.state[parameter]
            moments[name] = (kept["exp_avg"], kept["exp_avg_sq"])
        steps = len(self.history) * self.steps
        return State(self.network.state_dict(), moments, steps, self.history, self.seconds)

    def resume(self, state: State) -> None:
        """Go on from ``state``."""
        self.network.load_state_dict(state.weights)
        for name, parameter in self.network.named_parameters():
            first, second = (moment.to(parameter) for moment in state.moments[name])
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

    def _batch(self, chosen: list[int], epoch: int) -> _Batch:
        """Random views of the photos ``chosen``."""
        views, fills, picks = [], [], []
        names = tuple(self._photos.train.sources[index].image_id for index in chosen)
        for index, name in zip(chosen, names, strict=True):
            draw = generator(self._plan.seed, "view", epoch, name)
            view = random_view(self._photos.train[index], self._classifier.input_size, draw, self._plan)
            views.append(view)
            fills.append(random_fill(view, draw))
            picks.append(torch.rand((), generator=draw))
        return _Batch(names, *(stacked(part, self._classifier) for part in (views, fills, picks)))

    def _step(self, batch: _Batch, done: float) -> None:
        """One step of Adam, when the share ``done`` of all is done."""
        plan = self._plan
        for group in self._optimiser.param_groups:
            group["lr"] = plan.learning_rate * (1 + math.cos(math.pi * done)) / 2
        self._optimiser.zero_grad()
        share = min(1.0, done / plan.ramp) if plan.ramp else 1.0
        seen = self._look(batch, share=share)
        seen.loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _LONGEST)
        self._optimiser.step()

    @torch.no_grad()
    def _score(self) -> Score:
        photos, size, looks = self._photos.held_out, self._plan.batch_size, []
        for start in range(0, len(photos), size):
            chosen = range(start, min(start + size, len(photos)))
            x = stacked([photos[index] for index in chosen], self._classifier)
            names = tuple(photos.sources[index].image_id for index in chosen)
            draws = [generator(self._plan.seed, "absent", name) for name in names]
            pick = stacked([torch.rand((), generator=draw) for draw in draws], self._classifier)
            looks.append(self._look(_Batch(names, x, blurred(x), pick), share=1.0))
        return Score(**{name: _mean([getattr(seen, name) for seen in looks]) for name in Score.__dataclass_fields__})

    def _look(self, batch: _Batch, *, share: float) -> Look:
        with ExitStack() as stack:
            for classifier in (self._subject.classifier, self._subject.encoder):
                stack.enter_context(classifier.frozen())
            seen = look(self.network, self._subject, batch.x, batch.fill, batch.pick, self._plan, share=share)
        bad = (~torch.isfinite(seen.loss)).nonzero()
        if len(bad):
            raise InputError(
                f"the training loss is not a finite number for photo {quoted(batch.names[int(bad[0])])}; "
                "take that photo out, or look for the overflow in the model"
            )
        return seen


def _mean(parts: list[Tensor]) -> float:
    return float(torch.cat(parts).double().mean())
