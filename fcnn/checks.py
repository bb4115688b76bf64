"""Checks of the arguments of a network: keys, inputs, params and state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import described, format_shape
from .geometry import Shape, is_shape
from .symbolic_sizes import symbolic
from .types import Parameter


def check_key(key: Any) -> jax.Array:
    """Raise unless key is one random key, new-style or raw."""
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
    """Raise unless the inputs are arrays with the same batch size."""
    for x in inputs:
        if not isinstance(x, (np.ndarray, jax.Array)):
            raise TypeError(f"x must be an array (batch, *space, channels), not {_foreign(x)}")
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            raise TypeError(
                "x must be an array (batch, *space, channels), not a random key; pass keys by keyword, key=..."
            )
    if len({x.shape[0] for x in inputs if x.ndim}) > 1:
        raise ValueError(
            f"the inputs have batches of different sizes: {', '.join(format_shape(x.shape) for x in inputs)}; "
            "the first axis of every input counts the same examples"
        )


def check_count(expected: int | None, count: int) -> None:
    """Raise unless a layer gets the number of inputs that it takes; None: any number."""
    if expected is not None and count != expected:
        raise TypeError(
            f"takes {expected} input{'s' * (expected != 1)}, {count} were given; "
            "for a network of several inputs use fcnn.graph"
        )


def check_one_array(shape: Any, floating: bool) -> None:
    """Raise unless the part before outputs one array, with channels where the layer computes in floating point."""
    if not is_shape(shape):
        raise TypeError(
            f"takes one array, but the part before it gives several of the shapes {shape}; "
            "choose or join them by a function"
        )
    if floating and not shape:
        raise ValueError("takes (batch, *space, channels), but the part before it gives (batch,) alone")


def checked_shapes(inputs: tuple[Any, ...], expected: int | None, floating: bool) -> tuple[Shape, ...]:
    """The shape of one example of every input, after the checks that all layers share.

    Args:
        inputs: the arrays.
        expected: number of inputs that the layer takes; None: any number.
        floating: whether the layer computes in floating point.
    """
    check_count(expected, len(inputs))
    for x in inputs:
        if not hasattr(x, "shape"):
            raise TypeError(f"takes an array (batch, *space, channels), not a {type(x).__name__}")
        if floating and not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                f"x has dtype {x.dtype}, layers compute in floating point; "
                "convert it first, for images such as x.astype('float32') / 255"
            )
        if x.ndim < 2:
            raise ValueError(
                f"x has shape {format_shape(x.shape)}, expected (batch, *space, channels); "
                "one example alone needs a batch axis, x[None]"
            )
    return tuple(tuple(x.shape[1:]) for x in inputs)


def _foreign(x: Any) -> str:
    """Describe a value that is neither a JAX nor a NumPy array, and how to convert it."""
    kind = type(x)
    if isinstance(x, Mapping):
        return f"{described(x)}; pass state and key by keyword, state=..., key=..."
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


#: the method that creates each kind of tree, and the words that agree with it in number
_WORDS = {
    "params": ("init", "have", "these params belong"),
    "state": ("init_state", "has", "this state belongs"),
}


def extra_entry(kind: str, name: str, known: str) -> ValueError:
    """The error for an entry that no layer of the network uses."""
    source, have, _ = _WORDS[kind]
    return ValueError(
        f"{kind} {have} an extra entry {name!r}; {known}; use the {kind} that this network's {source} made"
    )


def check_entries(kind: str, given: Mapping[str, Any], declared: dict[str, Parameter], shapes: Any) -> None:
    """Raise unless the given arrays match the declared ones exactly, by name and shape."""
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
    """A hint where a dense kernel has a whole multiple of the inputs: the batch may have been part of the shape."""
    if len(given) == len(declared) == 2 and given[1] == declared[1] and given[0] > declared[0] > 0:
        times, rest = divmod(given[0], declared[0])
        if not rest:
            return f"; they are made for {times} times as many numbers: was the batch in the shape given to init?"
    return ""
