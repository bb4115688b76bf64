"""Gradients of a batch, computed from parts of it to save memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..ops.dtypes import wide
from ..types import Params, State
from .measures import Measured, Measures


def in_parts(
    gradient_of: Callable[..., Any],
    measures: Measures,
    before: Any,
    inputs: tuple[Any, ...],
    targets: Any,
    accumulators: Any,
    count: int,
) -> tuple[Params, jax.Array, Measured, State]:
    """Gradient, loss and sums of a batch from its parts, one after another; the state passes through all of them."""
    size = inputs[0].shape[0]
    if size % count:
        raise ValueError(
            f"accumulate is {count}, which does not divide a batch of {size} examples; "
            "use a batch_size that is a multiple of it, and drop an incomplete last batch (drop_last=True)"
        )
    # a part has every count-th example, so that on a mesh every device has an equal share of it
    parts = jax.tree.map(lambda a: a.reshape(size // count, count, *a.shape[1:]).swapaxes(0, 1), (inputs, targets))
    shares = measures.shares(parts[1], count)

    def part(carry: Any, given: Any) -> Any:
        (total, value, sums, state, accumulators), ((x, y), i, shares) = carry, given
        gradient, more, found, state = gradient_of(state, x, y, i, accumulators, shares)
        # in float32 or wider: in half precision a sum of many parts stops growing
        wider = jax.tree.map(
            lambda old, new: old + new.astype(old.dtype), (total, value, sums), (gradient, more, found.sums)
        )
        return (*wider, state, found.accumulators), None

    one = jax.tree.map(lambda a: a[0], (parts, shares))
    first = jax.eval_shape(gradient_of, before.state, *one[0], 0, accumulators, one[1])
    told = (first[0], first[1], first[2].sums)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, _summed_in(a.dtype)), told)
    (total, value, sums, state, accumulators), _ = jax.lax.scan(
        part, (*zeros, before.state, accumulators), (parts, jnp.arange(count), shares)
    )
    if shares is None:  # parts of equal weight
        total, value = jax.tree.map(lambda a: a / jnp.asarray(count, a.dtype), (total, value))
    total, value = jax.tree.map(lambda a, one: a.astype(one.dtype), (total, value), told[:2])
    return total, value, Measured(sums, accumulators), state


def _summed_in(dtype: Any) -> Any:
    return wide(dtype) if jnp.issubdtype(dtype, jnp.floating) else dtype
