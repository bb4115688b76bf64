"""Whether a function looks at every position by itself.

A function of an array (batch, *space, channels) may be used on a larger space, as it stands, if what it makes of
one position depends on that position alone, and in the same way everywhere. That is read off the operations that
the function is made of: those on single numbers are allowed, and those along the axes after the space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from ..errors import shown
from ..geometry import Shape

#: operations on single numbers
_NUMBERS = frozenset({
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp",
    "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp",
    "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt",
    "max", "min", "mul", "ne", "neg", "nextafter", "not", "optimization_barrier", "or", "pow", "real",
    "reduce_precision", "rem", "round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic",
    "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
})  # fmt: skip
#: operations whose parameter names the axes along which they work
_ALONG = {
    "reduce_sum": "axes", "reduce_max": "axes", "reduce_min": "axes", "reduce_prod": "axes", "reduce_and": "axes",
    "reduce_or": "axes", "argmax": "axes", "argmin": "axes", "squeeze": "dimensions", "rev": "dimensions",
    "cumsum": "axis", "cumprod": "axis", "cummax": "axis", "cummin": "axis", "cumlogsumexp": "axis",
    "sort": "dimension", "concatenate": "dimension", "split": "axis", "top_k": "axis",
}  # fmt: skip
#: operations that are another program
_CALLS = {
    "pjit": "jaxpr", "jit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "remat": "jaxpr",
    "checkpoint": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}  # fmt: skip


class Seen(NamedTuple):
    """What is known of a value inside a function.

    Attributes:
        mark: for values with positions, what they are marked with; None for values that do not depend on the input.
        uniform: for values without a mark, the axes along which they do not vary.
    """

    mark: Any
    uniform: frozenset[int] = frozenset()


class Mixes(Exception):
    """Raised where a function mixes positions, or cannot be seen not to."""


def why_not_positionwise(function: Callable[..., Any], shape: Shape, lead: int | None = None) -> str | None:
    """Say why a function of x (batch, *space, channels) may not be used at every position of a larger space.

    Args:
        function: of one array.
        shape: shape of one example.
        lead: number of leading axes, the batch among them, that count as positions; None: all but the last.

    Returns:
        The reason, to follow the function's name in a sentence; None where the function is positionwise.

    Example:
        >>> why_not_positionwise(jax.nn.relu, (8, 8, 3))
        >>> why_not_positionwise(jax.nn.softmax, (8, 8, 3))
        >>> why_not_positionwise(lambda x: x - x.mean((1, 2), keepdims=True), (8, 8, 3))
        'mixes positions (reduce_sum along the space)'
    """
    lead = len(shape) if lead is None else lead
    try:
        closed = _traced(function, shape)
        outs = follow(closed, [Seen("x")], lead)
    except Mixes as error:
        return str(error)
    except (jax.errors.JAXTypeError, jax.errors.ConcretizationTypeError):
        return "looks at values, so it cannot be followed"
    if any(out.mark is None for out in outs):
        return "makes something that does not depend on its input"
    try:
        larger = _traced(function, (*(n + 3 for n in shape[: lead - 1]), *shape[lead - 1 :]))
    except Exception:  # whatever a user's function raises on a space that it is not made for
        return f"works for a space of {shown(shape[: lead - 1])} alone"
    return None if _numbers(closed) == _numbers(larger) else "computes with the size of the space"


def _traced(function: Callable[..., Any], shape: Shape) -> Any:
    return jax.make_jaxpr(function)(jax.ShapeDtypeStruct((2, *shape), jnp.zeros(()).dtype))


def _numbers(closed: Any) -> list[Any]:
    """The operations of a traced function with the numbers that stand in it, without shapes."""
    jaxpr = getattr(closed, "jaxpr", closed)
    found: list[Any] = [_number(value) for value in getattr(closed, "consts", ()) if jnp.size(value) == 1]
    for eqn in jaxpr.eqns:
        found.append(eqn.primitive.name)
        found += [_number(atom.val) for atom in eqn.invars if isinstance(atom, Literal) and jnp.size(atom.val) == 1]
        if eqn.primitive.name in _CALLS:
            found += _numbers(eqn.params[_CALLS[eqn.primitive.name]])
    return found


def _number(value: Any) -> float:
    return float(np.asarray(value).ravel()[0])


def follow(
    closed: Any, given: list[Seen], lead: int, special: Callable[[Any, list[Seen]], list[Seen] | None] | None = None
) -> list[Seen]:
    """Follow marks through a traced function.

    Args:
        closed: the closed jaxpr.
        given: what is known of its arguments.
        lead: number of leading axes, batch and space, that must be kept.
        special: asked first about every operation: what is known of its results, or None for the usual rules.

    Returns:
        What is known of its results.

    Raises:
        Mixes: an operation that mixes positions, or is not known.
    """
    jaxpr: Any = closed.jaxpr if hasattr(closed, "jaxpr") else closed
    known: dict[Any, Seen] = {}
    for var in jaxpr.constvars:
        known[var] = _constant(var.aval.shape)
    known.update(zip(jaxpr.invars, given, strict=True))

    def look(atom: Any) -> Seen:
        return known[atom] if not isinstance(atom, Literal) else _constant(jnp.shape(atom.val))

    for eqn in jaxpr.eqns:
        seen = [look(atom) for atom in eqn.invars]
        outs = special(eqn, seen) if special is not None else None
        if outs is None:
            outs = _through(eqn, seen, lead, special)
        known.update(zip(eqn.outvars, outs, strict=True))
    return [look(atom) for atom in jaxpr.outvars]


def _constant(shape: Shape) -> Seen:
    return Seen(None, frozenset(axis for axis, size in enumerate(shape) if size == 1))


def _through(eqn: Any, seen: list[Seen], lead: int, special: Any) -> list[Seen]:
    name = eqn.primitive.name
    if name in _CALLS:
        return follow(eqn.params[_CALLS[name]], seen, lead, special)
    marks = {value.mark for value in seen if value.mark is not None}
    if not marks:
        return [Seen(None, _uniform(eqn, seen, out.aval)) for out in eqn.outvars]
    if len(marks) > 1:
        raise Mixes(f"joins values that lie at different positions ({name})")
    _check(eqn, seen, lead)
    return [Seen(next(iter(marks))) for _ in eqn.outvars]


def _uniform(eqn: Any, seen: list[Seen], out: Any) -> frozenset[int]:
    """The axes along which a value that does not depend on the input does not vary."""
    small = _constant(out.shape).uniform
    if eqn.primitive.name == "broadcast_in_dim":
        found = set(range(len(out.shape))) - set(eqn.params["broadcast_dimensions"])
        for axis, target in enumerate(eqn.params["broadcast_dimensions"]):
            if axis in seen[0].uniform or eqn.invars[0].aval.shape[axis] == 1:
                found.add(target)
        return small | found
    if eqn.primitive.name in _NUMBERS:
        full = [v.uniform for v, atom in zip(seen, eqn.invars, strict=True) if atom.aval.shape == out.shape]
        return small | (frozenset.intersection(*full) if full else frozenset())
    return small


def _check(eqn: Any, seen: list[Seen], lead: int) -> None:
    """Raise unless an operation keeps the positions apart."""
    name, params = eqn.primitive.name, eqn.params
    front = frozenset(range(lead))
    ranks = [len(atom.aval.shape) for atom in eqn.invars]
    marked = [value.mark is not None for value in seen]
    if any(is_marked and rank < lead for is_marked, rank in zip(marked, ranks, strict=True)):
        raise Mixes(f"mixes positions ({name} after axes of the space were lost)")

    if name in _NUMBERS or name in ("concatenate",):
        for value, rank in zip(seen, ranks, strict=True):
            if value.mark is None and rank and not front <= value.uniform:
                raise Mixes(f"uses numbers of its own that differ from position to position ({name})")
        if name in _NUMBERS:
            return
    if name in _ALONG:
        axes = params[_ALONG[name]]
        if name == "top_k":
            axes = axes % ranks[0] if axes is not None else ranks[0] - 1
        if front & set((axes,) if isinstance(axes, int) else axes):
            raise Mixes(f"mixes positions ({name} along the space)")
        return
    shape, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    fine = False
    if name == "broadcast_in_dim":
        fine = tuple(params["broadcast_dimensions"][:lead]) == tuple(range(lead)) and out[:lead] == shape[:lead]
    elif name == "reshape":
        fine = params.get("dimensions") is None and out[:lead] == shape[:lead]
    elif name == "transpose":
        fine = tuple(params["permutation"][:lead]) == tuple(range(lead))
    elif name == "slice":
        fine = out[:lead] == shape[:lead]
    elif name == "dynamic_slice":
        fine = marked[0] and not any(marked[1:]) and tuple(params["slice_sizes"][:lead]) == shape[:lead]
    elif name == "pad":
        fine = marked[0] and not any(map(any, params["padding_config"][:lead]))
    elif name == "dot_general":
        (contract, _), (batch, _) = params["dimension_numbers"]
        fine = marked == [True, False] and not batch and not front & set(contract)
    if not fine:
        raise Mixes(f"mixes positions, or cannot be seen not to ({name})")
