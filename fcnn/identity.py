"""Equality of values by type, sign and structure, all the way down.

Python treats 1, 1.0 and True as equal, and 0.0 and -0.0, but not NaN and NaN. A cache of compiled functions with such
a comparison would return a function compiled for another network's numbers. Here every value is compared together with
its type.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from numbers import Number
from typing import Any

import numpy as np


class Key:
    """The identity of a value, in a form that is hashed once and compared without recursion.

    Functions are equal if they are the same object, partial applications if function and arguments are equal, frozen
    dataclasses if their fields are equal. All other values are compared by type and by their own ``==``.

    Raises:
        TypeError: a value cannot be hashed.

    Example:
        >>> Key(1) == Key(True), Key(0.0) == Key(-0.0), Key((2, float("nan"))) == Key((2, float("nan")))
        (False, False, True)
        >>> Key(functools.partial(int, base=2)) == Key(functools.partial(int, base=2))
        True
    """

    __slots__ = ("_children", "_hash", "_leaves")

    def __init__(self, *values: Any) -> None:
        leaves: list[Any] = []
        children: list[Key] = []
        for value in values:
            _take_apart(value, leaves, children)
        self._leaves, self._children = tuple(leaves), tuple(children)
        self._hash = hash((self._leaves, tuple(child._hash for child in children)))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Key):
            return NotImplemented
        pairs: list[tuple[Key, Key]] = [(self, other)]
        while pairs:  # a loop, because networks may be nested deeper than Python's recursion limit
            a, b = pairs.pop()
            if a is b:
                continue
            if a._hash != b._hash or a._leaves != b._leaves or len(a._children) != len(b._children):
                return False
            pairs.extend(zip(a._children, b._children, strict=True))
        # share the parts, so that the next comparison stops at identical objects
        other._leaves, other._children = self._leaves, self._children
        return True


class Value:
    """A frozen dataclass that is equal to others of its class whose fields have equal :class:`Key`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__eq__" not in cls.__dict__:  # the one that dataclass generates treats True and 1 as equal
            cls.__eq__ = Value.__eq__
            cls.__hash__ = Value.__hash__

    @property
    def _identity(self) -> Key:
        """The key that the value is compared by."""
        found = self.__dict__.get(_PLACE)
        if found is None:
            fields = dataclasses.fields(self)  # type: ignore[arg-type]
            found = Key(type(self), *(getattr(self, field.name) for field in fields if field.compare))
            object.__setattr__(self, _PLACE, found)
        return found

    def _forget(self) -> None:
        """Drop the stored identity, after a field has been normalised to a plainer form."""
        self.__dict__.pop(_PLACE, None)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Value):
            return NotImplemented
        return self._identity == other._identity

    def __hash__(self) -> int:
        return self._identity._hash


#: the attribute that stores a value's key
_PLACE = "_fcnn_identity"


def cached(maxsize: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``functools.lru_cache`` for a function whose arguments are compared by :class:`Key`.

    Example:
        >>> @cached(maxsize=8)
        ... def shown(x):
        ...     return str(x)
        >>> shown(1), shown(True), shown(0.0), shown(-0.0)
        ('1', 'True', '0.0', '-0.0')
    """

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.lru_cache(maxsize=maxsize)
        def remembered(given: _Given) -> Any:
            return function(*given.args, **given.options)

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            return remembered(_Given(args, options))

        return call

    return wrap


class _Given:
    """The arguments of a call."""

    def __init__(self, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.args, self.options = args, options
        self.key = Key(args, *sorted(options.items()))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Given) and self.key == other.key


def _take_apart(value: Any, leaves: list[Any], children: list[Key]) -> None:
    """Append the parts of a value to ``leaves``, and the keys of parts that have one to ``children``."""
    kind = type(value)
    leaves.append(kind)
    if kind is int or kind is bool or kind is str or value is None:
        leaves.append(value)
    elif isinstance(value, Value) and kind.__eq__ is Value.__eq__:
        children.append(value._identity)
    elif isinstance(value, (tuple, frozenset)):
        # a set has no order: its elements are compared as a set of keys
        parts = value if isinstance(value, tuple) else (_Elements(frozenset(map(Key, value))),)
        leaves.append(len(value))
        for part in parts:
            _take_apart(part, leaves, children)
    elif isinstance(value, functools.partial):
        keywords = sorted(value.keywords.items())
        for part in (value.func, value.args, *keywords):
            _take_apart(part, leaves, children)
    elif isinstance(value, slice):
        for part in (value.start, value.stop, value.step):
            _take_apart(part, leaves, children)
    elif isinstance(value, float):
        leaves.append(float.__repr__(value))  # keeps the sign of zero, and makes NaN equal to NaN
    elif isinstance(value, np.generic) or (isinstance(value, Number) and not isinstance(value, int)):
        leaves.append(repr(value))
    elif _by_fields(kind):
        for field in dataclasses.fields(value):  # type: ignore[arg-type]
            if field.compare:
                _take_apart(getattr(value, field.name), leaves, children)
    else:
        leaves.append(value)


class _Elements:
    """The elements of a set."""

    def __init__(self, keys: frozenset[Key]) -> None:
        self._keys = keys

    def __hash__(self) -> int:
        return hash(self._keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Elements) and self._keys == other._keys


def _by_fields(kind: type) -> bool:
    """Whether a class is a frozen dataclass whose values compare by their fields."""
    settings = getattr(kind, "__dataclass_params__", None)
    return settings is not None and settings.frozen and settings.eq


def nearest(layer: Any, known: Iterable[type]) -> type | None:
    """The class among ``known`` whose computation the layer inherits unchanged; None where there is none.

    A subclass that sets or checks hyperparameters, or adds methods, still counts as its base class. A subclass that
    overrides ``forward``, or anything else that its base class has, is a different layer.

    Example:
        >>> class Small(fcnn.Conv):
        ...     pass
        >>> class Scaled(fcnn.Conv):
        ...     def forward(self, params, x):
        ...         return 2 * super().forward(params, x)
        >>> nearest(Small(4, 3), (fcnn.Conv,)), nearest(Scaled(4, 3), (fcnn.Conv,))
        (<class 'fcnn.layers.conv.Conv'>, None)
    """
    known, overridden = set(known), set()
    for kind in type(layer).__mro__:
        if kind in known:
            fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
            return None if any(hasattr(kind, name) for name in overridden - fields) else kind
        overridden |= {name for name in vars(kind) if not name.startswith("__")} - {"check", "label"}
    return None
