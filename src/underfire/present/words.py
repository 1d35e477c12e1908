"""Words made from numbers by templates, each a file ``NAME.md.jinja`` beside the code that fills it."""

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from underfire.present import text


def written(package: str, template: str, **values: Any) -> str:
    """The text of ``template`` in the folder ``templates`` of ``package``, filled with ``values``.

    Line breaks inside a paragraph and runs of spaces are the template's own and become one space; an empty line parts
    paragraphs. Conditions on numbers belong to the code, as verdicts and flags among ``values``.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.
    """
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=False,  # noqa: S701 - Markdown and plain text; the report escapes what it shows
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    rendered = environment.get_template(template).render(**values)
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", rendered)]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


_FILTERS = {
    "of": text.of,
    "interval": text.interval,
    "listing": text.listing,
    "number": text.number,
    "percent": text.percent,
    "plural": text.plural,
    "agreeing": text.agreeing,
    "signed": text.signed,
    "interpreter": text.interpreter_title,
    "condition": text.title,
    "estimate": text.estimate,
}
