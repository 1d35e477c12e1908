"""Gates as test cases: the XML that continuous integration reads, in the form of JUnit."""

import io
from collections.abc import Sequence

from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

from underfire.auditing.gates import GateCheck
from underfire.auditing.run import Run
from underfire.evidence.signs import xml_text

SUITE = "underfire audit"


def junit(run: Run, checks: Sequence[GateCheck]) -> bytes:
    """The XML of ``checks``: one test case each, a failure where the gate failed, an error where nothing was checked.

    Properties of the suite say which model and run.
    """
    suite = TestSuite(SUITE)
    suite.timestamp = xml_text(run.facts.created)
    for name, value in (
        ("model", run.facts.model.name),
        ("fingerprint", run.facts.model.fingerprint),
        ("underfire", run.facts.underfire_version),
        ("photos attacked", str(run.summary.photos.attacked)),
    ):
        suite.add_property(name, xml_text(value))
    suite.add_testcases([_case(check) for check in checks])
    tree = JUnitXml("underfire")
    tree.add_testsuite(suite)
    tree.update_statistics()
    content = io.BytesIO()
    tree.write(content, pretty=True)
    return content.getvalue()


def _case(check: GateCheck) -> TestCase:
    name = check.condition if check.interpreter is None else f"{check.condition} [{check.interpreter}]"
    case = TestCase(xml_text(name), classname="underfire.gates")
    match check.outcome:
        case "failed":
            case.result = [Failure(xml_text(check.sentence), check.rule)]
        case "unchecked":
            case.result = [Error(xml_text(check.sentence), check.rule)]
    case.system_out = xml_text(check.sentence)
    return case
