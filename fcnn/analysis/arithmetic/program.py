"""A traced function as nodes of the reference: its primitives in order, loops included."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ... import reference
from ...context import COPIES
from ...jaxprs import body, called, constants, named, parts_of_scan
from . import arrays, elementwise, indexing, linear, reductions
from .rule import Maker, Rule, unary, widened

#: rules by the name of their primitive
RULES: dict[str, Rule] = elementwise.RULES
#: functions that build the rules of primitives with parameters
MAKERS: dict[str, Maker] = {
    **elementwise.MAKERS,
    **arrays.MAKERS,
    **indexing.MAKERS,
    **reductions.MAKERS,
    **linear.MAKERS,
}

#: the structure of an output that is one array
_ONE = jax.tree.structure(0)


class _Tree(reference.Node):
    """A node whose output may be a tree of arrays; its gradient is a tree of the same structure."""

    def shape_of(self, value: Any) -> Any:
        return jax.tree.map(np.shape, value)


class Arithmetic(_Tree):
    """One primitive as a node of the reference; the gradient of a non-differentiable input is None."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self._rule = rule

    def forward(self, *inputs: np.ndarray) -> Any:
        with np.errstate(all="ignore"):  # log(0) is minus infinity, as in JAX
            y = jax.tree.map(np.asarray, self._rule[0](*inputs))
        return self.keep(y, y, inputs)

    def backward(self, gradient: Any) -> tuple[Any, ...]:
        y, inputs = self.recall(gradient)
        with np.errstate(all="ignore"):
            found = self._rule[1](gradient, y, *inputs)
        return tuple(
            None if g is None else reference.unbroadcast(np.asarray(g), np.shape(x))
            for g, x in zip(found, inputs, strict=True)
        )


class Step(NamedTuple):
    """One node of a program.

    Attributes:
        node: the node.
        sources: its inputs, each the number of a value or a constant array.
        targets: the numbers of its outputs, in the order of ``jax.tree.leaves``.
    """

    node: reference.Node
    sources: list[Any]
    targets: list[int]


class Program(_Tree):
    """Nodes run in order on numbered values; backward adds up the gradients of a value that is used several times.

    Args:
        inputs: numbers of the values that forward takes.
        steps: the nodes, each with its input and output values.
        output: what forward returns: the number of a value, a constant array, or a tree of these.
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
        gradients: dict[int, Any] = {}  # only for values that the result depends on

        def add(source: Any, share: Any) -> None:
            if isinstance(source, int) and share is not None:  # a constant needs none
                gradients[source] = gradients[source] + share if source in gradients else share

        def at(number: int) -> Any:
            return gradients[number] if number in gradients else np.zeros(shapes[number])

        jax.tree.map(add, self._output, gradient)
        for (node, sources, targets), form in zip(reversed(self._steps), reversed(forms), strict=True):
            reached = any(target in gradients for target in targets)
            shares = node.backward(jax.tree.unflatten(form, [at(target) for target in targets]))
            if reached:  # otherwise 0 times an infinite slope would give NaN for values without influence
                for source, share in zip(sources, shares, strict=True):
                    add(source, share)
        return tuple(at(number) for number in self._inputs)


class Placed(NamedTuple):
    """The node for one use of a layer, and how many of the use's last operands are its inputs."""

    node: reference.Node
    inputs: int


#: from the equation of a layer, and the indices of the copies in the loops around it, to its node
Layers = Callable[[Any, tuple[int, ...]], Placed]


def program(jaxpr: Any, form: Any = _ONE, layers: Layers | None = None, fixed: Sequence[Any] = ()) -> Program:
    """Translate a traced function of arrays.

    Args:
        jaxpr: the function, a closed jaxpr.
        form: the structure of its output; further results are dropped.
        layers: gives the node for a primitive ``layer``; loops that contain layers are unrolled.
        fixed: constant values for the first arguments.

    Returns:
        The node.

    Raises:
        NotImplementedError: if a primitive has no derivative here.
    """
    writer = _Writer(layers)
    inputs = [next(writer.counter) for _ in body(jaxpr).invars[len(fixed) :]]
    outputs = writer.run(body(jaxpr), constants(jaxpr), [*fixed, *inputs], ())
    return Program(inputs, writer.steps, jax.tree.unflatten(form, outputs[: form.num_leaves]))


class _Writer:
    """The state shared by a program and its inner programs: the nodes so far, and the next value number."""

    def __init__(self, layers: Layers | None) -> None:
        self.layers = layers
        self.steps: list[Step] = []
        self.counter = itertools.count()

    def run(self, inner: Any, consts: Sequence[Any], arguments: list[Any], copies: tuple[int, ...]) -> list[Any]:
        """Translate a program; returns its results, each the number of a value or a constant array."""
        from jax.extend import core  # slow to import, and only gradient checks need it

        known: dict[Any, Any] = dict(zip(inner.invars, arguments, strict=True))
        known.update(zip(inner.constvars, map(_constant, consts), strict=True))

        def read(atom: Any) -> Any:
            return widened(atom.val) if isinstance(atom, core.Literal) else known[atom]

        for equation in inner.eqns:
            sources = [read(atom) for atom in equation.invars]
            program = None if _named(equation) else called(equation)
            if program is not None:
                outs = self.run(body(program), constants(program), sources, copies)
            elif equation.primitive.name == "layer":
                outs = self._layer(equation, sources, copies)
            elif equation.primitive.name == "scan" and _has_layers(equation.params["jaxpr"]):
                outs = self._turns(equation, sources, copies)
            else:
                outs = self._made(equation, sources, copies)
            known.update(zip(equation.outvars, outs, strict=True))
        return [read(atom) for atom in inner.outvars]

    def _made(self, equation: Any, sources: list[Any], copies: tuple[int, ...]) -> list[Any]:
        if not any(isinstance(source, int) for source in sources):
            return _folded(equation, sources)
        layers = self.layers
        inner = None if layers is None else lambda equation, turns: layers(equation, (*copies, *turns))
        return self._step(_node(equation, inner), sources, len(equation.outvars))

    def _step(self, node: reference.Node, sources: list[Any], count: int) -> list[Any]:
        outs = [next(self.counter) for _ in range(count)]
        self.steps.append(Step(node, sources, outs))
        return outs

    def _layer(self, equation: Any, sources: list[Any], copies: tuple[int, ...]) -> list[Any]:
        if self.layers is None:
            raise NotImplementedError("no derivative by hand for a layer inside a function")
        node, inputs = self.layers(equation, copies)
        state = equation.params["state"]  # new state is kept by the reference node itself
        made = self._step(node, sources[len(sources) - inputs :], len(equation.outvars) - state)
        return [*made, *(np.zeros(atom.aval.shape) for atom in equation.outvars[len(made) :])]

    def _turns(self, equation: Any, sources: list[Any], copies: tuple[int, ...]) -> list[Any]:
        """A loop, unrolled."""
        params, program = equation.params, equation.params["jaxpr"]
        consts, carried = parts_of_scan(params)
        kept, carry, slices = sources[:consts], sources[consts : consts + carried], sources[consts + carried :]
        order = range(params["length"])
        turns: dict[int, list[Any]] = {}
        for i in reversed(order) if params["reverse"] else order:
            own = [self._joined(_item(i), [source]) for source in slices]
            inner = (*copies, i) if named(program, COPIES) else copies
            made = self.run(body(program), constants(program), [*kept, *carry, *own], inner)
            carry, turns[i] = made[:carried], made[carried:]
        series = zip(*(turns[i] for i in order), strict=True)
        return [*carry, *(self._joined(_STACK, list(each)) for each in series)]

    def _joined(self, rule: Rule, sources: list[Any]) -> Any:
        if any(isinstance(source, int) for source in sources):
            return self._step(Arithmetic(rule), sources, 1)[0]
        return np.asarray(rule[0](*sources))


def _has_layers(program: Any) -> bool:
    """Whether a program contains layers, at any depth."""
    for equation in body(program).eqns:
        if equation.primitive.name == "layer":
            return True
        inner = called(equation) or (equation.primitive.name == "scan" and equation.params["jaxpr"])
        if inner and _has_layers(inner):
            return True
    return False


def _item(i: int) -> Rule:
    """The rule for slice i of an array along its first axis."""

    def back(g: Any, y: Any, x: Any) -> tuple[Any]:
        whole = np.zeros(np.shape(x), np.asarray(g).dtype)
        whole[i] = g
        return (whole,)

    return (lambda x: x[i]), back


#: the rule for stacking arrays along a new first axis
_STACK: Rule = (lambda *xs: np.stack(xs)), (lambda g, y, *xs: tuple(g))


def _constant(value: Any) -> Any:
    """A constant of a function: an array, or a random key, which only JAX can handle."""
    return value if _is_key(value) else widened(value)


def _is_key(value: Any) -> bool:
    return jax.numpy.issubdtype(getattr(value, "dtype", np.float64), jax.dtypes.extended)


def _folded(equation: Any, sources: list[Any]) -> list[Any]:
    """The results of an operation on constants; no derivative is needed, so JAX computes those without a rule."""
    if any(_is_key(atom.aval) for atom in (*equation.invars, *equation.outvars)):
        return _by_jax(equation)(*sources)
    try:
        node = _node(equation)
    except NotImplementedError:
        return _by_jax(equation)(*sources)
    return jax.tree.leaves(node.forward(*sources))


def _by_jax(equation: Any) -> Callable[..., list[Any]]:
    def value(*sources: Any) -> list[Any]:
        given = [
            source if hasattr(source, "aval") else jax.numpy.asarray(source, atom.aval.dtype)
            for source, atom in zip(sources, equation.invars, strict=True)
        ]
        found = equation.primitive.bind(*given, **equation.params)
        return [_constant(y) for y in (found if equation.primitive.multiple_results else [found])]

    return value


#: rules of JAX's own functions whose derivative at a kink differs from that of their operations; the key lists these
#: operations, each with its constant operand
_NAMED: dict[tuple[tuple[str, float], ...], Rule] = {
    (("max", 0.0),): unary(lambda x: np.maximum(x, 0), lambda x, y: x > 0),
    (("max", 0.0), ("min", 6.0)): unary(lambda x: np.clip(x, 0, 6), lambda x, y: (x > 0) & (x < 6)),
}


def _named(equation: Any) -> Rule | None:
    """The rule of relu or relu6, whose derivative is 0 at 0 and at 6; recognised by their operations."""
    if equation.primitive.name != "custom_jvp_call" or len(equation.invars) != 1:
        return None
    return _NAMED.get(_chain(called(equation)) or ())


def _chain(program: Any) -> tuple[tuple[str, float], ...] | None:
    """The operations of a function, if each takes the previous result and one constant; otherwise None."""
    from jax.extend import core

    found: tuple[tuple[str, float], ...] = ()
    for equation in body(program).eqns:
        inner = called(equation)
        if inner is not None:
            more = _chain(inner)
            if more is None:
                return None
            found += more
            continue
        numbers = [atom.val for atom in equation.invars if isinstance(atom, core.Literal)]
        if len(numbers) != 1 or np.ndim(numbers[0]):
            return None
        found += ((equation.primitive.name, float(numbers[0])),)
    return found


def _node(equation: Any, layers: Layers | None = None) -> reference.Node:
    from .loops import LOOPS

    name, params = equation.primitive.name, equation.params
    named = _named(equation)
    if named is not None:
        return Arithmetic(named)
    if name in RULES:
        return Arithmetic(RULES[name])
    if name in LOOPS:
        return LOOPS[name](params, layers)
    if name in MAKERS:
        try:
            return Arithmetic(MAKERS[name](params, *(tuple(atom.aval.shape) for atom in equation.invars)))
        except NotImplementedError as error:
            raise NotImplementedError(f"no derivative by hand for {error}") from None
    if not any(jax.numpy.issubdtype(out.aval.dtype, np.inexact) for out in equation.outvars):
        # integers and booleans have no derivative
        several = equation.primitive.multiple_results
        value = _by_jax(equation)
        return Arithmetic(((lambda *xs: value(*xs) if several else value(*xs)[0]), lambda g, y, *xs: (None,) * len(xs)))
    raise NotImplementedError(
        f"no derivative by hand for JAX's primitive {name!r}; there are those of "
        f"{', '.join(sorted({*RULES, *MAKERS, *LOOPS}))}"
    )
