"""A tree of arrays as bytes, and back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def packed(tree: Any) -> bytes:
    """The bytes of all leaves, one after another; of arrays that lie on several devices, those of the first.

    Example:
        >>> len(packed({"kernel": np.zeros((2, 3), "float32"), "bias": np.zeros(3, "float32")}))
        36
    """
    return b"".join(_numbers(leaf).tobytes() for leaf in jax.tree.leaves(tree))


def unpacked(raw: bytes, like: Any) -> Any:
    """The tree whose leaves have these bytes, and the form, shapes and types of ``like``.

    Example:
        >>> unpacked(packed({"bias": np.arange(3)}), {"bias": np.zeros(3, int)})["bias"].tolist()
        [0, 1, 2]
    """
    leaves, form = jax.tree.flatten(like)
    found, start = [], 0
    for leaf in leaves:
        array = _numbers(leaf)
        value = np.frombuffer(raw[start : start + array.nbytes], array.dtype).reshape(array.shape)
        start += array.nbytes
        if _is_key(leaf):
            value = jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(leaf))
        found.append(value)
    return jax.tree.unflatten(form, found)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf: Any) -> np.ndarray:
    """An array on the host; of a random key its numbers."""
    leaf = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    replicated = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    return np.asarray(leaf.addressable_data(0) if replicated else leaf)
