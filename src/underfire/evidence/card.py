"""A model card of a run in Markdown, with the block of metadata that the Hugging Face Hub reads.

Source: huggingface.co/docs/hub/model-cards, ``model-index``. The block is written as JSON within YAML, which holds any
text of strangers.
"""

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from underfire import __version__
from underfire.auditing.condition import NONE
from underfire.auditing.run import Run
from underfire.evidence.figures import Figure, figures
from underfire.evidence.reliability import reliability
from underfire.evidence.results import dataset
from underfire.evidence.signs import cell
from underfire.files import printable
from underfire.present import text

_TASK = "image-classification"


def model_card(run: Run) -> bytes:
    """The model card of ``run``."""
    found = figures(run)
    doubts = reliability(run)
    plan = run.facts.settings
    body = _filled(
        "model-card.md.jinja",
        name=cell(run.facts.model.name),
        fingerprint=run.facts.model.fingerprint,
        version=__version__,
        created=cell(run.facts.created),
        dataset=dataset(run),
        excluded=sum(reason.count for reason in run.summary.photos.reasons),
        limit=text.limit(plan.perturbation_of(NONE).eps, plan.perturbation),
        preset=plan.preset,
        level=text.percent(run.summary.level),
        figures=[_row(figure) for figure in found],
        doubts=[(str(doubt.weight), cell(doubt.text)) for doubt in doubts.doubts],
        unreliable=doubts.unreliable,
        skipped=run.skipped,
    )
    return f"---\n{_metadata(run, found)}---\n\n{body}".encode()


def mapping(run: Run) -> bytes:
    """What of article 15 and of usual test plans the evidence of ``run`` speaks to, and what not."""
    conditions = [str(condition) for condition in run.summary.conditions if not condition.is_control]
    body = _filled(
        "mapping.md.jinja",
        name=cell(run.facts.model.name),
        conditions=conditions,
        interpreters=list(run.summary.interpreters),
        labelled=dataset(run)["labelled"],
        searched=any(condition.attack == "square" for condition in run.summary.conditions),
    )
    return body.encode()


def _row(figure: Figure) -> tuple[str, str, str, str]:
    return figure.metric, figure.slice, text.estimate(figure.estimate), figure.meaning


def _metadata(run: Run, found: tuple[Figure, ...]) -> str:
    """YAML of one key a line, each value as JSON."""
    results = [
        {
            "task": {"type": _TASK, "name": "Image classification under attack"},
            "dataset": {
                "type": "custom",
                "name": text.plural(run.summary.photos.total, "photo"),
                "revision": dataset(run)["sha256"],
            },
            "metrics": [
                {"type": figure.metric, "name": f"{figure.metric} ({figure.slice})", "value": figure.estimate.value}
                | {"args": {"low": figure.estimate.low, "high": figure.estimate.high, "n": figure.estimate.n}}
                for figure in found
            ],
        }
    ]
    block: dict[str, Any] = {
        "pipeline_tag": _TASK,
        "tags": ["adversarial-robustness", "explainability", "underfire"],
        "model-index": [{"name": printable(run.facts.model.name) or "model", "results": results}],
    }
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n" for key, value in block.items())


def _filled(template: str, **values: object) -> str:
    environment = Environment(
        loader=PackageLoader("underfire.evidence"),
        autoescape=False,  # noqa: S701 - Markdown; what strangers wrote comes through `cell`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(plural=text.plural, agreeing=text.agreeing)
    return environment.get_template(template).render(**values)
