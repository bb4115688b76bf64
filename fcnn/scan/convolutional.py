"""The network of convolutions that is equivalent to a network for one window, or to a scan."""

from __future__ import annotations

import dataclasses
from math import prod

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ..compose.parts import lift
from ..compose.serial import Serial
from ..errors import format_shape, outermost_path
from ..geometry import Shape
from ..identity import nearest
from ..layer import Layer
from ..layers import Flatten
from ..types import Params, State
from .activation_layout import FIELD, POINT, RewriteOptions, Rewritten
from .cascade import as_cascade
from .fields import Cropped
from .layer import Scan
from .rewrite import rewrite
from .sample_grid import SampleGrid


def fully_convolutional(
    net: Layer, params: Params, shape: Shape, *, state: State | None = None
) -> tuple[Layer, Params]:
    """Convert a network to convolutions, poolings and pointwise functions only.

    - A classifier with a flatten and dense head: the first dense layer after ``Flatten`` becomes a convolution over the
      whole remaining space, global pooling becomes pooling over it, and later dense layers are applied at every
      position. On an input of ``shape`` the output is the network's own, at one position. On a larger input the output
      is a map, sampled at the product of the network's strides. Layers with padding stay as they are and pad whatever
      input they receive, so the map of a padded network equals the scanned one only away from the borders.
    - A ``Scan``: the same values as ``scan.apply`` on an input of ``shape``. The layers after a stride inside the
      window are dilated, so that no position is skipped.
    - An MLP whose first matrices are copies of one block, shifted and zero elsewhere (a scan that has been distributed
      over layers): the equivalent cascade of convolutions, see :func:`fcnn.scan.as_cascade`.

    Args:
        net: the network.
        params: its parameters.
        shape: shape of one example, (*space, channels).
        state: its state; only its structure and shapes are used.

    Returns:
        The network, of ordinary layers under the same names, and its parameters: the same arrays, except that the
        kernels of dense layers that have become convolutions have the shape (*kernel, channels, features). Both
        networks use the same state.

    Raises:
        ValueError: if a layer cannot be written as a convolution; the message names it and says why.

    Source:
        Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", 2015, section 3.1;
        Sermanet et al., "OverFeat", 2014, section 3.5.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Conv(6, 5), fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(10))
        >>> conv, converted = fully_convolutional(net, net.init(jax.random.key(0), (28, 28, 1)), (28, 28, 1))
        >>> conv
        fcnn.serial(fcnn.Conv(6, 5), fcnn.MaxPool(2), dense1=fcnn.Conv(10, 12))
        >>> converted["dense1"]["kernel"].shape, conv.out_shape((28, 28, 1)), conv.out_shape((64, 64, 1))
        ((12, 12, 6, 10), (1, 1, 10), (19, 19, 10))
    """
    with outermost_path("fully_convolutional"):
        net = lift(net)
        (shape,) = net.check_shapes((shape,))
        one = jax.ShapeDtypeStruct((1, *shape), jnp.zeros(()).dtype)
        given = jax.eval_shape(lambda: net.init_state(shape)) if state is None else state
        jax.eval_shape(lambda p, s, x: net.apply(p, x, state=s), params, given, one)
        if nearest(net, (Scan,)) is not None:
            scan = dataclasses.replace(net, method="layers")  # type: ignore[type-var]
            cascade = _distributed(scan.net, params, scan.placed(shape)[1])
            if cascade is not None:
                scan, params = dataclasses.replace(scan, net=cascade[0]), cascade[1]
            made = scan.rewritten(shape)
        else:
            if len(shape) < 2:
                raise ValueError(
                    f"takes a shape (*space, channels), {format_shape(shape)} has no space to convolve over"
                )
            cascade = _distributed(net, params, shape)
            if cascade is not None:
                return cascade
            space, ones = shape[:-1], (1,) * (len(shape) - 1)
            made = rewrite(
                net, shape, SampleGrid(ones, (0,) * len(space), space, ones), space, RewriteOptions(whole=True)
            )
        return _ended(made, shape), made.convert(params)


def _ended(made: Rewritten, shape: Shape) -> Layer:
    """The network that gives one vector at each position, cropped to the scanned positions."""
    layout, grid = made.layout, made.layout.grid
    vector = grid.single if layout.kind == FIELD else layout.kind == POINT and len(layout.shape) == 1
    if not vector and grid.positions != (1,) * grid.rank:
        raise ValueError(
            f"the network's output for each window is {format_shape(layout.shape)}, more than one vector; put Flatten "
            "and Dense, or global pooling, at its end"
        )
    if made.net.infer_shape(shape)[:-1] == grid.positions or not grid.stride[0]:
        return made.net
    return Cropped(made.net, grid.positions)


def _distributed(net: Layer, params: Params, shape: Shape) -> tuple[Layer, Params] | None:
    """The cascade equivalent to an MLP with block-shared weights; None if it is not an MLP or shares no weights."""
    chain = isinstance(net, Serial) and len(shape) > 1 and nearest(net.parts[0][1], (Flatten,)) is not None
    if not chain or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(params)):
        return None
    try:
        cascade, found = as_cascade(net, params, shape)
    except ValueError:  # not an MLP; the general rules give a better message
        return None
    outs = [layer.infer_shape(shape) for _, layer in cascade.parts[:1]]
    return (cascade, found) if any(prod(out[:-1]) > 1 for out in outs) else None
