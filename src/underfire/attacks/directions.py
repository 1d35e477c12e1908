"""The direction of a joint step, from what a forward pass and the objectives that read it say."""

from collections.abc import Sequence

from torch import Tensor

from underfire.attacks.control import Mixer
from underfire.interpreters.base import ForwardPass, MapGradient


def joint_direction(
    view: ForwardPass,
    target: Tensor,
    answers: Sequence[MapGradient],
    mixer: Mixer,
    needs_confidence: Tensor,
    step: int,
) -> Tensor:
    """Prediction and maps in one direction (N, C, H, W), mixed as far back as one backward pass can serve all.

    Args:
        view: of the present images; nobody goes backward through it afterwards.
        target: (N,) classes that the prediction is to reach.
        answers: of the objectives, at ``view``.
        mixer: shares the step among them.
        needs_confidence: (N,) bool, whose prediction is not yet what it should be.
        step: counted from the first one of the attack.
    """
    taps = {answer.at for answer in answers}
    (tap,) = taps if len(taps) == 1 else (None,)
    distances = [answer.distance for answer in answers]
    if tap is not None and tap.head is not None:  # all that the logits read passes here
        directions = [answer.direction for answer in answers]
        mixed = mixer(view.gradient_at(tap, view.nll(target)), directions, distances, needs_confidence, step)
        return view.carried(tap, mixed, last=True)
    prediction = view.nll_gradient(target)
    last = max((i for i, a in enumerate(answers) if a.at is not None), default=None)
    directions = [
        a.direction if a.at is None else view.carried(a.at, a.direction, last=i == last) for i, a in enumerate(answers)
    ]
    return mixer(prediction, directions, distances, needs_confidence, step)
