"""The house stands: nothing imports upwards, no two classes share a name, nothing grows beyond what one can read."""

import ast
from collections import Counter
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "underfire"
FLOORS = """errors | choices parsing plugins installation display files decoding seeding devices metrics stats weights
    | images | models | interpreters | attacks | certificates | training defenses diagnostics | testing auditing
    | present | studies | evaluation | report | evidence | studio | api maite | cli"""
FLOOR = {room: height for height, floor in enumerate(FLOORS.split("|")) for room in floor.split()}
TREES = {path.relative_to(SRC): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SRC.rglob("*.py"))}
NODES = [(path, node) for path, tree in TREES.items() for node in ast.walk(tree)]


def _rooms(node: ast.AST) -> list[str]:
    """The rooms that an import statement names, wherever in a file it stands."""
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    if names == ["underfire"] and isinstance(node, ast.ImportFrom):
        names = [f"underfire.{alias.name}" for alias in node.names]
    names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    return [name.split(".")[1] for name in names if name.startswith("underfire.")]


def test_every_room_has_its_floor() -> None:
    assert {path.parts[0].removesuffix(".py") for path in TREES} - {"__init__", "__main__"} <= FLOOR.keys()


def test_nothing_imports_upwards() -> None:
    imports = {(path, room) for path, node in NODES for room in _rooms(node) if room in FLOOR}
    top = len(FLOOR)  # __init__.py and __main__.py
    rising = {(path, room) for path, room in imports if FLOOR[room] > FLOOR.get(path.parts[0].removesuffix(".py"), top)}
    assert not {f"{path}: {room}" for path, room in rising}


def test_nothing_is_too_large_or_named_twice() -> None:
    classes = [node for _, node in NODES if isinstance(node, ast.ClassDef)]
    assert {name for name, count in Counter(node.name for node in classes).items() if count > 1} == set()
    functions = [(path, node) for path, node in NODES if isinstance(node, ast.FunctionDef)]
    assert {f"{p}: {n.name}" for p, n in functions if (n.end_lineno or 0) - n.lineno >= 60} == set()
    fields = {node.name: sum(isinstance(line, ast.AnnAssign) for line in node.body) for node in classes}
    assert {name for name, count in fields.items() if count > 20} == set()


def test_every_picture_is_opened_by_named_decoders() -> None:
    """Pillow picks one by the content, whatever the name says, and one of them starts Ghostscript."""
    calls = [
        (path, node) for path, node in NODES if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open"
    ]
    assert calls
    assert not [path for path, call in calls if "formats" not in {keyword.arg for keyword in call.keywords}]
