"""The distributed scan: an MLP with block-shared weights is a cascade of convolutions, and vice versa.

A unit in a lower layer of an MLP may cover only part of the window. The first matrix then consists of several copies
of one block, shifted by a constant number of samples and zero elsewhere, and the layer above combines the outputs of
the copies. This is a convolution followed by a convolution over all positions. This module converts one form into the
other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from itertools import product
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..checks import check_mapping
from ..compose import serial
from ..compose.parts import lift
from ..compose.remat import Remat
from ..compose.serial import Serial
from ..errors import format_shape, layer_path
from ..geometry import Shape, check_shape
from ..identity import nearest
from ..layer import Layer
from ..layers.conv import Conv, LocallyConnected
from ..layers.dense import Dense, Dropout, Flatten, Maxout
from ..layers.function import Function
from ..layers.pool import AvgPool
from ..layers.whole_pool import GlobalAvgPool
from ..ops.dtypes import common
from ..symbolic_sizes import plain_sizes
from ..tracing.positionwise import why_not_positionwise
from ..types import Params
from .matrices import matrix

#: layers that are matrix products or elementwise
_MLP = (Conv, LocallyConnected, AvgPool, GlobalAvgPool, Dense, Flatten, Maxout, Dropout, Function)


class Part(NamedTuple):
    """One part of a chain with its parameters."""

    name: str
    layer: Layer
    params: Params


def as_cascade(net: Layer, params: Params, shape: Shape) -> tuple[Serial, Params]:
    r"""Recognise an MLP with block-shared weights as a cascade of convolutions.

    A dense layer over m positions of C channels each, whose kernel is copies of one block of k samples,

    .. math:: W_{(s i + j, c), (i, o)} = w_{j, c, o}, \qquad 0 \le j < k

    and zero elsewhere, with biases equal over the copies i, is ``Conv(features, k, stride=s)``; the next layer sees its
    positions. The finest sharing that fits is chosen: as many copies as possible. A layer without such a structure, and
    the last one, becomes a convolution over its whole input, with one position. Values are compared exactly.

    On a longer input the cascade computes the MLP's outputs at every position of a scan whose stride is the product of
    the convolutions' strides. (Along an axis where a layer has a single position, the stride cannot be read from the
    weights; it is 1 there.)

    Args:
        net: a chain ``serial(Flatten(), Dense(...), function, Dense(...), ...)``; it may contain dropout and maxout.
        params: its parameters, concrete arrays.
        shape: shape of one window, (\*window, channels), with 1, 2 or 3 space dimensions; hidden units are numbered in
            the same order, position by position, channels fastest.

    Shapes:
        The MLP maps (batch, \*window, channels) to (batch, features), the cascade to (batch, \*ones, features). On a
        larger input the cascade maps (batch, \*space, channels) to (batch, \*positions, features).

    Returns:
        The cascade and its parameters; parts keep their names.

    Raises:
        ValueError: if the network is not such a chain, if a function mixes hidden units and would mix positions, or
            if the params do not belong to the network.
        TypeError: if the params are traced and so have no values yet.

    Source:
        Waibel et al., "Phoneme recognition using time-delay neural networks", 1989, figure 2.

    Example:
        >>> import fcnn
        >>> block = np.arange(1.0, 5.0, dtype="float32").reshape(4, 1)    # 2 samples of 2 channels, 1 feature
        >>> first = np.kron(np.eye(3, dtype="float32"), block)    # three copies
        >>> params = {"dense1": {"kernel": first}, "dense2": {"kernel": np.ones((3, 5), "float32")}}
        >>> mlp = fcnn.serial(fcnn.Flatten(), fcnn.Dense(3, bias=False), fcnn.Dense(5, bias=False))
        >>> cascade, params = as_cascade(mlp, params, (6, 2))
        >>> cascade
        fcnn.serial(dense1=fcnn.Conv(1, 2, stride=2, bias=False), dense2=fcnn.Conv(5, 3, bias=False))
        >>> cascade.out_shape((100, 2))
        (48, 5)
    """
    with layer_path("as_cascade"):
        net, seen = lift(net), check_shape(shape)
        if not 2 <= len(seen) <= 4:
            raise ValueError(f"shape is (*window, channels) with 1, 2 or 3 space dimensions, not {format_shape(seen)}")
        chain = _chain(net, params)
        if type(chain[0].layer) is not Flatten or len(chain[0].layer.infer_shape(seen)) > 1:
            raise ValueError(
                f"the network begins with {chain[0].name} ({chain[0].layer!r}); an MLP over a window begins with "
                "Flatten(); as_mlp converts a cascade to an MLP"
            )
        if len(chain) == 1:
            raise ValueError("the network is Flatten() alone, which leaves no layer for a cascade")
        _check_values(params)
        for name, _, own in chain:
            if not all(np.isfinite(np.asarray(leaf, float)).all() for leaf in jax.tree.leaves(own)):
                raise ValueError(f"{name} has weights that are not finite, which cannot be compared")
    _check_params(net, params, seen)
    layers: dict[str, Layer] = {}
    found: Params = {}
    for index, (name, layer, own) in enumerate(chain):
        with layer_path(name):
            if type(layer) is Flatten:
                continue
            if type(layer) is Dense:
                layer, own = _shared(layer, own, seen, _unit(chain[index + 1 :], layer.features))
            elif type(layer) is Dropout:
                layer = Dropout(layer.rate)
            elif isinstance(layer, Function):
                _check_function(layer, seen)
            elif type(layer) is not Maxout:
                raise ValueError(f"{layer!r} is not part of an MLP, which is a chain of Flatten, Dense and functions")
            seen = layer.infer_shape(seen)
            layers[name] = layer
            if own:
                found[name] = jax.tree.map(jnp.asarray, own)
    with layer_path("as_cascade"):
        return serial(**layers), found


def as_mlp(net: Layer, params: Params, shape: Shape) -> tuple[Serial, Params]:
    r"""Write a cascade of convolutions out as an MLP over one window.

    A convolution is multiplication by a sparse matrix whose columns are shifted copies of each other (Toeplitz; doubly
    block Toeplitz in two dimensions). The matrix has the samples of the window as rows and (positions, features) as
    columns.

    Args:
        net: a chain of ``Conv`` (any padding, stride, dilation, groups), ``LocallyConnected``, ``AvgPool``,
            ``GlobalAvgPool``, ``Dense``, ``Flatten``, ``Maxout``, ``Dropout``, and elementwise functions.
        params: its parameters, concrete arrays.
        shape: shape of one window, (\*window, channels).

    Shapes:
        x (batch, \*window, channels) to (batch, all outputs of net, channels fastest).

    Returns:
        ``serial(Flatten(), Dense(...), ...)`` and its parameters. Parts keep their names; those of nested chains are
        joined by underscores.

    Raises:
        ValueError: if a layer is not a matrix product, such as max pooling or a norm (the message names it), a
            function mixes positions or channels, a matrix has more than 2^30 entries, or the params do not belong to
            the network.
        TypeError: if the params are traced and so have no values yet.

    Source:
        Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, section 4.1.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Conv(1, 2, bias=False), jax.nn.relu)
        >>> mlp, params = as_mlp(net, {"conv1": {"kernel": jnp.array([0.3, 0.5]).reshape(2, 1, 1)}}, (4, 1))
        >>> mlp
        fcnn.serial(fcnn.Flatten(), conv1=fcnn.Dense(3, bias=False), relu1=jax.nn.relu)
        >>> params["conv1"]["kernel"].round(1).T.tolist()
        [[0.30000001192092896, 0.5, 0.0, 0.0],
         [0.0, 0.30000001192092896, 0.5, 0.0],
         [0.0, 0.0, 0.30000001192092896, 0.5]]
    """
    with layer_path("as_mlp"):
        net, seen = lift(net), check_shape(shape)
        chain = _chain(net, params)
        _check_values(params)
    for name, layer, _ in chain:
        with layer_path(name):
            _check_writable(layer)
    _check_params(net, params, seen)
    dtype = common(*jax.tree.leaves(params)) if params else jnp.zeros(()).dtype
    layers: dict[str, Layer] = {}
    found: Params = {}
    for name, layer, own in chain:
        with layer_path(name):
            if isinstance(layer, Dropout):
                layers[name] = _flat_dropout(layer, seen)
            elif isinstance(layer, (Function, Maxout)):
                if isinstance(layer, Function) and len(seen) > 1:
                    _check_function(layer, seen)
                layers[name] = layer
            elif not isinstance(layer, Flatten):
                own = {key: np.asarray(value) for key, value in own.items()}
                kernel = matrix(layer, own, seen, dtype)
                layers[name] = Dense(kernel.shape[-1], bias="bias" in own)
                found[name] = {"kernel": jnp.asarray(kernel)}
                if "bias" in own:
                    copies = kernel.shape[-1] // own["bias"].size
                    found[name]["bias"] = jnp.asarray(np.tile(own["bias"].ravel(), copies))
            seen = layer.infer_shape(seen)
    with layer_path("as_mlp"):
        return serial(Flatten(), **layers), found


# Requirements of both conversions.


def _chain(net: Layer, params: Params, before: str = "") -> list[Part]:
    """The parts of a chain; nested chains are flattened in place."""
    while isinstance(net, Remat):
        net = net.layer
    if not isinstance(net, Serial):
        return [Part(before or f"{net.label}1", _plain(net), params)]
    found = []
    for name, part in net.parts:
        own = check_mapping("params", check_mapping("params", params).get(name, {}))
        found += _chain(part, own, f"{before}_{name}" if before else name)
    return found


def _plain(layer: Layer) -> Layer:
    """The library's layer, for an instance of a subclass that computes the same."""
    kind = nearest(layer, _MLP)
    if kind is None or type(layer) is kind:
        return layer
    return kind(**{field.name: getattr(layer, field.name) for field in fields(kind)})  # type: ignore[arg-type]


def _check_values(params: Params) -> None:
    """Raise if the params are traced."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(params)):
        raise TypeError(
            "the weights of a cascade are compared and laid out by value, but these params are traced; call as_cascade "
            "and as_mlp outside jit, grad and vmap"
        )


def _check_params(net: Layer, params: Params, shape: Shape) -> None:
    """Raise unless the params fit the network."""
    jax.eval_shape(net.apply, params, jax.ShapeDtypeStruct((1, *shape), jnp.zeros(()).dtype))


def _check_function(layer: Function, shape: Shape) -> None:
    """Raise unless a function gives the same values for an array and for the flattened array.

    If there is only one position, the function may combine its channels.
    """
    reason = why_not_positionwise(layer.function, shape, None if prod(shape[:-1]) == 1 else len(shape) + 1)
    if reason is not None:
        raise ValueError(
            f"{layer!r} {reason}; functions between the layers of a cascade must be elementwise, such as jax.nn.relu, "
            "and those after the last layer must work along the last axis, axis=-1"
        )


# From an MLP to convolutions.


def _unit(following: list[Part], features: int) -> int:
    """The number that must divide the features per position, given the parts up to the next dense layer.

    This is the number of all features if no dense layer follows or a function mixes them.
    """
    unit, left = 1, features
    for _, layer, _ in following:
        if type(layer) is Dense:
            return unit
        if type(layer) is Maxout:
            unit, left = unit * layer.pieces, left // layer.pieces
        elif isinstance(layer, Function) and why_not_positionwise(layer.function, (left,), 2) is not None:
            return features
    return features


def _shared(layer: Dense, params: Params, shape: Shape, unit: int) -> tuple[Conv, Params]:
    """The convolution equivalent to a dense layer on a flattened input of the given shape."""
    *space, channels = shape
    kernel = np.asarray(params["kernel"]).reshape(*space, channels, layer.features)
    bias = np.asarray(params["bias"]) if layer.bias else None
    reach = _reach(kernel)
    for copies in range(min(layer.features // unit, prod(space)), 0, -1):
        if layer.features % (copies * unit):
            continue
        features = layer.features // copies
        if bias is not None and (bias.reshape(copies, features) != bias[:features]).any():
            continue
        fits = [fit for grid in _grids(copies, space) if (fit := _fit(kernel, reach, grid)) is not None]
        if fits or copies == 1:
            block, stride = min(fits, key=lambda fit: fit[0].size) if fits else (kernel, (1,) * len(space))
            block, dilation = _thinned(block)
            size = block.shape[: len(space)]
            conv = Conv(
                features,
                plain_sizes(size),
                stride=plain_sizes(stride),
                dilation=plain_sizes(dilation),
                bias=layer.bias,
            )
            return conv, {"kernel": block} | ({} if bias is None else {"bias": bias[:features]})
    raise ValueError(f"{layer!r} has no features")


def _grids(copies: int, space: list[int]) -> Iterator[Shape]:
    """All grids of ``copies`` positions that fit into the space."""
    for grid in product(*(range(1, min(copies, size) + 1) for size in space)):
        if prod(grid) == copies:
            yield grid


def _reach(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each axis and column of a kernel (*space, channels, columns), the first sample used and one past the last."""
    rank = kernel.ndim - 2
    first, stop = [], []
    for axis in range(rank):
        used = (kernel != 0).any(tuple(a for a in range(rank + 1) if a != axis))  # (samples, columns)
        empty = ~used.any(0)
        first.append(np.where(empty, len(used), used.argmax(0)))
        stop.append(np.where(empty, 0, len(used) - used[::-1].argmax(0)))
    return np.array(first), np.array(stop)


def _fit(kernel: np.ndarray, reach: tuple[np.ndarray, np.ndarray], grid: Shape) -> tuple[np.ndarray, Shape] | None:
    """The block whose shifted copies make up the kernel, and the stride between them; None if there is none."""
    rank, copies = len(grid), prod(grid)
    space, empty = kernel.shape[:rank], not reach[1].any()
    first = reach[0].reshape(rank, *grid, -1).min(-1)
    stop = reach[1].reshape(rank, *grid, -1).max(-1)
    origin = (0,) * rank
    sizes, stride = list(space), [1] * rank
    for axis, count in enumerate(grid):
        if count == 1:
            continue  # one position along this axis: the block sees all of it
        start = first[(axis, *origin)]
        neighbour = tuple(int(a == axis) for a in range(rank))
        step = int(first[(axis, *neighbour)] - start) if not empty else 1
        moved = np.arange(count).reshape([count if a == axis else 1 for a in range(rank)]) * step
        if step < 1 or (not empty and (first[axis] != start + moved).any()):
            return None
        # the smallest size that leaves no room for a further position
        sizes[axis] = max(int(stop[(axis, *origin)]), space[axis] - count * step + 1)
        if sizes[axis] + (count - 1) * step > space[axis]:
            return None
        stride[axis] = step
    columns = kernel.reshape(*kernel.shape[:-1], copies, -1)
    window = tuple(map(slice, sizes))
    block, expected = columns[(*window, slice(None), 0)], np.zeros_like(columns)
    for i, place in enumerate(np.ndindex(*grid)):
        at_place = (slice(p * s, p * s + k) for p, s, k in zip(place, stride, sizes, strict=True))
        expected[(*at_place, slice(None), i)] = block
    return (block, tuple(stride)) if np.array_equal(columns, expected) else None


def _thinned(block: np.ndarray) -> tuple[np.ndarray, Shape]:
    """The block without its regularly spaced zeros, and the dilation along each axis."""
    rank = block.ndim - 2
    dilation = []
    for axis in range(rank):
        used = np.flatnonzero((block != 0).any(tuple(a for a in range(block.ndim) if a != axis)))
        whole = used.size > 1 and used[0] == 0 and used[-1] == block.shape[axis] - 1
        dilation.append(int(np.gcd.reduce(used)) if whole else 1)
    return block[tuple(slice(None, None, step) for step in dilation)], tuple(dilation)


# From convolutions to an MLP.


def _check_writable(layer: Layer) -> None:
    """Raise unless a layer is a matrix product or elementwise."""
    if type(layer) not in _MLP:
        raise ValueError(
            f"{layer!r} is neither a matrix product nor a function of single numbers, so it cannot be part of an "
            "MLP; a cascade is a chain of Conv, LocallyConnected, AvgPool, GlobalAvgPool, Dense, Flatten, Maxout, "
            "Dropout and functions such as jax.nn.relu"
        )


def _flat_dropout(layer: Dropout, shape: Shape) -> Dropout:
    if layer.whole_channels and len(shape) > 1:
        raise ValueError(f"{layer!r} drops whole channels, which an MLP does not have; use fcnn.Dropout({layer.rate})")
    return Dropout(layer.rate)
