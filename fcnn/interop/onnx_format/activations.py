"""Functions that ONNX has a node for."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ...geometry import Shape
from .graph import Graph, Value

#: functions without arguments, and the node with its attributes
_PLAIN: dict[Any, tuple[str, dict[str, Any]]] = {
    jax.nn.relu: ("Relu", {}),
    jax.nn.sigmoid: ("Sigmoid", {}),
    jax.nn.tanh: ("Tanh", {}),
    jnp.tanh: ("Tanh", {}),
    jax.nn.softplus: ("Softplus", {}),
    jax.nn.soft_sign: ("Softsign", {}),
    jax.nn.selu: ("Selu", {}),
    jax.nn.elu: ("Elu", {"alpha": 1.0}),
    jax.nn.celu: ("Celu", {"alpha": 1.0}),
    jax.nn.leaky_relu: ("LeakyRelu", {"alpha": 0.01}),
    jax.nn.gelu: ("Gelu", {"approximate": "tanh"}),
    jax.nn.hard_sigmoid: ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    jax.nn.hard_silu: ("HardSwish", {}),
    jax.nn.mish: ("Mish", {}),
}


def known(graph: Graph, layer: Any, operands: list[Value], out: Shape) -> Value | None:
    """The node of a function that ONNX has; None: it has none, so the function is written operation by operation."""
    if len(operands) != 1:
        return None
    (x,), function = operands, layer.function
    found = _node(function)
    if found is not None:
        kind, attributes = found
        if graph.dtype.itemsize == 8 and kind in ("Celu", "Mish", "HardSwish"):  # ONNX has these in float32 alone
            return None
        return Value(graph.node(kind, [x.name], **attributes), tuple(out), x.order, None, x.flat)
    if function is jax.nn.relu6:
        name = graph.node("Clip", [x.name, graph.floats(0.0), graph.floats(6.0)])
        return Value(name, tuple(out), x.order, None, x.flat)
    if function is jax.nn.silu:
        name = graph.node("Mul", [x.name, graph.node("Sigmoid", [x.name])])
        return Value(name, tuple(out), x.order, None, x.flat)
    if function in (jax.nn.softmax, jax.nn.log_softmax):
        x = graph.in_order(x)
        kind = "Softmax" if function is jax.nn.softmax else "LogSoftmax"
        return Value(graph.node(kind, [x.name], axis=x.axis(-1)), tuple(out), x.order)
    if function is jax.nn.identity:
        return x
    return None


def _node(function: Any) -> tuple[str, dict[str, Any]] | None:
    if isinstance(function, functools.partial):
        if function.args:
            return None
        options = function.keywords
        if function.func is jax.nn.gelu and set(options) <= {"approximate"}:
            return "Gelu", {"approximate": "tanh" if options.get("approximate", True) else "none"}
        for kind, name, option in (("LeakyRelu", jax.nn.leaky_relu, "negative_slope"), ("Elu", jax.nn.elu, "alpha")):
            if function.func is name and set(options) == {option}:
                return kind, {"alpha": float(options[option])}
        return None
    try:
        return _PLAIN.get(function)
    except TypeError:
        return None
