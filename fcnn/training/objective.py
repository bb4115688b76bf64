"""What training minimises, what is reported beside it, and whether data suit a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import shown
from ..geometry import Shape
from ..layer import Layer
from ..ops.dtypes import together, wide

#: (outputs, targets) -> one number for each example, or one for the batch
Loss = Callable[[Any, Any], jax.Array]
#: likewise, for a number that is reported and not minimised
Metric = Callable[[Any, Any], jax.Array]


def cross_entropy(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    r"""Softmax cross-entropy, computed in float32 or wider.

    .. math:: \ell = -\log \frac{e^{z_y}}{\sum_k e^{z_k}}

    Args:
        outputs: scores z, (batch, *space, classes).
        labels: classes y, (batch, *space), integers; or distributions over the classes, (batch, *space, classes),
            as augmentation makes them that mixes examples.

    Returns:
        The loss of every label, (batch, *space), by ``optax.losses``.

    Example:
        >>> print(f"{cross_entropy(jnp.zeros((1, 10)), jnp.array([3])).item():.4f}")
        2.3026
    """
    from optax import losses

    outputs = outputs.astype(wide(outputs.dtype))
    if jnp.issubdtype(labels.dtype, jnp.floating) and labels.shape == outputs.shape:
        return losses.softmax_cross_entropy(outputs, labels.astype(outputs.dtype))
    return losses.softmax_cross_entropy_with_integer_labels(outputs, labels)


def measure(
    loss: Loss, outputs: Any, targets: Any, metrics: tuple[tuple[str, Metric], ...] = ()
) -> dict[str, jax.Array]:
    """Mean loss of a batch, its accuracy where the targets are labels of classes, and what else is asked for.

    Args:
        loss: as for ``fit``.
        outputs: what the network gave; bfloat16 and float16 are measured in float32.
        targets: what was wanted.
        metrics: pairs of a name and a function (outputs, targets) to a number, or one for each example.

    Returns:
        {"loss": ..., "accuracy": ...}; no accuracy where outputs are not one score for each class.

    Example:
        >>> measure(cross_entropy, jnp.array([[0.0, 9.0], [0.0, 9.0]]), jnp.array([1, 0]))["accuracy"].item()
        0.5
    """
    outputs = jax.tree.map(lambda a: a.astype(wide(a.dtype)) if jnp.issubdtype(a.dtype, jnp.floating) else a, outputs)
    losses = jnp.asarray(loss(outputs, targets))
    _check_losses(losses, outputs, targets)
    found = {"loss": jnp.mean(losses, dtype=wide(losses.dtype))}
    if are_labels(outputs, targets):
        # labels of few bits are widened: 259 is not 3
        said, labels = together(jnp.argmax(outputs, -1), targets)
        found["accuracy"] = jnp.mean(said == labels, dtype=jnp.float32)
    for name, metric in metrics:
        values = jnp.asarray(metric(outputs, targets))
        _check_losses(values, outputs, targets, f"the metric {name}")
        found[name] = jnp.mean(values, dtype=wide(values.dtype))
    return found


def are_labels(outputs: Any, targets: Any) -> bool:
    """Whether targets count classes that the last axis of the outputs scores."""
    return (
        hasattr(outputs, "ndim")
        and hasattr(targets, "ndim")
        and jnp.issubdtype(targets.dtype, jnp.integer)
        and outputs.ndim == targets.ndim + 1
        and outputs.shape[-1] > 1
    )


def _check_losses(losses: jax.Array, outputs: Any, targets: Any, what: str = "the loss") -> None:
    """Raise where outputs and targets of unlike shapes were broadcast to a loss for every pair of examples."""
    shapes = [tuple(a.shape) for a in (outputs, targets) if hasattr(a, "shape")]
    if losses.shape and not any(losses.shape == shape[: losses.ndim] for shape in shapes):
        raise ValueError(
            f"{what} has shape {shown(losses.shape)} for {' and '.join(map(shown, shapes))} of outputs and targets; "
            "it must be one number, or one for each example: give targets the shape of the outputs"
        )


def check_net(net: Any) -> None:
    """Raise unless net is a layer."""
    if not isinstance(net, Layer):
        raise TypeError(f"net must be a layer, not {net!r}; make one of a function by fcnn.serial")


def check_metrics(metrics: Any) -> tuple[tuple[str, Metric], ...]:
    """Raise unless metrics are functions by name; returns them as pairs."""
    if metrics is None:
        return ()
    if not isinstance(metrics, dict) or not all(isinstance(name, str) for name in metrics):
        raise TypeError(f"metrics must be a dict from a name to a function (outputs, targets), not {metrics!r}")
    for name, metric in metrics.items():
        if name in ("loss", "accuracy", "seconds", "skipped") or name.startswith("validation_"):
            raise ValueError(f"metrics: the name {name!r} is taken; use another")
        if not callable(metric):
            raise TypeError(f"metrics: {name} must be a function (outputs, targets), not {metric!r}")
    return tuple(metrics.items())


def check_data(net: Layer, data: Any, what: str, loss: Loss | None) -> tuple[tuple[Any, ...], Any]:
    """Raise unless data are (x, y) that the network and the loss can take; returns x as a tuple, and y.

    Raises:
        TypeError: not a pair of arrays, or labels that are not integers where the default loss needs them.
        ValueError: different numbers of examples, no examples, inputs that do not suit the network, or labels
            outside the classes.
    """
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        said = f" of {len(data)}" if isinstance(data, (tuple, list)) else ""
        raise TypeError(f"{what} must be a pair (x, y) of arrays, not a {type(data).__name__}{said}")
    x, y = data[0], plain_array(data[1])
    inputs = tuple(map(plain_array, x)) if isinstance(x, (tuple, list)) else (plain_array(x),)
    arrays = {**{f"x[{i}]" if len(inputs) > 1 else "x": a for i, a in enumerate(inputs)}, "y": y}
    for name, array in arrays.items():
        if not hasattr(array, "shape") or not hasattr(array, "dtype"):
            raise TypeError(f"{what}: {name} must be an array, not a {type(array).__name__}; use numpy.asarray")
        if not array.shape:
            raise ValueError(f"{what}: {name} is a single number; its first axis must count the examples")
        if np.dtype(array.dtype).kind in "OSUMm":
            raise TypeError(f"{what}: {name} has dtype {array.dtype}; make numbers of it")
    counts = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} in {name}" for name, count in counts.items())
        raise ValueError(f"{what}: different numbers of examples ({listed}); every array has one for each")
    if not y.shape[0]:
        raise ValueError(f"{what}: there are no examples")
    out = _out_shape(net, tuple(tuple(a.shape[1:]) for a in inputs))
    if loss is None or (getattr(loss, "scores_classes", False) and jnp.issubdtype(y.dtype, jnp.integer)):
        _check_labels(y, out, what)
    return inputs, y


def plain_array(array: Any) -> Any:
    """An array of another library as NumPy's; whatever is none is left for the checks."""
    if isinstance(array, (np.ndarray, jax.Array)) or not hasattr(array, "__array__"):
        return array
    return np.asarray(array)


@lru_cache(maxsize=64)
def _out_shape(net: Layer, shapes: tuple[Shape, ...]) -> Any:
    """``net.out_shape``, which walks through the network; every batch of a loader asks."""
    return net.out_shape(*shapes)


def _check_labels(y: Any, out: Any, what: str) -> None:
    if not jnp.issubdtype(y.dtype, jnp.integer):
        way_out = "y.astype('int32')" if y.dtype == bool else "y.argmax(-1) for one-hot targets"
        raise TypeError(
            f"{what}: y has dtype {y.dtype}, the default loss takes integer labels; "
            f"use {way_out}, or give a loss such as optax.losses.squared_error"
        )
    if not isinstance(out, tuple) or tuple(y.shape[1:]) != out[:-1]:
        raise ValueError(
            f"{what}: y has shape {shown(tuple(y.shape))}, but for one example the network gives {out}; "
            "the default loss needs a score for each class on the last axis and a label for all other positions: "
            "end the network in Flatten or global pooling and Dense(classes), or give a loss"
        )
    low, high = int(np.min(np.asarray(y))), int(np.max(np.asarray(y)))
    if low < 0 or high >= out[-1]:
        raise ValueError(
            f"{what}: labels run from {low} to {high}, the network scores classes 0 to {out[-1] - 1}; "
            f"give the last layer {high + 1} features, or count labels from 0"
        )
