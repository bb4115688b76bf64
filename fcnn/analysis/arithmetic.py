"""The primitives that functions and wirings are made of, each with its derivative by hand, in NumPy.

A function such as ``lambda x: jnp.tanh(x) * 2`` is traced to JAX's primitives. Each of them has here a forward and a
backward, so the hand-written side of a gradient check does not ask autodiff for anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import reference

if TYPE_CHECKING:
    from jax.extend import core

#: forward(*inputs) -> y, and backward(gradient, y, *inputs) -> one gradient for each input, None for no gradient
Rule = tuple[Callable[..., Any], Callable[..., tuple[Any, ...]]]

#: calls of other jaxprs, by the name of the parameter that holds them
CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class Arithmetic(reference.Node):
    """One primitive as a node of the reference."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self._rule = rule

    def forward(self, *inputs: np.ndarray) -> np.ndarray:
        y = np.asarray(self._rule[0](*inputs))
        return self.keep(y, y, inputs)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        y, inputs = self.recall(gradient)
        found = self._rule[1](gradient, y, *inputs)
        return tuple(
            np.zeros(np.shape(x)) if g is None else reference.unbroadcast(np.asarray(g), np.shape(x))
            for g, x in zip(found, inputs, strict=True)
        )


class Program(reference.Node):
    """Nodes run in order on numbered values; backward adds gradients where a value is used several times.

    Args:
        inputs: numbers of the values that forward takes.
        steps: (node, sources, target); a source is the number of a value, or an array that is constant.
        output: the number of the value that forward returns.
    """

    def __init__(self, inputs: Sequence[int], steps: Sequence[tuple[reference.Node, list[Any], int]], output: int):
        super().__init__()
        self._inputs, self._steps, self._output = list(inputs), list(steps), output

    def forward(self, *inputs: np.ndarray) -> np.ndarray:
        values: dict[int, np.ndarray] = dict(zip(self._inputs, inputs, strict=True))
        for node, sources, target in self._steps:
            values[target] = node.forward(*(values[s] if isinstance(s, int) else s for s in sources))
        return self.keep(values[self._output], {number: np.shape(value) for number, value in values.items()})

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (shapes,) = self.recall(gradient)
        gradients = {number: np.zeros(shape) for number, shape in shapes.items()}
        gradients[self._output] = gradients[self._output] + gradient
        for node, sources, target in reversed(self._steps):
            for source, share in zip(sources, node.backward(gradients[target]), strict=True):
                if isinstance(source, int):
                    gradients[source] = gradients[source] + share
        return tuple(gradients[number] for number in self._inputs)


def program(jaxpr: core.ClosedJaxpr, nodes: dict[str, reference.Node] | None = None) -> Program:
    """Translate a traced function of arrays with one output.

    Args:
        jaxpr: the function.
        nodes: what stands for the primitive ``layer``, by its parameter ``name``.

    Returns:
        The node.

    Raises:
        NotImplementedError: a primitive without a derivative here.
    """
    from jax.extend import core  # heavy to import, and only gradient checks need it

    steps: list[tuple[reference.Node, list[Any], int]] = []

    counter = itertools.count()

    def run(inner: core.ClosedJaxpr, arguments: list[Any]) -> list[Any]:
        known: dict[Any, Any] = dict(zip(inner.jaxpr.invars, arguments, strict=True))
        known.update(zip(inner.jaxpr.constvars, map(np.asarray, inner.consts), strict=True))

        def read(atom: Any) -> Any:
            return np.asarray(atom.val) if isinstance(atom, core.Literal) else known[atom]

        for equation in inner.jaxpr.eqns:
            sources = [read(atom) for atom in equation.invars]
            called = next((equation.params[name] for name in CALLS if name in equation.params), None)
            if equation.params.get("name") == "relu" and equation.primitive.name == "custom_jvp_call":
                # JAX gives relu a rule of its own, derivative 0 at 0, which max(x, 0) has not
                target = next(counter)
                steps.append((reference.ReLU(), sources, target))
                outs = [target]
            elif called is not None:
                closed = called if isinstance(called, core.ClosedJaxpr) else core.ClosedJaxpr(called, ())
                outs = run(closed, sources)
            else:
                target = next(counter)
                steps.append((_node(equation, nodes or {}), sources, target))
                outs = [target]
            known.update(zip(equation.outvars, outs, strict=True))
        return [read(atom) for atom in inner.jaxpr.outvars]

    inputs = [next(counter) for _ in jaxpr.jaxpr.invars]
    (output,) = run(jaxpr, list(inputs))
    if not isinstance(output, int):
        raise NotImplementedError("a function that returns a constant has no gradient to check")
    return Program(inputs, steps, output)


def _node(equation: Any, nodes: dict[str, reference.Node]) -> reference.Node:
    name, params = equation.primitive.name, equation.params
    if name == "layer":
        return nodes[params["name"]]
    shapes = [tuple(atom.aval.shape) for atom in equation.invars]
    if name in RULES:
        return Arithmetic(RULES[name])
    if name in MAKERS:
        return Arithmetic(MAKERS[name](params, *shapes))
    raise NotImplementedError(
        f"no derivative by hand for JAX's primitive {name!r}; there are those of {', '.join(sorted({*RULES, *MAKERS}))}"
    )


def _unary(value: Callable[..., Any], slope: Callable[..., Any]) -> Rule:
    return value, lambda g, y, x: (g * slope(x, y),)


def _nothing(value: Callable[..., Any], inputs: int) -> Rule:
    return value, lambda g, y, *xs: (None,) * inputs


#: y = f(x), and dy/dx as a function of x and y
RULES: dict[str, Rule] = {
    "neg": _unary(np.negative, lambda x, y: -1.0),
    "exp": _unary(np.exp, lambda x, y: y),
    "log": _unary(np.log, lambda x, y: 1 / x),
    "log1p": _unary(np.log1p, lambda x, y: 1 / (1 + x)),
    "sin": _unary(np.sin, lambda x, y: np.cos(x)),
    "cos": _unary(np.cos, lambda x, y: -np.sin(x)),
    "tanh": _unary(np.tanh, lambda x, y: 1 - y * y),
    "logistic": _unary(lambda x: 1 / (1 + np.exp(-x)), lambda x, y: y * (1 - y)),
    "sqrt": _unary(np.sqrt, lambda x, y: 0.5 / y),
    "rsqrt": _unary(lambda x: 1 / np.sqrt(x), lambda x, y: -0.5 * y / x),
    "square": _unary(np.square, lambda x, y: 2 * x),
    "abs": _unary(np.abs, lambda x, y: np.sign(x)),
    "copy": _unary(np.array, lambda x, y: 1.0),
    "sign": _nothing(np.sign, 1),
    "stop_gradient": _nothing(np.array, 1),
    "add": (np.add, lambda g, y, a, b: (g, g)),
    "add_any": (np.add, lambda g, y, a, b: (g, g)),
    "sub": (np.subtract, lambda g, y, a, b: (g, -g)),
    "mul": (np.multiply, lambda g, y, a, b: (g * b, g * a)),
    "div": (np.divide, lambda g, y, a, b: (g / b, -g * y / b)),
    # equal values send the gradient to the first
    "max": (np.maximum, lambda g, y, a, b: (g * (a >= b), g * (a < b))),
    "min": (np.minimum, lambda g, y, a, b: (g * (a <= b), g * (a > b))),
    "eq": _nothing(np.equal, 2),
    "ne": _nothing(np.not_equal, 2),
    "gt": _nothing(np.greater, 2),
    "ge": _nothing(np.greater_equal, 2),
    "lt": _nothing(np.less, 2),
    "le": _nothing(np.less_equal, 2),
    "select_n": (
        lambda which, a, b: np.where(which, b, a),
        lambda g, y, which, a, b: (None, g * ~np.asarray(which, bool), g * np.asarray(which, bool)),
    ),
}


def _integer_pow(params: dict[str, Any], *shapes: Any) -> Rule:
    n = params["y"]
    return _unary(lambda x: x**n, lambda x, y: n * x ** (n - 1))


def _reshape(params: dict[str, Any], shape: Any) -> Rule:
    return (lambda x: np.reshape(x, params["new_sizes"])), lambda g, y, x: (g.reshape(shape),)


def _keeps_order(shape_of: Callable[[dict[str, Any], Any], Any]) -> Callable[..., Rule]:
    def make(params: dict[str, Any], shape: Any) -> Rule:
        return (lambda x: np.reshape(x, shape_of(params, shape))), lambda g, y, x: (g.reshape(shape),)

    return make


def _squeezed(params: dict[str, Any], shape: Any) -> Any:
    return tuple(n for axis, n in enumerate(shape) if axis not in params["dimensions"])


def _transpose(params: dict[str, Any], shape: Any) -> Rule:
    order = params["permutation"]
    return (lambda x: np.transpose(x, order)), lambda g, y, x: (np.transpose(g, np.argsort(order)),)


def _broadcast(params: dict[str, Any], shape: Any) -> Rule:
    out, places = params["shape"], params["broadcast_dimensions"]
    aligned = [1] * len(out)
    for n, place in zip(shape, places, strict=True):
        aligned[place] = n
    summed = tuple(axis for axis, n in enumerate(aligned) if n != out[axis])

    def back(g: np.ndarray, y: Any, x: Any) -> tuple[Any]:
        return (g.sum(summed, keepdims=True).reshape(shape),)

    return (lambda x: np.broadcast_to(np.reshape(x, aligned), out)), back


def _concatenate(params: dict[str, Any], *shapes: Any) -> Rule:
    axis = params["dimension"]
    ends = np.cumsum([shape[axis] for shape in shapes])[:-1]
    return (lambda *xs: np.concatenate(xs, axis)), lambda g, y, *xs: tuple(np.split(g, ends, axis))


def _slice(params: dict[str, Any], shape: Any) -> Rule:
    steps = params["strides"] or (1,) * len(shape)
    seen = tuple(map(slice, params["start_indices"], params["limit_indices"], steps))

    def back(g: np.ndarray, y: Any, x: Any) -> tuple[Any]:
        gradient = np.zeros(shape)
        gradient[seen] = g
        return (gradient,)

    return (lambda x: x[seen]), back


def _reduce_sum(params: dict[str, Any], shape: Any) -> Rule:
    axes = tuple(params["axes"])
    return (lambda x: np.sum(x, axes)), lambda g, y, x: (np.broadcast_to(np.expand_dims(g, axes), shape),)


def _dot_general(params: dict[str, Any], a_shape: Any, b_shape: Any) -> Rule:
    (a_sum, b_sum), (a_batch, b_batch) = params["dimension_numbers"]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    a, b = [""] * len(a_shape), [""] * len(b_shape)
    for left, right in [*zip(a_batch, b_batch, strict=True), *zip(a_sum, b_sum, strict=True)]:
        a[left] = b[right] = next(letters)
    for side in (a, b):
        side[:] = [letter or next(letters) for letter in side]
    batch = [a[i] for i in a_batch]
    left = [letter for i, letter in enumerate(a) if i not in (*a_batch, *a_sum)]
    right = [letter for i, letter in enumerate(b) if i not in (*b_batch, *b_sum)]
    x, w, y = ("".join(side) for side in (a, b, [*batch, *left, *right]))

    def back(g: np.ndarray, _: Any, first: np.ndarray, second: np.ndarray) -> tuple[Any, Any]:
        return np.einsum(f"{y},{w}->{x}", g, second), np.einsum(f"{x},{y}->{w}", first, g)

    return (lambda first, second: np.einsum(f"{x},{w}->{y}", first, second)), back


#: primitives with parameters
MAKERS: dict[str, Callable[..., Rule]] = {
    "integer_pow": _integer_pow,
    "reshape": _reshape,
    "squeeze": _keeps_order(_squeezed),
    "convert_element_type": _keeps_order(lambda params, shape: shape),
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "slice": _slice,
    "reduce_sum": _reduce_sum,
    "dot_general": _dot_general,
}
