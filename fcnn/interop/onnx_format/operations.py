"""The ONNX nodes of single operations: what functions and wirings are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...geometry import Shape
from .graph import Graph, Inexpressible, Value

#: (graph, parameters of the operation, its operands, the shape of its output with the batch) to its output
Rule = Callable[[Graph, dict[str, Any], Sequence[Value], Shape], Value]

#: operations on single numbers that ONNX has under another name
_SAME = {
    "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "neg": "Neg",
    "exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid", "erf": "Erf", "sqrt": "Sqrt", "abs": "Abs",
    "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "sin": "Sin", "cos": "Cos", "tan": "Tan", "pow": "Pow",
    "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh",
    "acosh": "Acosh", "atanh": "Atanh", "gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual",
    "eq": "Equal", "and": "And", "or": "Or", "not": "Not", "xor": "Xor",
}  # fmt: skip
_UNCHANGED = (
    "stop_gradient",
    "copy",
    "copy_p",
    "optimization_barrier",
    "name",
    "sharding_constraint",
    "reduce_precision",
)
_REDUCE = {
    "reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin", "reduce_prod": "ReduceProd",
}  # fmt: skip


def convert(
    graph: Graph, name: str, settings: dict[str, Any], operands: Sequence[Value], outs: Sequence[Shape]
) -> list[Value]:
    """Add the nodes of one operation of which an operand depends on the input.

    Raises:
        Inexpressible: it has no form here.
    """
    if name in ("split", "unstack"):
        return _pieces(graph, name, settings, operands[0], outs)
    if len(outs) != 1:
        raise Inexpressible(f"uses the operation {name}, whose several results have no form in ONNX here")
    return [_one(graph, name, settings, operands, outs[0])]


def _pieces(graph: Graph, name: str, settings: dict[str, Any], operand: Value, outs: Sequence[Shape]) -> list[Value]:
    """An array cut along an axis, or into the arrays along it."""
    x, axis = graph.in_order(operand), settings["axis"]
    if axis == 0:
        raise Inexpressible("takes the examples of a batch apart")
    sizes, first, found = settings.get("sizes") or [1] * len(outs), 0, []
    for size, out in zip(sizes, outs, strict=True):
        bounds = [graph.integers([n]) for n in (first, first + int(size), x.axis(axis))]
        piece = graph.node("Slice", [x.name, *bounds])
        first += int(size)
        if name == "split":
            found.append(Value(piece, tuple(out), x.order))
        else:
            left = [other for other in x.order if other != axis]
            single = graph.node("Squeeze", [piece, graph.integers([x.axis(axis)])])
            found.append(Value(single, tuple(out), tuple(sorted(left).index(other) for other in left)))
    return found


def _one(graph: Graph, name: str, settings: dict[str, Any], operands: Sequence[Value], out: Shape) -> Value:
    if name in _SAME:
        return _elementwise(graph, _SAME[name], operands, out)
    if name in _UNCHANGED:
        return operands[0]
    if name in _REDUCE:
        return _reduced(graph, _REDUCE[name], settings["axes"], operands[0], out)
    if name not in RULES:
        raise Inexpressible(f"uses the operation {name}, which has no form in ONNX here")
    return RULES[name](graph, settings, operands, out)


def _elementwise(graph: Graph, kind: str, operands: Sequence[Value], out: Shape) -> Value:
    main = next(value for value in operands if value.constant is None and value.rank == len(out))
    if main.flat is None:
        flats = [value for value in operands if value.constant is None and value.flat is not None]
        operands = [graph.in_order(value) if value in flats else value for value in operands]
    names = [value.name if value is main else graph.beside(value, main) for value in operands]
    return Value(graph.node(kind, names), tuple(out), main.order, None, main.flat)


def _through(graph: Graph, operand: Value, out: Shape, *steps: tuple[Any, ...]) -> Value:
    """Operations one after another: (kind, further operands as numbers or "x" for the first operand)."""
    made = operand.name
    for kind, *others in steps:
        names = [made if other is None else operand.name if other == "x" else graph.floats(other) for other in others]
        made = graph.node(kind, names or [made])
    return Value(made, tuple(out), operand.order, None, operand.flat)


def _rsqrt(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    return _through(graph, operands[0], out, ("Sqrt",), ("Reciprocal",))


def _square(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    return _through(graph, operands[0], out, ("Mul", "x", "x"))


def _integer_pow(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    return _through(graph, operands[0], out, ("Pow", "x", float(settings["y"])))


def _log1p(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    return _through(graph, operands[0], out, ("Add", "x", 1.0), ("Log",))


def _expm1(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    return _through(graph, operands[0], out, ("Exp",), ("Sub", None, 1.0))


def _exp2(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    return _through(graph, operands[0], out, ("Pow", 2.0, "x"))


def _cbrt(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    sign = graph.node("Sign", [operands[0].name])
    root = graph.node("Pow", [graph.node("Abs", [operands[0].name]), graph.floats(1 / 3)])
    return Value(graph.node("Mul", [sign, root]), tuple(out), operands[0].order, None, operands[0].flat)


def _erfc(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    return _through(graph, operands[0], out, ("Erf",), ("Sub", 1.0, None))


def _is_finite(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    x = operands[0]
    wrong = graph.node("Or", [graph.node("IsNaN", [x.name]), graph.node("IsInf", [x.name])])
    return Value(graph.node("Not", [wrong]), tuple(out), x.order, None, x.flat)


def _not_equal(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    same = _elementwise(graph, "Equal", operands, out)
    return Value(graph.node("Not", [same.name]), same.shape, same.order, None, same.flat)


def _select(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    which, *cases = operands
    if len(cases) != 2:
        raise Inexpressible("chooses among more than two values")
    main = next(value for value in operands if value.constant is None and value.rank == len(out))
    names = [graph.beside(value, main) for value in (which, cases[1], cases[0])]
    return Value(graph.node("Where", names), tuple(out), main.order, None, main.flat)


def _clamp(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    low, x, high = operands
    below = _elementwise(graph, "Max", [x, low], out)
    return _elementwise(graph, "Min", [below, high], out)


def _converted(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    x, wanted = operands[0], np.dtype(settings["new_dtype"])
    to = graph.dtype if wanted.kind == "f" or wanted.name == "bfloat16" else wanted
    from onnx import helper

    name = graph.node("Cast", [x.name], to=helper.np_dtype_to_tensor_dtype(np.dtype(to)))
    return Value(name, tuple(out), x.order, None, x.flat)


def _rounded(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    if "EVEN" not in str(settings["rounding_method"]):
        raise Inexpressible("rounds halves away from zero, and ONNX to even numbers")
    return _through(graph, operands[0], out, ("Round",))


def _reduced(graph: Graph, kind: str, axes: Sequence[int], operand: Value, out: Shape) -> Value:
    x = graph.in_order(operand)
    if 0 in axes:
        raise Inexpressible("joins the examples of a batch")
    places = graph.integers([x.axis(axis) for axis in axes])
    left = [axis for axis in x.order if axis not in axes]
    order = tuple(sorted(left).index(axis) for axis in left)
    return Value(graph.node(kind, [x.name, places], keepdims=0), tuple(out), order)


def _arg(kind: str) -> Rule:
    """The place of the largest or smallest number."""

    def rule(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
        x = graph.in_order(operands[0])
        (axis,) = settings["axes"]
        left = [a for a in x.order if a != axis]
        from onnx import helper

        place = graph.node(kind, [x.name], axis=x.axis(axis), keepdims=0)  # always of 64 bits in ONNX
        name = graph.node("Cast", [place], to=helper.np_dtype_to_tensor_dtype(np.dtype(settings["index_dtype"])))
        return Value(name, tuple(out), tuple(sorted(left).index(a) for a in left))

    return rule


def _concatenate(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    main = graph.in_order(next(value for value in operands if value.constant is None))
    if settings["dimension"] == 0:
        raise Inexpressible("joins the examples of a batch")
    if any(value.constant is not None for value in operands):
        raise Inexpressible("concatenates numbers of its own")
    names = [graph.named(graph.ordered(value, main.order)) for value in operands]
    return Value(graph.node("Concat", names, axis=main.axis(settings["dimension"])), tuple(out), main.order)


def _transposed(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    x, steps = graph.in_order(operands[0]), tuple(settings["permutation"])
    if steps[0] != 0:
        raise Inexpressible("moves the axis of the batch")
    return Value(x.name, tuple(out), tuple(steps.index(axis) for axis in x.order))


def _reshaped(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    x = graph.in_order(operands[0])
    if out[0] != -1:
        raise Inexpressible("joins the batch with another axis")
    before, after = [n for n in x.shape[1:] if n != 1], [n for n in out[1:] if n != 1]
    if before == after:  # axes of one sample come or go: the others keep the order in which they are stored
        kept = [axis for axis in range(1, len(out)) if out[axis] != 1]
        big = [axis for axis in range(1, x.rank) if x.shape[axis] != 1]
        names = {axis: kept[i] for i, axis in enumerate(big)}
        order = [0, *(names[axis] for axis in x.order[1:] if x.shape[axis] != 1)]
        order += [axis for axis in range(1, len(out)) if axis not in order]
        sizes = [out[axis] for axis in order[1:]]
        return Value(graph.node("Reshape", [x.name, graph.integers([0, *sizes])]), tuple(out), tuple(order))
    if len(out) == 2 and len(before) > 1 and x.rank > 2:  # flattened
        name = graph.node("Flatten", [graph.image(x)], axis=1)
        return Value(name, tuple(out), (0, 1), None, tuple(x.shape[1:]))
    plain = graph.ordered(x, tuple(range(x.rank)))
    name = graph.node("Reshape", [graph.named(plain), graph.integers([0, *out[1:]])])
    return Value(name, tuple(out), tuple(range(len(out))))


def _broadcast(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    x, places = graph.in_order(operands[0]), tuple(settings["broadcast_dimensions"])
    if places[:1] != (0,):
        raise Inexpressible("moves the axis of the batch")
    new = [axis for axis in range(len(out)) if axis not in places]
    order = [places[axis] for axis in x.order] + new
    name = graph.node("Reshape", [x.name, graph.integers([0, *(x.shape[a] for a in x.order[1:]), *[1] * len(new)])])
    small = [x.shape[places.index(axis)] if axis in places else 1 for axis in range(len(out))]
    if small[1:] != list(out[1:]):
        name = graph.node("Expand", [name, graph.integers([1, *(out[axis] for axis in order[1:])])])
    return Value(name, tuple(out), tuple(order))


def _squeezed(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    return _reshaped(graph, settings, operands, out)


def _sliced(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    x = graph.in_order(operands[0])
    steps = settings["strides"] or (1,) * x.rank
    axes = [axis for axis in range(1, x.rank) if x.shape[axis] != out[axis]]
    rows = ([source[axis] for axis in axes] for source in (settings["start_indices"], settings["limit_indices"]))
    starts, ends = map(graph.integers, rows)
    places, strides = graph.integers([x.axis(a) for a in axes]), graph.integers([steps[a] for a in axes])
    if not axes:
        return x
    return Value(graph.node("Slice", [x.name, starts, ends, places, strides]), tuple(out), x.order)


def _reversed_axes(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    x, axes = graph.in_order(operands[0]), list(settings["dimensions"])
    if 0 in axes:
        raise Inexpressible("turns the order of the examples")
    far = -(2**62)
    rows = [graph.integers(row) for row in ([-1] * len(axes), [far] * len(axes))]
    places, steps = graph.integers([x.axis(axis) for axis in axes]), graph.integers([-1] * len(axes))
    return Value(graph.node("Slice", [x.name, *rows, places, steps]), tuple(out), x.order)


def _padded(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    x, config = graph.in_order(operands[0]), settings["padding_config"]
    if any(inner for _, _, inner in config) or config[0][:2] != (0, 0):
        raise Inexpressible("puts samples between the others")
    if operands[1].constant is None:
        raise Inexpressible("pads with a number that depends on the input")
    rows = [[config[axis][end] for axis in x.order] for end in (0, 1)]
    names = [x.name, graph.integers(rows[0] + rows[1]), graph.floats(np.asarray(operands[1].constant).reshape(()))]
    return Value(graph.node("Pad", names, mode="constant"), tuple(out), x.order)


def _product(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    (contract, batch), (x, kernel) = settings["dimension_numbers"], operands
    if kernel.constant is None or x.constant is not None or any(batch) or contract[0] != (x.rank - 1,):
        raise Inexpressible("multiplies two arrays that depend on the input, or along other axes than the last")
    if kernel.rank != 2:
        raise Inexpressible("multiplies by an array of other than two axes")
    matrix = np.asarray(kernel.constant)
    matrix = matrix if contract[1] == (0,) else matrix.T
    plain = graph.ordered(x, tuple(range(x.rank)))
    name = graph.node("MatMul", [graph.named(plain), graph.floats(matrix, "kernel")])
    return Value(name, tuple(out), tuple(range(len(out))))


def _gathered(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    x, where = graph.in_order(operands[0]), operands[1].constant
    numbers, sizes = settings["dimension_numbers"], settings["slice_sizes"]
    whole = [axis for axis in range(x.rank) if (axis and sizes[axis] == x.shape[axis]) or not axis]
    taken = [axis for axis in range(x.rank) if axis not in whole]
    axes = tuple(numbers.start_index_map)
    if where is None or taken != list(numbers.collapsed_slice_dims) or axes != tuple(taken) or len(taken) != 1:
        raise Inexpressible("picks samples in a way that has no form here")
    indices = np.asarray(where).reshape(-1)
    if len(out) == x.rank - 1:
        left = [axis for axis in x.order if axis != taken[0]]
        name = graph.node("Gather", [x.name, graph.weight(np.int64(indices[0]))], axis=x.axis(taken[0]))
        return Value(name, tuple(out), tuple(sorted(left).index(axis) for axis in left))
    if len(out) != x.rank or out[taken[0]] != len(indices):
        raise Inexpressible("picks samples in a way that has no form here")
    name = graph.node("Gather", [x.name, graph.integers(indices.tolist())], axis=x.axis(taken[0]))
    return Value(name, tuple(out), x.order)


def _summed_along(graph: Graph, settings: Any, operands: Sequence[Value], out: Shape) -> Value:
    x = graph.in_order(operands[0])
    axis = graph.weight(np.int64(x.axis(settings["axis"])))
    return Value(graph.node("CumSum", [x.name, axis], reverse=int(settings["reverse"])), tuple(out), x.order)


RULES: dict[str, Rule] = {
    "rsqrt": _rsqrt, "square": _square, "integer_pow": _integer_pow, "log1p": _log1p, "expm1": _expm1, "exp2": _exp2,
    "cbrt": _cbrt, "erfc": _erfc, "is_finite": _is_finite, "ne": _not_equal, "select_n": _select, "clamp": _clamp,
    "convert_element_type": _converted, "round": _rounded, "argmax": _arg("ArgMax"), "argmin": _arg("ArgMin"),
    "concatenate": _concatenate, "transpose": _transposed, "reshape": _reshaped, "broadcast_in_dim": _broadcast,
    "squeeze": _squeezed, "slice": _sliced, "rev": _reversed_axes, "pad": _padded, "dot_general": _product,
    "gather": _gathered, "cumsum": _summed_along,
}  # fmt: skip
