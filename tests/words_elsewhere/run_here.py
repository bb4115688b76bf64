"""Run the code of fcnn that the rows quote, with the parameters and statistics of another library."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fcnn

from .row import WEIGHTS, Row
from .run_there import Result

NAMES = {**{name: getattr(fcnn, name) for name in fcnn.__all__}, "jax": jax, "jnp": jnp, "ops": fcnn.ops}


@functools.cache
def network(code: str) -> fcnn.Layer:
    """The layer that the code gives; a function becomes one."""
    made = eval(code, dict(NAMES))
    return made if isinstance(made, fcnn.Layer) else fcnn.serial(made)


@functools.cache
def compiled(code: str, mode: str) -> Any:
    """Its ``apply``, or ``apply_train``, compiled once for all rows and libraries."""
    return jax.jit(network(code).apply_train if mode == "train" else network(code).apply)


def kind(net: fcnn.Layer) -> str:
    name = type(net).__name__
    return "Norm" if name.endswith("Norm") else name


def taken_over(
    row: Row, library: str, net: fcnn.Layer, arrays: Mapping[str, np.ndarray], *, unlike: bool = False
) -> Any:
    """Params and state of a network from the arrays of another library, by the rules that the page shows."""
    rules = {**WEIGHTS[library].get(kind(net), {}), **row.weights.get(library, {})}
    rules |= row.weights_unlike[library] if unlike else {}
    of_one = row.shape[1:]
    shapes = jax.eval_shape(lambda key: (net.init(key, of_one), net.init_state(of_one)), jax.random.key(0))

    def value(path: Any, leaf: Any) -> Any:
        place = "/".join(str(entry.key) for entry in path)
        found = jnp.asarray(eval(rules[place], {"np": np, "jnp": jnp}, dict(arrays)))
        if found.shape != leaf.shape:
            raise ValueError(f"{row.id}: {place} has shape {found.shape}, {leaf.shape} is wanted")
        return found

    return tuple(jax.tree_util.tree_map_with_path(value, tree) for tree in shapes)


def run_here(row: Row, code: str, x: np.ndarray, library: str, theirs: Result, *, unlike: bool = False) -> Any:
    """Output, and in training the new statistics, of our code with their arrays."""
    params, state = taken_over(row, library, network(code), theirs.arrays, unlike=unlike)
    y = compiled(code, row.mode)(params, jnp.asarray(x), state=state)
    return y if row.mode == "train" else (y, {})
