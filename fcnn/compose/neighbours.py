"""Neighbours in a chain that are computed in an order of axes that suits them better than batch, space, channels.

Two runs of parts are known:

- A convolution of few channels, functions of one number, and max pooling. The convolution is computed in blocks of
  positions; pooling would have to pick the blocks apart again. In phases, the positions of every window stand one after
  another in memory, and the maximum needs no gathering.
- Convolutions by Winograd's algorithm with functions and poolings between them. Its products have the space
  first and (batch, channels) last; so have all parts of the run, and nothing is transposed in between.

Parameters, results, gradients, names and errors are those of the parts one by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import geometry
from ..geometry import Shape
from ..given import Params
from ..layer import Layer
from ..layers.conv import Conv
from ..layers.function import Function
from ..layers.pool import AvgPool, MaxPool
from ..ops.conv import conv_in_phases, conv_space_first, phases_problem
from ..ops.convolution import choose, refusal
from ..ops.devices import explicit_axes, varying_axes
from ..ops.dtypes import plus
from ..ops.pool import max_of_phases, pool_windows

#: functions that look at every number by itself, so that they may be computed in any order of axes
_ELEMENTWISE = (
    jax.nn.relu, jax.nn.relu6, jax.nn.sigmoid, jax.nn.softplus, jax.nn.silu, jax.nn.gelu, jax.nn.elu, jax.nn.selu,
    jax.nn.celu, jax.nn.leaky_relu, jax.nn.hard_tanh, jax.nn.soft_sign, jax.nn.log_sigmoid, jax.nn.hard_sigmoid,
    jax.nn.hard_silu, jnp.tanh, jnp.sin, jnp.cos, jnp.abs, jnp.square, jnp.exp,
)  # fmt: skip

_Parts = tuple[tuple[str, Layer], ...]


class Run(NamedTuple):
    """Parts that are computed together: what stands for each, and what is done to x before and to y after them."""

    parts: list[tuple[str, Layer]]
    before: Callable[[jax.Array], jax.Array]
    after: Callable[[jax.Array], jax.Array]


def joined(parts: _Parts, x: Any) -> Run | None:
    """The run that the first parts make on x (batch, *space, channels); None: the first is computed by itself."""
    conv = parts[0][1]
    if type(conv) is not Conv or x.ndim < 3 or explicit_axes(x) or varying_axes(x):
        return None
    try:
        return _in_phases(parts, tuple(x.shape), x.dtype.name) or _space_first(parts, tuple(x.shape), x.dtype.name)
    except (ValueError, TypeError):  # something does not fit; one by one, the part that does not says so
        return None


def is_elementwise(layer: Layer) -> bool:
    """Whether a layer is known to be a function of every number by itself."""
    return isinstance(layer, Function) and any(layer.function is f for f in _ELEMENTWISE)


def _problem(conv: Conv, x: Shape, dtype: str, phases: Shape) -> Any:
    sizes = geometry.per_axis(conv.kernel, len(x) - 2, "kernel")
    kernel = (*sizes, x[-1] // conv.groups, conv.features)
    options = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups}
    return phases_problem(x, kernel, dtype, phases, **options)


def _fields(conv: Conv) -> dict[str, Any]:
    return {f.name: getattr(conv, f.name) for f in dataclasses.fields(conv)}


class _Inside(Layer):
    """A part of a run: its outputs have other axes than those of the part that it stands for."""

    def check_output(self, method: str, y: Any, out: Any, inputs: tuple[Any, ...]) -> None:
        """Checked where the run was put together."""


# A convolution in phases.


def _in_phases(parts: _Parts, x: Shape, dtype: str) -> Run | None:
    (name, conv), rest = parts[0], parts[1:]
    count = next((i for i, (_, layer) in enumerate(rest) if not is_elementwise(layer)), len(rest))
    if count == len(rest) or not isinstance(conv, Conv):
        return None
    pool_name, pool = rest[count]
    if not (isinstance(pool, MaxPool) and type(pool) is MaxPool):  # a user's own kind may pool otherwise
        return None
    out = conv.infer_shape(x[1:])[:-1]
    windows = pool_windows(out, pool.window, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
    padded = any(map(any, windows.constant_pads)) or windows.fill != "constant"
    if padded or windows.stride != windows.kernel or prod(windows.kernel) == 1 or set(windows.dilation) != {1}:
        return None
    problem = _problem(conv, x, dtype, windows.kernel)
    if refusal("blocks", problem) is not None or choose(problem).algorithm != "blocks":
        return None
    functions, following = rest[:count], rest[count + 1 :]
    next_run = _space_first(following, (x[0], *windows.out, conv.features), dtype) if following else None
    if next_run is not None and not isinstance(next_run.parts[0][1], _SpaceFirstConv):
        next_run = None
    over = _OverPhases(next_run is not None)
    # the largest of rectified numbers is the largest of them, rectified; the same holds with a bias added
    early = all(isinstance(f, Function) and f.function is jax.nn.relu for _, f in functions)
    first = (name, _InPhases(**_fields(conv), phases=windows.kernel, over=over if early else None))
    together: list[tuple[str, Layer]] = [first, *functions, (pool_name, _Done() if early else over)]
    return Run(together, _same, _same) if next_run is None else Run([*together, *next_run.parts], _same, next_run.after)


@dataclass(frozen=True, repr=False)
class _InPhases(_Inside, Conv):
    """A convolution whose result has the positions of every pooling window one after another along an axis.

    With ``over`` the windows are pooled at once, before the bias is added: to a quarter of the positions.
    """

    _: KW_ONLY
    phases: Shape = ()
    over: _OverPhases | None = None

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        options = {"groups": self.groups, **self._geometry()}
        bias = params.get("bias")
        if self.over is None:
            return conv_in_phases(inputs[0], params["kernel"], bias, self.phases, **options)
        largest = self.over.forward({}, conv_in_phases(inputs[0], params["kernel"], None, self.phases, **options))
        return plus(largest, bias)


@dataclass(frozen=True, repr=False)
class _OverPhases(_Inside):
    """Max pooling over phases."""

    space_first: bool = False

    def infer_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return max_of_phases(inputs[0], space_first=self.space_first)


@dataclass(frozen=True, repr=False)
class _Done(_Inside):
    """The place of a pooling that has been done; here params are checked."""

    def infer_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return inputs[0]


# Space first.


def _space_first(parts: _Parts, x: Shape, dtype: str) -> Run | None:
    taken, convolutions = [], 0
    for name, layer in parts:
        if isinstance(layer, Conv) and type(layer) is Conv:
            problem = _problem(layer, x, dtype, (1,) * (len(x) - 2))
            if _copies_samples(layer) or choose(problem).algorithm != "winograd":
                break
            taken.append((name, _SpaceFirstConv(**_fields(layer))))
            convolutions += 1
        elif isinstance(layer, (MaxPool, AvgPool)) and type(layer) in (MaxPool, AvgPool):
            taken.append((name, _SpaceFirst(layer)))
        elif is_elementwise(layer):
            taken.append((name, layer))
            continue
        else:
            break
        x = (x[0], *layer.infer_shape(x[1:]))
    return Run(taken, _to_space_first, _to_batch_first) if convolutions else None


def _copies_samples(conv: Conv) -> bool:
    """Whether the padding of a convolution copies samples, so that it is no matter of geometry alone."""
    return geometry.split(conv.padding)[0] is not None


def _to_space_first(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, 0, -2)


def _to_batch_first(y: jax.Array) -> jax.Array:
    return jnp.moveaxis(y, -2, 0)


def _same(x: jax.Array) -> jax.Array:
    return x


@dataclass(frozen=True, repr=False)
class _SpaceFirstConv(_Inside, Conv):
    """A convolution of (*space, batch, channels)."""

    def infer_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]  # checked where the run was put together; this shape has the batch in it

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        options = {"groups": self.groups, **self._geometry()}
        return conv_space_first(inputs[0], params["kernel"], params.get("bias"), **options)


@dataclass(frozen=True, repr=False)
class _SpaceFirst(_Inside):
    """A pooling of (*space, batch, channels): examples and channels are pooled alike, so they are channels together."""

    pool: Layer

    def infer_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        *space, batch, channels = inputs[0].shape
        y = self.pool.forward(params, inputs[0].reshape(1, *space, batch * channels))
        return y.reshape(*y.shape[1:-1], batch, channels)
