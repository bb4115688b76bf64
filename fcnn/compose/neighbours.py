"""Neighbours in a chain that are computed together: a convolution, functions of one number, and max pooling.

Where a convolution of few channels is computed in blocks of positions, a pooling of the same blocks would have to pick
them apart again. Computed together, the positions of every window stand one after another in memory (phases), and the
maximum needs no gathering. Parameters, results, gradients, names and errors are those of the parts one by one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY, dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from .. import geometry
from ..geometry import Shape
from ..given import Params
from ..layer import Layer
from ..layers.conv import Conv
from ..layers.function import Function
from ..layers.pool import MaxPool
from ..ops.conv import conv_in_phases, phases_problem
from ..ops.convolution import choose, refusal
from ..ops.devices import explicit_axes, varying_axes
from ..ops.pool import max_of_phases, pool_windows

#: functions that look at every number by itself, so that they may be computed in any order of positions
_ELEMENTWISE = (
    jax.nn.relu, jax.nn.relu6, jax.nn.sigmoid, jax.nn.softplus, jax.nn.silu, jax.nn.gelu, jax.nn.elu, jax.nn.selu,
    jax.nn.celu, jax.nn.leaky_relu, jax.nn.hard_tanh, jax.nn.soft_sign, jax.nn.log_sigmoid, jax.nn.hard_sigmoid,
    jax.nn.hard_silu, jnp.tanh, jnp.sin, jnp.cos, jnp.abs, jnp.square, jnp.exp,
)  # fmt: skip


def joined(parts: tuple[tuple[str, Layer], ...], x: Any) -> list[tuple[str, Layer]] | None:
    """The first parts as they are computed together on x (batch, *space, channels); None: one by one.

    The list holds the convolution in phases, the functions between, and the pooling over phases.
    """
    (name, conv), rest = parts[0], parts[1:]
    if type(conv) is not Conv or x.ndim < 3 or explicit_axes(x) or varying_axes(x):
        return None
    between = []
    for follower in rest:
        if not (isinstance(follower[1], Function) and any(follower[1].function is f for f in _ELEMENTWISE)):
            break
        between.append(follower)
    if len(between) == len(rest):
        return None
    pool_name, pool = rest[len(between)]
    if not isinstance(pool, MaxPool) or type(pool) is not MaxPool:
        return None
    try:
        phases = _phases(conv, pool, tuple(x.shape), x.dtype.name)
    except (ValueError, TypeError):  # something does not fit; one by one, the part that does not says so
        return None
    if phases is None:
        return None
    options = {f.name: getattr(conv, f.name) for f in dataclasses.fields(conv)}
    return [(name, _InPhases(**options, phases=phases)), *between, (pool_name, _OverPhases())]


def _phases(conv: Conv, pool: MaxPool, x: Shape, dtype: str) -> Shape | None:
    """The pooling windows, if the convolution is best computed in blocks of them."""
    out = conv.infer_shape(x[1:])[:-1]
    windows = pool_windows(out, pool.window, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
    plain = not any(map(any, windows.constant_pads)) and windows.fill == "constant"
    if not plain or windows.stride != windows.kernel or prod(windows.kernel) == 1:
        return None
    if any(d > 1 for d in windows.dilation):
        return None
    sizes = geometry.per_axis(conv.kernel, len(out), "kernel")
    kernel = (*sizes, x[-1] // conv.groups, conv.features)
    options = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups}
    problem = phases_problem(x, kernel, dtype, windows.kernel, **options)
    good = refusal("blocks", problem) is None and choose(problem).algorithm == "blocks"
    return windows.kernel if good else None


@dataclass(frozen=True, repr=False)
class _InPhases(Conv):
    """A convolution whose result has the positions of every pooling window along an axis of its own."""

    _: KW_ONLY
    phases: Shape = ()

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        options = {"groups": self.groups, **self._geometry()}
        return conv_in_phases(inputs[0], params["kernel"], params.get("bias"), self.phases, **options)


@dataclass(frozen=True, repr=False)
class _OverPhases(Layer):
    """Max pooling over the phases."""

    def infer_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return max_of_phases(inputs[0])
