"""EigenCAM (Muhammad & Yeasin 2020), which knows no class."""

import torch
from torch import Tensor

from underfire.interpreters.activations import ActivationInterpreter
from underfire.interpreters.base import ForwardPass


class EigenCAM(ActivationInterpreter):
    """The cells of the last activation along their first principal component, min–max scaled; the same for any class.

    Channels are centred over the cells, as in pytorch-grad-cam. A principal component has no sign: it is taken so that
    cells are high where the activation is large, their squares summed over channels.
    """

    name = "eigencam"
    title = "EigenCAM"
    summary = "first principal component of the last activation; no class"

    def raw_maps(self, view: ForwardPass, classes: Tensor, *, attackable: bool = True) -> Tensor:  # noqa: ARG002
        """Unscaled maps (N, h, w) of ``view``, whatever ``classes``, attached to it if ``attackable``."""
        activation = view.activation(self.features)
        cells = activation.flatten(2).transpose(1, 2)
        component = _first_component(cells - cells.mean(dim=1, keepdim=True))
        energy = activation.detach().square().sum(dim=1).flatten(1)
        rising = (component.detach() * (energy - energy.mean(dim=1, keepdim=True))).sum(dim=1, keepdim=True)
        raw: Tensor = (component * torch.where(rising < 0, -1, 1)).unflatten(1, self.grid)
        return raw if attackable else raw.detach()


def _first_component(cells: Tensor) -> Tensor:
    """What centred ``cells`` (N, M, C) are along their first principal component, (N, M), up to their sign and scale.

    It is the first eigenvector v of K = cells·cellsᵀ, and dv = (λ₁ − K)⁺·dK·v. Autograd's derivative of all
    eigenvectors at once is no number where two of the others have the same eigenvalue, as the many that are 0.
    """
    gram = cells @ cells.transpose(1, 2)
    values, vectors = torch.linalg.eigh(gram.detach())
    first, last = vectors[:, :, -1:], values[:, -1:]
    apart = last - values
    inverse = torch.where(apart > torch.finfo(values.dtype).eps * last, 1 / apart, 0.0)
    moved = (gram - gram.detach()) @ first
    vector: Tensor = first + vectors @ (inverse[:, :, None] * (vectors.transpose(1, 2) @ moved))
    scaled: Tensor = vector.squeeze(2) * last.clamp_min(0).sqrt()
    return scaled
