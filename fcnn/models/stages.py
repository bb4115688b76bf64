"""The outputs of several parts of a network at once, for segmentation and detection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from ..compose import graph
from ..compose.graph import Graph
from ..compose.serial import Serial


@dataclass(frozen=True)
class Outputs:
    """A wiring: the parts one after another, and what some of them give.

    Attributes:
        parts: the parts, in order.
        kept: those whose outputs are returned.
    """

    parts: tuple[str, ...]
    kept: tuple[str, ...]

    def __call__(self, layer: Any, x: jax.Array) -> dict[str, jax.Array]:
        found = {}
        for name in self.parts:
            x = getattr(layer, name)(x)
            if name in self.kept:
                found[name] = x
        return found


def features(net: Serial, *names: str) -> Graph:
    """A network that gives the outputs of several parts of another one, up to the last of them.

    Params and state fit as they are: ``features(net, ...).own(params)`` selects the entries.

    Args:
        net: a ``serial``, such as those of :mod:`fcnn.models`.
        names: names of parts; none: the stages, ``stage1`` and so on.

    Returns:
        A network that gives a dict from names to arrays.

    Raises:
        ValueError: a part that the network does not have.
        TypeError: not a ``serial``.

    Example:
        >>> trunk = features(fcnn.models.resnet(18))
        >>> trunk.out_shape((224, 224, 3))["stage4"]
        (7, 7, 512)
    """
    if not isinstance(net, Serial):
        raise TypeError(f"features: net must be made by fcnn.serial, not {net!r}")
    known = [name for name, _ in net.parts]
    names = names or tuple(name for name in known if name.startswith("stage"))
    for name in names:
        if name not in known:
            raise ValueError(f"features: the network has no part {name!r}; its parts are {', '.join(known)}")
    if not names:
        raise ValueError(f"features: the network has no stages; name some of its parts, {', '.join(known)}")
    last = max(map(known.index, names)) + 1
    parts = dict(net.parts[:last])
    return graph(**parts)(Outputs(tuple(parts), tuple(names)))
