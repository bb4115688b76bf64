"""Normalisations, dropout, and slopes and factors of channels."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from ... import layers
from ..channel_order import to_last
from . import functions
from .builder import Builder
from .elementwise import binary_of
from .learned import Combine
from .node import Made, Node, Operand, array_of, constant_of, operand, value_of
from .values import Constant, Unreadable, Value


def batch_norm(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """BatchNormalization, whose running variance is the biased one."""
    node.one_output()
    if node.get("training_mode", 0):
        raise Unreadable("normalises by the batch; export the network for inference")
    if not node.get("spatial", 1):
        raise Unreadable("has statistics for every position (spatial=0), which BatchNorm does not have")
    x = value_of(operands[0])
    x = x if x.rank == 2 else b.image(x)
    names = ("scale", "bias", "mean", "variance")
    arrays = {name: array_of(given, name).ravel() for name, given in zip(names, operands[1:5], strict=True)}
    if x.flat is not None:
        arrays = {name: array[to_last(x.flat)] for name, array in arrays.items()}
    layer = layers.BatchNorm(momentum=node.get("momentum", 0.9), epsilon=node.get("epsilon", 1e-5), unbiased=False)
    return b.layer(
        layer, x, flat=x.flat, params={name: arrays[name] for name in ("scale", "bias")},
        state={name: arrays[name] for name in ("mean", "variance")},
        weights=[constant_of(given, "scale") for given in operands[1:5]],
    )  # fmt: skip


def instance_norm(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """InstanceNormalization."""
    x = b.image(value_of(operands[0]))
    return _by_channel(b, layers.InstanceNorm(epsilon=node.get("epsilon", 1e-5)), x, operands)


def group_norm(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """GroupNormalization; before version 21 a scale belongs to a group."""
    x, groups = b.image(value_of(operands[0])), node.get("num_groups")
    return _by_channel(b, layers.GroupNorm(groups, epsilon=node.get("epsilon", 1e-5)), x, operands)


def _by_channel(b: Builder, layer: Any, x: Value, operands: list[Operand]) -> Value:
    channels = x.example[-1]
    params = {}
    for name, given in (("scale", operands[1]), ("bias", operands[2])):
        array = array_of(given, name).ravel()
        params[name] = np.repeat(array, channels // array.size)
    return b.layer(layer, x, params=params, weights=[constant_of(given, "scale") for given in operands[1:3]])


def layer_norm(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """LayerNormalization over an axis and all behind it."""
    node.one_output()
    x = value_of(operands[0])
    first = node.get("axis", -1) % x.rank
    over = range(first, x.rank)
    x = b.last(x, first) if len(over) == 1 else b.in_order(x)
    axes = sorted(b.own_axes(x, over))
    bias = operand(operands, 2)
    layer = layers.LayerNorm(
        axes=-1 if axes == [x.rank - 1] else tuple(axes), epsilon=node.get("epsilon", 1e-5), bias=bias is not None
    )
    sizes = [x.example[axis - 1] for axis in axes]
    params = {}
    for name, given in (("scale", operands[1]), ("bias", bias)):
        if given is not None:
            table = b.table(Constant(array_of(given, name)), x)
            table = table.reshape((1,) * (x.rank - 1 - table.ndim) + table.shape)
            keep = tuple(axis - 1 for axis in range(1, x.rank) if axis not in axes)
            params[name] = np.broadcast_to(np.squeeze(table, keep), sizes)
    weights = [constant_of(given, "scale") for given in operands[1:3] if given is not None]
    return b.layer(layer, x, params=params, weights=weights)


def rms_norm(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """RMSNormalization over an axis and all behind it."""
    x = b.in_order(value_of(operands[0]))
    axes = tuple(sorted(b.own_axes(x, range(node.get("axis", -1) % x.rank, x.rank))))
    function = functools.partial(functions.rms_normalize, axes=axes, epsilon=node.get("epsilon", 1e-5))
    return binary_of(b, jnp.multiply, b.call(function, [x]), constant_of(operands[1], "scale"))


def response_norm(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """LRN, which divides alpha by the size."""
    size = node.get("size")
    if size % 2 == 0:
        raise Unreadable(f"has the even size {size}; LocalResponseNorm has as many neighbours on either side")
    layer = layers.LocalResponseNorm(
        size=size, alpha=node.get("alpha", 1e-4) / size, beta=node.get("beta", 0.75), k=node.get("bias", 1.0)
    )
    return b.layer(layer, b.image(value_of(operands[0])))


def mean_variance(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """MeanVarianceNormalization."""
    x = b.in_order(value_of(operands[0]))
    axes = b.own_axes(x, node.get("axes", [0, 2, 3]))
    return b.call(functools.partial(functions.mean_variance_normalize, axes=axes), [x])


def lp_norm(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """LpNormalization."""
    x = b.in_order(value_of(operands[0]))
    (axis,) = b.own_axes(x, [node.get("axis", -1)])
    return b.call(functools.partial(functions.lp_normalize, axis=axis, power=node.get("p", 2)), [x])


def prelu(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """PRelu, with one slope, one for each channel, or a table of them."""
    x, slope = value_of(operands[0]), constant_of(operands[1], "slope")
    array = array_of(slope, "slope")
    if array.size == 1:
        return b.layer(layers.PReLU(), x, flat=x.flat, params={"slope": array.reshape(())}, weights=[slope])
    x = x if x.rank == 2 else b.image(x)
    if node.version < 7 and array.ndim == 1:  # one for each channel, which newer versions write as (channels, 1, 1)
        array = array.reshape(-1, *[1] * (x.rank - 2))
    table = b.table(Constant(array), x)
    if table.ndim == 1:
        table = np.broadcast_to(table, x.example[-1:])
        layer = layers.PReLU(per_channel=True)
        return b.layer(layer, x, flat=x.flat, params={"slope": table}, weights=[slope])
    layer = Combine(functions.slope_below_zero, table.shape, start=0.25)
    return b.layer(layer, x, flat=x.flat, params={"weight": table}, weights=[slope])


def dropout(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Dropout, which does nothing at inference."""
    node.one_output()
    x, mode = value_of(operands[0]), operand(operands, 2)
    if mode is not None and np.any(constant_of(mode, "mode").array):
        raise Unreadable("drops values at inference too; export the network for inference")
    given = operand(operands, 1)
    rate = node.get("ratio", 0.5) if given is None else float(array_of(given, "ratio").reshape(()))
    return b.layer(layers.Dropout(rate), x, flat=x.flat) if 0 < rate < 1 else x


RULES = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
    "LRN": response_norm,
    "MeanVarianceNormalization": mean_variance,
    "LpNormalization": lp_norm,
    "PRelu": prelu,
    "Dropout": dropout,
}
