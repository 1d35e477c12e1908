"""The contract of what a detector measures."""

from collections.abc import Callable

import torch
from torch import Tensor

from underfire.defenses.signals import Signals
from underfire.errors import InputError
from underfire.models.classifier import Classifier
from underfire.testing.common import hold, keys_of, no_trace, smooth_classifier, some_images

MakeSignals = Callable[[Classifier], Signals]


def check_signal(make: MakeSignals) -> None:
    """Hold the signals of a detector to their contract.

    Args:
        make: makes them from a classifier of 16×16 images in float64.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    x, _ = some_images()
    signals = make(smooth_classifier())
    names = signals.names
    hold(len(set(names)) == len(names) > 0, f"the names of the signals {', '.join(names)} are not each another")
    hold(signals.passes_per_image > 0, f"{names[0]}: {signals.passes_per_image} passes for an image")
    found = signals.measure(x, keys_of(len(x)))
    hold(
        found.shape == (len(x), len(names)), f"{tuple(found.shape)} numbers for {len(x)} images and {len(names)} names"
    )
    hold(found.dtype == torch.float64, f"signals are {found.dtype}, not float64")
    hold(found.device.type == "cpu", f"signals are on {found.device}, not on the CPU")
    hold(bool(torch.isfinite(found).all()), "a signal is NaN or infinite")
    hold(torch.equal(found, signals.measure(x, keys_of(len(x)))), "the same call measures other signals")
    hold(signals.measure(x[:0], ()).shape == (0, len(names)), "no image does not give no signal")
    _check_rows(signals, x, found)
    _check_untouched(make, x)
    for name, maps in signals.maps(x, keys_of(len(x))).items():
        hold(len(maps) == len(x) and not maps.requires_grad, f"the maps {name} are not one per image, detached")
    try:
        signals.measure(x[:, :, :8])
    except InputError:
        return
    raise AssertionError("images of another size are not refused")


def _check_rows(signals: Signals, x: Tensor, whole: Tensor) -> None:
    for chosen in ([2], [4, 0, 1]):
        rows = torch.tensor(chosen)
        part = signals.measure(x[rows], [keys_of(len(x))[row] for row in chosen])
        column = int((part - whole[rows]).abs().amax(dim=0).argmax())
        hold(torch.allclose(part, whole[rows], atol=1e-9), f"what else is in the batch changes {signals.names[column]}")


def _check_untouched(make: MakeSignals, x: Tensor) -> None:
    classifier, images = smooth_classifier(), x.clone()
    classifier.module.train()
    signals = make(classifier)
    with no_trace(classifier, "the signals"):
        signals.measure(images)
    hold(torch.equal(images, x), "the signals change the images given")
