"""What counts as holding a label, and which way a step goes until it does."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from underfire.attacks.labels import Confidence, KeptLabel, OtherLabel
from underfire.models.decisions import EACH_OF_MANY, ONE_OF_MANY, probability

LOGITS = torch.tensor([[0.1, 0.85, 0.05], [0.04, 0.92, 0.04], [0.02, 0.96, 0.02], [0.5, 0.3, 0.2]]).log()


class TestConfidence:
    def test_the_label_holds_from_keep_on_and_is_minded_up_to_seek(self) -> None:
        confidence, target = Confidence(keep=0.9, seek=0.95), torch.ones(4, dtype=torch.int64)
        assert confidence.label_reached(ONE_OF_MANY, LOGITS, target).tolist() == [False, True, True, False]
        assert confidence.needs_confidence(ONE_OF_MANY, LOGITS, target).tolist() == [True, True, False, True]

    def test_a_low_bar_still_asks_for_the_largest_logit(self) -> None:
        confidence = Confidence(keep=0.2, seek=0.3)
        assert confidence.label_reached(ONE_OF_MANY, LOGITS, torch.tensor([1, 1, 1, 1])).tolist() == [
            True,
            True,
            True,
            False,
        ]

    @given(st.lists(st.floats(-50, 50), min_size=3, max_size=3), st.integers(0, 2))
    def test_a_step_minds_the_prediction_whenever_the_label_does_not_hold(self, row: list[float], target: int) -> None:
        confidence, logits, classes = Confidence(), torch.tensor([row], dtype=torch.float64), torch.tensor([target])
        assert bool(confidence.label_reached(ONE_OF_MANY, logits, classes)) or bool(
            confidence.needs_confidence(ONE_OF_MANY, logits, classes)
        )


class TestOtherLabel:
    def test_it_goes_towards_the_most_probable_other_class_and_wants_that_to_be_sure(self) -> None:
        goal, label = OtherLabel(), torch.tensor([1, 1, 0, 1])
        assert goal.aim(ONE_OF_MANY, LOGITS, label).tolist() == [0, 0, 1, 0]
        assert goal.met(ONE_OF_MANY, LOGITS, label).tolist() == [False, False, True, True]
        assert goal.label_reached(ONE_OF_MANY, LOGITS, label).tolist() == [False, False, True, False]
        assert goal.needs_confidence(ONE_OF_MANY, LOGITS, label).tolist() == [True, True, False, True]
        others = torch.tensor([0.1, 0.04, 0.96, 0.5])
        torch.testing.assert_close(goal.loss(ONE_OF_MANY, LOGITS, label), -others.log())

    def test_a_label_by_itself_is_left_where_the_model_no_longer_assigns_it(self) -> None:
        logits = torch.tensor([[2.0, -1.0, 0.5], [-0.1, -1.0, 0.5]])
        label = torch.zeros(2, dtype=torch.int64)
        assert OtherLabel().met(EACH_OF_MANY, logits, label).tolist() == [False, True]
        assert OtherLabel().aim(EACH_OF_MANY, logits, label).tolist() == [2, 2]


class TestKeptLabel:
    LABEL = torch.ones(4, dtype=torch.int64)

    def _goal(self, *before: float) -> KeptLabel:
        return KeptLabel(torch.tensor(before))

    def test_it_is_met_within_the_tolerance_of_what_the_probability_was(self) -> None:
        goal = self._goal(0.94, 0.815, 0.9, 0.3)  # changes: -.09, +.105, +.06, and another class leads
        assert goal.met(ONE_OF_MANY, LOGITS, self.LABEL).tolist() == [True, False, True, False]
        assert goal.label_reached(ONE_OF_MANY, LOGITS, self.LABEL).tolist() == [False, False, True, False]
        assert goal.needs_confidence(ONE_OF_MANY, LOGITS, self.LABEL).tolist() == [True, True, False, True]

    def test_the_step_leads_back_up_or_down(self) -> None:
        goal = self._goal(0.95, 0.8, 0.96, 0.1)
        assert goal.sign(ONE_OF_MANY, LOGITS, self.LABEL).tolist() == [1, -1, 1, 1]

    def test_its_loss_is_the_change_and_one_more_where_another_class_leads(self) -> None:
        goal = self._goal(0.95, 0.8, 0.96, 0.1)
        torch.testing.assert_close(goal.loss(ONE_OF_MANY, LOGITS, self.LABEL), torch.tensor([0.1, 0.12, 0.0, 1.2]))

    def test_a_part_of_the_images_has_the_same_goals(self) -> None:
        goal, places = self._goal(0.94, 0.815, 0.9, 0.3), torch.tensor([2, 0])
        part = goal.select(places)
        assert torch.equal(
            part.met(ONE_OF_MANY, LOGITS[places], self.LABEL[places]),
            goal.met(ONE_OF_MANY, LOGITS, self.LABEL)[places],
        )


class TestProbability:
    def test_it_is_the_target_s_softmax_without_a_graph(self) -> None:
        p = probability(ONE_OF_MANY, LOGITS.clone().requires_grad_(True), torch.tensor([0, 1, 2, 0]))
        torch.testing.assert_close(p, torch.tensor([0.1, 0.92, 0.02, 0.5]))
        assert not p.requires_grad
