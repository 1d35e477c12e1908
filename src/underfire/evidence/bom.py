"""The bill of materials of an audit: CycloneDX 1.6, with the audited model's card.

Source: OWASP, "CycloneDX v1.6", ECMA-424; the block ``modelCard`` as its JSON schema has it.
"""

import json
import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from importlib import import_module
from typing import Any

from underfire import __version__
from underfire.auditing.run import Run
from underfire.errors import InputError
from underfire.evidence.figures import Figure, figures
from underfire.evidence.reliability import reliability
from underfire.files import printable

_MODEL = "model"
_SPACE = uuid.UUID("b3d6f5b2-6c38-5f0e-9d0c-0f2a4f1d7e11")
"""Of serial numbers: the same run has the same one."""


_PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,99}[A-Za-z0-9])?")


def check_installed() -> None:
    """Raises `InputError` where the library is missing that writes and validates a bill of materials."""
    for module in ("cyclonedx.validation.json", "jsonschema"):
        try:
            import_module(module)
        except ImportError as error:
            raise InputError(
                f"a bill of materials needs the package {error.name or module}, which is not installed: "
                'pip install "underfire[evidence]"'
            ) from error


def bom(run: Run, hashes: Mapping[str, str]) -> bytes:
    """The JSON of the bill of materials, validated by the strict schema.

    Args:
        run: the audit.
        hashes: SHA-256 by name of the files that are parts of the evidence.

    Raises:
        RuntimeError: it is not valid, a mistake of ours.
    """
    from cyclonedx.output.json import JsonV1Dot6

    content = json.loads(JsonV1Dot6(_bom(run, hashes)).output_as_string())
    content["metadata"]["component"]["modelCard"] = _model_card(run)
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    _validate(text)
    return text.encode()


def _validate(text: str) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise RuntimeError(f"the bill of materials is not valid: {problem}")


def _bom(run: Run, hashes: Mapping[str, str]) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    facts = run.facts
    properties = {
        "underfire:fingerprint": facts.model.fingerprint,
        "underfire:command": printable(facts.command or ""),
        "underfire:device": printable(facts.device),
        "underfire:platform": printable(facts.platform),
    }
    model = Component(
        name=printable(facts.model.name) or _MODEL,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_MODEL,
        properties=[Property(name=name, value=value) for name, value in properties.items() if value],
    )
    tool = Component(
        name="underfire", type=ComponentType.APPLICATION, version=__version__, bom_ref=f"underfire@{__version__}"
    )
    libraries = [
        Component(
            name=name,
            version=printable(version),
            bom_ref=f"library:{name}",
            purl=None if name == "python" else PackageURL("pypi", name=name, version=printable(version) or None),
        )
        for name, version in facts.versions.items()
        if _PACKAGE.fullmatch(name)
    ]
    files = [
        Component(
            name=printable(name),
            type=ComponentType.FILE,
            bom_ref=f"file:{printable(name)}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )
        for name, digest in hashes.items()
    ]
    made = Bom(
        serial_number=uuid.uuid5(_SPACE, json.dumps(sorted(hashes.items()))),
        metadata=BomMetaData(component=model, timestamp=_time(facts.created)),
        components=[*libraries, *files],
    )
    made.metadata.tools.components.add(tool)
    made.register_dependency(model, libraries)
    return made


def _time(text: str) -> datetime | None:
    """When the run was begun; None, for now, where run.json says nothing that is a time."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


def _model_card(run: Run) -> dict[str, Any]:
    doubts = reliability(run)
    limits = [printable(doubt.text) for doubt in doubts.doubts]
    card: dict[str, Any] = {
        "modelParameters": {
            "task": "image classification",
            "inputs": [{"format": "image"}],
            "outputs": [{"format": "class"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": [_metric(figure) for figure in figures(run)]},
    }
    return card | ({"considerations": {"technicalLimitations": limits}} if limits else {})


def _metric(figure: Figure) -> dict[str, Any]:
    estimate = figure.estimate
    told: dict[str, Any] = {
        "type": figure.metric,
        "value": str(estimate.value),
        "slice": f"{figure.slice}; n = {estimate.n}",
    }
    if estimate.low is not None and estimate.high is not None:
        told["confidenceInterval"] = {"lowerBound": str(estimate.low), "upperBound": str(estimate.high)}
    return told
