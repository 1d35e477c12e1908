"""What a masking network is trained to lower (Dabkowski & Gal 2017, section 4.3, equation 3), and terms of our own.

The paper keeps the class by −log p and destroys it by p^0.2. Here both are in nats: −log p and −log(1 − p), whose slope
does not vanish where the classifier is sure, whatever the scale of its logits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.interpreters.maps import distance
from underfire.training.plan import AidPlan, RtsPlan

_FLOOR = 5e-4  # added to a map's values, so that the slope of their power is finite at 0


@dataclass(frozen=True)
class MaskedImages:
    """Images with the salient part alone, and images without it; (N, C, H, W) each."""

    shown: Tensor
    destroyed: Tensor


def compose(x: Tensor, maps: Tensor, fill: Tensor) -> MaskedImages:
    """``x`` (N, C, H, W) where ``maps`` (N, h, w) are 1 and ``fill`` where they are 0, and the other way round."""
    mask = F.interpolate(maps[:, None], size=x.shape[2:], mode="bilinear", align_corners=False)
    change = mask * (x - fill)
    return MaskedImages(fill + change, x - change)


def presence(logits: Tensor, classes: Tensor) -> Tensor:
    """The log-odds log p_c − log(1 − p_c) (N,) of ``classes`` by ``logits`` (N, K)."""
    own = logits.gather(1, classes[:, None])
    others = logits.scatter(1, classes[:, None], -torch.inf).logsumexp(dim=1)
    return own.squeeze(1) - others


def class_loss(shown: Tensor, destroyed: Tensor, plan: RtsPlan) -> Tensor:
    """The weighted losses (N,) of keeping and destroying, from the log-odds of the class in both composites."""
    return plan.keep * F.softplus(-shown) + plan.destroy * F.softplus(destroyed)


def map_loss(maps: Tensor, plan: RtsPlan, *, share: float = 1.0) -> Tensor:
    """The weighted losses (N,) of area, of whose weight ``share`` counts, and smoothness of ``maps`` (N, h, w)."""
    area = ((maps + _FLOOR) ** plan.area_power).mean(dim=(1, 2))
    down, right = maps[:, 1:] - maps[:, :-1], maps[:, :, 1:] - maps[:, :, :-1]
    variation = (down.square().sum(dim=(1, 2)) + right.square().sum(dim=(1, 2))) / maps.shape[1]
    return share * plan.area * area + plan.smooth * variation


def show_loss(maps: Tensor, benign: Tensor, margin: float) -> Tensor:
    """What ``maps`` (N, h, w) lack (N,) to being emptier than the ``benign`` ones, by ``margin`` in the mean.

    The target class of an attack is not there, and the map of a class that is not there is empty. Where the loss is 0,
    the L1 distance of the two maps is at least the margin. A loss of that distance itself would push each cell to the
    side of the benign map on which the attack happens to have left it, another one each time; this one has one way for
    all. Both maps are moved: what makes all maps emptier alike gains nothing.
    """
    return F.relu(margin - (benign - maps).mean(dim=(1, 2)))


def aid_loss(benign: Tensor, before: Tensor, adversarial: Tensor, reached: Tensor, plan: AidPlan) -> Tensor:
    """The weighted losses (N,) that adversarial interpretation training adds to RTS's own.

    Args:
        benign: maps (N, h, w) of benign photos.
        before: the same by the weights it began with.
        adversarial: maps of the photos under attack, for the target class.
        reached: (N,) bool, whether that class is predicted; elsewhere nothing has to show.
        plan: the weights.
    """
    shown = plan.show * show_loss(adversarial, benign, plan.margin)
    return plan.stay * distance(benign, before) + shown.where(reached, 0.0)
