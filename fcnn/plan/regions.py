"""The compositions that an array passes through between two layers, and whether they only pass it on."""

from __future__ import annotations

from typing import Any

from .. import facts
from ..tracing import Node


class Ownership:
    """The compositions of a network by their paths.

    Args:
        net: the network.
    """

    def __init__(self, net: Any) -> None:
        self._hands_on: dict[str, bool] = {}
        self._parts: dict[str, Any] = {}
        self._walk(net, "")

    def _walk(self, layer: Any, path: str) -> None:
        parts = getattr(layer, "named_parts", None)
        inner = getattr(layer, "layer", None)
        if parts is None and inner is None:
            return
        self._hands_on[path] = self._hands_on.get(path, True) and facts.hands_on(layer)
        if inner is not None and hasattr(inner, "check_shapes"):  # a wrapper without its own level of names
            self._walk(inner, path)
            return
        for name, part in parts() if parts is not None else ():
            inside = f"{path}/{name}".strip("/")
            self._parts[inside] = part
            self._walk(part, inside)

    def part(self, node: Node) -> Any:
        """The part of the network with a node's path."""
        return self._parts.get(node.home)

    def handed_on(self, maker: Node, taker: Node) -> bool:
        """Whether all compositions between two nodes only pass the value on."""
        one, other = composition_of(maker), composition_of(taker)
        shared = 0
        while shared < min(len(one), len(other)) and one[shared] == other[shared]:
            shared += 1
        places = [steps[:n] for steps in (one, other) for n in range(shared, len(steps) + 1)]
        return all(self._hands_on.get("/".join(step.split("#")[0] for step in place), False) for place in places)


def composition_of(node: Node) -> tuple[str, ...]:
    """The path of the composition that contains a node."""
    steps = tuple(node.path.split("/")) if node.path else ()
    return steps if node.layer is None else steps[:-1]
