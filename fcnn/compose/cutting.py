"""Access to parts of a network, by position, by name and by slice."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

from ..checks import check_mapping


class Parted:
    """A sequence of named parts, indexed by position, name or slice.

    A slice keeps the names of its parts, so trained or saved params fit it: :meth:`own` selects its entries from the
    params of the whole network. The params of a single part are the entry with its name.

    Example:
        >>> import fcnn, jax
        >>> net = fcnn.serial(fcnn.Conv(8, 3), jax.nn.relu, fcnn.Flatten(), head=fcnn.Dense(10))
        >>> net[:-1]
        fcnn.serial(fcnn.Conv(8, 3), jax.nn.relu, fcnn.Flatten())
        >>> net["head"], net[-1], len(net)
        (fcnn.Dense(10), fcnn.Dense(10), 4)
        >>> params = net.init(jax.random.key(0), (8, 8, 1))
        >>> trunk = net[:-1]
        >>> other = fcnn.serial(trunk=trunk, head=fcnn.Dense(5))
        >>> new = other.init(jax.random.key(1), (8, 8, 1)) | {"trunk": trunk.own(params)}
        >>> other.apply(new, jax.numpy.ones((1, 8, 8, 1))).shape
        (1, 5)
    """

    def named_parts(self) -> tuple[tuple[str, Any], ...]:
        """The parts by name."""
        raise NotImplementedError

    def own(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """The entries of a larger network's params or state that belong to the parts of this one."""
        tree = check_mapping("params", tree)
        return {name: tree[name] for name, _ in self.named_parts() if name in tree}

    def sliced(self, places: slice) -> Any:
        """The network made of the parts in a slice."""
        raise TypeError(f"{_label(self)} cannot be cut by a slice; take one part by its name, or make another network")

    def __len__(self) -> int:
        return len(self.named_parts())

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter([part for _, part in self.named_parts()])

    def __contains__(self, part: object) -> bool:
        found = self.named_parts()
        return any(part == name for name, _ in found) if isinstance(part, str) else any(part == p for _, p in found)

    def __getitem__(self, place: Any) -> Any:
        parts = self.named_parts()
        if isinstance(place, slice):
            return self.sliced(place)
        if isinstance(place, str):
            name, slash, rest = place.partition("/")
            found = dict(parts).get(name)
            if found is None:
                raise ValueError(f"{_label(self)} has no part {name!r}; its parts are {', '.join(n for n, _ in parts)}")
            return inside(found, rest) if slash else found
        try:
            return parts[operator.index(place)][1]
        except IndexError:
            raise IndexError(f"{_label(self)} has {len(parts)} parts, none at {place}") from None
        except TypeError:
            raise TypeError(
                f"{_label(self)} has no part {place!r}; take parts by number, net[0], by name, net['head'], "
                "or by slice, net[:-1]"
            ) from None

    def _ipython_key_completions_(self) -> list[str]:
        return [name for name, _ in self.named_parts()]


def inside(layer: Any, place: Any) -> Any:
    """A part of a part."""
    if not hasattr(type(layer), "__getitem__"):
        raise TypeError(f"{_label(layer)} has no parts, so none at {place!r}")
    return layer[place]


def _label(layer: Any) -> str:
    return layer.label
