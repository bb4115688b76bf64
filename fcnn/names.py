"""Names of layers and functions: in parameter trees, in ``repr``, in pickles.

Functions such as ``jax.nn.relu`` live in private modules and cannot be pickled as they are; they go by the
name under which people import them.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

#: where functions are looked up by their short name, in this order
PUBLIC = ("jax.nn", "jax.numpy", "jax.lax", "jax.scipy.special", "fcnn.ops", "jax.nn.initializers")


def snake(name: str) -> str:
    """A class name as a part's name.

    Example:
        >>> snake("GlobalMaxPool"), snake("LpPool"), snake("Conv")
        ('global_max_pool', 'lp_pool', 'conv')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def short(function: Callable[..., Any]) -> str:
    """The last part of a function's name, for use as an identifier.

    Example:
        >>> short(lambda x: x), short(functools.partial(snake, "A"))
        ('function', 'snake')
    """
    while isinstance(function, functools.partial):
        function = function.func
    name = str(getattr(function, "__name__", type(function).__name__))
    return name if name.isidentifier() else "function"


def public(function: Any) -> tuple[str, str] | None:
    """(module, name) under which the very same function can be imported, or None.

    Example:
        >>> import jax
        >>> public(jax.nn.relu)
        ('jax.nn', 'relu')
        >>> public(lambda x: x) is None
        True
    """
    candidates = [(module, getattr(function, "__name__", "")) for module in PUBLIC]
    candidates.append((getattr(function, "__module__", None) or "", getattr(function, "__qualname__", None) or ""))
    for module, name in candidates:
        if module and name and find(module, name) is function:
            return module, name
    return None


def identity(function: Any) -> tuple[Any, ...]:
    """What makes two functions the same: the object, or the function and arguments of a partial application.

    Example:
        >>> identity(functools.partial(int, base=2)) == identity(functools.partial(int, base=2))
        True
    """
    if isinstance(function, functools.partial):
        return (identity(function.func), function.args, tuple(sorted(function.keywords.items())))
    return (function,)


def code(value: Any) -> str:
    """A hyperparameter as code that rebuilds it.

    Example:
        >>> import jax
        >>> code((3, jax.nn.relu, functools.partial(jax.nn.leaky_relu, negative_slope=0.1)))
        '(3, jax.nn.relu, functools.partial(jax.nn.leaky_relu, negative_slope=0.1))'
        >>> code(float("inf")), code(jax.numpy.dtype("float32")), code(abs)
        ("float('inf')", "jax.numpy.dtype('float32')", 'abs')
    """
    if isinstance(value, tuple):
        return "(" + ", ".join(map(code, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, functools.partial):
        parts = [code(value.func), *map(code, value.args), *(f"{k}={code(v)}" for k, v in value.keywords.items())]
        return f"functools.partial({', '.join(parts)})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if type(value).__module__.startswith("numpy") and hasattr(value, "newbyteorder"):
        return f"jax.numpy.{value!r}"
    if dataclasses.is_dataclass(value) or not callable(value):
        return repr(value)
    name = public(value)
    if name is not None:
        return name[1] if name[0] in ("__main__", "builtins") else ".".join(name)
    return getattr(value, "__qualname__", None) or repr(value)


def rebuild(layer: Any) -> str:
    """The call that makes an equal layer, without the arguments that have their defaults.

    Example:
        >>> import fcnn
        >>> rebuild(fcnn.Conv(6, (5, 5), stride=1, padding="SAME"))
        "fcnn.Conv(6, (5, 5), padding='SAME')"
    """
    fields = dataclasses.fields(layer)
    values = {field.name: getattr(layer, field.name) for field in fields}
    parts = [code(values[field.name]) for field in fields if not field.kw_only]
    parts += [f"{f.name}={code(values[f.name])}" for f in fields if f.kw_only and values[f.name] != f.default]
    kind = type(layer)
    home = ""
    if kind.__module__.split(".")[0] == "fcnn":
        home = "fcnn." if find("fcnn", kind.__qualname__) is kind else f"{kind.__module__}."
    return f"{home}{kind.__qualname__}({', '.join(parts)})"


def find(module: str, name: str) -> Any:
    """Import an object by the name it has in a module; None where there is none.

    Example:
        >>> find("math", "sqrt")(4.0)
        2.0
    """
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return None


def pack(value: Any) -> Any:
    """A value as plain pickle can take it: functions become the names they are imported by.

    Raises:
        pickle.PicklingError: a function that has no such name.
    """
    if isinstance(value, functools.partial):
        keywords = tuple((name, pack(argument)) for name, argument in sorted(value.keywords.items()))
        return _Partial(pack(value.func), tuple(map(pack, value.args)), keywords)
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map(pack, value))
    if dataclasses.is_dataclass(value) or not callable(value):
        return value
    name = public(value)
    if name is None:
        raise pickle.PicklingError(
            f"the function {code(value)} cannot be pickled: it cannot be imported by a name; "
            "define it with def at the top level of a module"
        )
    return _Named(*name)


def unpack(value: Any) -> Any:
    """The inverse of :func:`pack`."""
    if isinstance(value, _Partial):
        keywords = {name: unpack(argument) for name, argument in value.keywords}
        return functools.partial(unpack(value.function), *map(unpack, value.arguments), **keywords)
    if isinstance(value, _Named):
        return find(value.module, value.name)
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map(unpack, value))
    return value


@dataclasses.dataclass(frozen=True)
class _Named:
    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class _Partial:
    function: Any
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]
