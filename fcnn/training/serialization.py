"""A checkpoint as a folder of files with checksums.

The folder holds ``arrays`` (written by Orbax), ``leaves.json`` (descriptions of the arrays), ``about.json`` (progress
and history of the run) and ``manifest.json``, which is written last and has size and SHA-256 of every other file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..errors import format_shape
from .host_copy import Leaf, Snapshot, Unsuitable, described
from .orbax_files import load_arrays, save_arrays

FORMAT = 1
ARRAYS, LEAVES, ABOUT, MANIFEST = "arrays", "leaves.json", "about.json", "manifest.json"


class Damaged(Exception):
    """A damaged checkpoint; the message names the file and what is wrong with it."""


def write(folder: Path, step: int, snapshot: Snapshot, about: str) -> None:
    """Write a checkpoint into a new folder, the manifest last, and wait until all of it is on disk."""
    folder.mkdir()
    arrays = {name: _storable(array) for name, array in snapshot.arrays.items() if array.size}
    if arrays:
        free, needed = shutil.disk_usage(folder).free, sum(array.nbytes for array in arrays.values())
        if free < needed:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({needed:,} bytes needed, {free:,} free)")
        save_arrays(folder, ARRAYS, arrays)
    (folder / LEAVES).write_text(json.dumps([asdict(leaf) for leaf in snapshot.leaves], indent=1))
    (folder / ABOUT).write_text(about)
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest, size = _digest(path)
        files[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest}
        sync(path)
    body = {"format": FORMAT, "step": step, "files": files}
    (folder / MANIFEST).write_text(json.dumps({"manifest": body, "sha256": _own_digest(body)}, indent=1))
    sync(folder / MANIFEST)
    for path in [p for p in folder.rglob("*") if p.is_dir()]:
        sync(path)
    sync(folder)


def verify(folder: Path) -> int:
    """Check that a checkpoint is whole, and return its step.

    Raises:
        Damaged: a file is missing, truncated or changed.
        Unsuitable: another format.
    """
    try:
        stored = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise Damaged(f"{MANIFEST} is missing") from None
    except OSError as error:
        raise Damaged(f"{MANIFEST} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise Damaged(f"{MANIFEST} is not JSON") from None
    body = stored.get("manifest") if isinstance(stored, dict) else None
    if not isinstance(body, dict) or stored.get("sha256") != _own_digest(body):
        raise Damaged(f"{MANIFEST} does not have its SHA-256")
    if body["format"] != FORMAT:
        raise Unsuitable(f"it has format {body['format']}, but this version of fcnn reads format {FORMAT}")
    for name, expected in body["files"].items():
        try:
            if (size := (folder / name).stat().st_size) != expected["bytes"]:
                raise Damaged(f"{name} has {size} bytes of {expected['bytes']}")
            if _digest(folder / name)[0] != expected["sha256"]:
                raise Damaged(f"{name} does not have its SHA-256")
        except FileNotFoundError:
            raise Damaged(f"{name} is missing") from None
        except OSError as error:
            raise Damaged(f"{name} cannot be read: {error.strerror}") from None
    return body["step"]


def read(folder: Path, like: Any) -> tuple[Any, dict[str, Any]]:
    """The tree and what is known about it, from a folder that :func:`verify` found whole.

    Raises:
        Unsuitable: its leaves differ from those of ``like``.
    """
    about = json.loads((folder / ABOUT).read_text())
    stored = [Leaf(**{**leaf, "shape": tuple(leaf["shape"])}) for leaf in json.loads((folder / LEAVES).read_text())]
    there, here = {leaf.path: leaf for leaf in stored}, {leaf.path: leaf for leaf in described(like)}
    _compare(there, here)
    arrays: dict[str, Any] = {}
    if (folder / ARRAYS).exists():
        arrays = load_arrays(folder, ARRAYS)
    values = []
    for path, wanted in zip(here, jax.tree_util.tree_leaves(like), strict=True):
        leaf = there[path]
        if leaf.key_impl is not None:
            data = np.asarray(arrays[leaf.name]) if leaf.name in arrays else _no_keys(leaf)
            values.append(jax.random.wrap_key_data(jax.numpy.asarray(data), impl=leaf.key_impl))
            continue
        dtype = jax.numpy.dtype(leaf.dtype)
        value = np.asarray(arrays[leaf.name]) if leaf.name in arrays else np.zeros(leaf.shape, dtype)
        if value.dtype != dtype:
            value = np.frombuffer(value.tobytes(), dtype).reshape(leaf.shape).copy()
        values.append(type(wanted)(value.item()) if isinstance(wanted, (bool, int, float, complex)) else value)
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(like), values), about


def _no_keys(leaf: Leaf) -> np.ndarray:
    return np.zeros((*leaf.shape, *jax.random.key_data(jax.random.key(0, impl=leaf.key_impl)).shape), np.uint32)


def _compare(there: dict[str, Leaf], here: dict[str, Leaf]) -> None:
    found = []
    for path in [*here, *(path for path in there if path not in here)]:
        stored, wanted = there.get(path), here.get(path)
        if stored is None or wanted is None:
            leaf = stored or wanted
            kind = "" if leaf is None else f"{leaf.shown} {format_shape(leaf.shape)} {leaf.dtype}"
            found.append(f"{kind} is {'not in it' if stored is None else 'in it, but not here'}")
        elif (stored.shape, stored.dtype) != (wanted.shape, wanted.dtype):
            kinds = [f"{format_shape(leaf.shape)} {leaf.dtype}" for leaf in (stored, wanted)]
            found.append(f"{stored.shown} is {kinds[0]} in it and {kinds[1]} here")
    if found:
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise Unsuitable("; ".join(found[:5]) + more)


def _storable(array: np.ndarray) -> np.ndarray:
    """The array itself if Orbax can store its dtype, else its bytes (4-bit integers and the like)."""
    native = array.dtype.char in "?bhilqBHILQefdFD" or array.dtype.name == "bfloat16"
    return array if native else np.frombuffer(array.tobytes(), np.uint8)


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size


def _own_digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the directory of a folder, is on disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a directory for this
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
