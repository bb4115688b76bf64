"""Outputs of a network for any number of examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import format_shape, layer_path
from ..geometry import integer
from ..layer import Layer
from ..native import native
from ..ops.dtypes import wide
from ..types import Params, State
from .examples import check_net, count_of, input_arrays, out_shape, plain_array, taken
from .precision import check_precision, lowered
from .sharding import Sharding


@partial(jax.jit, static_argnames=("net", "precision"))
def _given(net: Layer, precision: str | None, params: Params, state: State, inputs: tuple[Any, ...]) -> Any:
    low, x = lowered((params, inputs), precision)
    outputs = net.apply(low, *x, state=state)
    if precision is None:
        return outputs
    return jax.tree.map(lambda a: a.astype(wide(a.dtype)) if jnp.issubdtype(a.dtype, jnp.floating) else a, outputs)


def predict(
    net: Layer,
    params: Params,
    x: Any,
    *,
    state: State | None = None,
    batch_size: int = 512,
    mesh: jax.sharding.Mesh | None = None,
    precision: str | None = None,
) -> Any:
    """The outputs for all examples, computed batch by batch, with dropout off and stored statistics.

    The device holds a few batches at a time, the host all outputs. Only slices of x are read: it may be a memory map.

    Args:
        net: the network.
        params: its parameters.
        x: an array (examples, *space, channels), or a tuple of arrays for several inputs. Or batches: a list, a loader
            or any other iterable whose items are an array, or (x, y) or (x, y, w) as for ``fit``, of which only x is
            used. Several inputs of a batch are a tuple in place of x, ((a, b), y).
        state: its state, if it has any.
        batch_size: examples at a time; batches that are handed in keep their size.
        mesh: devices that share each batch; None: one device. Each of several processes gives its own part of the
            examples, and gets the outputs for it.
        precision: "bfloat16" or "float16" to compute in it, with outputs in float32; None: the precision of the
            parameters.

    Returns:
        The outputs as a NumPy array (examples, *out), or a tuple or dict of arrays, as the network returns.

    Raises:
        ValueError: inputs that do not suit the network, or none.
        TypeError: arguments of the wrong kind.

    Example:
        >>> import fcnn
        >>> params = {"kernel": jnp.array([[2.0]]), "bias": jnp.ones(1)}
        >>> predict(fcnn.Dense(1), params, jnp.arange(3.0)[:, None], batch_size=2).tolist()
        [[1.0], [3.0], [5.0]]
    """
    with layer_path("predict"):
        check_net(net)
        batch_size = integer(batch_size, "batch_size")
        place = Sharding.over(mesh).own
        precision = check_precision(precision)
        kept: State = {} if state is None else state
        params, kept = jax.tree.map(native, (params, kept))
        count, batches = _batches(net, x, batch_size)
    if place.mesh is not None:
        local = Sharding.over(mesh).processes.local
        params, kept = (jax.device_put(local(tree), place.replicated) for tree in (params, kept))
    found: Any = []  # arrays to be filled, or the outputs of every batch
    waiting: Any = None
    first = 0

    def note(start: int, outputs: Any) -> None:
        host, total = jax.tree.map(np.asarray, outputs), count
        if total is None:
            found.append(host)
            return
        if not found:
            found.append(jax.tree.map(lambda a: np.empty((total, *a.shape[1:]), a.dtype), host))
        for whole, part in zip(jax.tree.leaves(found[0]), jax.tree.leaves(host), strict=True):
            whole[start : start + len(part)] = part

    for inputs in batches:
        given = place.put(inputs) if place.mesh is not None else inputs
        outputs = _given(net, precision, params, kept, given)
        if waiting is not None:  # read one batch behind, so that the device is not idle
            note(*waiting)
        waiting = (first, outputs)
        first += count_of(inputs)
    if waiting is None:
        raise ValueError("predict: x: there are no batches")
    note(*waiting)
    return found[0] if count is not None else jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def _batches(net: Layer, x: Any, batch_size: int) -> tuple[int | None, Iterator[tuple[Any, ...]]]:
    """The number of examples, None if unknown, and the inputs batch by batch."""
    if isinstance(x, list) or not (isinstance(x, (tuple, Mapping)) or hasattr(plain_array(x), "shape")):
        if isinstance(x, (str, bytes)) or not isinstance(x, Iterable):
            way_out = "; call it" if callable(x) else ""
            raise TypeError(
                f"x must be an array, a tuple of arrays, or batches of them, not a {type(x).__name__}{way_out}"
            )
        return None, _handed_in(net, x)
    inputs = input_arrays(x, "x")
    _check(net, inputs)
    count = count_of(inputs)
    return count, (taken(inputs, slice(first, first + batch_size)) for first in range(0, count, batch_size))


def _handed_in(net: Layer, batches: Any) -> Iterator[tuple[Any, ...]]:
    for number, batch in enumerate(batches, start=1):
        with layer_path(f"predict: batch {number}"):
            if isinstance(batch, (tuple, list)):
                if len(batch) not in (1, 2, 3):
                    raise TypeError(
                        f"a batch must be x, (x, y) or (x, y, w), not a {type(batch).__name__} of {len(batch)}"
                    )
                batch = batch[0]
            inputs = input_arrays(batch, "batch")
            _check(net, inputs)
        yield inputs


def _check(net: Layer, inputs: tuple[Any, ...]) -> None:
    for i, array in enumerate(inputs):
        name = f"x[{i}]" if len(inputs) > 1 else "x"
        if not hasattr(array, "shape") or not hasattr(array, "dtype"):
            raise TypeError(f"{name} must be an array, not a {type(array).__name__}; use numpy.asarray")
        if not array.shape:
            raise ValueError(f"{name} is a single number; its first axis must count the examples")
        if array.shape[0] == 0:
            raise ValueError(
                f"{name} has shape {format_shape(tuple(array.shape))}: there are no examples; give at least one"
            )
    if len({array.shape[0] for array in inputs}) > 1:
        listed = ", ".join(format_shape(tuple(array.shape)) for array in inputs)
        raise ValueError(f"the inputs have different numbers of examples: {listed}; their first axes must be equal")
    out_shape(net, tuple(tuple(array.shape[1:]) for array in inputs))
