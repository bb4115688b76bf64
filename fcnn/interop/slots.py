"""The layers of a network that hold arrays, in the order of computation, with what a file format needs to know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..geometry import Shape
from ..layers import ConvTranspose, Flatten
from ..layers.function import Function
from ..tracing.api import trace
from ..tracing.node import Node, Trace


@dataclass(frozen=True)
class Slot:
    """One layer that holds arrays; a layer inside ``repeat`` is one for each copy.

    Attributes:
        path: its path in params and state.
        layer: the layer.
        params: the shapes of its parameters, by name.
        state: the shapes of its state, by name.
        copies: the number of the copy in each of the repeats around it.
        flattened: the shape (*space, channels) whose flattened form it sees; None: its input was not flattened.
    """

    path: str
    layer: Any
    params: dict[str, Shape] = field(hash=False)
    state: dict[str, Shape] = field(hash=False)
    copies: Shape = ()
    flattened: Shape | None = None

    @property
    def transposed(self) -> bool:
        """Whether its kernel is one of a transposed convolution."""
        return isinstance(self.layer, ConvTranspose)

    def get(self, tree: Any, name: str) -> Any:
        """One of its arrays from params or state."""
        for step in filter(None, self.path.split("/")):
            tree = tree[step]
        return tree[name][self.copies] if self.copies else tree[name]


def slots(net: Any, *shapes: Shape) -> list[Slot]:
    """The layers of a network that hold arrays; a shared layer once.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Conv(6, 3), fcnn.Flatten(), fcnn.Dense(2))
        >>> [(slot.path, slot.params["kernel"], slot.flattened) for slot in slots(net, (4, 4, 1))]
        [('conv1', (3, 3, 1, 6), None), ('dense1', (24, 2), (2, 2, 6))]
    """
    found: dict[tuple[str, Shape], Slot] = {}
    for slot in _walk(trace(net, *shapes), ()):
        found.setdefault((slot.path, slot.copies), slot)
    return list(found.values())


def _walk(traced: Trace, copies: Shape) -> Iterator[Slot]:
    makers = {number: node for node in traced.nodes for number in node.outputs}
    for node in traced.nodes:
        if node.params or node.state:
            yield Slot(
                node.home, node.layer, _shapes(traced, node.params), _shapes(traced, node.state), copies,
                _flattened(traced, makers, node),
            )  # fmt: skip
        elif node.inside:
            inner = next((n.copies for body in node.inside for n in body.nodes if n.copies), ())
            several = len(inner) > len(copies)
            for copy in range(inner[len(copies)]) if several else (None,):
                for body in node.inside:
                    yield from _walk(body, copies if copy is None else (*copies, copy))


def _shapes(traced: Trace, numbers: tuple[tuple[str, int], ...]) -> dict[str, Shape]:
    return {name: tuple(traced.shapes[number]) for name, number in numbers}


def _flattened(traced: Trace, makers: dict[int, Node], node: Node) -> Shape | None:
    """The shape whose flattened form a layer sees: back through what keeps each number in its place."""
    number = node.inputs[0]
    while number in makers:
        maker = makers[number]
        if len(maker.inputs) != 1:
            return None
        before, after = traced.shapes[maker.inputs[0]], traced.shapes[number]
        if len(after) == 1 and len(before) > 1:
            return tuple(before) if _flattens(maker) else None
        if before != after or (maker.params and "kernel" in dict(maker.params)):
            return None
        number = maker.inputs[0]
    return None


def _flattens(node: Node) -> bool:
    if isinstance(node.layer, Flatten):
        return True
    if node.layer is None:
        return node.primitive == "reshape"
    return isinstance(node.layer, Function) and [n.primitive for body in node.inside for n in body.nodes] == ["reshape"]
