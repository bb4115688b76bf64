"""A tree of arrays, copied to the host, where no later step can change it."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

#: arrays of fewer bytes are copied at once; handing them to a thread would take longer
_WORTH_A_THREAD = 1 << 18


class Unsuitable(Exception):
    """A whole checkpoint of another tree; the message says which leaves differ."""


@dataclass(frozen=True)
class Leaf:
    """One array of a tree: its path (for JAX, and readable), its name among the stored arrays, its shape and dtype."""

    path: str
    shown: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    key_impl: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """A tree on the host: descriptions of the leaves, and the arrays by name."""

    leaves: tuple[Leaf, ...]
    arrays: dict[str, np.ndarray]


class HostCopy:
    """Copies trees to the host, each into the memory of the copy before.

    Fresh memory costs several times as much as the copy, because the system has to map every page. So finish with one
    snapshot before you take the next, or call :meth:`forget`.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "fcnn-copy")

    def plan(self, tree: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shapes and dtypes of the copies that such a tree needs."""
        leaves = zip(described(tree), jax.tree_util.tree_leaves(tree), strict=True)
        return {leaf.name: (value.shape, value.dtype) for leaf, value in leaves if _on_host(value)}

    def prepare(self, plan: dict[str, tuple[tuple[int, ...], Any]]) -> None:
        """Allocate the memory for copies before the first one is due."""
        buffers = {name: np.empty(shape, dtype) for name, (shape, dtype) in plan.items()}
        for buffer in buffers.values():
            buffer.fill(0)  # touches every page
        self._buffers = buffers

    def take(self, tree: Any) -> Snapshot:
        """Copy a tree, whose arrays may be changed or donated once this returns."""
        leaves = described(tree)
        values = [_local(leaf, value) for leaf, value in zip(leaves, jax.tree_util.tree_leaves(tree), strict=True)]
        for value in values:
            if isinstance(value, jax.Array):
                value.copy_to_host_async()  # start all transfers at once; does nothing on a CPU
        arrays, copies = {}, []
        for leaf, value in zip(leaves, values, strict=True):
            seen = np.asarray(value)
            if isinstance(value, np.ndarray) or not seen.flags.owndata:  # a view of memory that may change
                buffer = self._buffers.get(leaf.name)
                if buffer is None or (buffer.shape, buffer.dtype) != (seen.shape, seen.dtype):
                    buffer = np.empty(seen.shape, seen.dtype)
                if seen.nbytes < _WORTH_A_THREAD:
                    np.copyto(buffer, seen)
                else:
                    copies.append(self._pool.submit(np.copyto, buffer, seen))
                seen = buffer
            arrays[leaf.name] = seen
        for copy in copies:
            copy.result()
        self._buffers = {name: array for name, array in arrays.items() if array.flags.writeable}
        return Snapshot(leaves, arrays)

    def forget(self) -> None:
        """Give up the memory of the last snapshot, which may still be in use."""
        self._buffers = {}

    def close(self) -> None:
        """Release memory and threads."""
        self.forget()
        self._pool.shutdown()


def _on_host(value: Any) -> bool:
    """Whether NumPy would see the value without a copy; arrays on accelerators are copied."""
    if not isinstance(value, jax.Array):
        return isinstance(value, np.ndarray)
    if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        return False
    return all(device.platform == "cpu" for device in value.devices())


def _local(leaf: Leaf, value: Any) -> Any:
    """The value as an array of this process; a random key as its numbers."""
    if not isinstance(value, jax.Array):
        return value if isinstance(value, np.ndarray) else np.asarray(value)
    if value.is_fully_replicated:
        value = value.addressable_data(0)
    elif not value.is_fully_addressable:
        raise Unsuitable(
            f"{leaf.shown} is divided over several processes; every process has to hold the whole array: replicate it"
        )
    return value if leaf.key_impl is None else np.array(jax.random.key_data(value))


def described(tree: Any) -> tuple[Leaf, ...]:
    """Descriptions of the leaves of a tree, without reading their values."""
    leaves, taken = [], set()
    for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
        readable = jax.tree_util.keystr(path, simple=True, separator="/") or "value"
        if isinstance(value, (bool, int, float, complex)):
            value = np.asarray(value)
        if not hasattr(value, "shape") or not hasattr(value, "dtype") or _foreign(value.dtype):
            raise TypeError(f"{readable} is a {type(value).__name__}; a checkpoint holds arrays and numbers only")
        impl = None
        if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
            impl = str(jax.random.key_impl(value)) if isinstance(value, jax.Array) else ""
        stem = name = re.sub(r"[^A-Za-z0-9_.-]", "_", readable.replace("/", "."))
        count = 1
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name)
        leaves.append(Leaf(jax.tree_util.keystr(path), readable, name, tuple(value.shape), str(value.dtype), impl))
    return tuple(leaves)


def _foreign(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and (dtype.kind in "OSUMm" or dtype.fields is not None)
