"""A pass through a network on shapes alone, before anything is computed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import jax

from .context import Context

#: the class of what jit traces with; anything else, also under grad and vmap alone, may be computed at once
COMPILING = "DynamicJaxprTracer"


def kind_of(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array, as JAX would compute with it."""
    return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True))


@functools.lru_cache(maxsize=512)
def rehearse(layer: Any, train: bool, tree: Any, leaves: Sequence[Any], resting: frozenset[str] = frozenset()) -> None:
    """Run a network on shapes and dtypes alone; raises what running it would raise."""
    abstract = [kind_of(leaf) for leaf in leaves if hasattr(leaf, "dtype")]

    def walk(*arrays: Any) -> Any:
        rest = iter(arrays)
        root, params, state, inputs = jax.tree.unflatten(
            tree, [next(rest) if hasattr(leaf, "dtype") else leaf for leaf in leaves]
        )
        context = Context(train=train, root=root, resting=resting, plan=False)  # shapes need no plan
        return layer.run(context, params, state, inputs)[0]

    # a function in the network that looks at values cannot be rehearsed; it is run as it is
    with contextlib.suppress(jax.errors.JAXTypeError):
        jax.eval_shape(walk, *abstract)
