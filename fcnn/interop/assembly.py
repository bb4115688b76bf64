"""Params and state from layers and the modules of another framework that hold their arrays."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..geometry import Shape
from ..types import Params, State
from .matching import Layout, Pairs


def assembled(pairs: Pairs, layout: Layout) -> tuple[Params, State]:
    """Params and state, in this library's layout and JAX's default dtype; numbers of 16 bits as they are."""
    params: Params = {}
    state: State = {}
    copies: dict[tuple[str, str, str], list[np.ndarray]] = defaultdict(list)
    for slot, module in pairs:
        for kind, entries in (("params", slot.params), ("state", slot.state)):
            for name, shape in entries.items():
                found = module.get(slot, name)
                if name == "count":  # of batches, which is optional
                    count = np.zeros(()) if found is None else found[0]
                    array = np.broadcast_to(np.asarray(count, np.float32), shape).copy()
                else:
                    if found is None:
                        raise ValueError(f"{module.name} has no counterpart of {slot.path}/{name}")
                    array = layout.convert(module, slot, name, found[0])
                copies[kind, slot.path, name].append(array)
    lead = _copies(pairs)
    for (kind, path, name), arrays in copies.items():
        stacked = np.stack(arrays).reshape(*lead[path], *arrays[0].shape) if lead[path] else arrays[0]
        _put(params if kind == "params" else state, path, name, _in_default_dtype(stacked))
    return params, state


def _copies(pairs: Pairs) -> dict[str, Shape]:
    """For every path the number of copies along each axis; () where there is one."""
    found: dict[str, Shape] = {}
    for slot, _ in pairs:
        most = tuple(n + 1 for n in slot.copies)
        found[slot.path] = tuple(map(max, most, found.get(slot.path, most)))
    return found


def _put(tree: dict[str, Any], path: str, name: str, value: jax.Array) -> None:
    for step in filter(None, path.split("/")):
        tree = tree.setdefault(step, {})
    tree[name] = value


def _in_default_dtype(array: np.ndarray) -> jax.Array:
    if array.dtype.itemsize < 4 and jnp.issubdtype(array.dtype, jnp.floating):
        return jnp.asarray(array)
    return jnp.asarray(array, jnp.zeros(()).dtype)
