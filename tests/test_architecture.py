"""Dependencies point one way: cli -> commands -> export -> trainer -> runtime; the runtime knows neither torch nor onnx."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from gan.runtime import errors

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "runtime": {
        "torch",
        "onnx",
        "onnxscript",
        "tensorboard",
        "typer",
        "gan.trainer",
        "gan.export",
        "gan.commands",
        "gan.cli",
    },
    "trainer": {
        "typer",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "gan.export",
        "gan.commands",
        "gan.cli",
    },
    "export": {"typer", "gan.commands", "gan.cli"},
}


def imports(path: Path) -> set[str]:
    """Absolute names of everything a file imports, at its top or inside its functions."""
    package = ["gan", *path.relative_to(ROOT).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {name} | {f"{name}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_a_folder_imports_nothing_from_above(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for name in imports(path):
            parts = name.split(".")
            prefixes = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
            assert not prefixes & FORBIDDEN[folder], f"{path} imports {name}"


def test_the_commands_import_heavy_packages_only_inside() -> None:
    files = [ROOT / "cli.py", *(ROOT / "commands").glob("*.py")]
    assert len(files) > 8
    for path in files:
        tree = ast.parse(path.read_text())
        top = {
            n.module
            for n in tree.body
            if isinstance(n, ast.ImportFrom) and n.module and not n.level
        }
        top |= {alias.name for n in tree.body if isinstance(n, ast.Import) for alias in n.names}
        assert not top & {"numpy", "PIL", "torch", "onnx", "onnxruntime", "av"}, path
        ours = {n.module for n in tree.body if isinstance(n, ast.ImportFrom) and n.level}
        assert not ours & {"runtime", "trainer", "export"}, path


def test_only_its_own_file_knows_a_system_by_name() -> None:
    names = {path.stem for path in (ROOT / "trainer" / "systems").glob("*.py")} - {"__init__"}
    names |= {name.replace("_", "-") for name in names}
    words = {
        "gan",
        "unrolled",
    }  # what everything here is about; as a whole text they would be names
    assert words < names
    for folder in ("runtime", "trainer", "export"):
        for path in (ROOT / folder).glob("*.py"):
            text = path.read_text()
            tree = ast.parse(text)
            strings = {
                n.value
                for n in ast.walk(tree)
                if isinstance(n, ast.Constant) and isinstance(n.value, str)
            }
            named = {n for n in names - words for t in strings if re.search(rf"\b{n}\b", t)}
            named |= words & strings
            assert not named, f"{path} names {named}"
            assert not imports(path) & {f"gan.trainer.systems.{name}" for name in names}, path


def test_libraries_do_not_print() -> None:
    for folder in FORBIDDEN:
        for path in (ROOT / folder).rglob("*.py"):
            calls = [
                n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)
            ]
            assert not [f for f in calls if isinstance(f, ast.Name) and f.id == "print"], path


def test_every_error_says_what_failed_what_was_seen_and_how_to_repair_it() -> None:
    kinds = {"GanError"} | {kind.__name__ for kind in errors.GanError.__subclasses__()}
    found = 0
    for folder in FORBIDDEN:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in kinds:
                    parts = {keyword.arg for keyword in node.keywords}
                    assert len(node.args) == 1 and {"seen", "repair"} <= parts, (
                        f"{path}:{node.lineno}"
                    )
                    found += 1
    assert found > 100
