"""What a network is given: the kinds of trees and arrays, and the checks that each is what it has to be."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .errors import format_shape
from .geometry import Shape, symbolic

#: what the optimizer may change: nested dicts of arrays
Params = dict[str, Any]
#: what the data may change: nested dicts of arrays
State = dict[str, Any]
#: (key, shape, dtype) -> array
Initializer = Callable[..., jax.Array]


class Parameter(NamedTuple):
    """One array that a layer declares.

    Attributes:
        shape: its shape.
        init: the function (key, shape, dtype) that makes the first value.
        axes: what its axes mean: "space" (samples of a kernel), "place" (positions of the output), "in" and "out"
            (channels); file formats, pictures and initialisers need it. () where nothing is said.
    """

    shape: Shape
    init: Initializer
    axes: tuple[str, ...] = ()


def number(name: str) -> int:
    """A name as a number to fold into a random key; the same on every machine."""
    return zlib.crc32(name.encode())


#: how parameters are made: drawn; or, for their shapes alone, as "structs" or, where JAX is tracing, as "zeros"
_DRAWN: contextvars.ContextVar[str] = contextvars.ContextVar("drawn", default="values")


@contextlib.contextmanager
def without_values(kind: str) -> Iterator[None]:
    """Make parameters without drawing them: as "structs" (``jax.ShapeDtypeStruct``) or as "zeros"."""
    before = _DRAWN.set(kind)
    try:
        yield
    finally:
        _DRAWN.reset(before)


def without_keys() -> bool:
    """Whether parameters are made as structs, so that there are no keys and no arrays."""
    return _DRAWN.get() == "structs"


def _valueless(init: Initializer, shape: Shape, dtype: Any) -> Any:
    """A parameter without its value."""
    if not getattr(init, "__module__", "").startswith(("jax.", "fcnn.layers.initial")):  # those make what is asked
        kind = _kind if getattr(type(init), "__hash__", None) else _kind.__wrapped__
        dtype = kind(init, shape, dtype).dtype
    return jax.ShapeDtypeStruct(shape, dtype) if without_keys() else jnp.zeros(shape, dtype)


@functools.lru_cache(maxsize=4096)
def _kind(init: Initializer, shape: Shape, dtype: Any) -> Any:
    """Shape and dtype of what an initialiser makes."""
    return jax.eval_shape(lambda key: init(key, shape, dtype), jax.random.key(0))


def fold(key: jax.Array, name: str) -> jax.Array:
    """The key of a named part."""
    if _DRAWN.get() != "values":
        return key
    return jax.random.fold_in(key, number(name))


def check_key(key: Any) -> jax.Array:
    """Raise unless key is one random key, new style or raw."""
    if isinstance(key, jax.Array | np.ndarray):
        if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
            return key
        if key.dtype == jnp.uint32 and key.shape in ((2,), (4,)):
            return jnp.asarray(key)
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.dtype == jnp.uint32:
            raise TypeError(f"key has shape {format_shape(key.shape)}; give one key, or use jax.vmap over several")
    raise TypeError(f"key must be a random key, not {key!r}; make one by jax.random.key(0)")


def check_mapping(kind: str, value: Any) -> dict[str, Any]:
    """Raise unless params or state are a dict."""
    if not isinstance(value, Mapping):
        made = "net.init(key, shape)" if kind == "params" else "net.init_state(shape)"
        raise TypeError(f"{kind} must be a dict as {made} makes it, not {described(value)}")
    return value  # type: ignore[return-value]


def check_inputs(inputs: tuple[Any, ...]) -> None:
    """Raise unless the inputs are arrays of the same examples."""
    for x in inputs:
        if not isinstance(x, (np.ndarray, jax.Array)):
            raise TypeError(f"x must be an array (batch, *space, channels), not {_foreign(x)}")
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            raise TypeError(
                "x must be an array (batch, *space, channels), not a random key; keys go by keyword, key=..."
            )
    if len({x.shape[0] for x in inputs if x.ndim}) > 1:
        raise ValueError(
            f"the inputs have batches of different sizes: {', '.join(format_shape(x.shape) for x in inputs)}; "
            "the first axis of every input counts the same examples"
        )


def _foreign(x: Any) -> str:
    """What is no array of JAX or NumPy, and how to make it one."""
    kind = type(x)
    if isinstance(x, Mapping):
        return f"{described(x)}; state and key go by keyword, state=..., key=..."
    library, ndim = kind.__module__.split(".")[0], len(getattr(x, "shape", ()))
    of = f" of {format_shape(tuple(x.shape))}" if ndim else ""
    if library == "torch":
        last = ", ".join(map(str, (0, *range(2, ndim), 1)))
        order = f", or x.permute({last}).numpy() where channels come first" if ndim > 2 else ""
        return f"a torch.{kind.__name__}{of}; write x.numpy(){order}"
    if library in ("tensorflow", "pandas", "polars"):
        return f"a {library} {kind.__name__}{of}; write x.{'numpy' if library == 'tensorflow' else 'to_numpy'}()"
    if any(hasattr(x, name) for name in ("__array__", "__array_interface__", "__dlpack__")):
        return (
            f"a {kind.__module__}.{kind.__name__}{of}; write numpy.asarray(x), and x[None] where the batch is missing"
        )
    return f"{described(x)}; use jnp.asarray"


#: the method that makes each kind of tree, and the words that agree with it
_WORDS = {
    "params": ("init", "have", "these params belong"),
    "state": ("init_state", "has", "this state belongs"),
}


def extra_entry(kind: str, name: str, known: str) -> ValueError:
    """The error for an entry that nobody in the network asks for."""
    source, have, _ = _WORDS[kind]
    return ValueError(
        f"{kind} {have} an extra entry {name!r}; {known}; use the {kind} that this network's {source} made"
    )


def check_entries(kind: str, given: Mapping[str, Any], declared: dict[str, Parameter], shapes: Any) -> None:
    """Raise unless the arrays given are exactly those declared, by name and shape."""
    source, have, these = _WORDS[kind]
    for name in given:
        if name not in declared:
            raise extra_entry(kind, name, f"this layer has {', '.join(declared) or 'none'}")
    for name, parameter in declared.items():
        if name not in given:
            raise ValueError(
                f"{kind} {have} no {name!r} of shape {format_shape(parameter.shape)} for this layer; "
                f"use the {kind} that this network's {source} made"
            )
        value = given[name]
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            raise TypeError(f"{kind} entry {name!r} must be an array, not {described(value)}")
        if tuple(value.shape) != tuple(parameter.shape):
            if any(map(symbolic, parameter.shape)):
                inputs = " and ".join(map(format_shape, shapes))
                raise ValueError(
                    f"{name} has shape {format_shape(tuple(value.shape))}, a symbolic input of {inputs} asks for "
                    f"{format_shape(parameter.shape)}: these parameters belong to one size of the space; leave the "
                    "batch alone symbolic, or pool over the space before Flatten and Dense"
                )
            raise ValueError(
                f"{name} has shape {format_shape(tuple(value.shape))}, an input of "
                f"{' and '.join(map(format_shape, shapes))} asks for {format_shape(parameter.shape)}; {these} to "
                f"another network or another input shape: make new ones by {source}, or give the input they were made "
                "for" + _batch_in_shape(tuple(value.shape), tuple(parameter.shape))
            )
        if kind == "params" and not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(
                f"{kind} entry {name!r} has dtype {value.dtype}, expected floating point; "
                f"convert it, {name}.astype('float32')"
            )


def _batch_in_shape(given: Shape, declared: Shape) -> str:
    """A question, where a dense kernel is made for several times as many inputs as there are."""
    if len(given) == len(declared) == 2 and given[1] == declared[1] and given[0] > declared[0] > 0:
        times, rest = divmod(given[0], declared[0])
        if not rest:
            return f"; they are made for {times} times as many numbers: was the batch in the shape given to init?"
    return ""


def draw_initial(name: str, parameter: Parameter, key: jax.Array, dtype: Any) -> jax.Array:
    """Draw the first value of a parameter, and raise unless it is a finite array of the declared shape."""
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
    """Make the first value of a statistic, and raise unless it is an array of the declared shape."""
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
            f"the initialiser of {name} made {described(value)}, expected an array of {format_shape(shape)}"
        )
    return value


def check_initial(name: str, value: Any, shape: Shape) -> jax.Array:
    """Raise unless an initialiser made a finite floating-point array of the declared shape."""
    if getattr(value, "shape", None) != shape:
        raise ValueError(
            f"the initialiser of {name} made {described(value)}, expected an array of {format_shape(shape)}; "
            "an initialiser is a function (key, shape, dtype) that returns such an array"
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"the initialiser of {name} made an array of {value.dtype}, expected floating point; "
            "an initialiser is a function (key, shape, dtype) that returns an array of that dtype"
        )
    check_finite(name, value)
    return value


def check_finite(name: str, value: jax.Array) -> None:
    """Raise where an initialiser made NaN or infinity; values that are still being traced cannot be looked at."""
    if not isinstance(value, Tracer) and not np.isfinite(np.asarray(value)).all():
        raise ValueError(
            f"the initialiser of {name} made values that are not finite; check its scale, which must be "
            "finite and not negative"
        )


def described(value: Any) -> str:
    """A value in words, for errors."""
    if hasattr(value, "shape"):
        return f"an array of {format_shape(tuple(value.shape))}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return f"{value!r} of type {type(value).__name__}"
    return f"a {type(value).__name__}"
