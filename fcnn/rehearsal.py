"""A pass through a network on shapes alone, before any computation."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import jax

from .context import Context

#: class of the tracers of jit; any other value, also a tracer of grad or vmap alone, may be computed eagerly
COMPILING = "DynamicJaxprTracer"


def kind_of(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype that JAX would use for an array."""
    return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True))


@functools.lru_cache(maxsize=512)
def rehearse(layer: Any, train: bool, tree: Any, leaves: Sequence[Any], resting: frozenset[str] = frozenset()) -> None:
    """Run a network on shapes and dtypes alone; raise the errors that running it would raise."""
    abstract = [kind_of(leaf) for leaf in leaves if hasattr(leaf, "dtype")]

    def walk(*arrays: Any) -> Any:
        rest = iter(arrays)
        root, params, state, inputs = jax.tree.unflatten(
            tree, [next(rest) if hasattr(leaf, "dtype") else leaf for leaf in leaves]
        )
        context = Context(train=train, root=root, resting=resting, plan=False)  # shapes need no plan
        return layer.run(context, params, state, inputs)[0]

    # a function in the network that depends on concrete values cannot be rehearsed, so the rehearsal is skipped
    with contextlib.suppress(jax.errors.JAXTypeError):
        jax.eval_shape(walk, *abstract)
