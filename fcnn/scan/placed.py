"""What the axes of an array stand for in a function of the space, and what is known of its constants."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..geometry import Shape
from ..tracing.positionwise import _NUMBERS, Mixes
from .axis import Axes, Axis

_DIFFERS = "uses numbers of its own that differ from position to position"


class TooSmall(Mixes):
    """Raised if the space has too few samples to show the pattern of an operation."""


class Place(NamedTuple):
    """What an axis of an array stands for: an axis of the space, numbered from 0, with its field; -1 is the batch."""

    axis: int
    field: Axis | None = None


BATCH = Place(-1)


class Data(NamedTuple):
    """A value that depends on the input: what each of its axes stands for; None for an axis without positions."""

    places: tuple[Place | None, ...]


class Constant(NamedTuple):
    """A value independent of the input: the array, or None if unknown, and the axes along which it is constant."""

    value: Any
    uniform: frozenset[int]


def entrance(axes: Axes, shape: Shape) -> Data:
    """An input (batch, *space, ...) with the fields of its values."""
    space = tuple(Place(n, axis) for n, axis in enumerate(axes))
    return Data((BATCH, *space, *(None,) * (len(shape) - 1 - len(axes))))


def constant(value: Any) -> Constant:
    """A known value, and the axes along which it is constant."""
    try:
        array = np.asarray(value)
    except TypeError:  # a random key
        return unknown(value.shape)
    same = (n for n in range(array.ndim) if array.strides[n] == 0 or array.shape[n] == 1 or _same_along(array, n))
    return Constant(array, frozenset(same))


def unknown(shape: Shape) -> Constant:
    """An unknown value, such as a parameter."""
    return Constant(None, frozenset(n for n, size in enumerate(shape) if size == 1))


def at_turn(value: Constant, turn: int) -> Constant:
    """The slice of a value, along its first axis, that one iteration of a loop sees."""
    if value.value is None:
        return Constant(None, frozenset(n - 1 for n in value.uniform if n))
    return constant(value.value[turn])


def _same_along(array: np.ndarray, axis: int) -> bool:
    return bool((array == np.take(array, [0], axis)).all()) if array.size else True


#: operations that compute indices and interpolation weights: elementwise ones, and those with parameters
_NUMBERWISE: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum, "min": np.minimum, "abs": np.abs,
    "neg": np.negative, "sin": np.sin, "floor": np.floor, "ceil": np.ceil, "square": np.square, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "and": np.bitwise_and, "or": np.bitwise_or, "not": np.invert, "convert_element_type": np.asarray,
    "clamp": lambda low, a, high: np.clip(a, low, high),
    "div": lambda a, b: a / b if np.issubdtype(a.dtype, np.inexact) else np.trunc(a / b),
    "select_n": lambda which, *cases: np.choose(which.astype(int), cases),
}  # fmt: skip
_WITH_PARAMETERS: dict[str, Callable[..., Any]] = {
    "iota": lambda p: np.indices(p["shape"], sparse=True)[p["dimension"]] + np.zeros(p["shape"]),
    "integer_pow": lambda p, a: a ** p["y"],
    "reshape": lambda p, a: a.reshape(p["new_sizes"]),
    "squeeze": lambda p, a: a.squeeze(tuple(p["dimensions"])),
    "transpose": lambda p, a: a.transpose(p["permutation"]),
    "reduce_sum": lambda p, a: a.sum(tuple(p["axes"])),
    "concatenate": lambda p, *parts: np.concatenate(parts, p["dimension"]),
}


def computed(eqn: Any, given: list[Any]) -> list[Data | Constant]:
    """The results of an operation on constants."""
    values = [value.value for value in given]
    if any(value is None for value in values):
        return [Constant(None, _uniform(eqn, given, out.aval.shape)) for out in eqn.outvars]
    if eqn.primitive.name == "broadcast_in_dim":  # a view: it may be as large as an image
        out, target = eqn.params["shape"], eqn.params["broadcast_dimensions"]
        aligned = [1] * len(out)
        for size, place in zip(values[0].shape, target, strict=True):
            aligned[place] = size
        return [constant(np.broadcast_to(values[0].reshape(aligned), out))]
    # NumPy where possible: JAX would compile each operation again for every size
    if eqn.primitive.name in _NUMBERWISE:
        return [constant(np.asarray(_NUMBERWISE[eqn.primitive.name](*values), eqn.outvars[0].aval.dtype))]
    if eqn.primitive.name in _WITH_PARAMETERS:
        made = _WITH_PARAMETERS[eqn.primitive.name](eqn.params, *values)
        return [constant(np.asarray(made, eqn.outvars[0].aval.dtype))]
    with jax.ensure_compile_time_eval():
        made = eqn.primitive.bind(*map(jnp.asarray, values), **eqn.params)
    return [constant(value) for value in (made if eqn.primitive.multiple_results else [made])]


def _uniform(eqn: Any, given: list[Any], out: Shape) -> frozenset[int]:
    """The axes along which an unknown value is constant."""
    found = {n for n, size in enumerate(out) if size == 1}
    name = eqn.primitive.name
    if name == "broadcast_in_dim":
        target = eqn.params["broadcast_dimensions"]
        found |= set(range(len(out))) - set(target)
        found |= {place for axis, place in enumerate(target) if axis in given[0].uniform}
    elif name in _NUMBERS:
        full = [v.uniform for v, atom in zip(given, eqn.invars, strict=True) if atom.aval.shape == out]
        found |= frozenset.intersection(*full) if full else set()
    return frozenset(found)


def inside(place: Place, made: int, space: Shape) -> slice:
    """The positions along an axis whose fields lie within the input; for the batch, all of it."""
    field = place.field
    if field is None:
        return slice(0, made)
    first = max(math.ceil(-field.low / field.step), 0)
    return slice(first, max(min(math.floor((space[place.axis] - 1 - field.high) / field.step) + 1, made), first))


def at_one_position(value: Constant, places: list[Place | None], space: Shape) -> Any:
    """The value of a constant at the positions whose fields lie within the input, as bytes; None if unknown.

    Raises:
        Mixes: if it is not the same at all of them.
        TooSmall: if there is no such position.
    """
    if value.value is None:
        if any(place is not None and n not in value.uniform for n, place in enumerate(places)):
            raise Mixes(_DIFFERS)
        return None
    array = value.value
    for n, place in enumerate(places if array.ndim else ()):
        if place is None:
            continue
        where = slice(0, 1) if n in value.uniform else inside(place, array.shape[n], space)
        array = array[(*(slice(None),) * n, where)]
        if array.shape[n] == 0:
            raise TooSmall(_DIFFERS)
        if not _same_along(array, n):
            raise Mixes(_DIFFERS)
        array = array[(*(slice(None),) * n, slice(0, 1))]
    return array.tobytes()
