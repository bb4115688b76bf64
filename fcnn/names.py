"""Names of layers and functions: in parameter trees, in ``repr``, in pickles.

Functions such as ``jax.nn.relu`` live in private modules and cannot be pickled directly; they are stored under the
public name that users import.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import math
import pickle
import re
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np

from .identity import Key

#: modules in which functions are looked up by their short name, in this order
PUBLIC = ("jax.nn", "jax.numpy", "jax.lax", "jax.scipy.special", "fcnn.ops", "jax.nn.initializers")


@functools.cache
def snake(name: str) -> str:
    """Convert a class name to the name of a part.

    Example:
        >>> snake("GlobalMaxPool"), snake("LpPool"), snake("Conv"), snake("PReLU")
        ('global_max_pool', 'lp_pool', 'conv', 'prelu')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.replace("ReLU", "Relu")).lower()


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


def code(value: Any) -> str:
    """A hyperparameter as code that rebuilds it.

    Example:
        >>> import jax
        >>> code((3, jax.nn.relu, functools.partial(jax.nn.leaky_relu, negative_slope=0.1)))
        '(3, jax.nn.relu, functools.partial(jax.nn.leaky_relu, negative_slope=0.1))'
        >>> code(float("inf")), code(jax.numpy.dtype("float32")), code(abs)
        ("float('inf')", "jax.numpy.dtype('float32')", 'abs')
    """
    kind = type(value)
    if isinstance(value, Enum):
        return f"{kind.__qualname__}({code(value.value)})"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return f"{_class_name(kind)}({', '.join(map(code, value))})"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(code, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, frozenset):
        return f"frozenset({{{', '.join(sorted(map(code, value)))}}})" if value else "frozenset()"
    if isinstance(value, functools.partial):
        parts = [code(value.func), *map(code, value.args), *(f"{k}={code(v)}" for k, v in value.keywords.items())]
        return f"functools.partial({', '.join(parts)})"
    if isinstance(value, np.floating | np.complexfloating):
        return f"numpy.{kind.__name__}({str(value)!r})"
    if isinstance(value, np.generic):
        return f"numpy.{kind.__name__}({str(value) if isinstance(value, np.integer | np.bool) else repr(value.item())})"
    if kind is float and not math.isfinite(value):
        return f"float({str(value)!r})"
    if kind is complex:
        return f"complex({code(value.real)}, {code(value.imag)})"
    if isinstance(value, np.dtype):
        # the dtypes of ml_dtypes, such as bfloat16, have no quotes in their repr
        return f"jax.numpy.dtype({value.name!r})" if f"({value.name})" in repr(value) else f"jax.numpy.{value!r}"
    if dataclasses.is_dataclass(value) or not callable(value):
        return repr(value)
    name = public(value)
    if name is not None:
        return name[1] if name[0] in ("__main__", "builtins") else ".".join(name)
    return getattr(value, "__qualname__", None) or repr(value)


def _class_name(kind: type) -> str:
    name = public(kind)
    return kind.__qualname__ if name is None or name[0] in ("__main__", "builtins") else ".".join(name)


def rebuild(layer: Any) -> str:
    """The call that constructs an equal layer, without arguments that have their default values.

    Example:
        >>> import fcnn
        >>> rebuild(fcnn.Conv(6, (5, 5), stride=1, padding="SAME"))
        "fcnn.Conv(6, (5, 5), padding='SAME')"
    """
    fields = [field for field in dataclasses.fields(layer) if field.init]
    values = {field.name: getattr(layer, field.name) for field in fields}
    first = [field for field in fields if not field.kw_only]
    while first and not _given(values[first[-1].name], first[-1].default):
        first.pop()
    parts = [code(values[field.name]) for field in first]
    parts += [f"{f.name}={code(values[f.name])}" for f in fields if f.kw_only and _given(values[f.name], f.default)]
    kind = type(layer)
    home = ""
    if kind.__module__.split(".")[0] == "fcnn":
        home = "fcnn." if find("fcnn", kind.__qualname__) is kind else f"{kind.__module__}."
    return f"{home}{kind.__qualname__}({', '.join(parts)})"


def _given(value: Any, default: Any) -> bool:
    """Whether a value differs from the default; True and 1 count as different."""
    return value is not default and Key(value) != Key(default)


def find(module: str, name: str) -> Any:
    """Import an object by module and name; None where there is none.

    Example:
        >>> find("math", "sqrt")(4.0)
        2.0
    """
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return None


def pack(value: Any, places: Mapping[int, int] = MappingProxyType({})) -> Any:
    """A value in a form that plain pickle can handle: functions are replaced by the names they are imported by.

    A value whose id is in ``places`` is packed already and is replaced by its place, because networks may be nested
    deeper than pickle's recursion allows. A pickler that pickles functions by value, such as cloudpickle's, gets
    functions that have no importable name as they are.

    Raises:
        pickle.PicklingError: a function has no importable name.
    """
    if id(value) in places:
        return _Place(places[id(value)])
    if isinstance(value, functools.partial):
        keywords = tuple((name, pack(argument)) for name, argument in sorted(value.keywords.items()))
        return _Partial(pack(value.func), tuple(map(pack, value.args)), keywords)
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(pack(item, places) for item in value)
    if dataclasses.is_dataclass(value) or not callable(value):
        return value
    name = public(value)
    if name is not None:
        return _Named(*name)
    if isinstance(value, types.FunctionType) and not _takes_functions(inspect.currentframe()):
        raise pickle.PicklingError(
            f"the function {code(value)} cannot be pickled: it cannot be imported by a name; "
            "define it with def at the top level of a module, or use cloudpickle"
        )
    return value


def _takes_functions(frame: types.FrameType | None) -> bool:
    """Whether the running pickler pickles functions by value; plain pickle's C pickler is not on the Python stack."""
    while frame is not None:
        pickler = frame.f_locals.get("self")
        if isinstance(pickler, (pickle.Pickler, pickle._Pickler)):  # type: ignore[attr-defined]
            by_name = pickle._Pickler.dispatch[types.FunctionType]  # type: ignore[attr-defined]
            taken = getattr(pickler, "dispatch", {}).get(types.FunctionType, by_name) is not by_name
            return taken or hasattr(pickler, "reducer_override")
        frame = frame.f_back
    return False


def unpack(value: Any, made: Sequence[Any] = ()) -> Any:
    """The inverse of :func:`pack`.

    Raises:
        pickle.UnpicklingError: a function can no longer be imported.
    """
    if isinstance(value, _Place):
        return made[value.number]
    if isinstance(value, _Partial):
        keywords = {name: unpack(argument) for name, argument in value.keywords}
        return functools.partial(unpack(value.function), *map(unpack, value.arguments), **keywords)
    if isinstance(value, _Named):
        return imported(value.module, value.name)
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(unpack(item, made) for item in value)
    return value


def imported(module: str, name: str) -> Any:
    """The function, or the network, that a pickle refers to by name.

    Raises:
        pickle.UnpicklingError: there is no such function or network.

    Example:
        >>> imported("math", "sqrt")(4.0)
        2.0
    """
    found = find(module, name)
    if not callable(found) and not dataclasses.is_dataclass(found):
        raise pickle.UnpicklingError(
            f"the pickled network has the function {module}.{name}, which cannot be imported here; "
            f"define {name} in a module {module} again, under the name that it had when the network was pickled"
        )
    return found


@dataclasses.dataclass(frozen=True)
class _Named:
    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class _Partial:
    function: Any
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class _Place:
    number: int
