"""A traced network: its values, the nodes that make them, and how it prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax

from .. import names
from ..errors import format_shape
from ..geometry import Shape
from ..tables import Table, Tabular

HEADER = ("", "path", "what", "from", "output")


@dataclass(frozen=True)
class Node:
    """One use of a layer, or one operation of a function or wiring.

    Attributes:
        path: where it stands in the network; the second use of a shared layer is ``"name#2"``.
        layer: the layer; None for an operation.
        primitive: the name of JAX's primitive; None for a layer.
        settings: the primitive's parameters, by name.
        inputs: the numbers of the values that it takes.
        outputs: the numbers of the values that it makes.
        shapes: shapes of one example of its outputs.
        params: the numbers of its parameters, by their names in its entry of params.
        state: the numbers of its state, likewise.
        new_state: the numbers of its state after it, in training.
        copies: in loops whose turns have parameters of their own, as those of ``repeat``, how many there are; the
            outermost loop first.
        positions: windows along each axis of the scans around it.
        inside: traces of what it runs: the body of a loop, the branches of a condition, the network of a ``Scan``, the
            operations of a function.
        arguments: the numbers of all that the equation takes, also what a loop does not use.
        equation: the equation of JAX's program that it was read from.
    """

    path: str
    layer: Any
    primitive: str | None
    settings: tuple[tuple[str, Any], ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shapes: tuple[Shape, ...]
    params: tuple[tuple[str, int], ...] = ()
    state: tuple[tuple[str, int], ...] = ()
    new_state: tuple[tuple[str, int], ...] = ()
    copies: Shape = ()
    positions: Shape = ()
    inside: tuple[Trace, ...] = ()
    arguments: tuple[int, ...] = field(default=(), repr=False)
    equation: Any = field(default=None, compare=False, repr=False)

    @property
    def home(self) -> str:
        """The path of its entry in params and state: that of the first use of a shared layer."""
        return "/".join(step.split("#")[0] for step in self.path.split("/"))

    @property
    def what(self) -> str:
        """The layer as code, or the name of the operation."""
        return names.code(self.layer) if self.layer is not None else str(self.primitive)

    def own(self, tree: Any) -> Any:
        """The entry of this node in params or state.

        Args:
            tree: params or state of the network; inside loops and scans as well.
        """
        for step in filter(None, self.home.split("/")):
            tree = tree.get(step, {})
        return tree


@dataclass(frozen=True, repr=False)
class Trace(Tabular):
    """What :func:`fcnn.trace` returns: a network as a list of nodes in the order of computation.

    Values have numbers from 0; ``shapes[n]`` and ``dtypes[n]`` are those of value n.

    Attributes:
        nodes: the nodes.
        inputs: the numbers of the network's inputs; in the body of a loop, those of what changes from turn to turn.
        outputs: the numbers of its outputs; in the body of a loop, of what is carried to the next turn.
        rest: the numbers of what the body of a loop gives beside that, turn by turn.
        shapes: shape of one example of every value; of parameters and of what is computed of them alone, the shape.
        dtypes: dtype of every value.
        batched: of every value, whether its first axis is the batch, which ``shapes`` leaves out.
        params: the paths of the values that are parameters.
        state: the paths of the values that are state.
        new_state: in training, the numbers of the new state, by path.
        constants: the values that functions and wirings hold, by number.
        batch: number of examples that the operations were traced with.
        form: the structure of the output.
        jaxpr: JAX's program that it was read from.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    rest: tuple[int, ...]
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    batched: tuple[bool, ...]
    params: tuple[tuple[int, str], ...]
    state: tuple[tuple[int, str], ...]
    new_state: tuple[tuple[str, int], ...]
    constants: tuple[tuple[int, Any], ...] = field(compare=False, repr=False)
    batch: int
    form: Any
    jaxpr: Any = field(compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, path: str) -> Node:
        """The layer's use with a path, also inside loops and scans."""
        for node in self.walk():
            if node.path == path and node.layer is not None:
                return node
        known = ", ".join(dict.fromkeys(node.path for node in self.walk() if node.layer is not None))
        raise KeyError(f"the trace has no layer {path!r}; its layers are {known}")

    def walk(self) -> Iterator[Node]:
        """Every node; those inside a loop or scan follow it. What is inside a function stays there."""
        for node in self.nodes:
            yield node
            if node.layer is None or node.positions or any(inner.uses_layers for inner in node.inside):
                for inner in node.inside:
                    yield from inner.walk()

    @property
    def uses_layers(self) -> bool:
        """Whether any node is a layer."""
        return any(node.layer is not None for node in self.walk())

    def cells(self, indent: str = "") -> list[tuple[str, ...]]:
        """The nodes as rows of text."""
        rows = []
        for node in self.nodes:
            made = ", ".join(map(str, node.outputs))
            taken = ", ".join(map(str, node.inputs))
            copies = "".join(f"{n} x " for n in node.copies)
            shapes = ", ".join(map(format_shape, node.shapes))
            rows.append((indent + made, node.path, _brief(node.what), taken, copies + shapes))
            if node.layer is None or node.positions:
                for inner in node.inside:
                    rows += inner.cells(indent + "  ")
        return rows

    def _caption(self) -> str:
        given = ", ".join(f"{n} {format_shape(self.shapes[n])}" for n in self.inputs)
        return f"input {given}; output {', '.join(map(str, self.outputs))}"

    def table(self) -> Table:
        return Table(HEADER, self.cells(), self._caption())

    @property
    def output(self) -> Any:
        """The numbers of the outputs, in the form of the network's output."""
        return jax.tree.unflatten(self.form, self.outputs)


def _brief(text: str, width: int = 44) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
