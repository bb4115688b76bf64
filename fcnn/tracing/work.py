"""The number of multiply-adds of a network."""

from __future__ import annotations

from math import prod
from typing import Any

import jax

from .. import facts
from ..context import Context
from ..geometry import Shape
from ..jaxprs import body, called
from .api import trace
from .node import Node, Trace
from .read import BATCH


def multiply_adds(net: Any, *shapes: Shape) -> int:
    """Number of multiply-adds with weights that a network takes for one example.

    If a layer states its number, that is used. In other layers, functions and wirings, the matrix products and
    convolutions among their operations are counted. Nothing is computed.

    Args:
        net: the network.
        shapes: shape of one example of each input.

    Example:
        >>> import fcnn
        >>> multiply_adds(fcnn.serial(fcnn.Conv(6, 5), fcnn.Flatten(), fcnn.Dense(10)), (28, 28, 1))
        120960
    """
    return _total(trace(net, *shapes))


def _total(traced: Trace) -> int:
    return sum(_of(node, traced) for node in traced.nodes)


def _of(node: Node, traced: Trace) -> int:
    if node.layer is not None:
        return _of_layer(node, traced)
    if node.inside:
        turns = node.equation.params["length"] if node.primitive == "scan" else 1
        return turns * max(map(_total, node.inside))  # only one branch is executed
    return _of_equation(node.equation) // BATCH


def _of_layer(node: Node, traced: Trace) -> int:
    first = node.inputs[0]
    shape, examples = traced.shapes[first], 1
    if not traced.batched[first]:  # windows or positions are counted as examples
        examples, shape = shape[0] // BATCH, shape[1:]
    stated = facts.multiply_adds(node.layer, shape)
    if stated is not None:
        return examples * stated

    def run(params: Any, state: Any, *inputs: Any) -> Any:
        return node.layer.run(Context(train=False, plan=False), params, state, inputs)[0]

    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in node.equation.invars]
    params, state = (_tree([(name, avals.pop(0)) for name, _ in each]) for each in (node.params, node.state))
    return _of_program(jax.make_jaxpr(run)(params, state, *avals)) // BATCH


def _tree(leaves: list[tuple[str, Any]]) -> dict[str, Any]:
    """Nested dicts from leaves with their paths."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves:
        *steps, last = path.split("/")
        place = tree
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = leaf
    return tree


def _of_program(program: Any) -> int:
    return sum(map(_of_equation, body(program).eqns))


def _of_equation(equation: Any) -> int:
    inner = called(equation)
    if inner is not None:
        return _of_program(inner)
    name, params = equation.primitive.name, equation.params
    out = prod(equation.outvars[0].aval.shape) if equation.outvars else 0
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return out * prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, order = equation.invars[1].aval.shape, params["dimension_numbers"]
        features = kernel[order.rhs_spec[0]]
        return _positions(equation, max(params["lhs_dilation"]), order.lhs_spec[1], features) * prod(kernel)
    if name == "fcnn_convolution_forward":
        kernel = equation.invars[1].aval.shape
        return _positions(equation, max(params["geometry"].input_dilation), -1, kernel[-1]) * prod(kernel)
    if name == "scan":
        return params["length"] * _of_program(params["jaxpr"])
    programs = [value for each in params.values() for value in (each if isinstance(each, (tuple, list)) else (each,))]
    return max((_of_program(value) for value in programs if hasattr(body(value), "eqns")), default=0)


def _positions(equation: Any, spread: int, channels: int, features: int) -> int:
    """The number of times a convolution applies its kernel: once per output, or, if transposed, once per input."""
    if spread == 1:
        return prod(equation.outvars[0].aval.shape) // features
    shape = equation.invars[0].aval.shape
    return prod(shape) // shape[channels]
