"""How hyperparameters name an initialiser of ``jax.nn.initializers``.

A name, or a name with its arguments, can be compared, pickled and printed; the functions themselves cannot.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax

#: "he_normal", ("normal", 0.01), or a function (key, shape, dtype) -> array
Initial = str | tuple[Any, ...] | Callable[..., Any]

#: initialisers of jax.nn.initializers that are functions themselves rather than makers of one
_DIRECT = ("zeros", "ones")


def check(spec: Any, name: str) -> Initial:
    """Check an initialiser as far as it can be without drawing from it.

    Raises:
        ValueError: a name that jax.nn.initializers does not have, or a scale that would make NaN.
        TypeError: neither a name, nor a name with arguments, nor a function.

    Example:
        >>> check(["normal", 0.01], "kernel_init")
        ('normal', 0.01)
    """
    if isinstance(spec, list):
        spec = tuple(spec)
    if isinstance(spec, str):
        spec_name, arguments = spec, ()
    elif isinstance(spec, tuple) and spec and isinstance(spec[0], str):
        spec_name, arguments = spec[0], spec[1:]
    elif callable(spec):
        return spec
    else:
        raise TypeError(
            f'{name} must be a name such as "he_normal", a name with arguments such as ("normal", 0.01), '
            f"or a function (key, shape, dtype), not {spec!r}"
        )
    known = [n for n in dir(jax.nn.initializers) if n[0].islower()]
    if spec_name not in known:
        raise ValueError(f"{name} {spec_name!r} is unknown; jax.nn.initializers has {', '.join(known)}")
    for value in arguments:
        if isinstance(value, str):
            if spec_name != "variance_scaling":
                raise TypeError(f"{name} {spec!r} has a text where a number belongs; write it without quotes")
        elif hasattr(value, "__float__") and not (math.isfinite(value) and (value >= 0 or spec_name == "constant")):
            raise ValueError(
                f"{name} {spec!r} has the scale {value}, which would give parameters that are not numbers; "
                "it must be finite and not negative"
            )
    if spec_name in _DIRECT and arguments:
        raise TypeError(f"{name} {spec!r}: {spec_name!r} takes no arguments")
    if spec_name not in _DIRECT:
        try:
            inspect.signature(getattr(jax.nn.initializers, spec_name)).bind(*arguments)
        except TypeError as error:
            raise TypeError(f"{name} {spec!r}: {error}") from None
    return spec


def resolve(spec: Initial) -> Callable[..., jax.Array]:
    """The function (key, shape, dtype) that a checked specification stands for.

    Example:
        >>> import jax.numpy as jnp
        >>> resolve("ones")(None, (2,), jnp.float32).tolist()
        [1.0, 1.0]
    """
    if isinstance(spec, str):
        spec = (spec,)
    if isinstance(spec, tuple):
        made = getattr(jax.nn.initializers, spec[0])
        return made if spec[0] in _DIRECT else made(*spec[1:])
    return spec
