"""The contribution of each position to the kernel gradient of one layer, from the facts that the layer states."""

from __future__ import annotations

import dataclasses
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .. import facts, geometry
from ..compose.remat import Remat
from ..compose.repeat import Repeat
from ..geometry import Shape, Windows
from ..identity import nearest
from ..layer import Context, Layer
from ..layers.conv import Conv, ConvTranspose, LocallyConnected
from ..layers.dense import Dense
from ..ops.dtypes import common, together
from ..ops.windows import pad, patches, unpad
from ..scan.fields import AtPositions, Cropped, cropped
from ..transposed import folded, transposed
from ..types import Params, State

#: how positions use the kernel: "all" share one, or each position has its "own"
ALL, OWN = "all", "own"

#: compiled as one program; otherwise each kernel sample would be a separate one
_patches = jax.jit(patches, static_argnums=1)


def kernel_of(layer: Layer, shape: Shape) -> str | None:
    """How the positions of a layer share its kernel; None if it has no kernel or its geometry is unknown.

    Args:
        layer: the layer.
        shape: shape of one example of its input.

    Example:
        >>> import fcnn
        >>> kernel_of(fcnn.Conv(4, 3), (8, 8, 3)), kernel_of(fcnn.LocallyConnected(4, 3), (8, 8, 3))
        ('all', 'own')
        >>> kernel_of(fcnn.MaxPool(3), (8, 8, 3)) is None
        True
    """
    while isinstance(layer, (Remat, Repeat, Cropped, AtPositions)):
        shape = layer.local if isinstance(layer, AtPositions) else shape
        layer = layer.layer
    if layer.inputs != 1 or hasattr(layer, "named_parts"):
        return None
    kernel = layer.parameters(shape).get("kernel")
    if kernel is None:
        return None
    if _product(layer) is not None:
        return OWN if "place" in kernel.axes else ALL
    stated = facts.locality(layer, shape)
    if "place" in kernel.axes:
        return OWN if stated is not None else None
    return ALL if isinstance(stated, (facts.EachPosition, facts.SlidingWindow)) else None


def _product(layer: Layer) -> type[Layer] | None:
    """The library class of a layer that multiplies its input by a kernel; None for any other layer."""
    return nearest(layer, (Conv, ConvTranspose, LocallyConnected, Dense))


def share(layer: Layer, params: Params, state: State, x: jax.Array, slope: jax.Array) -> jax.Array:
    """The shares of the positions of one use, from its input and the gradient with respect to its output.

    Args:
        layer: the layer, one with :func:`kernel_of`.
        params: its parameters.
        state: its state.
        x: its input.
        slope: the gradient of the loss with respect to its output.
    """
    if isinstance(layer, Remat):
        return share(layer.layer, params, state, x, slope)
    if isinstance(layer, Repeat):
        return _share_of_copies(layer, params, state, x, slope)
    if isinstance(layer, Cropped):  # the gradient of cropped outputs is 0
        widths = zip(layer.layer.infer_shape(x.shape[1:]), slope.shape[1:], strict=True)
        slope = jnp.pad(slope, [(0, 0), *((0, whole - kept) for whole, kept in widths)])
        return share(layer.layer, params, state, x, slope)[tuple(slice(0, n) for n in layer.keep)]
    if isinstance(layer, AtPositions):  # each position is a separate use of the layer
        first, rank = prod(layer.keep), len(layer.keep)
        x = cropped(x, layer.keep).reshape(len(x), first, *layer.local)
        slope = slope.reshape(len(x), first, *slope.shape[1 + rank :])
        found = jax.vmap(partial(share, layer.layer, params, state), 1)(x, slope)
        return found.reshape(*layer.keep, *found.shape[1:])
    kind = _product(layer)
    if kind is None:
        return _by_gradients(layer, params, state, x, slope)
    x, slope = together(x, slope)
    if kind is Dense:
        return jnp.einsum("n...c,n...o->...co", x, slope)
    if kind is ConvTranspose:
        seen = _transposed_patches(layer, x)
    else:
        moves = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
        seen = _patches(x, geometry.slide(x.shape[1:-1], layer.kernel, **moves))
    batch, rank, channels = x.shape[0], x.ndim - 2, x.shape[-1] // layer.groups
    out, kernel = seen.shape[1 : rank + 1], seen.shape[rank + 1 : -1]
    seen = seen.reshape(batch, prod(out), prod(kernel), layer.groups, channels)
    slope = slope.reshape(batch, prod(out), layer.groups, layer.features // layer.groups)
    shares = jnp.einsum("npsgc,npgf->pscgf", seen, slope)
    return shares.reshape(*out, *kernel, channels, layer.features)


def _by_gradients(layer: Any, params: Params, state: State, x: jax.Array, slope: jax.Array) -> jax.Array:
    """The shares for a user's layer: the gradient of its output for each position or window separately."""
    if kernel_of(layer, x.shape[1:]) == OWN:
        return _gradient(layer, params, state, x, slope)
    stated, rank = facts.locality(layer, x.shape[1:]), x.ndim - 2
    if isinstance(stated, facts.SlidingWindow):
        windows: Windows = stated.windows
        x = pad(x, windows)
        seen = _patches(
            x, geometry.slide(x.shape[1:-1], windows.kernel, stride=windows.stride, dilation=windows.dilation)
        )
        local = windows.kernel
        layer = dataclasses.replace(layer, stride=1, dilation=1, padding="VALID")
    else:
        seen, local = x, (1,) * rank
    out = slope.shape[1:-1]
    seen = seen.reshape(len(x), prod(out), *local, x.shape[-1])
    slope = slope.reshape(len(x), prod(out), *(1,) * rank, slope.shape[-1])
    found = jax.vmap(partial(_gradient, layer, params, state), 1)(seen, slope)
    return found.reshape(*out, *found.shape[1:])


def _gradient(layer: Layer, params: Params, state: State, x: jax.Array, slope: jax.Array) -> jax.Array:
    """The gradient of the kernel of a layer."""

    def run(kernel: jax.Array) -> jax.Array:
        return layer.run(Context(train=False), {**params, "kernel": kernel}, state, (x,))[0]

    return jax.vjp(run, params["kernel"])[1](slope)[0]


def _transposed_patches(layer: Any, x: jax.Array) -> jax.Array:
    """The samples that every output of a transposed convolution sees.

    The layer is a convolution of x with zeros between its samples, by the flipped kernel.
    """
    space = x.shape[1:-1]
    crops, folds = folded(transposed(space, layer.kernel, **layer._geometry())[1], layer.padding)
    sizes, strides, dilations = (
        geometry.per_axis(value, len(space), name)
        for value, name in ((layer.kernel, "kernel"), (layer.stride, "stride"), (layer.dilation, "dilation"))
    )
    reach = [geometry.extent(size, step) - 1 for size, step in zip(sizes, dilations, strict=True)]
    edges = [(r - lo, r - hi, s - 1) for r, (lo, hi), s in zip(reach, crops, strides, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    seen = _patches(x, geometry.slide(x.shape[1:-1], sizes, dilation=dilations))
    return unpad(jnp.flip(seen, tuple(range(len(space) + 1, 2 * len(space) + 1))), *folds)


def _share_of_copies(layer: Repeat, params: Params, state: State, x: jax.Array, slope: jax.Array) -> jax.Array:
    """The shares of the copies of a bare layer; they have no paths, so the gradient is passed through them here."""

    def one(own: tuple[Params, State], x: jax.Array) -> jax.Array:
        return layer.layer.run(Context(train=False), *own, (x,))[0]

    def back(slope: jax.Array, copy: tuple[tuple[Params, State], jax.Array]) -> tuple[jax.Array, jax.Array]:
        own, x = copy
        (earlier,) = jax.vjp(partial(one, own), x)[1](slope)
        return earlier, share(layer.layer, *own, x, slope)

    x = x.astype(common(x, *jax.tree.leaves(params)))  # as repeat does
    _, inputs = lax.scan(lambda x, own: (one(own, x), x), x, (params, state))
    return lax.scan(back, slope, ((params, state), inputs), reverse=True)[1]
