"""Targets and loss of a network, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..errors import format_shape
from ..labels import check_labels
from ..native import native


def check_targets(y: Any, outputs: Any, loss: Any) -> tuple[Any, Callable[[Any, Any], Any]]:
    """The targets as arrays, and the loss as a function.

    Args:
        y: targets; for a network with several outputs, an array or a tuple or dict of arrays.
        outputs: the shapes and dtypes of the network's outputs.
        loss: (outputs, targets) to one number per example, or one for the batch; None: softmax cross-entropy with
            integer labels.

    Raises:
        ValueError: if there are several outputs and no loss, the labels do not match the outputs in shape or are not
            valid classes, or the loss does not return an array.
        TypeError: if targets are not arrays, labels are not integers, or the loss is not a function.
    """
    if loss is not None and not callable(loss):
        raise TypeError(
            f"loss is {loss!r}, it must be a function of (outputs, targets), such as optax.losses.squared_error"
        )
    one = hasattr(outputs, "shape")
    if loss is None and not one:
        raise ValueError(
            f"the network gives several outputs, {jax.tree.map(lambda a: a.shape, outputs)}, and softmax cross-entropy "
            "takes one; give loss=, a function of (outputs, targets)"
        )
    try:  # for several outputs, a list is one array; a tuple or dict holds several
        y = native(y, "y")
        y = (
            jnp.asarray(y)
            if one
            else jax.tree.map(lambda a: jnp.asarray(native(a, "y")), y, is_leaf=lambda value: isinstance(value, list))
        )
    except (TypeError, ValueError):
        raise TypeError(f"y must be an array of targets, not {y!r}") from None
    if loss is None:
        if y.shape[:1] != outputs.shape[:1]:
            raise ValueError(
                f"y has shape {format_shape(y.shape)}, but outputs {format_shape(outputs.shape)} need labels of shape "
                f"{format_shape(outputs.shape[:-1])}; give loss= for other targets"
            )
        check_labels(y, tuple(outputs.shape[1:]), parts=() if isinstance(y, Tracer) else (np.asarray(y),))
        from optax import losses  # slow to import, and needed only here

        return y, losses.softmax_cross_entropy_with_integer_labels
    made = jax.eval_shape(lambda outputs: loss(outputs, y), outputs)
    if not hasattr(made, "shape"):
        raise ValueError(
            f"loss returned a {type(made).__name__}, it must return an array: one number for each example, or one for "
            "the batch"
        )
    return y, loss
