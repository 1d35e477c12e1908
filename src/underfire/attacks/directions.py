"""The direction of a step, from what a forward pass and the objectives that read it say."""

from collections.abc import Sequence

import torch
from torch import Tensor

from underfire.attacks.control import Mixer
from underfire.attacks.labels import LabelGoal
from underfire.interpreters.base import ForwardPass, MapGradient


def prediction_direction(view: ForwardPass, label: LabelGoal, target: Tensor, *, last: bool = False) -> Tensor:
    """The direction (N, C, H, W) that lowers the prediction loss of ``label`` at the classes ``target`` (N,).

    With ``last`` nobody goes backward through ``view`` afterwards.
    """
    decision, logits = view.classifier.decision, view.logits
    sign = label.sign(decision, logits, target)
    return view.nll_gradient(label.aim(decision, logits, target), last=last) * sign[:, None, None, None]


def joint_direction(
    view: ForwardPass, label: LabelGoal, target: Tensor, answers: Sequence[MapGradient], mixer: Mixer, step: int
) -> Tensor:
    """Prediction and maps in one direction (N, C, H, W), mixed as far back as one backward pass can serve all.

    Args:
        view: of the present images; nobody goes backward through it afterwards.
        label: what is wanted of the prediction.
        target: (N,) the classes that this is about.
        answers: of the objectives, at ``view``.
        mixer: shares the step among them.
        step: counted from the first one of the attack.
    """
    decision, logits = view.classifier.decision, view.logits
    needs_confidence = label.needs_confidence(decision, logits, target)
    taps = {answer.at for answer in answers}
    (tap,) = taps if len(taps) == 1 else (None,)
    distances = [answer.distance for answer in answers]
    if tap is not None and tap.head is not None:  # all that the logits read passes here
        directions = [answer.direction for answer in answers]
        with torch.enable_grad():
            nll = view.nll(label.aim(decision, logits, target)) * label.sign(decision, logits, target)
        mixed = mixer(view.gradient_at(tap, nll), directions, distances, needs_confidence, step)
        return view.carried(tap, mixed, last=True)
    prediction = prediction_direction(view, label, target, last=not answers)
    last = max((i for i, a in enumerate(answers) if a.at is not None), default=None)
    directions = [
        a.direction if a.at is None else view.carried(a.at, a.direction, last=i == last) for i, a in enumerate(answers)
    ]
    return mixer(prediction, directions, distances, needs_confidence, step)
