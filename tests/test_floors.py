"""Imports go down the floors, and importing the library loads nothing that it does not need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "fcnn"

#: the floor of every module or package directly below fcnn
FLOORS = {
    "__init__": 5,
    "models": 4,
    "testing": 4,
    "training": 4,
    "draw": 4,
    "interop": 4,
    "selftest": 4,
    "analysis": 3,
    "scan": 2.8,
    "compose": 2.5,
    "layers": 2,
    "layer": 1,
    "tracing": 1.5,
    "facts": 0.6,
    "plan": 2.2,
    "layout": 0.2,
    "authoring": 0.8,
    "context": 0.8,
    "rehearsal": 0.9,
    "pickled": 0.2,
    "ops": 0.5,
    "data": 0.5,
    "transposed": 0.1,
    "geometry": 0,
    "symbolic_sizes": -0.5,
    "native": 0,
    "names": 0,
    "tables": 0,
    "paths": 0,
    "labels": 0.2,
    "types": 0.4,
    "checks": 0.5,
    "initialization": 0.5,
    "jaxprs": 0,
    "errors": -1,
    "identity": -1,
    "elsewhere": -1,
    "version": -1,
    "reference": -2,
}


def files():
    return sorted(ROOT.rglob("*.py"))


def home(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imported(path):
    """The names directly below fcnn that a file imports, wherever in the file."""
    depth = len(path.relative_to(ROOT).parts) - 1
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                assert not alias.name.startswith("fcnn"), f"{path}: imports within fcnn are relative"
        elif isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("fcnn"), f"{path}: imports within fcnn are relative"
            if node.level == depth + 1:
                if node.module:
                    yield node.module.split(".")[0]
                else:
                    yield from (alias.name for alias in node.names)


def test_every_file_has_a_floor():
    assert {home(path) for path in files()} == set(FLOORS)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    here = home(path)
    for there in imported(path):
        assert there == here or FLOORS[there] < FLOORS[here], f"{path} imports {there}, which is not below it"


def test_importing_loads_no_optional_package():
    heavy = ("matplotlib", "torch", "sklearn", "tqdm", "safetensors", "flax", "PIL", "optax")
    code = f"import sys, fcnn; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short_and_check_users_without_assert(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(text)))
