"""When two values are the same: of one type, one sign and one structure, all the way down.

Python takes 1, 1.0 and True for equal, and 0.0 and -0.0, but not NaN and NaN. A compiled function that is found again
by such a comparison computes with another network's numbers. Here every value is compared with its type.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from numbers import Number
from typing import Any

import numpy as np


class Key:
    """What a value is, in a form that is hashed once and compared without recursion.

    Functions are compared by being the same object, partial applications by function and arguments, frozen dataclasses
    by their fields; what is none of these by its own ``==`` and its type.

    Raises:
        TypeError: a value that cannot be hashed.

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
        while pairs:  # networks may be nested deeper than Python calls functions
            a, b = pairs.pop()
            if a is b:
                continue
            if a._hash != b._hash or a._leaves != b._leaves or len(a._children) != len(b._children):
                return False
            pairs.extend(zip(a._children, b._children, strict=True))
        # the next comparison ends at the same objects
        other._leaves, other._children = self._leaves, self._children
        return True


class Value:
    """A frozen dataclass that is equal to others of its class whose fields are the same by :class:`Key`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__eq__" not in cls.__dict__:  # dataclass would write one that takes True for 1
            cls.__eq__ = Value.__eq__
            cls.__hash__ = Value.__hash__

    @property
    def _identity(self) -> Key:
        """What the value is compared by."""
        found = self.__dict__.get(_PLACE)
        if found is None:
            fields = dataclasses.fields(self)  # type: ignore[arg-type]
            found = Key(type(self), *(getattr(self, field.name) for field in fields if field.compare))
            object.__setattr__(self, _PLACE, found)
        return found

    def _forget(self) -> None:
        """Find the identity anew, after a field has been put in a plainer form."""
        self.__dict__.pop(_PLACE, None)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Value):
            return NotImplemented
        return self._identity == other._identity

    def __hash__(self) -> int:
        return self._identity._hash


#: where a value keeps its key
_PLACE = "_fcnn_identity"


def cached(maxsize: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``functools.lru_cache`` for a function whose arguments are told apart by :class:`Key`.

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
    """Put what a value consists of behind the leaves, and the keys of what has one behind the children."""
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
        leaves.append(float.__repr__(value))  # tells the sign of zero, and NaN is NaN
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
    """Whether values of a class are dataclasses that cannot change and that compare by their fields."""
    settings = getattr(kind, "__dataclass_params__", None)
    return settings is not None and settings.frozen and settings.eq


def nearest(layer: Any, known: Iterable[type]) -> type | None:
    """The class among some that computes what a layer does: its own, or a base of which it changes nothing but data.

    So a subclass that sets hyperparameters, checks them or adds methods is still what its base class is, and one that
    overrides ``forward``, or anything else that its base class calls, is a layer of its own.

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
