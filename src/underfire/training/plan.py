"""How something is trained."""

import math
from dataclasses import dataclass, fields

from underfire.errors import InputError


@dataclass(frozen=True)
class TrainingPlan:
    """What every training has; all settings are numbers not below 0.

    Attributes:
        epochs: how often each photo is seen.
        batch_size: photos a step.
        learning_rate: of Adam at the start; it falls to 0 along a cosine.
        seed: of all random numbers.
        smallest_crop: share of the photo's area that a random crop keeps at least.
        brightness: pixel values are multiplied by up to 1 ± this.
    """

    epochs: int = 8
    batch_size: int = 8
    learning_rate: float = 1e-3
    seed: int = 0
    smallest_crop: float = 0.4
    brightness: float = 0.2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "seed" and isinstance(value, int | float) and not 0 <= value < math.inf:
                raise InputError(f"{field.name} is {value}; give a finite number, not below 0.")
        if self.epochs < 1 or self.batch_size < 1:
            raise InputError(f"epochs is {self.epochs} and batch_size {self.batch_size}; give 1 or more of each.")
        if not 0 < self.smallest_crop <= 1:
            raise InputError(f"smallest_crop is {self.smallest_crop:g}; give a share above 0, up to 1.")
        if self.brightness >= 1:
            raise InputError(f"brightness is {self.brightness:g}; give less than 1.")


@dataclass(frozen=True)
class RtsPlan(TrainingPlan):
    """The settings of one training of RTS; the defaults are those of the weights that come with the package.

    Attributes:
        keep: weight of −log p_c where only the salient part is shown.
        destroy: weight of −log(1 − p_c) where the salient part is destroyed.
        area: weight of the mean of m^area_power over the cells of the map.
        area_power: below 1 it favours maps of few cells over faint ones.
        smooth: weight of the total variation, Σ (dx² + dy²) over the cells, per row of the map.
        ramp: share of the training in which the area's weight rises from 0; a map that is empty too soon stays so.
    """

    keep: float = 0.3
    destroy: float = 1.0
    area: float = 3.0
    area_power: float = 0.3
    smooth: float = 0.5
    ramp: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.area_power <= 1:
            raise InputError(f"area_power is {self.area_power:g}; give a number above 0, up to 1.")


@dataclass(frozen=True)
class AidPlan(RtsPlan):
    """The settings of one adversarial interpretation training; see :func:`underfire.training.aid.train_aid`.

    It goes on from weights that are trained already: fewer epochs and smaller steps by default, and no ramp. The seed
    is also that of the target classes.

    Attributes:
        stay: weight of the L1 distance of the benign map from that of the weights it began with.
        show: weight of what the adversarial map lacks to ``margin``.
        margin: how much emptier than the benign map it shall be, in the mean; in [0, 1].
        attack_passes: forward and backward passes of the ADV² on each photo; 13 pay for six steps.
        attack_eps: its L∞ budget, in pixel values of [0, 1].
        watched: how many of the held-out photos are attacked for the score of an epoch.
    """

    epochs: int = 2
    learning_rate: float = 5e-4
    ramp: float = 0.0
    stay: float = 10.0
    show: float = 20.0
    margin: float = 0.3
    attack_passes: int = 13
    attack_eps: float = 8 / 255
    watched: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ramp:
            raise InputError(f"ramp is {self.ramp:g}; a network that is trained already needs none: leave it 0.")
        if self.margin > 1:
            raise InputError(f"margin is {self.margin:g}; maps lie in [0, 1], so give at most 1.")
        if self.watched < 1:
            raise InputError(f"watched is {self.watched}; give 1 or more.")


@dataclass(frozen=True)
class NoisePlan(TrainingPlan):
    """The settings of one training on noise; see :func:`underfire.training.noise.train_noise`.

    Attributes:
        sigma: standard deviation of the noise, in pixel values.
        draws: noisy copies of each held-out photo that are scored.
        layers: names of the layers whose weights are trained; none for the linear head that reads the pooled features.
    """

    epochs: int = 3
    learning_rate: float = 1e-4
    sigma: float = 0.12
    draws: int = 4
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise InputError(f"sigma is {self.sigma:g}; give the standard deviation of the noise, above 0.")
        super().__post_init__()
        if self.draws < 1:
            raise InputError(f"draws is {self.draws}; give 1 or more.")
