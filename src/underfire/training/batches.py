"""The batches of a training: random views of the photos to train on, and the held-out ones as they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.files import quoted
from underfire.images.dataset import Photos, stacked
from underfire.models.classifier import Classifier
from underfire.seeding import generator
from underfire.training.augment import blurred, random_fill, random_view
from underfire.training.plan import TrainingPlan


@dataclass(frozen=True)
class Batch:
    """N photos at one moment of a training.

    Attributes:
        names: of the photos.
        moment: the epoch, counted from 0, or "held out"; with a name it owns random numbers.
        x: (N, C, H, W) in [0, 1].
        fill: (N, C, H, W), what replaces what is taken away.
        pick: (N,) in [0, 1), which absent class.
    """

    names: tuple[str, ...]
    moment: int | str
    x: Tensor
    fill: Tensor
    pick: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def first(self, count: int) -> "Batch":
        """The first ``count`` photos, or all where there are fewer."""
        return Batch(self.names[:count], self.moment, self.x[:count], self.fill[:count], self.pick[:count])

    def check_losses(self, losses: Tensor) -> None:
        """Refuse ``losses`` (N,) that are not numbers, naming the first photo; raises `InputError`."""
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            raise InputError(
                f"the training loss is not a finite number for photo {quoted(self.names[int(bad[0])])}; "
                "take that photo out, or look for the overflow in the model"
            )


def random_batch(
    photos: Photos, chosen: Sequence[int], epoch: int, classifier: Classifier, plan: TrainingPlan
) -> Batch:
    """Random views of the ``photos`` number ``chosen``."""
    views, fills, picks = [], [], []
    names = tuple(photos.sources[index].image_id for index in chosen)
    for index, name in zip(chosen, names, strict=True):
        draw = generator(plan.seed, "view", epoch, name)
        view = random_view(photos[index], classifier.input_size, draw, plan)
        views.append(view)
        fills.append(random_fill(view, draw))
        picks.append(torch.rand((), generator=draw))
    return Batch(names, epoch, *(stacked(part, classifier) for part in (views, fills, picks)))


def whole_batches(photos: Photos, classifier: Classifier, plan: TrainingPlan) -> Iterator[Batch]:
    """All ``photos``, whole and in order; parts are replaced by the blurred image."""
    for start in range(0, len(photos), plan.batch_size):
        chosen = range(start, min(start + plan.batch_size, len(photos)))
        x = stacked([photos[index] for index in chosen], classifier)
        names = tuple(photos.sources[index].image_id for index in chosen)
        draws = [generator(plan.seed, "absent", name) for name in names]
        pick = stacked([torch.rand((), generator=draw) for draw in draws], classifier)
        yield Batch(names, "held out", x, blurred(x), pick)
