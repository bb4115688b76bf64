"""Pickling of nested layers, to any depth."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

from . import names
from .identity import Value


class Pickled(Value):
    """A frozen dataclass that pickles the values nested in it as a flat list, so that nesting can be of any depth."""

    def __reduce__(self) -> tuple[Any, ...]:
        order = _deepest_first(self)
        places: dict[int, int] = {}
        entries = []
        for value in order:
            fields = dataclasses.fields(value)  # type: ignore[arg-type]
            entries.append((type(value), {f.name: names.pack(getattr(value, f.name), places) for f in fields}))
            places[id(value)] = len(places)
        return _restore, (entries,)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


def _deepest_first(whole: Pickled) -> list[Pickled]:
    """A value and the values nested in it, each after its parts; values with their own ``__reduce__`` are not split."""
    order: list[Pickled] = []
    known: set[int] = set()
    left: list[tuple[Any, bool]] = [(whole, False)]
    while left:
        value, ready = left.pop()
        if ready:
            order.append(value)
        elif type(value) is tuple:
            left.extend((item, False) for item in value)
        elif isinstance(value, Pickled) and id(value) not in known:
            if value is not whole and type(value).__reduce__ is not Pickled.__reduce__:
                continue
            known.add(id(value))
            left.append((value, True))
            left.extend((getattr(value, f.name), False) for f in dataclasses.fields(value))  # type: ignore[arg-type]
    return order


def _restore(entries: list[tuple[type[Pickled], dict[str, Any]]]) -> Pickled:
    """Undo ``Pickled.__reduce__``; the values were checked when they were first constructed."""
    made: list[Any] = []
    for kind, fields in entries:
        value = object.__new__(kind)
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            if field.name in fields:
                own = names.unpack(fields[field.name], made)
            elif field.default is not dataclasses.MISSING:  # the class has gained this field since
                own = field.default
            else:
                raise pickle.UnpicklingError(
                    f"the pickled {kind.__name__} has no {field.name}; it was made by another version of the class"
                )
            object.__setattr__(value, field.name, own)
        hash(value)
        made.append(value)
    return made[-1]
