"""The notebooks of the tutorial have the cells of their scripts, were run to the end, and still run."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SCRIPTS = sorted((DOCS / "tutorial").glob("*.py"))


@pytest.fixture(scope="module")
def notebooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebooks", DOCS / "_sphinx" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _cells(script: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    return found


def test_there_are_three() -> None:
    assert len(SCRIPTS) == 3


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.stem))
def test_a_notebook_is_its_script_run_from_top_to_bottom(script: Path, notebooks: ModuleType) -> None:
    there = _cells(script)
    wanted = notebooks.cells(script.read_text(encoding="utf-8"))
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in there] == wanted
    code = [cell for cell in there if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert kinds <= {"execute_result", "stream", "display_data"}
    assert script.with_suffix(".ipynb").stat().st_size < 400_000


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.stem))
def test_a_notebook_runs(script: Path, notebooks: ModuleType) -> None:
    pytest.importorskip("nbclient")
    shown = notebooks.executed(script.read_text(encoding="utf-8"))
    assert [len(cell.get("outputs", ())) for cell in shown.cells] == [len(c.get("outputs", ())) for c in _cells(script)]
