"""What the tests of checkpoints save, how they look at it, and the programs that they start and kill."""

import subprocess
import sys

import jax
import numpy as np


def small(value=1.0):
    return {"a": np.full((3, 2), value, np.float32), "b": np.full(700, value, np.float64)}


def leaves(tree):
    """(path, what it is, its bytes) of every leaf, written out with NumPy alone."""
    out = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        kind = type(leaf).__name__ if isinstance(leaf, (bool, int, float)) else str(leaf.dtype)
        if kind.startswith("key"):
            leaf = jax.random.key_data(leaf)
        out.append((jax.tree_util.keystr(path), kind, np.shape(leaf), np.ascontiguousarray(leaf).tobytes()))
    return out


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".fcnn-lock"))


CHILD = """
import sys, warnings, resource
import numpy as np
from fcnn.training.checkpoint import CheckpointError
from fcnn.training.store import Store
def tree(n):
    return {str(i): np.full((40, 1000 + i), n, np.float32) for i in range(8)} | {"step": np.int64(n).reshape(())}
folder = sys.argv[1]
"""


def child(code, folder, **options):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CHILD + code, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
