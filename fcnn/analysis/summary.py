"""A network as a table: the output shape and number of parameters of each part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .. import names
from ..context import Kept, Observed
from ..errors import format_shape
from ..geometry import Shape
from ..layer import Context, Layer
from ..tables import Table, Tabular

HEADER = ("layer", "what it is", "output", "parameters")


@dataclass(frozen=True)
class Row:
    """One use of one layer.

    Attributes:
        path: its path in the network, as in params.
        layer: the layer.
        output: shape of one example of its output.
        copies: how many copies of the layer ``repeat`` runs; () for one.
        parameters: number of parameters of all copies; 0 in every use after the first.
        shared: whether this is a second or later use of the same layer.
    """

    path: str
    layer: Layer
    output: Any
    copies: Shape
    parameters: int
    shared: bool


@dataclass(frozen=True, repr=False)
class Summary(Tabular):
    """The result of :func:`summary`; prints as a table in a terminal and in a notebook.

    Attributes:
        rows: one for each use of each layer, in the order of computation.
        shapes: shapes of one example of each input.
        parameters: number of entries of params.
        state: number of entries of state.
        bytes: memory of params in bytes.
    """

    rows: tuple[Row, ...]
    shapes: tuple[Shape, ...]
    parameters: int
    state: int
    bytes: int

    def cells(self) -> list[tuple[str, str, str, str]]:
        """The rows as text."""
        return [
            (
                row.path,
                _brief(row.layer),
                "".join(f"{n} x " for n in row.copies) + _shapes(row.output),
                "shared" if row.shared else f"{row.parameters:,}" if row.parameters else "",
            )
            for row in self.rows
        ]

    def _caption(self) -> tuple[str, str]:
        first = "input " + ", ".join(map(format_shape, self.shapes))
        state = f", {self.state:,} numbers of state" if self.state else ""
        return first, f"{self.parameters:,} parameters ({self.bytes / 1024:,.1f} KiB){state}"

    def table(self) -> Table:
        above, below = self._caption()
        return Table(HEADER, self.cells(), above, below, right=(3,))


def summary(net: Layer, shape: Shape, *more_shapes: Shape) -> Summary:
    """Tabulate a network: every layer with its path, output shape and number of parameters.

    Nothing is computed. A layer that is used several times is counted once.

    Args:
        net: the network.
        shape: shape of one example, (*space, channels).
        more_shapes: shapes of further inputs.

    Returns:
        The table.

    Raises:
        ValueError: if the shape does not fit the network.

    Example:
        >>> import fcnn
        >>> table = summary(fcnn.serial(fcnn.Conv(6, 5), jax.nn.relu, fcnn.GlobalAvgPool()), (28, 28, 1))
        >>> print(table)
        input (28, 28, 1)
        layer             what it is            output       parameters
        ---------------------------------------------------------------
        conv1             fcnn.Conv(6, 5)       (24, 24, 6)         156
        relu1             jax.nn.relu           (24, 24, 6)
        global_avg_pool1  fcnn.GlobalAvgPool()  (6,)
        ---------------------------------------------------------------
        156 parameters (0.6 KiB)
    """
    shapes = (shape, *more_shapes)
    key = jax.random.key(0)
    params = jax.eval_shape(lambda: net.init(key, *shapes))
    state = jax.eval_shape(lambda: net.init_state(*shapes))
    context = Context(train=False, observer=lambda seen: Observed(kept=seen.output), plan=False)
    inputs = [jax.ShapeDtypeStruct((1, *s), jnp.zeros(()).dtype) for s in net.check_shapes(shapes)]
    jax.eval_shape(
        lambda params, state, *inputs: net.start_walk(context, params, state, inputs), params, state, *inputs
    )
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    rows = _rows(context.kept, params)
    return Summary(rows, net.check_shapes(shapes), _count(params), _count(state), size)


def _rows(uses: list[Kept], params: Any) -> tuple[Row, ...]:
    rows, counted = [], set()
    for use in uses:
        if any(other.path.startswith(use.path + "/") for other in uses):
            continue  # a composition is shown by its parts
        home = "/".join(step.split("#")[0] for step in use.path.split("/") if step)
        own = 0 if home in counted else _count(_inside(params, home))
        first = len(use.copies) + 1
        output = jax.tree.map(lambda a, first=first: tuple(a.shape[first:]), use.value)
        path = use.path or use.layer.label
        rows.append(Row(path, use.layer, output, use.copies, own, home in counted))
        counted.add(home)
    return tuple(rows)


def _inside(params: dict[str, Any], path: str) -> Any:
    found: Any = params
    for step in filter(None, path.split("/")):
        found = found.get(step, {})
    return found


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _brief(layer: Layer, width: int = 44) -> str:
    text = names.code(layer)
    return text if len(text) <= width else text[: width - 3] + "..."


def _shapes(output: Any) -> str:
    shapes = jax.tree.leaves(
        output, is_leaf=lambda leaf: isinstance(leaf, tuple) and all(isinstance(n, int) for n in leaf)
    )
    return ", ".join(map(format_shape, shapes))
