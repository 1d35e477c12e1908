"""Images that are done leave the batch, and those that stay don't notice."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from support.toys import images, relu_net
from underfire import CAM, GRAD, IG, Classifier, GradCAM, Interpreter, Linf, NonFiniteError
from underfire.attacks.control import Schedule
from underfire.attacks.engine import Outcome, Setting, descend
from underfire.attacks.keepers import BEST, LAST, Keeper
from underfire.interpreters import ForwardPass, MapGradient, MapObjective, MapTarget
from underfire.interpreters.map_goals import Near
from underfire.models.folded import prepared

N, STEPS = 6, 50
KEYS = tuple(f"image {i}" for i in range(N))
NEVER = 5  # the image whose target map is out of reach
AT_ONCE = 2  # the image that is where it should be before the first step

Make = Callable[[Classifier], Interpreter]


def _ig(classifier: Classifier) -> IG:
    return IG(classifier, points=4, strata=3)


def _setting(steps: int = STEPS, *, keep: Keeper = BEST, every: int = 1) -> Setting:
    schedule = Schedule(steps, warm=0, first=1 / 255, peak=2 / 255, last=0.1 / 255)
    return Setting(Linf(8 / 255), schedule, keep=keep, every=every)


@dataclass(frozen=True)
class _Rough(Near):
    """A given map, of which a rougher likeness is enough."""

    enough: float  # type: ignore[misc]


@dataclass(frozen=True)
class _Case:
    """A planted batch: maps that an image in the ball surely has, of which some are reached sooner than others."""

    classifier: Classifier
    x: Tensor
    target: Tensor
    goal: Tensor

    def maps(self, g: Interpreter) -> Tensor:
        maps = g(self.goal, self.target)
        maps[-1] = maps[-1].flip(0, 1)
        return maps

    def run(self, makes: Sequence[Make], rows: Sequence[int], setting: Setting) -> Outcome:
        """The attack on the images ``rows``, in this order, on the folded copy with channels-last weights."""
        places = torch.tensor(rows)
        keys = tuple(KEYS[i] for i in rows)
        objectives = [
            g.objective(MapTarget(self.target[places], self.maps(g)[places], keys, seed=0))
            for g in (make(self.classifier) for make in makes)
        ]
        twin = prepared(self.classifier)
        convolutions = [m for m in twin.module.modules() if isinstance(m, nn.Conv2d)]
        assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)
        return descend(twin, self.x[places], self.target[places], objectives, setting)


def _case(n: int, size: int, *, on_the_way: list[float], steps: int) -> _Case:
    """``n`` pictures of ``size``, each moved that far towards one that has the label and the maps."""
    classifier = Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=size)
    x = images(n, size)
    target = (classifier(x).argmax(dim=1) + 1) % 10
    blind = Setting(Linf(8 / 255), Schedule.constant(steps, 1 / 255))
    goal = descend(prepared(classifier), x, target, [], blind).x_adv
    assert float(classifier.probabilities(goal)[torch.arange(n), target].min()) > 0.92
    share = torch.tensor(on_the_way).reshape(-1, 1, 1, 1)
    return _Case(classifier, torch.where(share == 1, goal, x + share * (goal - x)), target, goal)


@pytest.fixture(scope="module")
def case() -> _Case:
    return _case(N, 32, on_the_way=[0.4, 0.5, 1.0, 0.6, 0.7, 0.0], steps=60)


def _same(part: Outcome, whole: Outcome, rows: Sequence[int]) -> None:
    """``part`` is the ``rows`` of ``whole``, to the bit."""
    places = torch.tensor(rows)
    assert torch.equal(part.passes, whole.passes[places])
    assert torch.equal(part.x_adv, whole.x_adv[places])
    assert torch.equal(part.used, whole.used[places])
    assert torch.equal(part.trace.stuck, whole.trace.stuck[places])
    assert part.trace.maps is not None
    assert whole.trace.maps is not None
    for one, other in ((part.trace.prediction, whole.trace.prediction), (part.trace.maps, whole.trace.maps)):
        for name in ("first", "half", "kept"):
            assert torch.equal(getattr(one, name), getattr(other, name)[places]), name


@pytest.fixture
def one_thread() -> Iterator[None]:
    """With more, odd batches are filled up."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SPLITS = [
    [NEVER],
    [AT_ONCE, NEVER, 0],
    [0, 1, 3, 4],
    [*range(N - 1, -1, -1)],
]


class TestBits:
    @pytest.mark.parametrize(("make", "threads"), [(CAM, 1), (CAM, 2), (GradCAM, 1)])
    def test_an_image_s_way_does_not_hang_on_who_else_is_there(
        self, case: _Case, make: Make, threads: int, one_thread: None
    ) -> None:
        """Alone, beside images that leave before it, beside images that stay longer, in reverse order."""
        torch.set_num_threads(threads)
        whole = case.run([make], range(N), _setting())
        left = whole.passes.tolist()
        assert left[AT_ONCE] == 1
        assert left[NEVER] == STEPS + 1
        assert len(set(left)) >= 5
        for rows in SPLITS:
            _same(case.run([make], rows, _setting()), whole, rows)

    @pytest.mark.parametrize(
        ("makes", "enough"),
        [([_ig], 0.12), ([CAM, GRAD], 0.08)],
        ids=["ig", "cam+grad"],
    )
    def test_nor_where_maps_are_hard_to_reach_and_random_numbers_are_drawn(
        self, case: _Case, makes: list[Make], enough: float
    ) -> None:
        """Here a rougher map is enough, so that images leave at steps of their own."""
        setting = replace(_setting(20), map_goal=_Rough(enough))
        whole = case.run(makes, range(N), setting)
        left = whole.passes.tolist()
        assert len(set(left)) >= 4
        assert max(left) == left[NEVER] >= 41
        for rows in SPLITS:
            _same(case.run(makes, rows, setting), whole, rows)

    @pytest.mark.parametrize("make", [CAM, GRAD], ids=lambda g: g.name)
    def test_nor_where_one_is_left_that_is_so_large_that_threads_share_its_sums(
        self, make: Make, one_thread: None
    ) -> None:
        """One image alone is reduced by all threads, one of several by its own: so it is given company."""
        torch.set_num_threads(2)
        case = _case(2, 144, on_the_way=[1.0, 0.0], steps=30)
        whole = case.run([make], [0, 1], _setting(8))
        assert int(whole.passes[0]) in (1, 2)
        assert int(whole.passes[1]) in (9, 18)
        _same(case.run([make], [1], _setting(8)), whole, [1])

    def test_the_same_image_twice_is_the_same_twice(self, case: _Case) -> None:
        outcome = case.run([CAM], [3, AT_ONCE, 3, NEVER, 3], _setting())
        alone = case.run([CAM], [3], _setting())
        for place in (0, 2, 4):
            assert torch.equal(outcome.x_adv[place], alone.x_adv[0])
            assert int(outcome.passes[place]) == int(alone.passes[0])


class TestPasses:
    def test_those_who_left_cost_nothing_more(self, case: _Case, one_thread: None) -> None:
        """A step on CAM is one forward pass, of the images that are left; one left has another one for company."""
        seen: list[int] = []
        handle = case.classifier.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0]))
        try:
            for rows in ([*range(N)], [NEVER, AT_ONCE], [0, 1, AT_ONCE], [4]):
                objectives_made_by = CAM(case.classifier)
                places = torch.tensor(rows)
                maps = case.maps(objectives_made_by)[places]
                objective = objectives_made_by.objective(
                    MapTarget(case.target[places], maps, tuple(KEYS[i] for i in rows), seed=0)
                )
                twin = prepared(case.classifier)
                seen.clear()
                passes = descend(twin, case.x[places], case.target[places], [objective], _setting()).passes
                assert seen == [max(2, int((passes > look).sum())) for look in range(int(passes.max()))]
        finally:
            handle.remove()

    def test_an_image_that_is_there_pays_one_look(self, case: _Case) -> None:
        outcome = case.run([CAM], [AT_ONCE], _setting())
        assert outcome.passes.tolist() == [1]
        assert torch.equal(outcome.x_adv, case.x[AT_ONCE : AT_ONCE + 1])
        assert outcome.used.tolist() == [0]

    @pytest.mark.parametrize("every", [4, 7])
    def test_only_a_candidate_can_be_enough(self, case: _Case, every: int) -> None:
        """Where every so many-th iterate is a candidate, an image leaves at one of these or never."""
        every_one, some = (case.run([CAM], range(N), _setting(every=e)).passes for e in (1, every))
        assert bool((some >= every_one).all())
        assert bool(((some - 1) % every == 0)[some <= STEPS].all())
        assert int((some <= STEPS).sum()) >= 3

    def test_nobody_leaves_where_the_last_iterate_is_kept(self, case: _Case) -> None:
        assert case.run([CAM], range(N), _setting(20, keep=LAST)).passes.tolist() == [20] * N

    def test_the_kept_iterate_is_the_one_that_was_enough(self, case: _Case) -> None:
        outcome = case.run([CAM], range(N), _setting())
        cam = CAM(case.classifier)
        distance = (cam(outcome.x_adv, case.target) - case.maps(cam)).abs().mean(dim=(1, 2))
        confidence = case.classifier.probabilities(outcome.x_adv)[torch.arange(N), case.target]
        done = outcome.passes <= STEPS
        assert done[AT_ONCE]
        assert not done[NEVER]
        assert int(done.sum()) >= 4
        assert float(distance[done].max()) <= 0.5 / 255 + 1e-4
        assert float(confidence[done].min()) >= 0.9 - 1e-4
        assert float(distance[NEVER]) > 0.01


class TestSeldomAsked:
    """A GPU is asked only now and then what has come of the steps: nothing else comes of them."""

    @pytest.mark.parametrize("rhythm", [2, 7, 1000])
    @pytest.mark.parametrize(
        ("makes", "enough"), [([CAM], None), ([_ig], 0.12), ([CAM, GRAD], 0.08)], ids=["cam", "ig", "cam+grad"]
    )
    def test_the_outcome_is_the_same_to_the_bit(
        self,
        case: _Case,
        makes: list[Make],
        enough: float | None,
        rhythm: int,
        one_thread: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        setting = _setting() if enough is None else replace(_setting(20), map_goal=_Rough(enough))
        whole = case.run(makes, range(N), setting)
        assert len(set(whole.passes.tolist())) >= 4
        monkeypatch.setattr("underfire.attacks.engine.RHYTHM", {"cpu": rhythm})
        for rows in ([*range(N)], [NEVER, AT_ONCE, 0]):
            _same(case.run(makes, rows, setting), whole, rows)

    def test_the_batch_has_few_sizes(self, case: _Case, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []
        handle = case.classifier.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0]))
        try:
            cam = CAM(case.classifier)
            maps, twin = case.maps(cam), prepared(case.classifier)
            monkeypatch.setattr("underfire.attacks.engine.RHYTHM", {"cpu": 2})
            seen.clear()
            descend(twin, case.x, case.target, [cam.objective(MapTarget(case.target, maps, KEYS, seed=0))], _setting())
        finally:
            handle.remove()
        assert set(seen) <= {N, N // 2}
        assert len(seen) == STEPS + 1

    def test_nothing_is_asked_but_in_the_rhythm(self, case: _Case, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[bool] = []
        truth = Tensor.__bool__

        def ask(value: Tensor) -> bool:
            asked.append(truth(value))
            return asked[-1]

        monkeypatch.setattr(Tensor, "__bool__", ask)
        monkeypatch.setattr("underfire.attacks.engine.RHYTHM", {"cpu": 10})
        monkeypatch.setattr("underfire.devices.SYNCHRONOUS", frozenset())
        cam = CAM(case.classifier)
        task = MapTarget(case.target, case.maps(cam), KEYS, seed=0)
        twin = prepared(case.classifier)
        asked.clear()
        descend(twin, case.x, case.target, [cam.objective(task)], _setting())
        assert len(asked) == 1 + STEPS // 10  # and in the end


LATE = 3  # passes that go well


class _Late:
    """``objective``, with NaN in one part of its answer for the image ``key`` from the fourth call on."""

    def __init__(
        self, objective: MapObjective, task: MapTarget, key: str, part: Literal["distance", "direction"]
    ) -> None:
        self._objective, self._task, self._key, self._part, self._calls = objective, task, key, part, 0
        self.taps, self.needs_backward = objective.taps, objective.needs_backward

    def __call__(self, view: ForwardPass) -> MapGradient:
        self._calls += 1
        pull = self._objective(view)
        if self._calls <= LATE:
            return pull
        distance, direction = pull.distance.clone(), pull.direction.clone()
        place = self._task.keys.index(self._key)
        (distance if self._part == "distance" else direction)[place] = torch.nan
        return replace(pull, distance=distance, direction=direction)

    def select(self, places: Tensor) -> None:
        self._objective.select(places)
        self._task = self._task.select(places)


class TestNotANumber:
    """An error names the image by its place in the batch that was given."""

    @pytest.mark.parametrize("done", [[0, 1], [0, 1, 2, 4, 5], [4, 5], [2]])
    @pytest.mark.parametrize("rhythm", [1, 3, 8])
    @pytest.mark.parametrize(
        ("part", "what"), [("distance", "the interpretation loss"), ("direction", "the direction of the step")]
    )
    def test_of_an_objective(
        self,
        case: _Case,
        done: list[int],
        rhythm: int,
        part: Literal["distance", "direction"],
        what: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("underfire.attacks.engine.RHYTHM", {"cpu": rhythm})
        x = case.x.clone()
        x[done] = case.goal[done]
        cam = CAM(case.classifier)
        maps = cam(case.goal, case.target)
        task = MapTarget(case.target, maps, KEYS, seed=0)
        objective = _Late(cam.objective(task), task, "image 3", part)
        with pytest.raises(NonFiniteError, match=f"{what} of image 3 contains NaN") as stop:
            descend(prepared(case.classifier), x, case.target, [objective], _setting())
        assert stop.value.index == 3

    @pytest.mark.parametrize("done", [[0, 1], [0, 1, 2, 4, 5], [4, 5], [2]])
    def test_of_a_logit(self, done: list[int]) -> None:
        classifier = Classifier(relu_net(), mean=0.5, std=0.25, input_size=32)
        x = images(N, 32)
        x[:, 0, 0, 0] = 0.5
        x[3, 0, 0, 0] = 1
        target = (classifier(x).argmax(dim=1) + 1) % 10
        setting = Setting(Linf(8 / 255), Schedule.constant(60, 1 / 255))
        goal = descend(prepared(classifier), x, target, [], setting).x_adv
        cam = CAM(classifier)
        objective = cam.objective(MapTarget(target, cam(goal, target), KEYS, seed=0))
        x[done] = goal[done]
        calls: list[int] = []

        def spoil(_: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
            calls.append(len(args[0]))
            marked = (args[0][:, 0, 0, 0] > 1.6) & (len(calls) > LATE)  # after normalisation; 0.9 in pixel values
            return out.masked_fill(marked[:, None], torch.nan)

        twin = prepared(classifier)
        twin.module.register_forward_hook(spoil)
        with pytest.raises(NonFiniteError, match="the prediction loss of image 3 contains NaN") as stop:
            descend(twin, x, target, [objective], _setting())
        assert stop.value.index == 3
        assert len(calls) == LATE + 1
        threads = torch.get_num_threads()  # batches are filled up to a multiple of them
        assert calls[-1] == -(-max(2, N - len(done)) // threads) * threads
