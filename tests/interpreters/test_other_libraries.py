"""Captum's and Quantus' own measures take our interpreters, and Captum's comparator our attacks."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import underfire as uf
from support.toys import images, relu_net
from underfire.errors import InputError
from underfire.models.classifier import Classifier

X, Y = images(3, 32, seed=4), torch.tensor([1, 4, 7])


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(relu_net(), input_size=32)


@pytest.fixture(scope="module")
def cam(classifier: Classifier) -> uf.Interpreter:
    return uf.CAM(classifier)


@pytest.mark.parametrize("make", [uf.CAM, uf.GRAD, uf.IG, uf.GuidedBackprop, uf.Occlusion], ids=lambda g: g.name)
def test_an_attribution_is_the_map_brought_to_the_size_of_the_images(make: Any, classifier: Classifier) -> None:
    g = make(classifier)
    maps = g(X, Y)
    torch.testing.assert_close(g.attribute(X, target=Y, upsample=False), maps)
    found = g.attribute(X, target=Y)
    assert found.shape == (3, 1, 32, 32)
    assert not found.requires_grad
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    enlarged = torch.nn.functional.interpolate(maps[:, None], (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, enlarged)


def test_targets_are_given_as_captum_takes_them(classifier: Classifier, cam: uf.Interpreter) -> None:
    torch.testing.assert_close(cam.attribute(X, 2, upsample=False), cam(X, torch.tensor([2, 2, 2])))
    torch.testing.assert_close(cam.attribute(X, [1, 4, 7], upsample=False), cam(X, Y))
    predicted = classifier.probabilities(X).argmax(dim=1)
    torch.testing.assert_close(cam.attribute(X, upsample=False), cam(X, predicted))
    with pytest.raises(InputError):
        cam.attribute(X, 10)
    with pytest.raises(InputError):
        cam.attribute(2 * X + 1, 1)


def test_captums_sensitivity_and_infidelity(classifier: Classifier, cam: uf.Interpreter) -> None:
    captum = pytest.importorskip("captum.metrics")
    torch.manual_seed(0)

    def within(x: Tensor, radius: float) -> Tensor:
        return (x + radius * (2 * torch.rand_like(x) - 1)).clamp(0, 1)

    options = {"target": Y, "perturb_func": within}
    moved = captum.sensitivity_max(cam.attribute, X, perturb_radius=0.02, n_perturb_samples=3, **options)
    assert moved.shape == (3,)
    assert bool((moved > 0).all())
    still = captum.sensitivity_max(cam.attribute, X, perturb_radius=0.0, n_perturb_samples=1, **options)
    torch.testing.assert_close(still, torch.zeros(3))

    def noise(inputs: Tensor) -> tuple[Tensor, Tensor]:
        change = 0.01 * torch.randn_like(inputs)
        return change, (inputs - change).clamp(0, 1)

    values = cam.attribute(X, target=Y).expand(-1, 3, -1, -1)
    found = captum.infidelity(classifier, noise, X, values, target=Y, n_perturb_samples=2)
    assert found.shape == (3,)
    assert bool(torch.isfinite(found).all())


def test_captums_comparator_takes_our_attacks(classifier: Classifier, cam: uf.Interpreter) -> None:
    robust = pytest.importorskip("captum.robust")
    target = (classifier.probabilities(X).argmax(dim=1) + 1) % 10

    def reached(logits: Tensor) -> float:
        return float((logits.argmax(dim=1) == target).double().mean())

    comparator = robust.AttackComparator(forward_func=classifier, metric=reached)
    attacks = {"PGD": uf.PGD(classifier, eps=0.2, steps=20), "ADV2": uf.ADV2(cam, eps=0.2, steps=20)}
    for name, attack in attacks.items():
        comparator.add_attack(lambda x, attack=attack: attack(x, target).x_adv, name=name)
    found = comparator.evaluate(X)
    assert float(found["Original"]) == 0
    for name, attack in attacks.items():
        assert float(found[name]["mean"]) == pytest.approx(float(attack(X, target).success.double().mean()))
    assert float(found["PGD"]["mean"]) == 1


def test_quantus_measures_our_maps(classifier: Classifier, cam: uf.Interpreter) -> None:
    quantus = pytest.importorskip("quantus")

    def explained(model: object, inputs: NDArray[Any], targets: NDArray[Any], **_: object) -> NDArray[Any]:
        x = torch.as_tensor(np.asarray(inputs), dtype=torch.float32).clamp(0, 1)
        return cam.attribute(x, target=torch.as_tensor(np.asarray(targets))).numpy()

    maps = explained(None, X.numpy(), Y.numpy())
    module = relu_net().eval()
    quiet = {"disable_warnings": True, "display_progressbar": False}
    metric = quantus.MaxSensitivity(nr_samples=2, lower_bound=0.02, **quiet)
    found = metric(model=module, x_batch=X.numpy(), y_batch=Y.numpy(), a_batch=maps, explain_func=explained)
    assert len(found) == 3
    assert all(np.isfinite(found))
    sparse = quantus.Sparseness(**quiet)(model=module, x_batch=X.numpy(), y_batch=Y.numpy(), a_batch=maps)
    assert all(0 <= value <= 1 for value in sparse)
