"""Parameters and state in a safetensors file, which any framework can read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..errors import format_shape
from ..layer import Layer
from ..paths import path_of
from ..tracing.structure import structure
from ..types import Params, State
from ..version import __version__
from .atomic import write_bytes

#: what the metadata of a file are called
_VERSION, _NETWORK, _SUMS = "fcnn", "network", "sha256"


def save_weights(
    path: str | os.PathLike[str],
    params: Params,
    state: State | None = None,
    *,
    net: Any = None,
    metadata: Mapping[str, str] | None = None,
    finite: bool = True,
) -> Path:
    """Write parameters, and the state if there is one, to a safetensors file.

    Entries are named by their paths, ``params/conv1/kernel`` and ``state/batch_norm1/mean``. The file holds a SHA-256
    of each, the version of fcnn, the network as code where it is given, and further words of yours. It is written
    atomically: under a temporary name first, then renamed.

    Args:
        path: the file; ``~`` is the home folder.
        params: nested dicts of arrays.
        state: likewise.
        net: the network, to be kept as code beside its weights.
        metadata: further strings by name, such as {"data": "mnist", "accuracy": "0.993"}.
        finite: whether to refuse NaN and infinities.

    Returns:
        The absolute path.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: an entry could not be read back unchanged: a name contains a slash, a dict is empty, the format
            lacks the dtype, or the dtype has 64 bits while JAX computes in 32; or numbers that are not finite. Nothing
            has been written.
        TypeError: the params or state are not nested dicts of arrays with strings as keys, or metadata that are no
            strings. Nothing has been written.

    Example:
        >>> import tempfile
        >>> path = save_weights(Path(tempfile.mkdtemp()) / "net.safetensors", {"dense1": {"bias": jnp.ones(2)}})
        >>> load_weights(path)
        ({'dense1': {'bias': Array([1., 1.], dtype=float32)}}, {})
        >>> read_metadata(path)["fcnn"] == fcnn.__version__
        True
    """
    format = _safetensors()
    path = path_of(path)
    flat: dict[str, Any] = {}
    for kind, tree in (("params", params), ("state", {} if state is None else state)):
        if not isinstance(tree, Mapping):
            raise TypeError(f"{kind} must be nested dicts of arrays, not {_described(tree)}")
        flat |= _flat(kind, tree)
    if finite:
        for name, array in flat.items():
            _check_finite(name, array, "save them with finite=False if they are wanted as they are")
    words = dict(metadata or {})
    for name, value in words.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"metadata has {name!r}: {value!r}; names and values must be strings")
        if name in (_VERSION, _NETWORK, _SUMS):
            raise ValueError(f"metadata has {name!r}, a name that save_weights writes itself; use another")
    words |= {_VERSION: __version__} | ({} if net is None else {_NETWORK: repr(net)})
    words[_SUMS] = json.dumps({name: _sum(array) for name, array in flat.items()} | {"": _sum_of_words(words)})
    write_bytes(path, format.numpy.save(flat, metadata=words))
    return path


def load_weights(
    path: str | os.PathLike[str], *, like: Any = None, shape: Any = None, finite: bool = True
) -> tuple[Params, State]:
    """Read what :func:`save_weights` wrote.

    Args:
        path: the file.
        like: what the weights must fit, in names, shapes and dtypes: params; a pair (params, state); or a network, with
            ``shape``. None: anything is read.
        shape: where ``like`` is a network, the shape of one example, or a list of them for several inputs.
        finite: whether to refuse NaN and infinities.

    Returns:
        (params, state).

    Raises:
        ImportError: safetensors is not installed.
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, or was not written by :func:`save_weights`; numbers that are not finite; or
            entries that ``like`` does not have, lacks, or has in another shape or dtype: all of them are named.

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
    words = _words(raw)
    arrays = {name: _array(path, name, **entry) for name, entry in entries}
    _check_sums(path, arrays, words)
    if finite:
        for name, array in arrays.items():
            _check_finite(f"{path}: {name}", array, "load them with finite=False if they are wanted as they are")
    trees: dict[str, Any] = {"params": {}, "state": {}}
    for name, array in arrays.items():
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
        tree[last] = jnp.asarray(array)
    if like is not None:
        _check_like(path, trees, _wanted(like, shape), words.get(_NETWORK))
    return trees["params"], trees["state"]


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The words in a file of weights: "fcnn" (the version), "network" (as code, where it was given), and yours.

    Args:
        path: the file.

    Raises:
        ValueError: the file is damaged, or not a safetensors file.

    Example:
        See :func:`save_weights`.
    """
    path = path_of(path)
    try:
        with _safetensors().safe_open(path, "numpy") as file:
            words = dict(file.metadata() or {})
    except _safetensors().SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error})") from None
    words.pop(_SUMS, None)
    return words


def _words(raw: bytes) -> dict[str, str]:
    """The metadata of a file whose header has been found right."""
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]).get("__metadata__") or {}


def _sum(array: np.ndarray) -> str:
    """A checksum of an array with its dtype and shape."""
    found = hashlib.sha256(f"{array.dtype.name} {array.shape} ".encode())
    found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _sum_of_words(words: Mapping[str, str]) -> str:
    kept = sorted((name, value) for name, value in words.items() if name != _SUMS)
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


def _check_sums(path: Path, arrays: dict[str, np.ndarray], words: dict[str, str]) -> None:
    """Raise unless all entries have the checksums that were written with them; older files have none."""
    if _SUMS not in words:
        if _VERSION in words:
            raise ValueError(f"{path} is damaged: its checksums are gone")
        return
    try:
        sums = json.loads(words[_SUMS])
        words_sum = sums.pop("")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ValueError(f"{path} is damaged: its checksums cannot be read") from None
    if words_sum != _sum_of_words(words):
        raise ValueError(f"{path} is damaged: its metadata are not those that were written")
    if sums.keys() != arrays.keys():
        changed = ", ".join(sorted(sums.keys() ^ arrays.keys()))
        raise ValueError(f"{path} is damaged: the names of its entries are not those that were written ({changed})")
    for name, array in arrays.items():
        if _sum(array) != sums[name]:
            raise ValueError(f"{path} is damaged: {name} is not what was written; its SHA-256 is another")


def _check_finite(name: str, array: np.ndarray, way_out: str) -> None:
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return
    wrong = ~np.isfinite(array.astype(np.float32) if array.dtype.itemsize == 1 else array)
    if wrong.any():
        place = list(map(int, np.argwhere(wrong)[0]))
        raise ValueError(
            f"{name} has {int(wrong.sum())} numbers that are not finite, of {array.size}, the first at {place}; "
            f"{way_out}"
        )


def _wanted(like: Any, shape: Any) -> tuple[Any, Any]:
    """Params and state, or their shapes, that a file must fit."""
    if isinstance(like, Layer):
        if shape is None:
            raise ValueError("load_weights: like is a network; give shape=, the shape of one example, as well")
        shapes = tuple(shape) if shape and not isinstance(shape[0], int) else (shape,)
        return structure(like, like.check_shapes(shapes))
    params, state = like if isinstance(like, tuple) and len(like) == 2 else (like, None)
    if not isinstance(params, Mapping):
        raise TypeError(f"load_weights: like must be params, (params, state) or a network, not {_described(params)}")
    return params, state


def _check_like(path: Path, trees: dict[str, Any], wanted: tuple[Any, Any], network: str | None) -> None:
    """Raise unless the entries are those wanted."""
    problems = []
    for kind, tree in zip(("params", "state"), wanted, strict=True):
        if tree is None:
            continue
        found, declared = (
            {kind + "".join(f"/{step.key}" for step in place): leaf for place, leaf in jax.tree.leaves_with_path(each)}
            for each in (trees[kind], tree)
        )
        problems += [f"{name} is missing" for name in declared if name not in found]
        problems += [f"{name} is one too many" for name in found if name not in declared]
        for name in found.keys() & declared.keys():
            ours, theirs = declared[name], found[name]
            if tuple(ours.shape) != theirs.shape or jnp.dtype(ours.dtype) != theirs.dtype:
                problems.append(
                    f"{name} is {theirs.dtype} {format_shape(theirs.shape)}, expected {ours.dtype} "
                    f"{format_shape(tuple(ours.shape))}"
                )
    if problems:
        listed = "\n  ".join(sorted(problems)[:20]) + ("\n  ..." if len(problems) > 20 else "")
        origin = f"\nthe weights are those of {network}" if network else ""
        raise ValueError(f"{path} does not fit:\n  {listed}{origin}")


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


def _array(path: Path, name: str, dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype not in _DTYPES:
        raise ValueError(f"{path}: {name} has the dtype {dtype}, which JAX does not have")
    wanted = jnp.dtype(_DTYPES[dtype])
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ValueError(
            f"{path}: {name} has dtype {wanted}, of which half of the digits would be lost; compute in 64 bits: "
            'jax.config.update("jax_enable_x64", True)'
        )
    return np.frombuffer(data, wanted).reshape(shape)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("saving weights needs safetensors: pip install 'fcnn[interop]'") from None
    return safetensors
