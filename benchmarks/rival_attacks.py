"""PGD of underfire and of other libraries, each through its own public calls: no random start, the last iterate."""

import warnings

import torch
from torch import Tensor, nn

from benchmarks.subject import Subject
from underfire import PGD

EPS, STEPS, STEP_SIZE = 8 / 255, 10, 1 / 255


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


def adv_lib_pgd(subject: Subject) -> Tensor:
    """The last of its images before the last step that has the target class; the photo itself where none has."""
    from adv_lib.attacks import pgd_linf

    found: Tensor = pgd_linf(
        subject.plain,
        subject.x,
        subject.target,
        EPS,
        targeted=True,
        steps=STEPS,
        random_init=False,
        absolute_step_size=STEP_SIZE,
    )
    return found


def art_pgd(subject: Subject) -> Tensor:
    """By arrays of float32, whatever the model's type."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    x, classes = subject.x, subject.classifier.num_classes
    estimator = PyTorchClassifier(
        subject.plain,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if x.is_cuda else "cpu",
    )
    attack = ProjectedGradientDescent(
        estimator,
        eps=EPS,
        eps_step=STEP_SIZE,
        max_iter=STEPS,
        targeted=True,
        num_random_init=0,
        batch_size=len(x),
        verbose=False,
    )
    found = attack.generate(x.cpu().numpy(), y=nn.functional.one_hot(subject.target.cpu(), classes).numpy())
    return torch.from_numpy(found).to(x)
