"""The same work done by underfire and by other libraries, each through its own public calls.

The others get the plain module in evaluation mode with frozen parameters; underfire gets the classifier of the same
network and pays, within its time, for preparing its own copy, for checking its input and for scoring the result.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.subject import Plain, Subject
from underfire import GRAD, IG, PGD, GradCAM
from underfire.interpreters.maps import min_max, saliency
from underfire.models.features import FeatureMap

EPS, STEPS, STEP_SIZE = 8 / 255, 10, 1 / 255
POINTS = 4  # of integrated gradients, midpoint rule


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        library: the module that must be there.
        run: from a subject to images (N, C, H, W) or maps (N, h, w), which must not depend on the library.
    """

    library: str
    run: Callable[[Subject], Tensor]


def our_pgd(subject: Subject) -> Tensor:
    """The last iterate, as the others return it."""
    attack = PGD(subject.classifier, eps=EPS, steps=STEPS, step_size=STEP_SIZE, keep="last")
    return attack(subject.x, subject.target).x_adv


def foolbox_pgd(subject: Subject) -> Tensor:
    import foolbox
    from foolbox.models.pytorch import PyTorchModel

    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS, random_start=False)
    model = PyTorchModel(subject.plain, bounds=(0, 1), device=subject.x.device)
    found: Tensor = attack(model, subject.x, foolbox.criteria.TargetedMisclassification(subject.target), epsilons=EPS)[
        1
    ]
    return found


def torchattacks_pgd(subject: Subject) -> Tensor:
    import torchattacks

    attack = torchattacks.PGD(subject.plain, eps=EPS, alpha=STEP_SIZE, steps=STEPS, random_start=False)
    attack.set_mode_targeted_by_label(quiet=True)
    found: Tensor = attack(subject.x, subject.target)
    return found


def captum_pgd(subject: Subject) -> Tensor:
    from captum import robust

    attack = robust.PGD(subject.plain, nn.CrossEntropyLoss(reduction="none"), lower_bound=0.0, upper_bound=1.0)
    attack.fgsm.zero_thresh = 0.0  # by default it leaves pixels alone whose gradient is below 1e-6
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor 0 did not already require gradients")  # at every step
        found: Tensor = attack.perturb(
            subject.x, radius=EPS, step_size=STEP_SIZE, step_num=STEPS, target=subject.target, targeted=True
        )
    return found.detach()


def our_grad(subject: Subject) -> Tensor:
    return GRAD(subject.classifier)(subject.x, subject.label)


def captum_saliency(subject: Subject) -> Tensor:
    from captum.attr import Saliency

    method = Saliency(lambda x: -subject.plain(x).log_softmax(dim=1))
    return saliency(method.attribute(subject.x.clone().requires_grad_(), target=subject.label, abs=True))


def our_ig(subject: Subject) -> Tensor:
    return IG(subject.classifier, points=POINTS, rule="midpoint")(subject.x, subject.label)


def captum_ig(subject: Subject) -> Tensor:
    return _captum_ig(subject, None)


def captum_ig_in_batches(subject: Subject) -> Tensor:
    return _captum_ig(subject, len(subject.x))


def _captum_ig(subject: Subject, internal_batch_size: int | None) -> Tensor:
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(nn.Sequential(subject.plain, nn.Softmax(dim=1)))
    attributions: Tensor = method.attribute(
        subject.x,
        target=subject.label,
        n_steps=POINTS,
        method="riemann_middle",
        internal_batch_size=internal_batch_size,
    )
    return saliency(attributions.detach())


def our_gradcam(subject: Subject) -> Tensor:
    return GradCAM(subject.classifier)(subject.x, subject.label)


def captum_gradcam(subject: Subject) -> Tensor:
    from captum.attr import LayerGradCam

    layer, at_input = _layer(subject.plain, GradCAM(subject.classifier).features, subject.x[:1])
    maps = LayerGradCam(subject.plain, layer).attribute(
        subject.x, target=subject.label, attribute_to_layer_input=at_input
    )
    return min_max(maps.detach().squeeze(1))


FAMILIES: Mapping[str, Mapping[str, Contender]] = {
    "PGD": {
        "underfire": Contender("underfire", our_pgd),
        "Foolbox": Contender("foolbox", foolbox_pgd),
        "torchattacks": Contender("torchattacks", torchattacks_pgd),
        "Captum": Contender("captum", captum_pgd),
    },
    "GRAD": {"underfire": Contender("underfire", our_grad), "Captum": Contender("captum", captum_saliency)},
    "IG": {
        "underfire": Contender("underfire", our_ig),
        "Captum": Contender("captum", captum_ig),
        "Captum, a point at a time": Contender("captum", captum_ig_in_batches),
    },
    "Grad-CAM": {"underfire": Contender("underfire", our_gradcam), "Captum": Contender("captum", captum_gradcam)},
}
"""The contenders by what they do and who they are; ours comes first."""


def _layer(plain: Plain, features: FeatureMap, x: Tensor) -> tuple[nn.Module, bool]:
    """The layer at which Captum finds the activation ``features``, and whether it is that layer's input.

    It is the layer's output unless the layer is called several times in a pass, as a shared ReLU is: then the first
    layer that reads the activation serves.
    """
    made_by = plain.net.get_submodule(features.module)
    calls: list[tuple[nn.Module, object, object]] = []
    handles = [
        module.register_forward_hook(lambda m, inputs, output: calls.append((m, inputs[0], output)))
        for module in plain.net.modules()
    ]
    with torch.no_grad():
        plain(x)
    for handle in handles:
        handle.remove()
    outputs = [output for module, _, output in calls if module is made_by]
    if len(outputs) == 1:
        return made_by, False
    return next(module for module, read, _ in calls if read is outputs[features.spot.call]), True
