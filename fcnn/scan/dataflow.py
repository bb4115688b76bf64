"""Which samples the values of a function see, derived from its operations.

A function of x (batch, *space, channels) may resample the space, as resizing, cropping, padding and pixel shuffling
do. The analysis goes through the program operation by operation and keeps track of what each axis of an operand stands
for: the batch, an axis of the space with the receptive field of its values, or neither. Values that do not depend on
the input (indices, interpolation weights) are computed, because they determine how the samples are spaced. The function
is analysed on larger spaces too. If it does something else there, it does not do the same at every position.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from ..errors import format_shape
from ..geometry import Shape
from ..jaxprs import body, called, constants, parts_of_scan, scopes
from ..layer import Context, Layer
from ..tracing.positionwise import _ALONG, _NUMBERS, Mixes
from ..tracing.record import LAYER
from ..types import Params, State
from .axis import Axes, Axis, meet
from .moves import MOVES
from .placed import (
    BATCH,
    Constant,
    Data,
    Place,
    TooSmall,
    at_one_position,
    at_turn,
    computed,
    constant,
    entrance,
    unknown,
)

#: from (the reader, the number of a use of a layer, what is known of its operands) to the fields of its output
Layers = Callable[[Any, int, list[Any]], Axes]


def fields(layer: Layer, shape: Shape, axes: Axes) -> tuple[Shape, Axes]:
    """The output shape of a function or layer for one example, and the fields of its values.

    Args:
        layer: a function or layer of one array (batch, *space, ...); its parameters are treated as unknown.
        shape: shape of one example.
        axes: the fields of its input along each axis of the space.

    Raises:
        Mixes: if it mixes positions, or does not do the same at all of them.

    Example:
        >>> from fcnn.layers import Function
        >>> out, (axis,) = fields(Function(lambda x: jnp.repeat(x, 2, axis=1)), (8, 3), (Axis(),))
        >>> out, axis.step
        ((16, 3), Fraction(1, 2))
    """

    def follow(space: Shape) -> tuple[Shape, Axes, list[Any]]:
        said: list[Any] = []
        one = (*space, *shape[len(axes) :])
        key, dtype = jax.random.key(0), jnp.zeros(()).dtype
        given = jax.eval_shape(lambda: (layer.init_part(key, (one,)), layer.state_part((one,))))
        x = jax.ShapeDtypeStruct((2, *one), dtype)

        def run(given: tuple[Params, State], x: Any) -> Any:
            params, state = given
            return layer.run(Context(train=False, plan=False), params, state, (x,))[0]

        program, out = jax.make_jaxpr(run, return_shape=True)(given, x)
        known = [unknown(leaf.shape) for leaf in jax.tree.leaves(given)]
        found = Reader(space, said).read(program, [*known, entrance((Axis(),) * len(axes), (2, *one))])
        return *canonical(found[0], out.shape, len(axes)), said

    out, own = followed_alike(follow, shape[: len(axes)])
    return out, tuple(axis.then(inner) for axis, inner in zip(axes, own, strict=True))


#: samples added to a space that is too small (rounded up to whole periods)
_MORE = 192


def followed_alike(follow: Callable[[Shape], tuple[Shape, Axes, list[Any]]], space: Shape) -> tuple[Shape, Axes]:
    """Analyse a function on a space, and check that larger spaces give the same.

    Args:
        follow: from a space to the shape and fields of the result, and a record of the operations.
        space: the space.

    Raises:
        Mixes: if the function does something else on a larger space.
    """
    rank, begin = len(space), space
    try:
        out, axes, said = follow(space)
    except TooSmall:
        begin = tuple(n + _MORE for n in space)
        axes = _elsewhere(follow, begin, space)[1]
        # add whole periods, so that padding falls on the same samples as in the space itself
        periods = (math.ceil(axis.period) for axis in axes)
        begin = tuple(n + period * -(-_MORE // period) for n, period in zip(space, periods, strict=True))
        out, axes, said = _elsewhere(follow, begin, space)

    def grown(larger: Shape) -> Shape:
        along = zip(out, larger, begin, axes, strict=False)
        return (*(int(n + Fraction(m - k) / axis.step) for n, m, k, axis in along), *out[rank:])

    for more in (1, 3):
        larger = tuple(n + more * math.ceil(axis.period) for n, axis in zip(begin, axes, strict=True))
        other, again, also_said = _elsewhere(follow, larger, space)
        if again != axes or also_said != said or other != grown(larger):
            raise Mixes("computes with the size of the space")
    return grown(space), axes


def _elsewhere(follow: Callable[[Shape], Any], larger: Shape, space: Shape) -> Any:
    try:
        return follow(larger)
    except Exception as error:  # a user's function may raise anything on a space that it does not support
        if isinstance(error, Mixes) and not isinstance(error, TooSmall):
            raise
        raise Mixes(f"works for a space of {format_shape(space)} only") from None


def canonical(value: Data | Constant, shape: Shape, rank: int) -> tuple[Shape, Axes]:
    """Shape of one example and fields of a result (batch, *space, ...).

    Raises:
        Mixes: if its axes stand for something else.
    """
    if isinstance(value, Constant):
        raise Mixes("makes something that does not depend on its input")
    order = [None if place is None else place.axis for place in value.places]
    if order[: 1 + rank] != list(range(-1, rank)) or any(axis is not None for axis in order[1 + rank :]):
        raise Mixes("reorders or removes axes of the space")
    return tuple(shape[1:]), tuple(place.field for place in value.places[1 : 1 + rank])  # type: ignore[union-attr]


class Reader:
    """Tracks receptive fields through programs.

    Args:
        space: samples along each axis of the input's space.
        said: a list to which a record of the operations is appended, the same for every size of the space.
        layers: called at each use of a layer with the reader, the number of the use and what is known of its operands;
            returns the fields of its output.

    Attributes:
        free: the place of the first operation that might do something else on another space; None if there is none.
    """

    def __init__(self, space: Shape, said: list[Any], layers: Layers | None = None) -> None:
        self.space, self.rank, self.said, self.layers = space, len(space), said, layers
        self.free: tuple[str, ...] | None = None
        self._place: tuple[str, ...] = ()

    def read(self, closed: Any, given: list[Data | Constant]) -> list[Data | Constant]:
        """Go through a program from its arguments to its results.

        Raises:
            Mixes: if an operation mixes positions or is unknown.
        """
        jaxpr, around = body(closed), self._place
        known: dict[Any, Data | Constant] = dict(zip(jaxpr.invars, given, strict=True))
        known.update({var: constant(value) for var, value in zip(jaxpr.constvars, constants(closed), strict=True)})

        def look(atom: Any) -> Data | Constant:
            if not isinstance(atom, Literal):
                return known[atom]
            aval: Any = atom.aval
            return constant(np.asarray(atom.val, aval.dtype))

        for eqn in jaxpr.eqns:
            self._place = (*around, *scopes(eqn))
            try:
                found = self._through(eqn, [look(atom) for atom in eqn.invars])
            except Mixes as error:
                error.place = self._place if error.place is None else error.place
                raise
            known.update(zip(eqn.outvars, found, strict=True))
        self._place = around
        return [look(atom) for atom in jaxpr.outvars]

    def _through(self, eqn: Any, given: list[Data | Constant]) -> list[Data | Constant]:
        name = eqn.primitive.name
        program = called(eqn)
        if program is not None:
            return self.read(program, given)
        if not any(isinstance(value, Data) for value in given):
            return [unknown(out.aval.shape) for out in eqn.outvars] if name == LAYER else computed(eqn, given)
        if name == LAYER and self.layers is not None:
            return self._layer(eqn, given)
        if name == "scan":
            return self._loop(eqn, given)
        if name in _NUMBERS:
            places = [self.joined(eqn, given)] * len(eqn.outvars)
        elif name in MOVES:
            places = MOVES[name](self, eqn, given)
            places = places if len(eqn.outvars) > 1 else [places]
        elif name in _ALONG:
            places = [self._along(eqn, given)] * len(eqn.outvars)
        else:
            raise Mixes(f"mixes positions, or cannot be proved not to ({name})")
        self._look_out(eqn, given)
        self.said.append((name, places, _settings(eqn.params)))
        return [Data(tuple(each)) for each in places]

    def _look_out(self, eqn: Any, given: list[Data | Constant]) -> None:
        """Remember the first operation that might depend on the size of the space.

        Elementwise operations and concatenation along the channels cannot, unless an operand is a known constant.
        """
        name = eqn.primitive.name
        plain = name in _NUMBERS or (name == "concatenate" and eqn.params["dimension"] > self.rank)
        if self.free is None and not (plain and all(isinstance(v, Data) or v.value is None for v in given)):
            self.free = self._place

    def _layer(self, eqn: Any, given: list[Any]) -> list[Data | Constant]:
        if len(eqn.outvars) != 1:
            raise Mixes("has a layer that gives several arrays")
        axes = self.layers(self, eqn.params["use"], given)  # type: ignore[misc]
        self.said.append((LAYER, eqn.params["use"], axes))
        return [entrance(axes, eqn.outvars[0].aval.shape)]

    def _loop(self, eqn: Any, given: list[Any]) -> list[Data | Constant]:
        """A loop, unrolled."""
        params = eqn.params
        fixed, carried = parts_of_scan(params)
        kept, carry, sliced = given[:fixed], given[fixed : fixed + carried], given[fixed + carried :]
        if any(isinstance(value, Data) for value in sliced):
            raise Mixes("mixes positions (scan along an axis)")
        turns, rest = range(params["length"]), []
        for turn in reversed(turns) if params["reverse"] else turns:
            found = self.read(params["jaxpr"], [*kept, *carry, *(at_turn(value, turn) for value in sliced)])
            carry = found[:carried]
            rest.append(found[carried:])
        stacked: list[Data | Constant] = []
        for out, values in zip(eqn.outvars[carried:], zip(*rest, strict=True), strict=True):
            moved = [value.places for value in values if isinstance(value, Data)]
            # the iterations are stacked along a new axis: each position holds the values of all iterations
            found = [_joined(along, "scan") for along in zip(*moved, strict=True)]
            stacked.append(Data((None, *found)) if moved else unknown(out.aval.shape))
        return [*carry, *stacked]

    def joined(self, eqn: Any, given: list[Data | Constant]) -> list[Place | None]:
        """Operands of equal shapes: values at the same position are joined."""
        name, places = eqn.primitive.name, [value.places for value in given if isinstance(value, Data)]
        found = [_joined(along, name) for along in zip(*places, strict=True)]
        for value in given:
            if isinstance(value, Constant):
                self.said.append(at_one_position(value, found, self.space))
        return found

    def _along(self, eqn: Any, given: list[Any]) -> list[Place | None]:
        """Operations along axes without positions, such as a softmax over channels."""
        name = eqn.primitive.name
        axes = eqn.params[_ALONG[name]]
        places = self.joined(eqn, given)
        if name == "top_k":
            axes = len(places) - 1 if axes is None else axes % len(places)
        axes = {axes} if isinstance(axes, int) else set(axes)
        if any(places[axis] is not None for axis in axes):
            raise Mixes(f"mixes positions ({name} along the space)")
        dropped = len(eqn.outvars[0].aval.shape) < len(places)
        return [place for axis, place in enumerate(places) if not (dropped and axis in axes)]


def _joined(along: tuple[Place | None, ...], name: str) -> Place | None:
    """What an axis of joined values stands for."""
    if len({None if place is None else place.axis for place in along}) > 1:
        raise Mixes(f"joins values that lie at different positions ({name})")
    return _met([place for place in along if place is not None]) if along[0] is not None else None


def _met(places: list[Place]) -> Place:
    if places[0] == BATCH:
        return BATCH
    try:
        return Place(places[0].axis, meet([(place.field,) for place in places])[0])  # type: ignore[misc]
    except ValueError as error:
        raise Mixes(str(error)) from None


def _settings(params: Any) -> list[Any]:
    """The parameters of an operation, without sizes."""
    return [(name, value) for name, value in sorted(params.items()) if isinstance(value, (bool, float, str))]
