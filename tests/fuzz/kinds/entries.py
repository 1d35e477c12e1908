"""Entries of the benchmark that others wrote: the table takes what is consistent, and shows names as text."""

import json
import os
from pathlib import Path
from random import Random

from fuzz.case import Case, Ended, Originals
from fuzz.kinds.originals import ENTRIES
from fuzz.mutate import as_json, spoilt_bytes, spoilt_json


def entry(draw: Random, home: Path, originals: Originals) -> Case:
    """A spoilt entry, joined with one that is well into a page."""
    well = next(iter(sorted((originals.path / ENTRIES).iterdir())))
    data, path, page = well.read_bytes(), home / "spoilt.json", home / "table.html"
    how = draw.choice(("content", "content", "content", "name", "bytes", "pipe"))
    if how == "pipe":
        os.mkfifo(path)
    elif how == "bytes":
        data, told = spoilt_bytes(draw, data)
        path.write_bytes(data)
        how = f"bytes: {told}"
    elif how == "name":
        name = draw.choice(("<script>alert(1)</script>", "\x00\x1b[2J", "\ud800", "a|b\n# c", "x" * 10**6, ""))
        path.write_bytes(as_json({**json.loads(data), "model": name}))
    else:
        content, told = spoilt_json(draw, json.loads(data))
        path.write_bytes(as_json(content))
        how = f"content: {told}"

    def wrong(ended: tuple[Ended, ...]) -> str | None:
        if ended[0].code:
            return "a page is there" if page.exists() else None
        return "the page has a script" if "<script" in page.read_text(encoding="utf-8").lower() else None

    command = ("benchmark", "table", path.name, str(well), "--out", page.name)
    return Case(how, (command,), wrong)
