"""Text of strangers in formats that do not take every sign."""

from underfire.files import printable

_XML_CONTROLS = frozenset("\t\n\r")


def xml_text(text: str) -> str:
    r"""``text`` with the signs that XML 1.0 has no way to write spelt out, as ``\x00``."""
    return "".join(map(_in_xml, printable(text)))


def _in_xml(sign: str) -> str:
    code = ord(sign)
    allowed = sign in _XML_CONTROLS or 0x20 <= code <= 0xFFFD or code >= 0x10000
    return sign if allowed else sign.encode("unicode_escape").decode("ascii")


def cell(text: str) -> str:
    """``text`` on one line of a cell in a table of Markdown, none of its signs a mark or a tag."""
    line = " ".join(printable(text).split())
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#!&~" else sign for sign in line)
