"""Where a class is seen: the gate of a masking network."""

import torch
from torch import Tensor, nn

from underfire.interpreters.base import ForwardPass
from underfire.models.features import FeatureMap, head_bias, head_weight

_SLOPE, _LEVEL = 1.0, 4.0  # where training starts: half open at 4 nats above the mean of all classes


class ClassGate(nn.Module):
    """σ(a·z − b) of the evidence z for a class in each cell, with learnt scalars a and b.

    With one photo a class there is nothing to learn an embedding of the class from (Dabkowski & Gal 2017, section 4.2,
    equation 6 learn one); the linear head has one already.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(_SLOPE))
        self.level = nn.Parameter(torch.tensor(_LEVEL))

    def forward(self, evidence: Tensor) -> Tensor:
        """How far each cell of ``evidence`` (N, 1, h, w) is let through, (N, 1, h, w) in [0, 1]."""
        opened = self.slope * evidence - self.level
        # Image by image: the kernel of a CPU takes the last few of all values another way, which rounds otherwise.
        return torch.stack([torch.sigmoid(cells) for cells in opened])


def class_evidence(view: ForwardPass, features: FeatureMap, classes: Tensor) -> Tensor:
    """What each cell of ``features`` says for ``classes`` (N,): (N, 1, h, w) in nats, attached to ``view``.

    It is the logit that the head would give to the cell alone, less the mean of all classes' logits: the mean over the
    cells is the image's own logit, centred. Classes that are not there are near 0.
    """
    weight, bias = head_weight(view.classifier, features), head_bias(view.classifier, features)
    rows, offset = (weight - weight.mean(dim=0))[classes], (bias - bias.mean())[classes]
    logit = (rows[:, :, None, None] * view.activation(features)).sum(dim=1, keepdim=True)
    return logit + offset[:, None, None, None]
