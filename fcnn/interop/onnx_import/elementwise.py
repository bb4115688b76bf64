"""Functions of single numbers, and operations of two values at every place."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import layers
from . import functions, movements
from .builder import TABLE, Builder
from .learned import Combine
from .node import Made, Node, Operand, array_of, constant_of, nested, operand, value_of
from .values import Constant, Unreadable, Value

#: operators without attributes
_PLAIN: dict[str, Any] = {
    "Relu": jax.nn.relu, "Sigmoid": jax.nn.sigmoid, "Tanh": jnp.tanh, "Softplus": jax.nn.softplus,
    "Softsign": jax.nn.soft_sign, "HardSwish": jax.nn.hard_silu, "Mish": jax.nn.mish, "Erf": jax.scipy.special.erf,
    "Exp": jnp.exp, "Log": jnp.log, "Sqrt": jnp.sqrt, "Abs": jnp.abs, "Neg": jnp.negative,
    "Reciprocal": jnp.reciprocal, "Floor": jnp.floor, "Ceil": jnp.ceil, "Round": jnp.round, "Sign": jnp.sign,
    "Sin": jnp.sin, "Cos": jnp.cos, "Tan": jnp.tan, "Asin": jnp.arcsin, "Acos": jnp.arccos, "Atan": jnp.arctan,
    "Sinh": jnp.sinh, "Cosh": jnp.cosh, "Asinh": jnp.arcsinh, "Acosh": jnp.arccosh, "Atanh": jnp.arctanh,
    "IsNaN": jnp.isnan, "Not": jnp.logical_not, "BitwiseNot": jnp.bitwise_not,
}  # fmt: skip


def _leaky(node: Node) -> Any:
    slope = node.get("alpha", 0.01)
    return jax.nn.leaky_relu if slope == 0.01 else functools.partial(jax.nn.leaky_relu, negative_slope=slope)


def _selu(node: Node) -> Any:
    old = node.version < 6
    alpha, gamma = node.get("alpha", 1.6732 if old else 1.6732632), node.get("gamma", 1.0507 if old else 1.050701)
    if (alpha, gamma) == (1.6732632, 1.050701):
        return jax.nn.selu
    return functools.partial(functions.selu, alpha=alpha, gamma=gamma)


def _hard_sigmoid(node: Node) -> Any:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return jax.nn.hard_sigmoid
    return functools.partial(functions.linear_sigmoid, alpha=alpha, beta=beta)


def _with_alpha(function: Any, default: float, name: str = "alpha", plain: Any = None) -> Any:
    def made(node: Node) -> Any:
        alpha = node.get("alpha", default)
        return plain if plain is not None and alpha == 1.0 else functools.partial(function, **{name: alpha})

    return made


def _gelu(node: Node) -> Any:
    exact = node.get("approximate", "none") == "none"
    return functools.partial(jax.nn.gelu, approximate=False) if exact else jax.nn.gelu


def _is_inf(node: Node) -> Any:
    signs = bool(node.get("detect_negative", 1)), bool(node.get("detect_positive", 1))
    return {(True, True): jnp.isinf, (True, False): jnp.isneginf, (False, True): jnp.isposinf}.get(
        signs, functools.partial(functions.apply_with, operation=jnp.less, value=-float("inf"))
    )


#: operators whose attributes choose the function
_CHOSEN: dict[str, Any] = {
    "LeakyRelu": _leaky,
    "Elu": _with_alpha(jax.nn.elu, 1.0, plain=jax.nn.elu),
    "Celu": _with_alpha(jax.nn.celu, 1.0, plain=jax.nn.celu),
    "ThresholdedRelu": _with_alpha(functions.threshold, 1.0),
    "Swish": _with_alpha(functions.swish, 1.0, plain=jax.nn.silu),
    "Selu": _selu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "IsInf": _is_inf,
    "Shrink": lambda node: functools.partial(
        functions.shrink, bias=node.get("bias", 0.0), limit=node.get("lambd", 0.5)
    ),
}


def unary(choose: Any) -> Any:
    """The rule of a function of single numbers: it neither cares for the order of axes nor changes it."""

    def rule(b: Builder, node: Node, operands: list[Operand]) -> Made:
        x = value_of(operands[0])
        return b.call(choose(node), [x], flat=x.flat)

    return rule


def clip(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Clip."""
    x = value_of(operands[0])
    bounds: list[float | None] = []
    for place, name in ((1, "min"), (2, "max")):
        given = operand(operands, place)
        bound = node.get(name) if given is None else float(array_of(given, name).reshape(()))
        bounds.append(None if bound is None or (np.isinf(bound) and (bound < 0) == (name == "min")) else bound)
    low, high = bounds
    if abs(high or 0) >= np.finfo(np.float32).max:
        high = None
    if abs(low or 0) >= np.finfo(np.float32).max and low is not None and low < 0:
        low = None
    if (low, high) == (None, None):
        return x
    if (low, high) in ((0.0, 6.0), (0.0, None)):
        return b.call(jax.nn.relu6 if high else jax.nn.relu, [x], flat=x.flat)
    return b.call(functools.partial(functions.clip, low=low, high=high), [x], flat=x.flat)


def cast(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Cast; between floating-point types nothing changes, because networks compute in one."""
    from onnx import helper

    if node.kind == "CastLike" and isinstance(operands[0], Constant):
        return Constant(operands[0].array.astype(value_of(operands[1]).dtype))
    x = value_of(operands[0])
    if node.kind == "CastLike":
        other = operands[1]
        wanted = np.dtype(other.array.dtype if isinstance(other, Constant) else value_of(other).dtype)
    else:
        wanted = np.dtype(helper.tensor_dtype_to_np_dtype(node.get("to")))
    if wanted == x.dtype or (_inexact(wanted) and _inexact(x.dtype)):
        return x
    if wanted.kind not in "iubf":
        raise Unreadable(f"converts to {wanted}")
    name = str(jnp.zeros(()).dtype) if wanted.kind == "f" else jax.dtypes.canonicalize_dtype(wanted).name
    return b.call(functools.partial(movements.convert, dtype=name), [x], flat=x.flat)


def _inexact(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))


def beside(b: Builder, values: list[Value]) -> tuple[list[Value], Any]:
    """Values with the order of axes of the first, and what is flat of all of them."""
    rank = max(value.rank for value in values)
    if any(value.rank != rank for value in values):
        raise Unreadable("combines values of different numbers of axes, which would mix examples")
    flats = {value.flat for value in values}
    if len(flats) == 1 and len({value.order for value in values}) == 1:
        return values, values[0].flat
    first = b.in_order(values[0])
    return [first, *(b.ordered(value, first.order) for value in values[1:])], None


def binary_of(b: Builder, operation: Any, left: Operand, right: Operand) -> Value:
    """An operation of two values, or of a value and a constant."""
    if isinstance(left, Value) and isinstance(right, Value):
        both, flat = beside(b, [left, right])
        equal = both[0].example == both[1].example
        return b.call(operation, both, flat=flat, join="sum" if equal and operation is jnp.add else "")
    first = isinstance(left, Constant)
    x = value_of(right if first else left)
    return with_constant(b, operation, x, constant_of(left if first else right, "operand"), first=first)


#: the neutral element of an operation: where a weight starts
_NEUTRAL = dict.fromkeys((jnp.multiply, functions.divide, jnp.power, jnp.mod, jnp.fmod), 1.0)


def with_constant(b: Builder, operation: Any, x: Value, constant: Constant, *, first: bool) -> Value:
    """An operation of a value and a constant: one number becomes part of a function, more become a weight."""
    number_like = constant.array.size == 1 or (constant.uniform and not constant.name)  # a weight may start uniform
    if number_like and _adds_nothing(constant, x):
        number: Any = constant.array.flat[0].item()
        number = float(str(constant.array.flat[0])) if constant.array.dtype == np.float32 else number
        return b.call(_with_number(operation, number, first), [x], flat=x.flat)
    table = b.table(constant, x)
    if table.dtype.kind not in "f" or not jnp.issubdtype(x.dtype, jnp.floating):
        if table.size > TABLE:
            raise Unreadable(f"holds a table of {table.size} numbers of type {table.dtype}, which are no weights")
        value = nested(table.tolist())
        function = functools.partial(functions.apply_with, operation=operation, value=value, first=first)
        return b.call(function, [x], flat=x.flat)
    table = array_of(Constant(table), "operand")
    if operation is jnp.multiply and table.shape == x.example[-1:]:
        return b.layer(layers.ScaleChannels(1.0), x, flat=x.flat, params={"scale": table}, weights=[constant])
    layer = Combine(operation, table.shape, first=first, start=_NEUTRAL.get(operation, 0.0))
    flat = x.flat if tuple(layer.infer_shape(x.example)) == x.example else None
    x = x if flat == x.flat else b.in_order(x)
    return b.layer(layer, x, flat=flat, params={"weight": table}, weights=[constant])


def _adds_nothing(constant: Constant, x: Value) -> bool:
    """Whether a constant of one number leaves the shape of a value as it is."""
    return len(constant.shape) <= x.rank and np.broadcast_shapes(constant.shape, x.shape) == x.shape


def _with_number(operation: Any, number: Any, first: bool) -> Any:
    if operation is jnp.power and not first and float(number) in (2.0, 0.5):
        return jnp.square if number == 2 else jnp.sqrt
    if operation is jnp.power and not first:
        return functools.partial(functions.power, exponent=float(number))
    return functools.partial(
        functions.apply_with, operation=operation, value=number, **({"first": True} if first else {})
    )


#: operators of two values
_BINARY: dict[str, Any] = {
    "Add": jnp.add, "Sub": jnp.subtract, "Mul": jnp.multiply, "Div": functions.divide, "Pow": jnp.power,
    "And": jnp.logical_and, "Or": jnp.logical_or, "Xor": jnp.logical_xor, "Equal": jnp.equal, "Greater": jnp.greater,
    "GreaterOrEqual": jnp.greater_equal, "Less": jnp.less, "LessOrEqual": jnp.less_equal,
    "BitwiseAnd": jnp.bitwise_and, "BitwiseOr": jnp.bitwise_or, "BitwiseXor": jnp.bitwise_xor,
}  # fmt: skip


def binary(operation: Any) -> Any:
    """The rule of an operation of two values."""

    def rule(b: Builder, node: Node, operands: list[Operand]) -> Made:
        left, right = operands
        if node.version < 7 and isinstance(right, Constant):
            right = _old_broadcast(node, value_of(left), right)
        return binary_of(b, operation, left, right)

    return rule


def _old_broadcast(node: Node, left: Value, right: Constant) -> Constant:
    """Before version 7, ``axis`` said where the second operand's axes are."""
    axis = node.get("axis")
    if not node.get("broadcast", 0) or axis is None or right.array.ndim == left.rank:
        return right
    after = left.rank - axis % left.rank - right.array.ndim
    return Constant(right.array.reshape(right.array.shape + (1,) * after))


def mod(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Mod, with the sign of the divisor, or with ``fmod`` that of the dividend."""
    return binary_of(b, jnp.fmod if node.get("fmod", 0) else jnp.mod, operands[0], operands[1])


#: operators of any number of values: of two, and of all
_SEVERAL: dict[str, tuple[Any, Any]] = {
    "Sum": (jnp.add, functions.total),
    "Max": (jnp.maximum, functions.largest),
    "Min": (jnp.minimum, functions.smallest),
    "Mean": (None, functions.average),
}


def several(kind: str) -> Any:
    """The rule of an operation of any number of values."""
    pairwise, of_all = _SEVERAL[kind]

    def rule(b: Builder, node: Node, operands: list[Operand]) -> Made:
        if len(operands) == 1:
            return value_of(operands[0])
        if all(isinstance(x, Value) for x in operands):
            values, flat = beside(b, [value_of(x) for x in operands])
            equal = len({value.example for value in values}) == 1
            join = "sum" if equal and kind == "Sum" else ""
            function = pairwise if len(values) == 2 and pairwise is not None else of_all
            return b.call(function, values, flat=flat, join=join)
        if pairwise is None:
            total = _folded(b, jnp.add, operands)
            return with_constant(
                b, functions.divide, total, Constant(np.asarray(len(operands), np.float32)), first=False
            )
        return _folded(b, pairwise, operands)

    return rule


def _folded(b: Builder, operation: Any, operands: list[Operand]) -> Value:
    ordered = sorted(operands, key=lambda x: isinstance(x, Constant))  # one that depends on the input is the first
    made: Operand = ordered[0]
    for other in ordered[1:]:
        made = binary_of(b, operation, made, other)
    return value_of(made)


def where(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Where: a choice at every place between values, or between a value and a constant."""
    values = [x for x in operands if isinstance(x, Value)]
    both, flat = beside(b, values)
    numbers: list[Any] = []
    places = iter(range(len(both)))
    for x in operands:
        if isinstance(x, Value):
            numbers.append(next(places))
            continue
        table = b.table(constant_of(x, "operand"), both[0])
        if table.size > TABLE:
            raise Unreadable(f"chooses from a table of {table.size} numbers")
        numbers.append((nested(table.tolist()), table.dtype.name))
    return b.call(functools.partial(movements.choose, operands=tuple(numbers)), both, flat=flat)


RULES = {
    **{kind: unary(lambda node, function=function: function) for kind, function in _PLAIN.items()},
    **{kind: unary(choose) for kind, choose in _CHOSEN.items()},
    **{kind: binary(operation) for kind, operation in _BINARY.items()},
    **{kind: several(kind) for kind in _SEVERAL},
    "Clip": clip, "Cast": cast, "CastLike": cast, "Mod": mod, "Where": where,
}  # fmt: skip
