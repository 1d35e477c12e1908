"""Gates as findings: SARIF 2.1.0, which code hosts show beside the code.

Source: OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0", 2020.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from underfire import __version__
from underfire.auditing.gates import RULES, GateCheck
from underfire.auditing.run import Run
from underfire.diagnostics.attack_signs import Weight
from underfire.files import printable
from underfire.report.soundness import Remark, remarks

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
HOME = "https://github.com/underfire/underfire"
_SOUNDNESS = "soundness"
_RULES = {**RULES, _SOUNDNESS: "Something stands in the attacks' way: their failures are no strength of the model."}


def sarif(run: Run, checks: Sequence[GateCheck], page: Path) -> bytes:
    """The JSON of ``checks``: a finding for each, and a warning for each reason to trust no figure of the run.

    A gate that passed is a finding of the kind ``pass``, which viewers leave out. Findings lie at ``page``, the report.
    """
    results = [_result(check, page) for check in checks]
    seen = remarks(run.facts.model_checks, run.summary)
    results += [_warning(remark, page) for remark in seen if remark.weight is Weight.SERIOUS]
    used = list(dict.fromkeys(result["ruleId"] for result in results))
    for result in results:
        result["ruleIndex"] = used.index(result["ruleId"])
    driver = {
        "name": "underfire",
        "version": __version__,
        "informationUri": HOME,
        "rules": [{"id": rule, "shortDescription": {"text": _RULES[rule]}} for rule in used],
    }
    facts = run.facts
    made = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": run.finished}],
        "results": results,
        "properties": {
            "model": printable(facts.model.name),
            "fingerprint": facts.model.fingerprint,
            "photosAttacked": run.summary.photos.attacked,
        },
    }
    content = {"$schema": SCHEMA, "version": "2.1.0", "runs": [made]}
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _result(check: GateCheck, page: Path) -> dict[str, Any]:
    kinds = {"passed": ("pass", "none"), "failed": ("fail", "error"), "unchecked": ("fail", "error")}
    kind, level = kinds[check.outcome]
    figure = check.figure
    return _finding(check.rule, check.condition, kind, level, check.sentence, page, check.interpreter) | {
        "properties": {"gate": check.condition, "outcome": check.outcome, "value": figure.value, "low": figure.low,
                       "high": figure.high, "n": figure.n},
    }  # fmt: skip


def _warning(remark: Remark, page: Path) -> dict[str, Any]:
    return _finding(_SOUNDNESS, remark.id, "fail", "warning", remark.text, page, None)


def _finding(
    rule: str, what: str, kind: str, level: str, text: str, page: Path, interpreter: str | None
) -> dict[str, Any]:
    """One finding; ``what`` tells it from others of its rule, and the same in the next run."""
    place: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": _uri(page)}}}
    if interpreter is not None:
        place["logicalLocations"] = [{"name": interpreter, "kind": "interpreter"}]
    identity = hashlib.sha256(f"{rule}\0{what}\0{interpreter}".encode("utf-8", "backslashreplace")).hexdigest()
    return {
        "ruleId": rule,
        "kind": kind,
        "level": level,
        "message": {"text": printable(text)},
        "locations": [place],
        "partialFingerprints": {"gate/v1": identity},
    }


def _uri(path: Path) -> str:
    """A relative path stays one."""
    return path.as_uri() if path.is_absolute() else quote(path.as_posix().encode("utf-8", "surrogateescape"))
