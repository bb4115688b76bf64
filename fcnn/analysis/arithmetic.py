"""The primitives that functions and wirings are made of, each with its derivative by hand, in NumPy.

A function such as ``lambda x: jnp.tanh(x) * 2`` is traced to JAX's primitives. Each of them has here a forward and a
backward, so the hand-written side of a gradient check does not ask autodiff for anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from .. import reference

if TYPE_CHECKING:
    from jax.extend import core

#: forward(*inputs) -> y, and backward(gradient, y, *inputs) -> one gradient for each input, None for no gradient
Rule = tuple[Callable[..., Any], Callable[..., tuple[Any, ...]]]

#: primitives that run another jaxpr once and on their own inputs, and the parameter that holds it; a scan holds one as
#: well, but runs it many times
CALLS = {
    "jit": "jaxpr",
    "remat2": "jaxpr",
    "core_call": "call_jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


#: the structure of an output that is one array
_ONE = jax.tree.structure(0)


class _Tree(reference.Node):
    """A node whose output may be a tree of arrays; its gradient is a tree of the same form."""

    def shape_of(self, value: Any) -> Any:
        return jax.tree.map(np.shape, value)


class Arithmetic(_Tree):
    """One primitive as a node of the reference."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self._rule = rule

    def forward(self, *inputs: np.ndarray) -> Any:
        y = jax.tree.map(np.asarray, self._rule[0](*inputs))
        return self.keep(y, y, inputs)

    def backward(self, gradient: Any) -> tuple[np.ndarray, ...]:
        y, inputs = self.recall(gradient)
        found = self._rule[1](gradient, y, *inputs)
        return tuple(
            np.zeros(np.shape(x)) if g is None else reference.unbroadcast(np.asarray(g), np.shape(x))
            for g, x in zip(found, inputs, strict=True)
        )


class Step(NamedTuple):
    """One node of a program.

    Attributes:
        node: the node.
        sources: its inputs: the number of a value, or an array that is constant.
        targets: the numbers of its outputs, in the order of ``jax.tree.leaves``.
    """

    node: reference.Node
    sources: list[Any]
    targets: list[int]


class Program(_Tree):
    """Nodes run in order on numbered values; backward adds gradients where a value is used several times.

    Args:
        inputs: numbers of the values that forward takes.
        steps: the nodes, each with the values it takes and makes.
        output: what forward returns: the number of a value, or a tree of such numbers, and of arrays that are constant.
    """

    def __init__(self, inputs: Sequence[int], steps: Sequence[Step], output: Any) -> None:
        super().__init__()
        self._inputs, self._steps, self._output = list(inputs), list(steps), output

    def forward(self, *inputs: np.ndarray) -> Any:
        values: dict[int, np.ndarray] = dict(zip(self._inputs, inputs, strict=True))

        def read(source: Any) -> Any:
            return values[source] if isinstance(source, int) else source

        forms = []
        for node, sources, targets in self._steps:
            leaves, form = jax.tree.flatten(node.forward(*map(read, sources)))
            values.update(zip(targets, leaves, strict=True))
            forms.append(form)
        return self.keep(jax.tree.map(read, self._output), {n: np.shape(value) for n, value in values.items()}, forms)

    def backward(self, gradient: Any) -> tuple[np.ndarray, ...]:
        shapes, forms = self.recall(gradient)
        gradients = {number: np.zeros(shape) for number, shape in shapes.items()}

        def add(source: Any, share: Any) -> None:
            if isinstance(source, int):  # a constant needs none
                gradients[source] = gradients[source] + share

        jax.tree.map(add, self._output, gradient)
        for (node, sources, targets), form in zip(reversed(self._steps), reversed(forms), strict=True):
            shares = node.backward(jax.tree.unflatten(form, [gradients[target] for target in targets]))
            for source, share in zip(sources, shares, strict=True):
                add(source, share)
        return tuple(gradients[number] for number in self._inputs)


def program(jaxpr: core.ClosedJaxpr, form: Any = _ONE, nodes: Sequence[reference.Node] = ()) -> Program:
    """Translate a traced function of arrays.

    Args:
        jaxpr: the function.
        form: the structure of its output.
        nodes: what stands for the primitive ``layer``, by its parameter ``use``.

    Returns:
        The node.

    Raises:
        NotImplementedError: a primitive without a derivative here.
    """
    from jax.extend import core  # heavy to import, and only gradient checks need it

    steps: list[Step] = []
    counter = itertools.count()

    def run(inner: core.ClosedJaxpr, arguments: list[Any]) -> list[Any]:
        known: dict[Any, Any] = dict(zip(inner.jaxpr.invars, arguments, strict=True))
        known.update(zip(inner.jaxpr.constvars, map(np.asarray, inner.consts), strict=True))

        def read(atom: Any) -> Any:
            return np.asarray(atom.val) if isinstance(atom, core.Literal) else known[atom]

        for equation in inner.jaxpr.eqns:
            sources = [read(atom) for atom in equation.invars]
            called = _called(equation)
            if called is not None:
                closed = called if isinstance(called, core.ClosedJaxpr) else core.ClosedJaxpr(called, ())
                outs = run(closed, sources)
            else:
                outs = [next(counter) for _ in equation.outvars]
                steps.append(Step(_node(equation, nodes), sources, outs))
            known.update(zip(equation.outvars, outs, strict=True))
        return [read(atom) for atom in inner.jaxpr.outvars]

    inputs = [next(counter) for _ in jaxpr.jaxpr.invars]
    return Program(inputs, steps, jax.tree.unflatten(form, run(jaxpr, list(inputs))))


def _called(equation: Any) -> Any:
    """The jaxpr that an equation runs in its place, or None."""
    name = equation.primitive.name
    return equation.params[CALLS[name]] if name in CALLS and not _is_relu(equation) else None


def _is_relu(equation: Any) -> bool:
    """JAX gives relu a rule of its own, derivative 0 at 0, which max(x, 0) has not."""
    return equation.primitive.name == "custom_jvp_call" and equation.params.get("name") == "relu"


def _node(equation: Any, nodes: Sequence[reference.Node]) -> reference.Node:
    name, params = equation.primitive.name, equation.params
    if name == "layer":
        return nodes[params["use"]]
    if _is_relu(equation):
        return reference.ReLU()
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


def _convert(params: dict[str, Any], shape: Any) -> Rule:
    """Floating point of any width stays float64 here; what passes through integers or truth values has no gradient."""
    if not jax.numpy.issubdtype(params["new_dtype"], np.floating):
        return _nothing(lambda x: np.asarray(x).astype(params["new_dtype"]), 1)

    def back(g: np.ndarray, y: Any, x: Any) -> tuple[Any]:
        return (g if np.issubdtype(np.asarray(x).dtype, np.floating) else None,)

    return (lambda x: np.asarray(x, np.float64)), back


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


def _split(params: dict[str, Any], shape: Any) -> Rule:
    axis, ends = params["axis"], np.cumsum(params["sizes"])[:-1]
    return (lambda x: np.split(x, ends, axis)), lambda gs, ys, x: (np.concatenate(gs, axis),)


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
    "convert_element_type": _convert,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "split": _split,
    "slice": _slice,
    "reduce_sum": _reduce_sum,
    "dot_general": _dot_general,
}
