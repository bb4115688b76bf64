"""Parameters and state in a safetensors file, which any framework can read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..paths import path_of
from ..types import Params, State
from .atomic import write_bytes


def save_weights(path: str | os.PathLike[str], params: Params, state: State | None = None) -> Path:
    """Write parameters, and the state if there is one, to a safetensors file.

    Entries are named by their paths, ``params/conv1/kernel`` and ``state/batch_norm1/mean``. The file is written
    atomically: under a temporary name first, then renamed.

    Args:
        path: the file; ``~`` is the home folder.
        params: nested dicts of arrays.
        state: likewise.

    Returns:
        The absolute path.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: an entry could not be read back unchanged: a name contains a slash, a dict is empty, the format
            lacks the dtype, or the dtype has 64 bits while JAX computes in 32. Nothing has been written.
        TypeError: the params or state are not nested dicts of arrays with strings as keys. Nothing has been written.

    Example:
        >>> import tempfile
        >>> path = save_weights(Path(tempfile.mkdtemp()) / "net.safetensors", {"dense1": {"bias": jnp.ones(2)}})
        >>> load_weights(path)
        ({'dense1': {'bias': Array([1., 1.], dtype=float32)}}, {})
    """
    format = _safetensors()
    path = path_of(path)
    flat: dict[str, Any] = {}
    for kind, tree in (("params", params), ("state", {} if state is None else state)):
        if not isinstance(tree, Mapping):
            raise TypeError(f"{kind} must be nested dicts of arrays, not {_described(tree)}")
        flat |= _flat(kind, tree)
    data = format.numpy.save(flat)
    write_bytes(path, data)
    return path


def load_weights(path: str | os.PathLike[str]) -> tuple[Params, State]:
    """Read what :func:`save_weights` wrote.

    Args:
        path: the file.

    Returns:
        (params, state).

    Raises:
        ImportError: safetensors is not installed.
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a complete safetensors file, or was not written by :func:`save_weights`.

    Example:
        See :func:`save_weights`.
    """
    format = _safetensors()
    path = path_of(path)
    raw = path.read_bytes()
    try:
        entries = format.deserialize(raw)
    except format.SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error})") from None
    flat = {name: _array(path, name, **entry) for name, entry in entries}
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
            if not isinstance(tree, dict):
                raise ValueError(f"{path} has an entry {name!r} below another that is an array")
        if last in tree:
            raise ValueError(f"{path} has an entry {name!r} that is both an array and a parent of other entries")
        tree[last] = leaf
    return trees["params"], trees["state"]


def _flat(path: str, tree: Any) -> dict[str, np.ndarray]:
    """The leaves of nested dicts by path; raises for entries that could not be read back unchanged."""
    if not isinstance(tree, Mapping):
        return {path: _leaf(path, tree)}
    if not tree and "/" in path:
        raise ValueError(f"{path} is an empty dict, which would be gone from the file; leave it out")
    found: dict[str, np.ndarray] = {}
    for name, entry in tree.items():
        if not isinstance(name, str):
            raise TypeError(f"{path} has an entry {name!r}; the names of entries must be strings")
        if not name or "/" in name:
            raise ValueError(
                f"{path} has an entry {name!r}; in the file a slash is between levels, so a name can be neither empty "
                "nor have one; rename it"
            )
        found |= _flat(f"{path}/{name}", entry)
    return found


def _leaf(path: str, leaf: Any) -> np.ndarray:
    if isinstance(leaf, Tracer):
        raise TypeError(f"{path} is being traced and has no values; save outside jit, grad and vmap")
    if not hasattr(leaf, "dtype") or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise TypeError(f"{path} must be an array in nested dicts, not {_described(leaf)}")
    array = np.asarray(leaf, order="C")
    name = array.dtype.newbyteorder("=").name
    if name not in _DTYPES.values():
        raise ValueError(f"{path} has dtype {name}, which cannot be read back; convert it, for example to float32")
    if jax.dtypes.canonicalize_dtype(name) != jnp.dtype(name):
        raise ValueError(
            f"{path} has dtype {name}, which JAX would read back as {jax.dtypes.canonicalize_dtype(name)}; convert it, "
            'or compute in 64 bits: jax.config.update("jax_enable_x64", True)'
        )
    return array.astype(name, copy=False)


def _described(leaf: Any) -> str:
    return f"an array of {leaf.dtype}" if hasattr(leaf, "dtype") else f"a {type(leaf).__name__}"


#: names of dtypes in the format, and in NumPy
_DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz", "C64": "complex64"},
    **{"F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu"},
    **{
        f"{letter}{bits}": f"{kind}{bits}" for letter, kind in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
    },
}


def _array(path: Path, name: str, dtype: str, shape: list[int], data: bytes) -> jax.Array:
    if dtype not in _DTYPES:
        raise ValueError(f"{path}: {name} has the dtype {dtype}, which JAX does not have")
    wanted = jnp.dtype(_DTYPES[dtype])
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ValueError(
            f"{path}: {name} has dtype {wanted}, of which half of the digits would be lost; compute in 64 bits: "
            'jax.config.update("jax_enable_x64", True)'
        )
    return jnp.asarray(np.frombuffer(data, wanted).reshape(shape))


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("saving weights needs safetensors: pip install 'fcnn[interop]'") from None
    return safetensors
