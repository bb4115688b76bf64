"""Every name of JAX that the library uses is there: on a new version of JAX, this says which is not, and who uses it.

What leans on JAX's inner workings is in few places: jax.extend and jax.interpreters (primitives with rules of their
own, in ops/ and training.compiled_loop.py), the names of primitives (jaxprs.py, tracing/positionwise.py,
analysis/arithmetic/), and jax.monitoring.
"""

import ast
import importlib
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "fcnn"


def names_of_jax(path):
    """Pairs (dotted name, line) of what a file uses of JAX, whether imported or reached by attributes."""
    tree = ast.parse(path.read_text())
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "jax":
                    known[alias.asname or "jax"] = alias.name if alias.asname else "jax"
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "jax":
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}", node.lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            steps, root = [node.attr], node.value
            while isinstance(root, ast.Attribute):
                steps.append(root.attr)
                root = root.value
            if isinstance(root, ast.Name) and root.id in known:
                yield ".".join([known[root.id], *reversed(steps)]), node.lineno


def found(dotted):
    """Whether JAX has a name; attributes of what is no module or class are left to the other tests."""
    here, value = "", None
    for step in dotted.split("."):
        here = f"{here}.{step}" if here else step
        if value is not None and hasattr(value, step):
            value = getattr(value, step)
        elif value is None or isinstance(value, types.ModuleType):
            try:
                value = importlib.import_module(here)
            except ImportError:
                return False
        else:
            return not isinstance(value, type)
    return True


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_is_there(path):
    missing = sorted({f"{name}, line {line}" for name, line in names_of_jax(path) if not found(name)})
    assert not missing, f"this JAX has not: {'; '.join(missing)}"


def test_a_name_that_is_missing_is_seen(tmp_path):
    file = tmp_path / "some.py"
    file.write_text("import jax\nfrom jax.interpreters import ad as rules\njax.no_such_name()\nrules.nor_this\n")
    missing = {name for name, _ in names_of_jax(file) if not found(name)}
    assert missing == {"jax.no_such_name", "jax.interpreters.ad.nor_this"}
