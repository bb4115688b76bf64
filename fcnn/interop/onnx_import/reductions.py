"""Means, sums, and largest entries over axes; softmax."""

from __future__ import annotations

import functools
from math import prod
from typing import Any

import jax

from ... import layers
from ...geometry import Shape
from . import functions
from .builder import Builder
from .node import Made, Node, Operand, integers_of, operand, value_of
from .values import Unreadable, Value, channels_last

_KINDS = {
    "ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod",
    "ReduceL1": "l1", "ReduceL2": "l2", "ReduceLogSum": "log_sum", "ReduceLogSumExp": "log_sum_exp",
    "ReduceSumSquare": "sum_square",
}  # fmt: skip


def without(order: Shape, axes: list[int]) -> Shape:
    """An order of axes after some of the file's axes are gone.

    Example:
        >>> without((0, 2, 3, 1), [2, 3])
        (0, 1)
    """
    return tuple(axis - sum(gone < axis for gone in axes) for axis in order if axis not in axes)


def reduction(kind: str) -> Any:
    """The rule of a reduction; a mean or maximum over the whole space is a pooling layer."""

    def rule(b: Builder, node: Node, operands: list[Operand]) -> Made:
        x, given = b.in_order(value_of(operands[0])), operand(operands, 1)
        axes = node.get("axes") if given is None else integers_of(given, "axes")
        if not axes:
            if axes is not None and not len(axes) and node.get("noop_with_empty_axes", 0):
                return x
            if node.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.rank))
        axes, keep = sorted({axis % x.rank for axis in axes}), bool(node.get("keepdims", 1))
        space = x.rank > 2 and x.order == channels_last(x.rank) and axes == list(range(2, x.rank))
        if space and kind in ("mean", "max"):
            if keep:
                return b.layer(layers.AdaptiveAvgPool(1) if kind == "mean" else layers.AdaptiveMaxPool(1), x)
            return b.layer(layers.GlobalAvgPool() if kind == "mean" else layers.GlobalMaxPool(), x, order=(0, 1))
        places = tuple(sorted(b.own_axes(x, axes)))
        function = functools.partial(functions.reduce, kind=kind, axes=places, keep=keep)
        return b.call(function, [x], order=x.order if keep else without(x.order, axes))

    return rule


def arg_extreme(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """ArgMax and ArgMin."""
    x = b.in_order(value_of(operands[0]))
    axis, keep = node.get("axis", 0) % x.rank, bool(node.get("keepdims", 1))
    (place,) = b.own_axes(x, [axis])
    function = functools.partial(
        functions.arg_extreme, kind=node.kind[3:].lower(), axis=place, keep=keep,
        last=bool(node.get("select_last_index", 0)),
    )  # fmt: skip
    return b.call(function, [x], order=x.order if keep else without(x.order, [axis]))


def softmax(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Softmax and LogSoftmax; before version 13 over an axis and all behind it."""
    x = b.in_order(value_of(operands[0]))
    log = node.kind == "LogSoftmax"
    axis = node.get("axis", -1 if node.version >= 13 else 1) % x.rank
    axes = [axis] if node.version >= 13 else [a for a in range(axis, x.rank) if x.shape[a] > 1] or [axis]
    return softmax_of(b, x, b.own_axes(x, axes), log)


def softmax_of(b: Builder, x: Value, places: Shape, log: bool) -> Value:
    """Softmax over axes here."""
    if places == (x.rank - 1,):
        return b.call(jax.nn.log_softmax if log else jax.nn.softmax, [x])
    return b.call(functools.partial(functions.softmax, axes=tuple(sorted(places)), log=log), [x])


def hardmax(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Hardmax."""
    x = b.in_order(value_of(operands[0]))
    axis = node.get("axis", -1 if node.version >= 13 else 1) % x.rank
    if node.version < 13 and prod(x.shape[axis + 1 :]) > 1:
        raise Unreadable(f"marks the largest entry over axis {axis} and all behind it at once (version {node.version})")
    (place,) = b.own_axes(x, [axis])
    return b.call(functools.partial(functions.hardmax, axis=place), [x])


def cumulative(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """CumSum."""
    x = b.in_order(value_of(operands[0]))
    (place,) = b.own_axes(x, integers_of(operands[1], "axis"))
    function = functools.partial(
        functions.cumulative_sum, axis=place, exclusive=bool(node.get("exclusive", 0)),
        reverse=bool(node.get("reverse", 0)),
    )  # fmt: skip
    return b.call(function, [x])


RULES = {
    **{kind: reduction(name) for kind, name in _KINDS.items()},
    "ArgMax": arg_extreme, "ArgMin": arg_extreme, "Softmax": softmax, "LogSoftmax": softmax, "Hardmax": hardmax,
    "CumSum": cumulative,
}  # fmt: skip
