"""Initial values of parameters: derived keys, drawing and checking; or the shapes alone."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .errors import described, format_shape
from .geometry import Shape
from .types import Initializer, Parameter


def number(name: str) -> int:
    """A name as a number to fold into a random key; the same on every platform."""
    return zlib.crc32(name.encode())


#: how parameters are created: "values" are drawn; "structs" or, where JAX is tracing, "zeros" give the shapes alone
_DRAWN: contextvars.ContextVar[str] = contextvars.ContextVar("drawn", default="values")


@contextlib.contextmanager
def without_values(kind: str) -> Iterator[None]:
    """Create parameters without drawing them: as "structs" (``jax.ShapeDtypeStruct``) or as "zeros"."""
    before = _DRAWN.set(kind)
    try:
        yield
    finally:
        _DRAWN.reset(before)


def without_keys() -> bool:
    """Whether parameters are created as structs, without keys and arrays."""
    return _DRAWN.get() == "structs"


def _valueless(init: Initializer, shape: Shape, dtype: Any) -> Any:
    """A parameter without its value."""
    if not getattr(init, "__module__", "").startswith(("jax.", "fcnn.layers.initial")):  # those honour dtype
        kind = _kind if getattr(type(init), "__hash__", None) else _kind.__wrapped__
        dtype = kind(init, shape, dtype).dtype
    return jax.ShapeDtypeStruct(shape, dtype) if without_keys() else jnp.zeros(shape, dtype)


@functools.lru_cache(maxsize=4096)
def _kind(init: Initializer, shape: Shape, dtype: Any) -> Any:
    """Shape and dtype of an initialiser's output."""
    return jax.eval_shape(lambda key: init(key, shape, dtype), jax.random.key(0))


def fold(key: jax.Array, name: str) -> jax.Array:
    """The key of a named part."""
    if _DRAWN.get() != "values":
        return key
    return jax.random.fold_in(key, number(name))


def draw_initial(name: str, parameter: Parameter, key: jax.Array, dtype: Any) -> jax.Array:
    """Draw the initial value of a parameter, and raise unless it is a finite array of the declared shape."""
    try:
        if _DRAWN.get() != "values":
            return _valueless(parameter.init, tuple(parameter.shape), dtype)
        value = parameter.init(key, tuple(parameter.shape), dtype)
    except (ValueError, TypeError) as error:
        raise type(error)(
            f"the initialiser of {name} failed for the shape {format_shape(parameter.shape)} ({error}); "
            "an initialiser is a function (key, shape, dtype) that suits this shape"
        ) from error
    return check_initial(name, value, tuple(parameter.shape))


def draw_statistics(name: str, parameter: Parameter, dtype: Any) -> jax.Array:
    """Create the initial value of a statistic, and raise unless it is an array of the declared shape."""
    shape = tuple(parameter.shape)
    if without_keys():
        return _valueless(parameter.init, shape, dtype)
    try:
        value = parameter.init(None, shape, dtype)
    except (ValueError, TypeError) as error:
        raise type(error)(
            f"the initialiser of {name} failed for the shape {format_shape(shape)} ({error}); an initialiser of "
            "statistics is a function (key, shape, dtype) that gets no key, such as jax.nn.initializers.zeros"
        ) from error
    if getattr(value, "shape", None) != shape:
        raise ValueError(
            f"the initialiser of {name} returned {described(value)}, expected an array of {format_shape(shape)}"
        )
    return value


def check_initial(name: str, value: Any, shape: Shape) -> jax.Array:
    """Raise unless an initialiser returned a finite floating-point array of the declared shape."""
    if getattr(value, "shape", None) != shape:
        raise ValueError(
            f"the initialiser of {name} returned {described(value)}, expected an array of {format_shape(shape)}; "
            "an initialiser is a function (key, shape, dtype) that returns such an array"
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"the initialiser of {name} returned an array of {value.dtype}, expected floating point; "
            "an initialiser is a function (key, shape, dtype) that returns an array of that dtype"
        )
    check_finite(name, value)
    return value


def check_finite(name: str, value: jax.Array) -> None:
    """Raise where an initialiser returned NaN or infinity; traced values cannot be checked."""
    if not isinstance(value, Tracer) and not np.isfinite(np.asarray(value)).all():
        raise ValueError(
            f"the initialiser of {name} returned values that are not finite; check its scale, which must be "
            "finite and not negative"
        )
