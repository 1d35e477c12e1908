"""The contract of a perturbation model."""

from collections.abc import Callable

import torch
from torch import Tensor

from underfire.attacks.perturbations import Perturbation
from underfire.seeding import generator
from underfire.testing.common import hold, hold_named, some_images

MakePerturbation = Callable[[], Perturbation]

_CLOSE = 1e-9


def check_perturbation(make: MakePerturbation) -> None:
    """Hold a perturbation model to its contract.

    Args:
        make: makes the model, with its default budget or a smaller one; a class with defaults will do.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    model = make()
    hold_named(model.name, "perturbation")
    spread = ((some_images()[0] - 0.5) * 1.4 + 0.5).clamp(0, 1)  # some values are black or white already
    x = (spread * 255).round() / 255
    _check_start(model, x)
    _check_projection(model, x)
    _check_directions(model, x)
    _check_saved(model, x)
    _check_contains(model, x)
    _check_rows(model, x)


def _check_start(model: Perturbation, x: Tensor) -> None:
    given = x.clone()
    theta = model.start(x)
    hold(torch.equal(model.image(x, theta), x), f"{model.name}: its start is another image")
    hold(float(model.size(x, theta).abs().max()) == 0, f"{model.name}: its start uses some of the budget")
    hold(torch.equal(model.project(x, theta), theta), f"{model.name}: project moves its start")
    theta.add_(1)
    hold(torch.equal(x, given), f"{model.name}: its start shares memory with the image")


def _check_projection(model: Perturbation, x: Tensor) -> None:
    for share in (0.5, 1.0, 30.0):
        theta = model.project(x, _moved(model, x, share))
        used, images = model.size(x, theta), model.image(x, theta)
        hold(bool((used <= model.eps * (1 + 1e-6)).all()), f"{model.name}: project leaves more than the budget")
        hold(0 <= float(images.min()) <= float(images.max()) <= 1, f"{model.name}: projected images leave [0, 1]")
        hold(bool(model.contains(x, images).all()), f"{model.name}: contains denies an image within the budget")
        again = model.project(x, theta)
        hold(torch.allclose(again, theta, atol=1e-6), f"{model.name}: project moves what is within the budget")


def _check_directions(model: Perturbation, x: Tensor) -> None:
    direction = _noise(x)
    start = model.start(x)
    back = model.pull_back(x, start, direction)
    hold(back.shape == start.shape, f"{model.name}: a direction pulled back is not shaped like its parameters")
    step = 1e-5 * float(model.eps) * model.steepest(back)
    gained = (direction * (model.image(x, start + step) - x)).flatten(1).sum(dim=1)
    hold(bool((gained > 0).all()), f"{model.name}: a step along a direction pulled back moves the image against it")
    move = model.steepest(back)
    hold(bool(((move * back).flatten(1).sum(dim=1) > 0).all()), f"{model.name}: its steepest move goes against it")
    half = model.size(x, model.start(x) + 0.25 * model.eps * move)
    close = torch.allclose(half, torch.full_like(half, 0.25 * model.eps), rtol=1e-3)
    hold(close, f"{model.name}: its steepest move is not of size 1")


def _check_saved(model: Perturbation, x: Tensor) -> None:
    theta = model.project(x, _moved(model, x, 30.0))
    pixels = model.rounded(x, model.image(x, theta))
    hold(pixels.dtype == torch.uint8, f"{model.name}: an image to be saved is {pixels.dtype}, not uint8")
    hold(pixels.shape == x.shape, f"{model.name}: an image to be saved has another shape")
    inside = model.contains(x, pixels.to(x.dtype) / 255)
    hold(bool(inside.all()), f"{model.name}: an image as it is saved is outside the budget")
    noise = model.harmless(x, _draws(len(x)))
    hold(bool((model.size(x, noise) <= model.eps * (1 + 1e-6)).all()), f"{model.name}: noise is beyond the budget")
    hold(torch.equal(noise, model.harmless(x, _draws(len(x)))), f"{model.name}: the same draws give other noise")


def _check_contains(model: Perturbation, x: Tensor) -> None:
    far = torch.where(x > 0.5, 0.0, 1.0)
    hold(not bool(model.contains(x, far).any()), f"{model.name}: contains takes an image that is far from the benign")


def _check_rows(model: Perturbation, x: Tensor) -> None:
    """Nothing couples two images of a batch."""
    direction, theta = _noise(x), model.project(x, _moved(model, x, 1.0))
    free = _moved(model, x, 30.0)
    image = model.image(x, theta)
    for i in range(len(x)):
        own = slice(i, i + 1)
        for what, whole, alone in (
            ("image", image, model.image(x[own], theta[own])),
            ("pull_back", model.pull_back(x, theta, direction), model.pull_back(x[own], theta[own], direction[own])),
            ("steepest", model.steepest(direction_of(model, x)), model.steepest(direction_of(model, x)[own])),
            ("project", model.project(x, free), model.project(x[own], free[own])),
            ("size", model.size(x, theta), model.size(x[own], theta[own])),
            ("rounded", model.rounded(x, image), model.rounded(x[own], image[own])),
            ("harmless", model.harmless(x, _draws(len(x))), model.harmless(x[own], _draws(len(x))[own])),
        ):
            apart = float((whole[own].double() - alone.double()).abs().max())
            hold(apart < _CLOSE, f"{model.name}: what else is in the batch changes {what}, by {apart:.3g}")


def direction_of(model: Perturbation, x: Tensor) -> Tensor:
    """A direction in the parameters, one row per image, of sizes far apart."""
    scale = torch.arange(1, len(x) + 1, dtype=x.dtype) ** 3
    return model.pull_back(x, model.start(x), _noise(x)) * scale[:, None, None, None]


def _moved(model: Perturbation, x: Tensor, share: float) -> Tensor:
    """Parameters that use ``share`` of the budget, each image its own way, before they are projected."""
    return model.start(x) + share * model.eps * model.steepest(direction_of(model, x))


def _noise(x: Tensor) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)


def _draws(n: int) -> list[torch.Generator]:
    return [generator(0, f"image {i}") for i in range(n)]
