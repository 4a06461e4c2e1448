"""The house's law: a file imports only from floors below its own, and rooms of one floor never meet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mapnet_cli"
FLOORS = [
    {"errors", "seeds", "console", "vocabulary"},
    {"config", "records", "world", "hub"},
    {"artifacts", "glue", "glue_data", "layers", "render", "plotting"},
    {"lineage", "scoring", "health"},
    {"text", "model", "masking", "training", "jobs"},
    {"methods"},
    {"prepare_corpus", "pretrain", "finetune_glue", "report", "interchange", "variance"},
    {"stages", "doctor", "options"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.stat().st_size)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> set[str]:
    """Returns the rooms of mapnet that a file imports, wherever the import stands."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            names += [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "mapnet_cli" and len(part) > 1 and part[1] in FLOOR}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        assert not imported_rooms(path)
        return
    for other in imported_rooms(path) - {room}:
        assert FLOOR[other] < FLOOR[room], f"{path.name} on floor {FLOOR[room]} imports {other} on {FLOOR[other]}"


def test_every_file_has_a_floor() -> None:
    assert {room_of(path) for path in MODULES} - {"__init__"} == set(FLOOR)


@pytest.mark.parametrize("room", ["report", "lineage", "config"])
def test_these_never_reach_torch(room: str) -> None:
    """Not in their own imports and not in those of what they import."""
    todo, seen = [room], set()
    while todo:
        current = todo.pop()
        seen.add(current)
        files = [p for p in MODULES if room_of(p) == current]
        for path in files:
            assert "torch" not in {
                alias.name.split(".")[0]
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Import)
                for alias in node.names
            }, path
            todo += imported_rooms(path) - seen - {"jobs", "text"}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["config", "show"], ["status"]])
def test_light_commands_load_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mapnet_cli.cli.commands import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'spacy', 'sacremoses', 'sklearn', 'scipy', 'matplotlib', 'transformers', 'ray'}\n"
        "found = heavy & set(sys.modules)\nsys.exit(f'loaded {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-500:]
