"""The page's colours, for figures that are opened without the page."""

import re
from functools import lru_cache
from importlib.resources import files

_ROOT = re.compile(r":root \{(?P<body>[^}]*)\}")
_COLOUR = re.compile(r"--(?P<name>[a-z0-9-]+): (?P<value>#[0-9a-f]{3,8});")
_USED = re.compile(r"var\(--([a-z0-9-]+)\)")


def with_colours(svg: str) -> str:
    """``svg``, an ``<svg>`` element with the page's colours as CSS variables, as a file of its own.

    It defines the variables that it uses, for light and for dark, and has the page's background.
    """
    light, dark = _schemes()
    used = sorted({name for name in _USED.findall(svg) if name in light} | {"paper"})
    rules = [";".join(f"--{name}:{scheme[name]}" for name in used) for scheme in (light, dark)]
    dark_rule = f"@media (prefers-color-scheme: dark){{svg{{{rules[1]}}}}}"
    style = f"<style>svg{{{rules[0]};background:var(--paper)}}{dark_rule}</style>"
    return re.sub(r"<svg\b[^>]*>", lambda match: match[0] + style, svg, count=1)


@lru_cache
def _schemes() -> tuple[dict[str, str], dict[str, str]]:
    """The colours by name of the page's style sheet: on light, on dark."""
    sheet = (files("underfire.present") / "templates" / "style.css").read_text(encoding="utf-8")
    light, dark = (dict(_COLOUR.findall(match["body"])) for match in list(_ROOT.finditer(sheet))[:2])
    return light, dark
