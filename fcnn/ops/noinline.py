"""Computations that XLA:CPU must not fuse with their neighbours, where fusion makes them slower.

XLA fuses transposes, comparisons and selections into their consumers. If the consumer reads every number several times,
or in a different order from memory, a separate pass that writes its result to memory is faster. A function called by
XLA's ``call`` with the attribute ``inlineable="false"`` is such a pass. On other platforms nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import Array
from jax.core import ShapedArray
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import PartitionSpec

from ..geometry import Shape
from .tools import Own

reordered_p = Own("fcnn_reordered")


def reordered(x: Array, order: Shape) -> Array:
    """``x.transpose(order)``, written to memory in that order; its gradient is transposed back in the same way.

    Example:
        >>> import jax.numpy as jnp
        >>> reordered(jnp.arange(6).reshape(2, 3), (1, 0)).tolist()
        [[0, 3], [1, 4], [2, 5]]
    """
    return reordered_p.bind(x, order=tuple(order))


def noinline(function: Callable[..., Array], *arrays: Array) -> Array:
    """Apply the function to the arrays as a separate computation; use it only where the platform is the CPU.

    Example:
        >>> import jax.numpy as jnp
        >>> noinline(jnp.negative, jnp.ones(2)).tolist()
        [-1.0, -1.0]
    """
    with set_xla_metadata(inlineable="false"):
        return jax.jit(lambda *a: function(*a))(*arrays)


def register(primitive: Primitive, function: Callable[..., Array]) -> None:
    """Implement a primitive by a function of arrays and static parameters; on the CPU as a separate computation."""
    primitive.def_impl(lambda *arrays, **static: jax.jit(lambda *a: function(*a, **static))(*arrays))
    mlir.register_lowering(primitive, plainly(function))
    apart = plainly(lambda *arrays, **static: noinline(lambda *a: function(*a, **static), *arrays))
    mlir.register_lowering(primitive, apart, platform="cpu")


def plainly(function: Callable[..., Array]):
    """A lowering rule from a function, on types without sharding: it is computed on each device separately.

    Under shard_map, operands vary over devices. With the sharded types, a transpose inside the function would treat
    them as copies of one array and sum over devices.
    """
    rule = mlir.lower_fun(function, False)

    def lower(ctx, *operands, **static):
        plain = [ShapedArray(a.shape, a.dtype) for a in ctx.avals_in]
        return rule(ctx.replace(avals_in=plain), *operands, **static)

    return lower


def _abstract(x, *, order):
    spec = PartitionSpec(*(x.sharding.spec[axis] for axis in order))
    return x.update(shape=tuple(x.shape[axis] for axis in order), sharding=x.sharding.update(spec=spec))


def _turned_back(g, x, *, order):
    del x
    return [reordered(g, tuple(sorted(range(len(order)), key=order.__getitem__)))]


def _batched(args, dims, *, order):
    (x,), (place,) = args, dims
    rest = [axis for axis in range(x.ndim) if axis != place]
    return reordered(x, (place, *(rest[axis] for axis in order))), 0


register(reordered_p, lambda x, *, order: x.transpose(order))
reordered_p.def_abstract_eval(_abstract)
ad.deflinear2(reordered_p, _turned_back)
batching.primitive_batchers[reordered_p] = _batched
