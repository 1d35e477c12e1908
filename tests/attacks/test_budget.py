"""A budget of passes is never exceeded, and no further step would have fitted in."""

import pytest

from support.toys import CLASSES, images
from underfire import ADV2, CAM, GRAD, IG, PGD, Classifier, InputError, Interpreter
from underfire.attacks.budget import STEPS, chosen_steps, descent_of, first_steps


@pytest.mark.parametrize(
    "makes", [(), (CAM,), (GRAD,), (IG,), (CAM, GRAD, IG)], ids=lambda m: "+".join(g.name for g in m)
)
@pytest.mark.parametrize("passes", [40, 77])
def test_the_budget_is_spent_and_kept(
    makes: tuple[type[Interpreter], ...], passes: int, relu_classifier: Classifier
) -> None:
    interpreters = [make(relu_classifier) for make in makes]
    attack = ADV2(interpreters, passes=passes) if interpreters else PGD(relu_classifier, passes=passes)
    steps = attack.setting.schedule.steps
    assert descent_of(steps, interpreters, warm=first_steps) <= passes
    assert passes < descent_of(steps + 1, interpreters, warm=first_steps)
    x = images(2, 32)
    target = (relu_classifier(x).argmax(dim=1) + 1) % CLASSES
    spent = attack(x, target).passes
    assert int(spent.max()) <= passes
    most = descent_of(steps, interpreters, warm=first_steps)
    assert int(spent.max()) == most or interpreters  # images that are done may leave early


def test_steps_are_what_they_are_called() -> None:
    assert chosen_steps(None, None) == STEPS
    assert chosen_steps(7, None) == 7
    assert chosen_steps(None, 8) == 7
    assert chosen_steps(None, None, default=9) == 9


def test_steps_and_passes_together_are_refused() -> None:
    with pytest.raises(InputError, match="steps 7 and passes 9 are both given"):
        chosen_steps(7, 9)


def test_too_few_passes_for_one_step_are_refused(relu_classifier: Classifier) -> None:
    with pytest.raises(InputError, match="passes is 5; one step of an attack on ig takes 20"):
        chosen_steps(None, 5, [IG(relu_classifier)])
