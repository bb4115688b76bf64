"""Parameters and state in a safetensors file, which any framework can read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..given import Params, State
from ..paths import path_of


def save_weights(path: str | os.PathLike[str], params: Params, state: State | None = None) -> Path:
    """Write parameters, and state where there is one, to a safetensors file.

    Entries are named by their paths, ``params/conv1/kernel`` and ``state/batch_norm1/mean``. The file appears
    whole or not at all: it is written under another name first.

    Args:
        path: the file; ``~`` is the home folder.
        params: nested dicts of arrays.
        state: likewise.

    Returns:
        The path, absolute.

    Raises:
        ImportError: safetensors is not installed.

    Example:
        >>> import tempfile
        >>> path = save_weights(Path(tempfile.mkdtemp()) / "net.safetensors", {"dense1": {"bias": jnp.ones(2)}})
        >>> load_weights(path)
        ({'dense1': {'bias': Array([1., 1.], dtype=float32)}}, {})
    """
    format = _safetensors()
    path = path_of(path)
    flat: dict[str, Any] = {}
    for kind, tree in (("params", params), ("state", state or {})):
        for keys, leaf in jax.tree.leaves_with_path(tree):
            if not all(isinstance(key, jax.tree_util.DictKey) for key in keys):
                raise TypeError(
                    f"{kind} must be nested dicts of arrays, but {jax.tree_util.keystr(keys)} is not in a dict"
                )
            flat["/".join([kind, *(key.key for key in keys)])] = np.asarray(leaf, order="C")
    data = format.numpy.save(flat)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    return path


def load_weights(path: str | os.PathLike[str]) -> tuple[Params, State]:
    """Read what :func:`save_weights` wrote.

    Args:
        path: the file.

    Returns:
        (params, state).

    Raises:
        ImportError: safetensors is not installed.
        FileNotFoundError: no such file.
        ValueError: not a whole safetensors file, or not one of these.

    Example:
        See :func:`save_weights`.
    """
    format = _safetensors()
    raw = path_of(path).read_bytes()
    try:
        flat = {name: _array(**entry) for name, entry in format.deserialize(raw)}
    except format.SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error})") from None
    trees: dict[str, Any] = {"params": {}, "state": {}}
    for name, leaf in flat.items():
        *folders, last = name.split("/")
        if not folders or folders[0] not in trees:
            raise ValueError(
                f"{path} has an entry {name!r}; those that save_weights writes begin with params/ or state/"
            )
        tree = trees
        for folder in folders:
            tree = tree.setdefault(folder, {})
        tree[last] = leaf
    return trees["params"], trees["state"]


#: dtypes as the format writes them
_DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{
        f"{letter}{bits}": f"{kind}{bits}" for letter, kind in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
    },
}


def _array(dtype: str, shape: list[int], data: bytes) -> jax.Array:
    return jnp.asarray(np.frombuffer(data, jnp.dtype(_DTYPES[dtype])).reshape(shape))


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("saving weights needs safetensors: pip install 'fcnn[interop]'") from None
    return safetensors
