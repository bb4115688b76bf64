"""The base classes of augmentations: values that are called with a key and a batch, and return a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ...errors import format_shape, layer_path
from ...identity import Value
from ...native import native

#: ((x, ...), y): a tuple of inputs, and the targets
Batch = tuple[Any, Any]


class Augmentation(Value):
    """A function (key, batch) to batch, as a frozen dataclass of plain numbers.

    It is hashable and compares by value, so a training step compiled with it is reused; its ``repr`` is code that
    recreates it. Subclass it as ``@dataclass(frozen=True)`` and write ``__call__``. To change each example separately,
    subclass :class:`PerExample` instead.

    Attributes:
        by_example: whether the call takes ``examples`` (batch,), the positions of the examples in the data set, and
            ``epoch``, an integer, in addition to the key and the batch.
        moves: whether it moves samples of the first input in space, so that masks must be moved too (see
            ``together``).
        mixes: whether the result for an example depends on others in the batch.
    """

    by_example: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    mixes: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        jax.tree_util.register_static(cls)

    def __post_init__(self) -> None:
        with layer_path(type(self).__name__):
            for name, value in self.check().items():
                object.__setattr__(self, name, value)
            for field in fields(self):  # type: ignore[arg-type]
                value = getattr(self, field.name)
                try:
                    hash(value)
                except TypeError:
                    raise TypeError(
                        f"{field.name} is a {type(value).__name__}, which cannot be hashed; use numbers and tuples"
                    ) from None
            self._forget()

    def check(self) -> dict[str, Any]:
        """The checked values of the fields that have a rule."""
        return {}

    def __call__(self, key: jax.Array, batch: Batch) -> Batch:
        raise NotImplementedError(f"{type(self).__name__} has no __call__(key, batch)")

    def move(self, key: jax.Array, x: jax.Array, known: dict[str, Any]) -> jax.Array:
        """Move an array (batch, *space, channels) as the first input is moved under this key."""
        (moved,), _ = self(key, ((x,), None), **(known if self.by_example else {}))
        return moved

    def check_values(self, x: Any) -> None:
        """Raise if the values of the first input, an array that is not traced, are unsuitable."""


class PerExample(Augmentation):
    r"""An augmentation that draws random numbers for each example and alters the example accordingly.

    .. math:: x'_i = \text{alter}(x_i, \text{draw}(k_i)), \quad k_1, \dots, k_n = \text{split}(k, n)

    It changes the first input only; the other inputs and the targets are unchanged. The result for an example does not
    depend on the others in the batch.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Dim(PerExample):
        ...     lowest: float
        ...     def draw(self, key, shape):
        ...         return jax.random.uniform(key, (), jnp.float32, self.lowest, 1.0)
        ...     def alter(self, x, drawn):
        ...         return x * drawn.astype(x.dtype)
        >>> (x,), y = Dim(0.5)(jax.random.key(0), ((jnp.ones((4, 8, 8, 1)),), jnp.arange(4)))
        >>> x.shape, bool((x >= 0.5).all())
        ((4, 8, 8, 1), True)
    """

    #: whether x must be floating point, because arithmetic is done on its values
    floating: ClassVar[bool] = True
    #: the least number of space axes of x
    rank: ClassVar[int] = 1

    def __call__(self, key: jax.Array, batch: Batch) -> Batch:
        with layer_path(type(self).__name__):
            inputs, targets, alone = unpack(batch)
            x = check_input(inputs[0], floating=self.floating, rank=self.rank)
            self.check_rank(x.shape)
            if self.moves:
                check_targets_stay(targets, x.shape)
            if not isinstance(x, Tracer):
                self.check_values(x)
        keys = jax.random.split(key, len(x))
        x = jax.vmap(lambda k, example: self.alter(example, self.draw(k, example.shape)))(keys, x)
        return pack((x, *inputs[1:]), targets, alone)

    def check_rank(self, shape: tuple[int, ...]) -> None:
        """Raise if the shape of x, including the batch, is unsuitable."""

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> Any:
        """Draw the random numbers for one example of this shape, (*space, channels)."""
        raise NotImplementedError(f"{type(self).__name__} has no draw(key, shape)")

    def alter(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Change one example x (*space, channels), given the result of ``draw``."""
        raise NotImplementedError(f"{type(self).__name__} has no alter(x, drawn)")


def check_targets_stay(targets: Any, x: tuple[int, ...]) -> None:
    """Raise if targets have the space of x (batch, *space, channels), which is about to be moved without them."""
    space = tuple(x[1:-1])
    for leaf in jax.tree.leaves(targets):
        shape = tuple(getattr(leaf, "shape", ()))
        if shape[1 : 1 + len(space)] != space or math.prod(space) == 1:
            continue
        if len(space) > 1 or len(shape) > 2 or jnp.issubdtype(leaf.dtype, jnp.integer):
            raise ValueError(
                f"it moves x, but not the targets of shape {format_shape(shape)} that lie over the same space; "
                'use together(..., targets="mask"), or together(...) for targets that stay'
            )


def unpack(batch: Any) -> tuple[tuple[Any, ...], Any, bool]:
    """The inputs, the targets, and whether x came alone, as in (x, y), rather than in a tuple of inputs."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise TypeError(f"a batch is ((x, ...), y): the inputs and the targets, not {kind(batch)}")
    inputs, targets = batch
    if isinstance(inputs, tuple | list):
        if not inputs:
            raise ValueError("the batch has no inputs; it is ((x, ...), y) with at least one x")
        return tuple(inputs), targets, False
    return (inputs,), targets, True


def pack(inputs: tuple[Any, ...], targets: Any, alone: bool) -> Batch:
    """The batch in the form in which it was given."""
    return (inputs[0] if alone else inputs, targets)


def check_input(x: Any, *, floating: bool, rank: int = 1) -> jax.Array:
    """An input as a JAX array (batch, *space, channels) with at least ``rank`` space axes.

    Raises:
        TypeError: if it is not an array, or not floating point where that is required.
        ValueError: if it has too few axes.
    """
    if not isinstance(x, np.ndarray | jax.Array):
        raise TypeError(f"x must be an array (batch, *space, channels), not {kind(x)}")
    if x.ndim < 2 + rank:
        raise ValueError(
            f"x has shape {format_shape(x.shape)}, expected (batch, {'*space, ' if rank else ''}channels), "
            "such as (128, 28, 28, 1) for images"
        )
    if floating and not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"x has dtype {x.dtype}, expected floating point; convert it first: x.astype('float32') / 255 for images "
            "of bytes"
        )
    return jnp.asarray(native(x))


def real(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number from low to high, as a Python float.

    Raises:
        TypeError: if it is not a number; a bool does not count as one.
        ValueError: if it is out of range.
    """
    if isinstance(value, bool | str) or not hasattr(value, "__float__") or getattr(value, "ndim", 0):
        raise TypeError(f"{name} must be a number, not {value!r}")
    value = float(value)
    if not math.isfinite(value) or not low <= value <= high:
        span = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} is {value:g}, it must be {'finite' if low == -math.inf else span}")
    return value


def pair(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> tuple[float, float]:
    """A range (low, high) as floats, checked to be within limits and in order."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} must be a pair (low, high), not {value!r}")
    first, last = real(value[0], name, low, high), real(value[1], name, low, high)
    if first > last:
        raise ValueError(f"{name} is ({first:g}, {last:g}); the lower number comes first")
    return first, last


def space_axis(axis: int, rank: int) -> int:
    """A space axis, counted from the first (0, 1, ...) or from the last (-1, -2, ...), as 0 to rank - 1."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is not among the {rank} space axes of x; use {-rank} to {rank - 1}")
    return axis % rank


def wide(dtype: Any) -> Any:
    """The dtype used for computing: float32 for half precision, otherwise the dtype itself."""
    return jnp.dtype(jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype)


def kind(value: Any) -> str:
    """A description of a value for error messages."""
    if hasattr(value, "shape"):
        return f"an array of {format_shape(tuple(value.shape))}"
    return f"a {'dict' if isinstance(value, Mapping) else type(value).__name__}"
