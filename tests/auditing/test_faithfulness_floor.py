"""An audit marks interpreters whose maps say nothing of the model, wherever it gives a verdict on them."""

import json

import pytest
from torch import Tensor

import underfire as uf
from support.toy_photos import toy_classifier, write_photos
from underfire.api import AuditRun
from underfire.auditing.rows import read_rows
from underfire.auditing.tally import summarise
from underfire.diagnostics.map_checks import FloorVerdict
from underfire.report.findings import cards, sentences


class ConstantCAM(uf.CAM):
    """Attacked as CAM is, and shows the same whatever it is given."""

    name = "constant"

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        return super().compute(x, y, keys) * 0


class Brightness(uf.CAM):
    """Attacked as CAM is, and shows the image."""

    name = "brightness"

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        height, width = (x.shape[axis + 2] // self.grid[axis] for axis in (0, 1))
        return super().compute(x, y, keys) * 0 + x.mean(dim=1).unfold(1, height, height).unfold(2, width, width).mean(
            dim=(3, 4)
        )


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    folder, classifier = tmp_path_factory.mktemp("floor"), toy_classifier()
    interpreters: list[str | uf.Interpreter] = ["cam", ConstantCAM(classifier), Brightness(classifier)]
    photos = write_photos(folder / "photos")
    return uf.audit(classifier, [photos], interpreters=interpreters, steps=6, targets="given", out=folder / "run")


def test_liars_are_marked_beside_their_verdict(audited: AuditRun) -> None:
    found = {headline.interpreter: headline.faithfulness for headline in audited.summary.headlines}
    verdicts = {name: floor.verdict for name, floor in found.items() if floor is not None}
    assert verdicts.keys() == {"cam", "constant", "brightness"}
    assert verdicts["constant"] is FloorVerdict.CONSTANT
    assert verdicts["brightness"] is FloorVerdict.UNCHANGED
    assert verdicts["cam"] in (FloorVerdict.MET, FloorVerdict.UNDECIDED)
    assert {floor.advantage.n for floor in found.values() if floor is not None} == {4}


def test_the_floor_is_in_every_place_that_gives_a_verdict(audited: AuditRun) -> None:
    said = {entry["interpreter"]: entry["faithfulness"] for entry in audited.summary.to_json()["headlines"]}
    assert said["constant"]["verdict"] == "constant"
    assert said["constant"]["constant"]["k"] == 4
    assert json.loads(json.dumps(said, allow_nan=False))["brightness"]["similarity"]["value"] == pytest.approx(1)
    doubts = {card.title: card.doubt for card in cards(audited.summary)}
    assert doubts["CONSTANT"]
    assert doubts["CONSTANT"] != doubts["BRIGHTNESS"] != ""
    page = audited.report().read_text(encoding="utf-8")
    assert page.count("No verdict</span>") == sum(map(bool, doubts.values())) >= 2
    assert {doubts["CONSTANT"], doubts["BRIGHTNESS"]} <= set(sentences(audited))


def test_it_is_measured_once_and_read_again(audited: AuditRun) -> None:
    before = audited.facts.map_checks
    assert before is not None
    assert [check.interpreter for check in before] == ["cam", "constant", "brightness"]
    assert uf.load_run(audited.path).facts.map_checks == before


def test_a_run_without_it_has_verdicts_without_it(audited: AuditRun) -> None:
    summary = summarise(read_rows(audited.path))
    assert {headline.faithfulness for headline in summary.headlines} == {None}
    assert {card.doubt for card in cards(summary)} == {""}
