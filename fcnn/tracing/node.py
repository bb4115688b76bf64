"""A traced network: its values, the nodes that compute them, and its printed form."""

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
        path: its path in the network; the second use of a shared layer is ``"name#2"``.
        layer: the layer; None for an operation.
        primitive: the name of JAX's primitive; None for a layer.
        settings: the primitive's parameters, by name.
        inputs: the numbers of its input values.
        outputs: the numbers of its output values.
        shapes: shapes of one example of its outputs.
        params: the numbers of its parameters, by their names in its entry of params.
        state: the numbers of its state, likewise.
        new_state: the numbers of its updated state, in training.
        copies: numbers of iterations of the loops around it whose iterations have their own parameters, such as
            ``repeat``; the outermost loop first.
        positions: windows along each axis of the scans around it.
        inside: traces of the programs that it runs: the body of a loop, the branches of a condition, the network of a
            ``Scan``, the operations of a function.
        arguments: the numbers of all inputs of the equation, including those that a loop does not use.
        equation: the equation of the jaxpr that it was read from.
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
        """The path of its entry in params and state; all uses of a shared layer have the path of the first use."""
        return "/".join(step.split("#")[0] for step in self.path.split("/"))

    @property
    def what(self) -> str:
        """The layer as code, or the name of the operation."""
        return names.code(self.layer) if self.layer is not None else str(self.primitive)

    def own(self, tree: Any) -> Any:
        """The entry of this node in params or state.

        Args:
            tree: params or state of the whole network, also for nodes inside loops and scans.
        """
        for step in filter(None, self.home.split("/")):
            tree = tree.get(step, {})
        return tree


@dataclass(frozen=True, repr=False)
class Trace(Tabular):
    """The result of :func:`fcnn.trace`: a network as a list of nodes in the order of computation.

    Values are numbered from 0; ``shapes[n]`` and ``dtypes[n]`` are those of value n.

    Attributes:
        nodes: the nodes.
        inputs: the numbers of the network's inputs; in the body of a loop, of the values that change with every
            iteration.
        outputs: the numbers of the outputs; in the body of a loop, of the values carried to the next iteration.
        rest: in the body of a loop, the numbers of the other outputs of each iteration.
        shapes: shape of one example of every value; for parameters and values computed from them alone, the full shape.
        dtypes: dtype of every value.
        batched: for every value, whether its first axis is the batch, which ``shapes`` omits.
        params: the numbers and paths of the values that are parameters.
        state: the numbers and paths of the values that are state.
        new_state: in training, the paths and numbers of the new state.
        constants: the numbers and values of constants in functions and wirings.
        batch: number of examples that the operations were traced with.
        form: the structure of the output.
        jaxpr: the jaxpr that the trace was read from.
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
        """The use of a layer with this path, also inside loops and scans."""
        for node in self.walk():
            if node.path == path and node.layer is not None:
                return node
        known = ", ".join(dict.fromkeys(node.path for node in self.walk() if node.layer is not None))
        raise KeyError(f"the trace has no layer {path!r}; its layers are {known}")

    def walk(self) -> Iterator[Node]:
        """Every node; nodes inside a loop or scan follow it. The operations inside a function are not visited."""
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
        """The numbers of the outputs, in the structure of the network's output."""
        return jax.tree.unflatten(self.form, self.outputs)


def _brief(text: str, width: int = 44) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
