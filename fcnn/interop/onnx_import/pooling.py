"""Pooling over windows and over the whole space."""

from __future__ import annotations

import functools
from typing import Any

from ... import layers
from . import functions
from .builder import Builder
from .node import Made, Node, Operand, padding_of, same_or_all, value_of
from .values import Unreadable, Value


def _windows(node: Node) -> dict[str, Any]:
    window = list(node.get("kernel_shape"))
    rank = len(window)
    strides = list(node.get("strides") or [1] * rank)
    return {
        "window": same_or_all(window),
        "stride": None if strides == window else same_or_all(strides),
        "padding": padding_of(node, rank),
        "dilation": same_or_all(list(node.get("dilations") or [1] * rank)),
        "ceil_mode": bool(node.get("ceil_mode", 0)),
    }


def _floating(value: Value) -> None:
    if value.dtype.kind in "iub":
        raise Unreadable(f"pools numbers of type {value.dtype}; layers take floating-point numbers")


def max_pool(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """MaxPool."""
    node.one_output()
    x = b.image(value_of(operands[0]))
    _floating(x)
    return b.layer(layers.MaxPool(**_windows(node)), x)


def average_pool(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """AveragePool."""
    x = b.image(value_of(operands[0]))
    _floating(x)
    return b.layer(layers.AvgPool(**_windows(node), count_padding=bool(node.get("count_include_pad", 0))), x)


def lp_pool(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """LpPool."""
    x = b.image(value_of(operands[0]))
    return b.layer(layers.LpPool(**_windows(node), power=float(node.get("p", 2))), x)


def whole(layer: Any) -> Any:
    """GlobalAveragePool and GlobalMaxPool: the space becomes one sample."""

    def rule(b: Builder, node: Node, operands: list[Operand]) -> Made:
        return b.layer(layer, b.image(value_of(operands[0])))

    return rule


def global_lp_pool(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """GlobalLpPool."""
    x, power = b.image(value_of(operands[0])), node.get("p", 2)
    if power not in (1, 2):
        raise Unreadable(f"has the power {power}; 1 and 2 are read")
    axes = tuple(range(1, x.rank - 1))
    return b.call(functools.partial(functions.reduce, kind=f"l{power}", axes=axes, keep=True), [x])


RULES = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalAveragePool": whole(layers.AdaptiveAvgPool(1)),
    "GlobalMaxPool": whole(layers.AdaptiveMaxPool(1)),
    "GlobalLpPool": global_lp_pool,
}
