"""Square in an audit: the search that checks the others, from the command line to the sentence in the report."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from report.test_report import Page
from support.planted_rows import row
from support.rows import flat
from support.toy_photos import MEAN, SIZE, STD, toy_plan
from support.toys import images, quantised_net, relu_net
from underfire.auditing.attackers import attack_of
from underfire.auditing.condition import PGD, Condition
from underfire.auditing.plan import AuditPlan
from underfire.auditing.rows import Row, read_rows
from underfire.auditing.run import open_run
from underfire.auditing.runner import run_audit
from underfire.auditing.summary import Comparison
from underfire.auditing.tally import summarise
from underfire.cli import cli
from underfire.diagnostics.attack_signs import Indicator, Weight
from underfire.errors import InputError
from underfire.images import find_photos, save_png
from underfire.interpreters import CAM
from underfire.models.classifier import Classifier
from underfire.report import build_report
from underfire.report.soundness import remarks, verdict, warnings

WIDE = 24 / 255  # a ball in which a short random search gets somewhere on the toys
REACHED: dict[str, Any] = {"success": True, "confidence": 0.95}
COURSE: dict[str, Any] = {"stuck": 0.0, "nll_first": 9.0, "nll_half": 0.01, "nll_kept": 0.01}
IDLE: dict[str, Any] = {"stuck": 0.0, "nll_first": 9.0, "nll_half": 9.0, "nll_kept": 9.0}


def _classifier(*, masked: bool) -> Classifier:
    module = quantised_net() if masked else relu_net()
    return Classifier(module, mean=MEAN, std=STD, input_size=SIZE, name="toy")


def _audit(out: Path, *, masked: bool, steps: int, eps: float = WIDE) -> Path:
    """An audit of three photos by PGD, ADV² and Square on CAM, towards the runner-up of each."""
    classifier, photos = _classifier(masked=masked), out / "photos"
    photos.mkdir(parents=True)
    lines = ["file_name,label,target"]
    for i, picture in enumerate((images(3, SIZE, seed=1) * 255).round() / 255):
        save_png(picture, photos / f"{i}.png")
        label, target = classifier.probabilities(picture[None])[0].topk(2).indices.tolist()
        lines.append(f"{i}.png,{label},{target}")
    (photos / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plan = replace(
        toy_plan(), interpreters=("cam",), attacks=("pgd", "adv2", "square"), targets="given", steps=steps, eps=eps
    )
    run_audit(plan, find_photos([photos], class_names=classifier.class_names), classifier, out / "run")
    return out / "run"


def _of(rows: list[Row], attack: str) -> list[SimpleNamespace]:
    return [flat(found) for found in rows if found.attack == attack]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _audit(tmp_path_factory.mktemp("masked"), masked=True, steps=150)


class TestMaskedGradients:
    def test_the_report_says_so(self, masked: Path) -> None:
        rows = read_rows(masked)
        k = sum(found.success for found in _of(rows, "square"))
        assert k >= 2
        assert not any(found.answer.success for found in rows if found.attack in ("pgd", "adv2"))
        text = Page(build_report(open_run(masked)).read_text(encoding="utf-8")).text
        for blind, white_box in (("Square on CAM", "ADV² on CAM"), ("Square", "PGD")):
            assert (
                f"Serious {blind} did better than {white_box} on {k} of 3 photos: gradients of this model mislead, or "
                f"{white_box} was too short; its figures are not to be trusted. {blind} reached the target class on "
                f"{k} of 3 photos."
            ) in text
        assert "The attacks of this run were hindered" in text

    def test_rows_are_those_of_an_attack_on_the_map(self, masked: Path) -> None:
        for found in _of(read_rows(masked), "square"):
            assert (found.source, found.perturbation, found.eps) == ("cam", "linf", WIDE)
            assert found.steps == 150
            assert 1 < found.passes <= 300
            assert 0 < found.used <= WIDE + 1e-6
            assert found.stuck == 0


def test_a_label_that_never_held_leaves_no_gap(tmp_path: Path) -> None:
    out = _audit(tmp_path, masked=False, steps=4, eps=1 / 255)
    rows = _of(read_rows(out), "square")
    assert len(rows) == 3
    for found in rows:
        assert not found.success
        assert (found.gap_first, found.gap_half, found.gap_kept) == (None, None, None)
        assert found.nll_first is not None
        assert found.trace is not None
        assert found.trace.maps is None
    text = Page(build_report(open_run(out)).read_text(encoding="utf-8")).text
    assert "so that its silence proves little" in text
    assert "gradients of this model mislead" not in text


class TestComparisons:
    """By hand: a: only the search reaches the label. b: both, its map much nearer. c: both, no nearer. d: nobody."""

    ROWS = (
        row("a", "adv2-cam", success=False, l1=0.1),
        row("a", "square-cam", **REACHED, l1=0.3, **COURSE),
        row("b", "adv2-cam", **REACHED, l1=0.3),
        row("b", "square-cam", **REACHED, l1=0.1),
        row("c", "adv2-cam", **REACHED, l1=0.1),
        row("c", "square-cam", **REACHED, l1=0.2),
        row("d", "adv2-cam", l1=0.5),
        row("d", "square-cam", l1=0.0, **IDLE),
    )

    def test_with_adv2_by_label_and_map(self) -> None:
        assert summarise(self.ROWS).comparisons == (Comparison(Condition.on("adv2", "cam"), better=2, reached=3, n=4),)

    def test_with_pgd_by_the_label_and_with_any_search(self) -> None:
        pgd = [row("a", "pgd", **REACHED, l1=0.9), row("b", "pgd"), row("d", "pgd"), row("e", "pgd")]
        other = [row("d", "square-grad", **REACHED), row("a", "square-grad")]
        found = summarise([*self.ROWS, *pgd, *other]).comparisons
        assert found[0] == Comparison(PGD, better=2, reached=3, n=3)
        assert len(found) == 2  # nothing to compare the search on GRAD with

    def test_only_the_map_that_was_attacked_counts(self) -> None:
        grad = [row("b", attack, "grad", **REACHED, l1=l1) for attack, l1 in (("adv2-cam", 0.9), ("square-cam", 0.0))]
        assert summarise([*self.ROWS, *grad]).comparisons == summarise(self.ROWS).comparisons

    def test_none_without_both(self) -> None:
        for kept in ("adv2", "square"):
            assert summarise(found for found in self.ROWS if found.attack == kept).comparisons == ()


class TestRemarks:
    def test_a_search_that_did_better_is_serious(self) -> None:
        summary = summarise(TestComparisons.ROWS)
        (told,) = remarks((), summary)
        assert told.weight is Weight.SERIOUS
        assert warnings((), summary) == [told.text]
        assert verdict((), summary).startswith("No:")

    @pytest.mark.parametrize(("reached", "said"), [(1, "reached the target class on 1 of 2"), (0, "proves little")])
    def test_one_that_did_not_is_a_note(self, reached: int, said: str) -> None:
        rows = [
            *(row(name, "pgd", **REACHED, **COURSE) for name in "ab"),
            row("a", "square-cam", success=bool(reached), **IDLE),
            row("b", "square-cam", **IDLE),
        ]
        summary = summarise(rows)
        (told,) = remarks((), summary)
        assert told.weight is Weight.NOTE
        assert said in told.text
        assert "every attack that follows gradients moved" in verdict((), summary)
        assert ("a search without gradients found nothing more" in verdict((), summary)) == bool(reached)

    def test_a_search_that_checks_nothing_is_judged_by_its_own_course(self) -> None:
        (told,) = remarks((), summarise([row("a", "square-cam", **IDLE)]))
        assert told.text.startswith("On 1 of 1 photo under Square on CAM")
        assert Indicator.LOSS_NOT_FALLING.reading.seen in told.text


class TestPlan:
    def test_it_is_run_on_each_interpreter_and_not_by_default(self) -> None:
        plan = AuditPlan(interpreters=("cam", "grad"), attacks=("square",))
        assert [str(condition) for condition in plan.conditions] == ["none", "noise", "square-cam", "square-grad"]
        assert "square" not in AuditPlan().attacks

    @pytest.mark.parametrize(("options", "queries"), [({}, 1500), ({"passes": 70}, 70), ({"steps": 60}, 60)])
    def test_the_budget_is_its_number_of_queries(self, options: dict[str, int], queries: int) -> None:
        plan = AuditPlan(interpreters=("cam",), attacks=("square",), **options)  # type: ignore[arg-type]
        classifier = _classifier(masked=False)
        attack = attack_of(plan, Condition.on("square", "cam"), classifier, [CAM(classifier)])
        assert getattr(attack, "queries") == queries  # noqa: B009 - of the attacks it alone has them

    @pytest.mark.parametrize("perturbation", ["l2", "flow"])
    def test_other_perturbations_are_refused(self, perturbation: str) -> None:
        sentence = f"the attack 'square' is for the perturbation 'linf', not '{perturbation}'; leave the attack out"
        with pytest.raises(InputError, match=re.escape(sentence)):
            AuditPlan(attacks=("pgd", "square"), perturbation=perturbation)
        result = CliRunner().invoke(cli, ["audit", "--attacks", "square", "--perturbation", perturbation])
        assert result.exit_code == 2
        assert sentence in " ".join(result.output.split())


def test_it_is_listed() -> None:
    result = CliRunner().invoke(cli, ["attacks"], terminal_width=200)
    assert "square" in result.output
    assert "1500 queries" in " ".join(result.output.split())
