"""Any function of one array, as a layer without parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .. import names
from ..checks import extra_entry
from ..errors import format_shape
from ..geometry import Shape
from ..layer import Layer
from ..types import Params

#: batch sizes for inferring the output shape of a function: two, to verify that the batch is the first axis of the
#: output, and divisible by 2, 3 and 4, for functions that split the batch
PROBES = (12, 24)


@dataclass(frozen=True, repr=False)
class Function(Layer):
    """A function (batch, ...) -> (batch, ...) as a layer; users pass the function, and compositions wrap it.

    Two are equal if their functions are the same object, or partial applications of the same function to equal
    arguments.

    Args:
        function: a pure function of one array (or of several, where a graph calls it with several).

    Shapes:
        Those of the function; the batch axis must stay first.

    Raises:
        TypeError: not callable.

    Example:
        >>> Function(jax.nn.relu), Function(jax.nn.relu) == Function(jax.nn.relu)
        (jax.nn.relu, True)
    """

    function: Callable[..., Any]

    inputs: ClassVar[int | None] = None
    floating: ClassVar[bool] = False

    def check(self) -> dict[str, Any]:
        if not callable(self.function):
            raise TypeError(f"{self.function!r} is neither a layer nor a function of one array")
        try:
            hash(self)
        except TypeError as error:
            raise TypeError(
                f"{names.code(self.function)} cannot be hashed ({error}); bind plain numbers or strings only, "
                "and put arrays into params by a layer of your own"
            ) from None
        return {}

    @property
    def label(self) -> str:
        return names.snake(names.short(self.function)).strip("_") or "function"

    def infer_shape(self, *shapes: Shape) -> Shape:
        if len(shapes) == 1 and _known(self.function):
            return shapes[0]
        return _probed(self, shapes)

    def run(self, context: Any, params: Params, state: Any, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        for kind, given in (("params", params), ("state", state)):
            if given:
                raise extra_entry(kind, next(iter(given)), f"{names.code(self.function)} is a function and has none")
        if context.record is not None:
            return context.record.use(self, context, params, state, inputs)
        y = called(self.function, inputs, "join several by fcnn.graph")
        self.checked_output(y, inputs[0].shape[0] if getattr(inputs[0], "ndim", 0) else None)
        return y, state

    def checked_output(self, y: Any, batch: int | None) -> Shape:
        shape = getattr(y, "shape", None)
        if shape is None:
            raise TypeError(
                f"{names.code(self.function)} returned a {type(y).__name__}, expected one array; "
                "join several, such as by jnp.concatenate, or let a fcnn.graph return them"
            )
        if not shape or shape[0] != batch:
            raise ValueError(
                f"{names.code(self.function)} returned {lost_batch(shape)}; "
                "a function in a network keeps the batch as its first axis"
            )
        return tuple(shape[1:])

    def __repr__(self) -> str:
        return names.code(self.function)


#: functions of single numbers, whose output has the shape of the input; the shapes of others are found by tracing
_OF_NUMBERS = frozenset({
    *(getattr(jax.nn, name) for name in (
        "celu", "elu", "gelu", "hard_sigmoid", "hard_silu", "hard_tanh", "identity", "leaky_relu", "log_sigmoid",
        "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_sign", "softplus", "squareplus", "tanh",
    )),
    jnp.abs, jnp.exp, jnp.sin, jnp.square, jnp.tanh,
})  # fmt: skip


def _known(function: Callable[..., Any]) -> bool:
    """Whether a function is one of those."""
    try:
        return function in _OF_NUMBERS
    except TypeError:
        return False


@functools.lru_cache(maxsize=1024)
def _probed(layer: Function, shapes: tuple[Shape, ...]) -> Shape:
    def made(*inputs: Any) -> Any:
        return called(layer.function, inputs, "join several by fcnn.graph")

    found = [layer.checked_output(jax.eval_shape(made, *abstract(shapes, n)), n) for n in PROBES]
    return found[-1]


def called(function: Callable[..., Any], inputs: tuple[Any, ...], way_out: str, *before: Any) -> Any:
    """Call a function; on the wrong number of arrays, raise with what it was given and what to do."""
    try:
        return function(*before, *inputs)
    except TypeError as error:
        if "positional argument" not in str(error) or "was given" in str(error):  # an inner call did it
            raise
        given = f"{len(inputs)} array{'s' * (len(inputs) != 1)}"
        raise TypeError(f"{names.code(function)} was given {given} ({error}); {way_out}") from error


def abstract(shapes: tuple[Shape, ...], batch: int) -> list[jax.ShapeDtypeStruct]:
    """Inputs of these shapes for a batch, without values."""
    return [jax.ShapeDtypeStruct((batch, *shape), jnp.zeros(()).dtype) for shape in shapes]


def lost_batch(shape: Any) -> str:
    """Describe an output shape that lacks the batch axis."""
    return f"an output of {format_shape(tuple(shape))} without the batch axis"
