"""Trace a network."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..errors import outermost_path
from ..geometry import Shape
from ..identity import cached
from .node import Trace
from .read import BATCH, trace_of
from .record import record


def trace(net: Any, *shapes: Shape, train: bool = False) -> Trace:
    """Split a network into its uses of layers and the single operations between them; nothing is computed.

    Compositions have no node of their own: the parts of a ``serial`` follow one another, and a ``residual`` ends in an
    addition, which is an operation. A ``repeat`` is a loop, an operation that contains the trace of its body. A
    ``Scan`` contains the trace of its network for one window, a function contains its operations. Users' own
    compositions are traced in the same way.

    Args:
        net: the network.
        shapes: shape of one example of each input.
        train: whether to trace the network in training mode, including its new state.

    Returns:
        The trace; it prints as a table.

    Raises:
        ValueError: the shapes do not suit the network.
        TypeError: not a network, or not a shape.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Conv(6, 5), jax.nn.relu, fcnn.residual(fcnn.Conv(6, 1)), fcnn.GlobalAvgPool())
        >>> for node in trace(net, (28, 28, 1)):
        ...     print(node.path, node.what, node.inputs, node.outputs, node.shapes)
        conv1 fcnn.Conv(6, 5) (4,) (5,) ((24, 24, 6),)
        relu1 jax.nn.relu (5,) (6,) ((24, 24, 6),)
        residual1/body fcnn.Conv(6, 1) (6,) (7,) ((24, 24, 6),)
        residual1 add (7, 6) (8,) ((24, 24, 6),)
        global_avg_pool1 fcnn.GlobalAvgPool() (8,) (9,) ((6,),)
    """
    if not hasattr(net, "check_shapes"):
        raise TypeError(f"trace: {net!r} is not a network; make one by fcnn.serial(...) or a layer")
    with outermost_path(net.label):
        checked = net.check_shapes(shapes)
        net.infer_shape(*checked)
    return _traced(net, checked, bool(train), jnp.zeros(()).dtype.name)


@cached(maxsize=64)
def _traced(net: Any, shapes: tuple[Shape, ...], train: bool, dtype: str) -> Trace:
    return trace_of(record(net, shapes, train=train, batch=BATCH, dtype=jnp.dtype(dtype)))
