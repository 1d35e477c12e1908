"""Radii of labels under Gaussian noise (Cohen et al. 2019), of underfire and of ART by their own public calls."""

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.subject import Subject
from underfire import GRAD, certify

SIGMA, ALPHA, PHOTOS = 0.12, 0.001, 2


def our_radii(subject: Subject) -> Tensor:
    """The radii (N,) of the first photos. No map is taken, and the first photo is looked at four times more."""
    found = certify(
        GRAD(subject.classifier),
        subject.x[:PHOTOS],
        subject.label[:PHOTOS],
        sigma=SIGMA,
        alpha=ALPHA,
        samples=subject.recipe.draws,
        goals=["other/free"],
        batch_size=subject.recipe.batch_size,
    )
    return found.label_radius


def art_radii(subject: Subject) -> Tensor:
    """The same; one more draw of each photo chooses the label."""
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    x = subject.x[:PHOTOS]
    smoothed = PyTorchRandomizedSmoothing(
        subject.plain,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=subject.classifier.num_classes,
        device_type="gpu" if x.is_cuda else "cpu",
        sample_size=1,
        scale=SIGMA,
        alpha=ALPHA,
    )
    state = np.random.get_state()
    np.random.seed(0)
    try:
        found = smoothed.certify(x.cpu().numpy(), n=subject.recipe.draws, batch_size=subject.recipe.batch_size)[1]
    finally:
        np.random.set_state(state)
    return torch.from_numpy(found).to(x)
