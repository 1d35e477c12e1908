"""Classifiers whose forward pass draws random numbers: noticed, refused where one draw would be scored, and held still.

Source: Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security", ICML 2018, section 5.3: a
randomised defence is attacked through the expectation over its draws.
"""

import math
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.errors import InputError, ModelError
from underfire.models.classifier import Classifier
from underfire.seeding import derive_seed

_DRAWING = threading.RLock()
"""The generators that modules draw from are the process's own."""


def refuse_random(classifier: Classifier) -> None:
    """Refuses a ``classifier`` that draws random numbers, for whoever would look at one draw of it alone.

    Raises:
        InputError: it does.
    """
    if classifier.is_random:
        raise one_draw(classifier)


def one_draw(classifier: Classifier) -> InputError:
    """Why a random ``classifier`` is refused, and what to do."""
    return InputError(
        f"the classifier {classifier.name!r} draws random numbers: two calls on the same images differ, and what one"
        " draw shows need not hold on the next; attack it with uf.attack_draws, which scores over many draws, or give"
        " uf.fixed_draws(classifier, draws=16), whose draws don't change (see docs/explanation/soundness.md)."
    )


def fixed_draws(classifier: Classifier, *, draws: int = 1, seed: int = 0) -> Classifier:
    """``classifier`` with its random numbers held: the same ``draws`` draws for every image and at every call.

    With one draw its logits are those of that draw; with several, those of the mean of their probabilities, whose
    gradient averages over the draws (EOT). It shares the module, takes its images one after the other, so that no row
    depends on the batch, and spends ``draws`` passes where the classifier spends one. Held are the generators of torch,
    Python and NumPy that belong to the process.

    Args:
        classifier: as made from the module that draws.
        draws: how many.
        seed: of them.

    Raises:
        InputError: ``draws`` is below 1, or the module draws from a generator of its own, which cannot be held.
    """
    if draws < 1:
        raise InputError(f"draws is {draws}; it must be at least 1.")
    told, what = classifier.preprocessing, "one fixed draw" if draws == 1 else f"mean of {draws} fixed draws"
    held = Classifier(
        HeldDraws(classifier, tuple(derive_seed(seed, "fixed draw", k) for k in range(draws))),
        mean=told.mean,
        std=told.std,
        input_size=told.input_size,
        resize=told.resize,
        interpolation=told.interpolation,
        crop=told.crop,
        bgr=told.bgr,
        class_names=classifier.class_names,
        outputs="logits" if classifier.decision.exclusive else "sigmoid",
        name=f"{classifier.name}, {what}",
    )
    if held.is_random:
        raise InputError(
            f"the classifier {classifier.name!r} draws from a generator of its own, which cannot be held; let its"
            " module draw from torch's, Python's or NumPy's global one."
        )
    return held


class HeldDraws(nn.Module):
    """A classifier's module under given seeds: normalised images (1, C, H, W) in, logits (1, K) out.

    Attributes:
        seeds: of the draws, whose mean it returns.
    """

    def __init__(self, classifier: Classifier, seeds: tuple[int, ...]) -> None:
        super().__init__()
        self.module = classifier.module
        self._classifier = classifier
        self.seeds = seeds
        self.register_buffer("held", torch.tensor(seeds))  # so that it counts in the fingerprint

    def forward(self, z: Tensor) -> Tensor:
        """The logits of the mean of the draws' probabilities; of one draw, its own."""
        if len(z) != 1:
            raise ValueError("draws belong to one image; give one")
        found = []
        with self._classifier.frozen():
            for seed in self.seeds:
                with _seeded(z.device, seed):
                    found.append(self._drawn(z))
        return found[0] if len(found) == 1 else _mean(torch.stack(found), exclusive=self._classifier.decision.exclusive)

    def _drawn(self, z: Tensor) -> Tensor:
        reading, returned = self._classifier.reading, self.module(z)
        scores = reading.scores(returned, 1)
        if scores is None:
            raise ModelError(f"the model {self._classifier.name!r} returned no scores (1, {reading.columns}).")
        return reading.logits(scores)


@contextmanager
def redrawn(held: Classifier, seed: int) -> Iterator[None]:
    """Inside the block ``held``, made by :func:`fixed_draws`, has the one draw of ``seed``."""
    module = held.module
    if not isinstance(module, HeldDraws):
        raise TypeError(f"{held.name!r} was not made by fixed_draws")
    before, module.seeds = module.seeds, (seed,)
    try:
        yield
    finally:
        module.seeds = before


def _mean(logits: Tensor, *, exclusive: bool) -> Tensor:
    """Logits (1, K) of the mean of the probabilities of ``logits`` (D, 1, K)."""
    if exclusive:
        return logits.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits))
    return F.logsigmoid(logits).logsumexp(dim=0) - F.logsigmoid(-logits).logsumexp(dim=0)


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Inside the block all global generators start from ``seed``; afterwards they are where they were."""
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with _DRAWING, torch.random.fork_rng(devices=cuda):
        python, numpy = random.getstate(), np.random.get_state()
        try:
            # Not torch.manual_seed: it would also seed what devices draw from that nobody uses yet, for good.
            torch.default_generator.manual_seed(seed)
            for index in cuda:
                torch.cuda.default_generators[index].manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
