"""Whether a report runs anything but its own script."""

from html.parser import HTMLParser

from underfire.report.explorer import script


class _Scripts(HTMLParser):
    """What would run in a page, other than the explorer's script. Blocks of JSON do not run."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []
        self._text: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.foreign.append(f"{tag} {name}={value}")
        if tag == "script" and dict(attrs) != {"type": "application/json", "id": "explorer-data"}:
            self.foreign += [f"script {name}={value}" for name, value in attrs]
            self._text = []

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._text is not None:
            text, self._text = "".join(self._text), None
            if text != str(script().text):
                self.foreign.append(text)


def foreign_scripts(html: str) -> list[str]:
    """What would run in the report ``html`` beside its own script: scripts, handlers and addresses."""
    parser = _Scripts()
    parser.feed(html)
    parser.close()
    return parser.foreign
