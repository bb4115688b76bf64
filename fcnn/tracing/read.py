"""Conversion of the recorded program of a network to its trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..context import COPIES
from ..geometry import Shape
from ..jaxprs import body, called, constants, named, parts_of_scan, scopes
from .node import Node, Trace
from .record import LAYER, Program, Use

#: number of examples: a rare size, and divisible by 2, 3 and 4 for functions that split the batch
BATCH = 12


class Origin(NamedTuple):
    """The origin of an argument of a program: "input", "params" or "state", and its path; "" for all others."""

    kind: str
    path: str = ""


def trace_of(program: Program, path: tuple[str, ...] = (), copies: Shape = (), positions: Shape = ()) -> Trace:
    """The trace of a recorded network.

    Args:
        program: the network.
        path: the path of the network.
        copies: numbers of its copies in the loops around it.
        positions: windows along each axis of the scans around it.
    """
    before = "".join(f"{step}/" for step in path)
    key = [Origin("")] * program.train
    origins = [*key, *_origins("params", program.params, before), *_origins("state", program.state, before)]
    origins += [Origin("input")] * len(program.inputs)
    leaves, form = jax.tree.flatten(program.output)
    reader = _Reader(program.uses, program.inputs[0].shape[0] if program.inputs else 0)
    kept = [_joined(before, keys) for keys, _ in jax.tree.leaves_with_path(program.state)] if program.train else []
    return reader.read(program.jaxpr, origins, path, copies, positions, len(leaves), form, kept)


def _origins(kind: str, tree: Any, before: str) -> list[Origin]:
    return [Origin(kind, _joined(before, keys)) for keys, _ in jax.tree.leaves_with_path(tree)]


def _joined(before: str, keys: Any) -> str:
    return before + "/".join(str(key.key) for key in keys)


class _Reader:
    """Reads traces; holds what is the same for a program and the loops inside it.

    Args:
        uses: the uses of layers.
        batch: number of examples.
    """

    def __init__(self, uses: Sequence[Use], batch: Any) -> None:
        self.uses, self.batch = uses, batch

    def read(
        self,
        closed: Any,
        origins: Sequence[Origin],
        path: tuple[str, ...],
        copies: Shape,
        positions: Shape,
        outputs: int | None = None,
        form: Any = None,
        kept: Sequence[str] = (),
    ) -> Trace:
        """The trace of a program; its first ``outputs`` results are the outputs, the others new state."""
        values = _Values(self.batch)
        jaxpr: Any = body(closed)
        known = {}
        for var, origin in zip(jaxpr.invars, origins, strict=True):
            known[var] = values.add(var.aval, origin.kind == "input")
        found: list[_Found] = []

        def run(program: Any, consts: Sequence[Any], known: dict[Any, int], here: tuple[str, ...]) -> list[int]:
            for var, value in zip(program.constvars, consts, strict=True):
                known[var] = values.constant(var.aval, value)

            def number(atom: Any) -> int:
                return values.constant(atom.aval, atom.val) if hasattr(atom, "val") else known[atom]

            for equation in program.eqns:
                inputs = [number(atom) for atom in equation.invars]
                place = (*here, *scopes(equation))
                inner = called(equation)
                if inner is not None:
                    own = dict(zip(body(inner).invars, inputs, strict=True))
                    made = run(body(inner), constants(inner), own, place)
                else:
                    batched = any(values.batched[n] for n in inputs)
                    made = [values.add(out.aval, batched) for out in equation.outvars]
                    found.append(_Found(equation, place, inputs, made))
                known.update(zip(equation.outvars, made, strict=True))
            return [number(atom) for atom in program.outvars]

        results = run(jaxpr, constants(closed), dict(known), path)
        given = {known[var]: origin for var, origin in zip(jaxpr.invars, origins, strict=True)}
        nodes = self._nodes(found, set(results), values, given, path, copies, positions)
        count = len(results) if outputs is None else outputs
        return Trace(
            nodes=tuple(nodes),
            inputs=tuple(n for n, origin in given.items() if origin.kind == "input"),
            outputs=tuple(results[:count]),
            rest=() if form is not None else tuple(results[count:]),
            shapes=tuple(values.shape(n) for n in range(len(values.avals))),
            dtypes=tuple(str(getattr(aval, "dtype", "")) for aval in values.avals),
            batched=tuple(values.batched),
            params=tuple((n, origin.path) for n, origin in given.items() if origin.kind == "params"),
            state=tuple((n, origin.path) for n, origin in given.items() if origin.kind == "state"),
            new_state=tuple(zip(kept, results[count:], strict=False)),
            constants=tuple(values.constants.items()),
            batch=self.batch,
            form=form,
            jaxpr=closed,
        )

    def _nodes(
        self,
        found: list[_Found],
        needed: set[int],
        values: _Values,
        given: dict[int, Origin],
        path: tuple[str, ...],
        copies: Shape,
        positions: Shape,
    ) -> list[Node]:
        """The nodes of all layers, and of the operations that outputs or layers depend on."""
        nodes: list[Node] = []
        for step in reversed(found):
            layer = step.equation.primitive.name == LAYER
            if not layer and not needed & set(step.outputs):
                continue
            make = self._use if layer else self._operation
            node = make(step, values, given, copies, positions)
            needed |= {*node.inputs, *(n for _, n in (*node.params, *node.state))}
            nodes.append(node)
        return nodes[::-1]

    def _use(self, step: _Found, values: _Values, given: dict[int, Origin], copies: Shape, positions: Shape) -> Node:
        use = self.uses[step.equation.params["use"]]
        steps = tuple(use.path.split("/")) if use.path else ()
        params, state = _names(use.params), _names(use.state)
        split = len(params), len(params) + len(state)
        count = len(jax.tree.leaves(use.output))
        inside: tuple[Trace, ...] = ()
        if use.inside is not None:
            inside = (trace_of(use.inside, steps, copies, (*positions, *use.positions)),)
        elif getattr(use.layer, "function", None) is not None:
            inside = (self._function(use, steps, copies, positions),)
        return Node(
            path=use.path,
            layer=use.layer,
            primitive=None,
            settings=(),
            inputs=tuple(step.inputs[split[1] :]),
            outputs=tuple(step.outputs[:count]),
            shapes=tuple(map(values.shape, step.outputs[:count])),
            params=tuple(zip(params, step.inputs[: split[0]], strict=True)),
            state=tuple(zip(state, step.inputs[split[0] : split[1]], strict=True)),
            new_state=tuple(zip(state, step.outputs[count:], strict=False)),
            copies=copies,
            positions=use.positions,
            inside=inside,
            arguments=tuple(step.inputs),
            equation=step.equation,
        )

    def _function(self, use: Use, path: tuple[str, ...], copies: Shape, positions: Shape) -> Trace:
        """The operations of a function."""
        jaxpr, out = jax.make_jaxpr(use.layer.function, return_shape=True)(*use.inputs)
        form = jax.tree.structure(out)
        return self.read(jaxpr, [Origin("input")] * len(use.inputs), path, copies, positions, None, form)

    def _operation(
        self, step: _Found, values: _Values, given: dict[int, Origin], copies: Shape, positions: Shape
    ) -> Node:
        equation, inputs = step.equation, step.inputs
        name, params = equation.primitive.name, equation.params
        inside: tuple[Trace, ...] = ()
        if name == "scan":
            program, (kept, count) = params["jaxpr"], parts_of_scan(params)
            used = _used(body(program))
            origins = []
            for place, (number, var) in enumerate(zip(inputs, body(program).invars, strict=True)):
                origin = given.get(number, Origin(""))
                carried = kept <= place < kept + count
                origins.append(Origin("input") if carried or origin.kind == "input" else origin)
                if var not in used and not carried:
                    inputs = [n for n in inputs if n != number] if inputs.count(number) == 1 else inputs
            inner = (*copies, params["length"]) if named(program, COPIES) else copies
            inside = (self.read(program, origins, step.path, inner, positions, count),)
        else:
            for value in params.values():
                for program in value if isinstance(value, (tuple, list)) else (value,):
                    if hasattr(body(program), "eqns"):
                        origins = [Origin("input")] * len(body(program).invars)
                        inside += (self.read(program, origins, step.path, copies, positions),)
        return Node(
            path="/".join(step.path),
            layer=None,
            primitive=name,
            settings=tuple((key, _frozen(value)) for key, value in sorted(params.items())),
            inputs=tuple(inputs),
            outputs=tuple(step.outputs),
            shapes=tuple(map(values.shape, step.outputs)),
            copies=copies,
            inside=inside,
            arguments=tuple(step.inputs),
            equation=equation,
        )


class _Found(NamedTuple):
    """An equation, its path, and the numbers of its values."""

    equation: Any
    path: tuple[str, ...]
    inputs: list[int]
    outputs: list[int]


class _Values:
    """The values of a trace, by number."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self.avals: list[Any] = []
        self.batched: list[bool] = []
        self.constants: dict[int, Any] = {}

    def add(self, aval: Any, batched: bool) -> int:
        shape = getattr(aval, "shape", ())
        self.avals.append(aval)
        self.batched.append(batched and bool(shape) and shape[0] == self.batch)
        return len(self.avals) - 1

    def constant(self, aval: Any, value: Any) -> int:
        number = self.add(aval, False)
        self.constants[number] = value
        return number

    def shape(self, number: int) -> Shape:
        shape = tuple(getattr(self.avals[number], "shape", ()))
        return shape[1:] if self.batched[number] else shape


def _used(jaxpr: Any) -> set[Any]:
    """The variables that the results and the layers of a program depend on."""
    live = {atom for atom in jaxpr.outvars if not hasattr(atom, "val")}
    for equation in reversed(jaxpr.eqns):
        if equation.primitive.name == LAYER or live.intersection(equation.outvars):
            live |= {atom for atom in equation.invars if not hasattr(atom, "val")}
    return live


def _names(tree: Any) -> list[str]:
    return ["/".join(str(key.key) for key in keys) for keys, _ in jax.tree.leaves_with_path(tree)]


def _frozen(value: Any) -> Any:
    """A setting of an operation as a comparable value; programs are compared as traces instead."""
    if hasattr(body(value), "eqns"):
        return "program"
    if isinstance(value, (tuple, list)):
        return tuple(map(_frozen, value))
    if isinstance(value, (np.ndarray, jax.Array)):
        array = np.asarray(value) if not jnp.issubdtype(value.dtype, jax.dtypes.extended) else np.asarray(0)
        return array.shape, str(array.dtype), array.tobytes()
    if value is None or isinstance(value, (bool, int, float, str, np.dtype)):
        return value
    return str(value)
