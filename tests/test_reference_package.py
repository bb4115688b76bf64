"""The package of the reference: NumPy alone, running by itself, as small as it says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from fcnn import reference as ref

ROOT = Path(ref.__file__).parent


def strangers(source):
    """Imports that are neither NumPy, the standard library, nor the package's own files."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [] if node.level == 1 else ["." * node.level + (node.module or "")]
        else:
            continue
        found += [name for name in names if name.split(".")[0] not in {"numpy", *sys.stdlib_module_names}]
    return found


def test_strangers_are_recognised():
    source = "import jax.numpy as jnp\nfrom fcnn import ops\nfrom ..ops import conv\nfrom .. import geometry\n"
    assert strangers(source) == ["jax.numpy", "fcnn", "..ops", ".."]
    assert strangers("import numpy.typing\nfrom math import pi\nfrom .node import Node\nfrom . import gates") == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=lambda path: path.name)
def test_the_package_imports_numpy_and_itself_only(path):
    assert strangers(path.read_text()) == []


def test_the_package_runs_by_itself():
    """Loaded under another name, without fcnn and JAX, it still backpropagates."""
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("alone", {str(ROOT / "__init__.py")!r})
alone = sys.modules["alone"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(alone)
import numpy as np
node = alone.Conv(kernel=np.ones((2, 1, 1)))
node.forward(np.ones((1, 3, 1)))
print(node.backward(np.ones((1, 2, 1)))[0].ravel().tolist(), [m for m in ("fcnn", "jax", "torch") if m in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[1.0, 2.0, 1.0] []"


def code_lines(source):
    """Lines of code: docstrings, comments and empty lines do not count."""
    tree, prose = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            prose |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(source.splitlines(), start=1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and n not in prose for n, line in lines)


def test_the_stated_size_is_true():
    assert code_lines('"""Doc\n\nstring."""\n\n# comment\nx = 1\n\n\ndef f():\n    """Doc."""\n    return x\n') == 3
    stated = int(ref.__doc__.split("About ")[1].split(" lines")[0].replace(",", ""))
    size = sum(code_lines(path.read_text()) for path in ROOT.glob("*.py"))
    assert abs(size - stated) <= 0.05 * size, f"the package has {size} lines of code, its docstring says {stated}"
