"""Gates as test cases and findings: valid by their schemas, right in numbers, and there when a gate fails."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from click.testing import CliRunner, Result
from junitparser import JUnitXml

import underfire as uf
from support.made_runs import with_rows
from support.schemas import sarif_problems
from support.synthetic_run import Recipe, write_run
from support.toy_photos import MODEL_OPTIONS, write_photos
from underfire.auditing.gates import RULES
from underfire.auditing.run import Run
from underfire.cli import cli
from underfire.evidence.junit import junit
from underfire.evidence.sarif import sarif
from underfire.evidence.signs import cell, xml_text

GATES = ["asr>0.5", "l1>0.5", "iou>0.99"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> uf.Run:
    recipe = Recipe(interpreters=("cam", "grad"), artifacts=False)
    return uf.load_run(write_run(tmp_path_factory.mktemp("run") / "run", recipe))


def cases(content: bytes) -> list[dict[str, str]]:
    """Name and result of every test case."""
    tree = ET.fromstring(content)  # noqa: S314 - our own
    found = []
    for case in tree.iter("testcase"):
        results = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found.append({"name": case.attrib["name"], "result": results[0] if results else "passed"})
    return found


def test_a_test_case_for_each_gate_and_interpreter(run: Run) -> None:
    checks = uf.load_run(run.path).gates(GATES)
    content = junit(run, checks)
    assert cases(content) == [
        {"name": "photos attacked<2", "result": "passed"},
        {"name": "asr>0.5 [cam]", "result": "failure"},
        {"name": "asr>0.5 [grad]", "result": "failure"},
        {"name": "l1>0.5 [cam]", "result": "passed"},
        {"name": "l1>0.5 [grad]", "result": "passed"},
        {"name": "iou>0.99 [cam]", "result": "passed"},
        {"name": "iou>0.99 [grad]", "result": "passed"},
    ]
    read = JUnitXml.fromstring(content)
    assert (read.tests, read.failures, read.errors) == (7, 2, 0)
    properties = {prop.name: prop.value for suite in read for prop in suite.properties()}
    assert properties["fingerprint"] == run.facts.model.fingerprint
    failure = next(iter(ET.fromstring(content).iter("failure")))  # noqa: S314 - our own
    assert failure.attrib["message"] == "asr>0.5: cam has asr 1 (n = 4)."


def test_what_was_not_checked_is_an_error(run: Run) -> None:
    unfinished = with_rows(uf.load_run(run.path), ())
    checks = unfinished.gates(GATES)
    assert [case["result"] for case in cases(junit(unfinished, checks))] == ["error"]
    document = json.loads(sarif(unfinished, checks, unfinished.page))
    assert sarif_problems(document) == []
    made = document["runs"][0]
    assert made["invocations"] == [{"executionSuccessful": False}]
    assert [(result["ruleId"], result["level"]) for result in made["results"]] == [("finished", "error")]


def test_findings_are_valid_and_right(run: Run) -> None:
    loaded = uf.load_run(run.path)
    checks = loaded.gates(GATES)
    document = json.loads(sarif(run, checks, loaded.page))
    assert sarif_problems(document) == []
    assert sarif_problems({**document, "version": "2.0"})  # the schema refuses
    made = document["runs"][0]
    rules = [rule["id"] for rule in made["tool"]["driver"]["rules"]]
    assert rules == ["min-photos", "asr", "l1", "iou"]
    results = made["results"]
    assert [rules[result["ruleIndex"]] for result in results] == [result["ruleId"] for result in results]
    kinds = [(result["kind"], result["level"]) for result in results]
    assert kinds == [("pass", "none")] + [("fail", "error")] * 2 + [("pass", "none")] * 4
    cam = results[1]
    assert (cam["properties"]["value"], cam["properties"]["n"]) == (1.0, 4)
    assert cam["properties"]["low"] == pytest.approx(0.51, abs=0.01)  # Wilson, 4 of 4
    assert cam["locations"][0]["logicalLocations"] == [{"name": "cam", "kind": "interpreter"}]
    prints = [result["partialFingerprints"]["gate/v1"] for result in results]
    assert len(set(prints)) == len(prints)


def test_what_stands_in_the_attacks_way_is_a_warning(tmp_path: Path) -> None:
    recipe = Recipe(interpreters=("cam",), artifacts=False, faults=("coupled",), course={"stuck": 0.5})
    run = uf.load_run(write_run(tmp_path / "run", recipe))
    document = json.loads(sarif(run, run.gates(["asr>2"]), run.page))
    assert sarif_problems(document) == []
    found = [result for result in document["runs"][0]["results"] if result["ruleId"] == "soundness"]
    assert [result["level"] for result in found] == ["warning", "warning"]


def test_places_are_addresses(run: Run) -> None:
    def place(page: Path) -> str:
        document = json.loads(sarif(run, uf.load_run(run.path).gates(["asr>2"]), page))
        assert sarif_problems(document) == []
        uri: str = document["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        return uri

    assert place(Path("a run/é.html")) == "a%20run/%C3%A9.html"
    assert unquote(place(Path("x:y/report.html"))) == "x:y/report.html"
    assert ":" not in place(Path("x:y/report.html"))
    assert place(Path("/a b/report.html")) == "file:///a%20b/report.html"


def test_hostile_text_stays_text(run: Run) -> None:
    name = "<b>&\"'\x00\x1b\ufffe\ud800 ]]> ε 😀"
    facts = replace(run.facts, created=name, model=replace(run.facts.model, name=name))
    hostile = replace(uf.load_run(run.path), facts=facts)
    checks = [replace(check, sentence=f"{check.sentence}{name}") for check in hostile.gates(GATES)]
    tree = ET.fromstring(junit(hostile, checks))  # noqa: S314 - our own
    properties = {prop.attrib["name"]: prop.attrib["value"] for prop in tree.iter("property")}
    assert properties["model"] == "<b>&\"'\\x00\\x1b\\ufffe\\ud800 ]]> ε 😀"
    document = json.loads(sarif(hostile, checks, hostile.page))
    assert sarif_problems(document) == []
    assert "\ud800" not in document["runs"][0]["properties"]["model"]


def test_text_in_formats() -> None:
    assert xml_text("a\tb\nc\x0b") == "a\tb\nc\\x0b"
    assert cell("a|b\n<i>*x* `y` [z](w)") == r"a\|b \<i\>\*x\* \`y\` \[z\](w)"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def documents(folder: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    return cases((folder / "gates.xml").read_bytes()), json.loads((folder / "gates.sarif").read_text(encoding="utf-8"))


def test_an_audit_writes_them_whether_its_gates_pass_or_fail(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    files = ("--junit", tmp_path / "ci" / "gates.xml", "--sarif", tmp_path / "ci" / "gates.sarif")
    command = (
        "audit",
        photos,
        *MODEL_OPTIONS,
        "--interpreters",
        "cam",
        "--steps",
        2,
        "--out",
        tmp_path / "run",
        *files,
    )
    refused = invoke(*command)
    assert refused.exit_code == 2
    assert "there is none" in refused.stderr
    assert not (tmp_path / "run").exists()  # before any work
    folder = invoke(*command, "--fail-if", "asr>2", "--junit", tmp_path)
    assert folder.exit_code == 2
    assert "is a folder" in folder.stderr
    for gate, code, result, level in (("asr>=0", 1, "failure", "error"), ("asr>2", 0, "passed", "none")):
        done = invoke(*command, "--fail-if", gate)
        assert done.exit_code == code, done.output
        found, document = documents(tmp_path / "ci")
        assert [case["result"] for case in found] == ["passed", result]
        assert sarif_problems(document) == []
        assert document["runs"][0]["results"][1]["level"] == level
    assert sorted(path.name for path in (tmp_path / "ci").iterdir()) == ["gates.sarif", "gates.xml"]


def test_an_unfinished_shard_writes_nothing(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 2)
    command = ("audit", photos, *MODEL_OPTIONS, "--interpreters", "cam", "--steps", 2, "--batch-size", 1)
    gates = ("--fail-if", "asr>=0", "--junit", tmp_path / "gates.xml", "--out", tmp_path / "run")
    first = invoke(*command, *gates, "--shard", "1/2")
    assert (first.exit_code, (tmp_path / "gates.xml").exists()) == (0, False)
    assert "other shards have parts to do" in first.stderr
    second = invoke(*command, *gates, "--shard", "2/2")
    assert (second.exit_code, (tmp_path / "gates.xml").exists()) == (1, True)


def test_every_rule_says_what_it_means() -> None:
    assert all(meaning.endswith(".") for meaning in RULES.values())
