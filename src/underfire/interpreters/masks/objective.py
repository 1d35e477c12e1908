"""ADV² on MASK: the target mask must pay better than the masks that a fit passes through."""

import math

from torch import Tensor

from underfire.interpreters.base import ForwardPass, MapGradient, MapTarget
from underfire.interpreters.directional import unit
from underfire.interpreters.masks.fit import FitCourse, jitters, look, penalty
from underfire.interpreters.masks.optics import Optics
from underfire.interpreters.masks.settings import MaskFit

REPLAY = 50
"""Steps of an objective's own fit before it starts again."""

_GONE, _THERE = math.log(0.05), math.log(0.98)  # log p_c that is low and high enough


class MaskObjective:
    """Lowers p_c under the target mask, and raises it under the masks that a fit tries.

    The map is the end of a fit, m*(x) = argmin_m L(m; x). By the envelope theorem the gap in the value function,
    L(m_t; x) − min_m L(m; x), which is zero where the target mask m_t is a minimum, has the gradient of p_c under m_t
    less that under m*: nothing is differentiated through the fit, and no second derivative is taken. A mask that is
    tracked through the whole attack drifts away from what a fresh fit finds; so the objective's own fit takes one step
    for each of the attack's, under the jitter of the evaluation, and starts afresh after ``replay`` of them. Both
    directions are those of log p_c, of unit size, and each rests where its end is reached.

    The distance is that of the last of these fits that came to its end, and while there is none 1, the largest there
    is: masks on their way say little of where they lead.
    Each answer takes two passes; the one under the fit's mask serves its step as well.

    Args:
        fit: the fit under attack.
        input_size: (H, W) of the images.
        target: what the maps shall become.
        seed: the interpreter's, of the jitter.
        replay: length of the objective's own fit, in steps; never more than the fit's.
    """

    taps = ()
    needs_backward = False

    def __init__(
        self, fit: MaskFit, input_size: tuple[int, int], target: MapTarget, *, seed: int, replay: int = REPLAY
    ) -> None:
        self._fit, self._target, self._replay = fit, target, min(replay, fit.steps)
        self._optics = Optics.of(fit, input_size, target.maps)
        self._corners = jitters(fit, seed, target.keys)
        self._course = FitCourse.begin(fit, target.maps)
        self._ended = target.maps.new_ones(len(target.maps))

    def __call__(self, view: ForwardPass) -> MapGradient:
        """How far the fit is from the target, and the direction that makes the target mask pay."""
        classes, wanted = self._target.classes, 1 - self._target.maps
        masks, corners = self._course.masks, self._corners[:, self._course.done]
        crops = self._optics.crops(self._optics.scene(view.x.detach()), corners)
        aimed = look(view.classifier, self._optics, crops, wanted, classes)
        tried = look(view.classifier, self._optics, crops, masks, classes)
        excess, lack = (aimed.log_probability - _GONE).relu(), (_THERE - tried.log_probability).relu()
        down = unit(self._optics.in_image(wanted, corners, aimed.gradient)) * (excess > 0)[:, None, None, None]
        up = unit(self._optics.in_image(masks, corners, tried.gradient)) * (lack > 0)[:, None, None, None]
        ended = self._ended
        slope = self._optics.in_mask(crops, tried.gradient) * tried.log_probability.exp()[:, None, None]
        self._course.step(slope + penalty(self._fit, masks)[1], self._fit.lr)
        if self._course.done == self._replay:
            self._ended = self._target.distance(1 - self._course.masks)
            self._course = FitCourse.begin(self._fit, self._target.maps)
        return MapGradient(ended, excess + lack, down - up, passes=2)

    def select(self, places: Tensor) -> None:
        """Go on with the images at ``places`` only."""
        self._target, self._corners = self._target.select(places), self._corners[places.cpu()]
        self._course.select(places)
        self._ended = self._ended[places]
