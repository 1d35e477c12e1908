"""Makes and runs the notebooks of docs/tutorial from their scripts: `python docs/_sphinx/notebooks.py [NAME ...]`.

A script is Python with the marks of its cells: ``# %% [markdown]``, whose lines are comments, and ``# %%`` for code.
The notebook beside it has the same cells, and what they showed.
"""

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TUTORIAL = Path(__file__).parents[1] / "tutorial"
_CELL = re.compile(r"^# %%(?P<kind>.*)\n(?P<body>(?:(?!# %%).*\n?)*)", re.MULTILINE)


def cells(script: str) -> list[tuple[str, str]]:
    """Kind (``markdown`` or ``code``) and text of each cell of a ``script``."""
    found = []
    for cell in _CELL.finditer(script):
        markdown = "[markdown]" in cell["kind"]
        body = re.sub(r"^# ?", "", cell["body"], flags=re.MULTILINE) if markdown else cell["body"]
        found.append(("markdown" if markdown else "code", body.strip()))
    return found


def executed(script: str) -> Any:
    """The notebook of ``script``, run from its first cell to its last; raises what a cell raises."""
    import nbformat
    from nbclient import NotebookClient

    makers = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    notebook = nbformat.v4.new_notebook(cells=[makers[kind](body) for kind, body in cells(script)])
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    with TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": folder}}).execute()
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            output.get("metadata", {}).clear()
    return notebook


def main(names: list[str]) -> None:
    """Runs the scripts of those ``names``, or all."""
    import nbformat

    for script in sorted(TUTORIAL.glob("*.py")):
        if not names or script.stem in names:
            nbformat.write(executed(script.read_text(encoding="utf-8")), script.with_suffix(".ipynb"))


if __name__ == "__main__":
    main(sys.argv[1:])
