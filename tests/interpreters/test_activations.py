"""The objective of maps that are made of one activation."""

import pytest
import torch
from torch import Tensor, nn

from support.toys import images, smooth_net
from underfire import CAM, Classifier, EigenCAM, GradCAM, Interpreter, Linf
from underfire.attacks.control import Schedule
from underfire.attacks.engine import Setting, descend
from underfire.interpreters import ForwardPass, MapGradient, MapTarget
from underfire.interpreters.maps import distance
from underfire.models.folded import prepared

N = 4
X, Y = images(N, 16, dtype=torch.float64), torch.tensor([0, 3, 3, 7])
KEYS = tuple("abcd")


def _maps(g: Interpreter) -> Tensor:
    return torch.rand(N, *g.grid, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def _asked(g: CAM | GradCAM, x: Tensor, task: MapTarget) -> tuple[MapGradient, Tensor]:
    """The answer of a fresh objective, and its direction in x."""
    with g.classifier.frozen():
        objective = g.objective(task)
        view = ForwardPass(g.classifier, x, taps=objective.taps)
        pull = objective(view)
        return pull, pull.direction if pull.at is None else view.carried(pull.at, pull.direction)


def _flat_head() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.Sequential(nn.Flatten(), nn.Linear(12 * 64, 12), nn.Tanh(), nn.Linear(12, 10))
    return Classifier(nn.Sequential(smooth_net().features, head).double(), mean=0.5, std=0.25, input_size=16)


class TestDirection:
    @pytest.mark.parametrize("make", [CAM, GradCAM], ids=lambda g: g.name)
    def test_where_a_linear_head_reads_the_mean_it_stays_at_the_activation(
        self, smooth_classifier64: Classifier, make: type[CAM | GradCAM]
    ) -> None:
        g = make(smooth_classifier64)
        pull, _ = _asked(g, X, MapTarget(Y, _maps(g), KEYS, seed=0))
        assert pull.at == g.features
        assert pull.direction.shape == (N, 12, 8, 8)
        assert not any(t.requires_grad for t in (pull.distance, pull.loss, pull.direction))
        assert pull.passes == 0

    def test_where_the_map_depends_on_more_it_is_in_x(self) -> None:
        g = GradCAM(_flat_head())
        pull, _ = _asked(g, X, MapTarget(Y, _maps(g), KEYS, seed=0))
        assert pull.at is None
        assert pull.direction.shape == X.shape
        assert pull.passes == 1

    @pytest.mark.parametrize("case", ["cam", "gradcam", "gradcam, another head"])
    def test_it_is_the_gradient_of_the_map_s_distance_in_x(self, smooth_classifier64: Classifier, case: str) -> None:
        """Central differences of the distance of the public maps, pixel directions drawn at random."""
        g: CAM | GradCAM = CAM(smooth_classifier64) if case == "cam" else GradCAM(smooth_classifier64)
        if case == "gradcam, another head":
            g = GradCAM(_flat_head())
        maps = _maps(g)
        pull, direction = _asked(g, X, MapTarget(Y, maps, KEYS, seed=0))
        torch.testing.assert_close(pull.distance, distance(g(X, Y), maps))
        torch.testing.assert_close(pull.loss, pull.distance)
        step = 1e-6
        for seed in range(5):
            d = torch.randn(X.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            ahead, behind = (distance(g(X + s * d, Y), maps) for s in (step, -step))
            slope = (ahead - behind) / (2 * step)
            torch.testing.assert_close((direction * d).sum(dim=(1, 2, 3)), slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("make", "name"), [(GradCAM, "linear"), (GradCAM, "other"), (EigenCAM, "other")])
def test_a_joint_step_goes_back_to_the_pixels_as_often_as_it_says(
    smooth_classifier: Classifier, make: type[GradCAM | EigenCAM], name: str
) -> None:
    classifier = smooth_classifier if name == "linear" else _flat_head()
    x, back = X.to(classifier.dtype), []
    g, schedule = make(classifier), Schedule(2, warm=0, first=1 / 255, peak=1 / 255, last=1 / 255)
    task = MapTarget(Y, _maps(g).to(x.dtype), KEYS, seed=0)
    twin = prepared(classifier)
    first = next(module for module in twin.module.modules() if isinstance(module, nn.Conv2d))
    first.register_full_backward_hook(lambda *_: back.append(1))
    found = descend(twin, x, Y, [g.objective(task)], Setting(Linf(8 / 255), schedule))
    looks = 3  # before each step and at the last image
    assert found.passes.tolist() == [looks * g.passes_per_step] * N
    assert len(back) == 2 * g.passes_per_step + (g.passes_per_step - 1)  # at the last one for the map alone


@pytest.mark.parametrize("make", [CAM, GradCAM], ids=lambda g: g.name)
def test_it_goes_on_with_the_images_that_are_left(smooth_classifier64: Classifier, make: type[CAM | GradCAM]) -> None:
    g = make(smooth_classifier64)
    task = MapTarget(Y, _maps(g), KEYS, seed=0)
    whole, _ = _asked(g, X, task)
    places = torch.tensor([3, 0, 0])
    with g.classifier.frozen():
        objective = g.objective(task)
        objective.select(places)
        part = objective(ForwardPass(g.classifier, X[places], taps=objective.taps))
    torch.testing.assert_close(part.distance, whole.distance[places])
    torch.testing.assert_close(part.direction, whole.direction[places])
    assert len(set(part.distance.tolist())) == 2


def test_a_task_s_rows_are_selected_together() -> None:
    maps = torch.arange(N * 4.0).reshape(N, 2, 2)
    task = MapTarget(Y, maps, KEYS, seed=7).select(torch.tensor([2, 0, 2]))
    assert task.classes.tolist() == [3, 0, 3]
    assert torch.equal(task.maps, maps[[2, 0, 2]])
    assert task.keys == ("c", "a", "c")
    assert task.seed == 7
