"""The base of metrics: sums over examples, from which a metric of any number of batches is computed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import format_shape
from ..ops.dtypes import wide

#: sums over examples, by name; the sums of batches are added
Sums = dict[str, Any]


class Metric:
    """A metric that is computed from sums over examples. Subclass it as ``@dataclass(frozen=True)``.

    Attributes:
        mode: "max" if higher is better, "min" if lower is; None if neither is, as for a confusion matrix.
    """

    mode: ClassVar[str | None] = None

    def tally(self, outputs: Any, targets: Any, weights: Any = None) -> Sums | None:
        """Sums over a batch; None if the targets are class probabilities, as mixing augmentation makes them.

        Args:
            outputs: outputs of the network.
            targets: targets.
            weights: (batch,) or (batch, *space), numbers or bool; None: all are 1.
        """
        raise NotImplementedError(f"{type(self).__name__} has no tally(outputs, targets, weights)")

    def result(self, sums: Sums) -> Any:
        """The metric, a number or an array, from sums in NumPy or JAX."""
        raise NotImplementedError(f"{type(self).__name__} has no result(sums)")

    def __call__(self, outputs: Any, targets: Any, weights: Any = None) -> Any:
        """The metric of these examples."""
        sums = self.tally(jnp.asarray(outputs), jnp.asarray(targets), weights)
        if sums is None:
            raise ValueError(
                f"{type(self).__name__} needs labels, but the targets are class probabilities; use targets.argmax(-1)"
            )
        return self.result(sums)


def ratio(above: Any, below: Any, otherwise: float = np.nan) -> Any:
    """A quotient, and another value where the denominator is 0.

    Example:
        >>> ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0])).tolist()
        [0.5, nan]
    """
    xp = np if isinstance(above, (np.ndarray, np.generic, float, int)) else jnp
    above, below = xp.asarray(above), xp.asarray(below)
    if not jnp.issubdtype(above.dtype, jnp.floating):
        above = above.astype("float32" if xp is jnp else "float64")
    below = below.astype(above.dtype)
    there = below != 0
    return xp.where(there, above / xp.where(there, below, xp.ones_like(below)), xp.full_like(above, otherwise))


def weighted_sum(values: Any, weights: Any, examples: int, what: str) -> Sums:
    """The weighted sum of the values of a batch, and the sum of the weights.

    Args:
        values: one number for each example or each of its positions, (batch, ...), or one for the batch.
        weights: (batch,) or (batch, *space), floating point or bool; None: all are 1.
        examples: number of examples in the batch, the weight of a single number for the batch.
        what: name of the values in messages.

    Raises:
        ValueError: weights whose shape is not a leading part of the shape of the values.
    """
    if weights is None:
        if jnp.issubdtype(values.dtype, jnp.bool_):
            return {"sum": jnp.sum(values, dtype="int32"), "weight": jnp.asarray(values.size, "int32")}
        mean = jnp.mean(values, dtype=wide(values.dtype))
        return {"sum": mean * (values.size if values.ndim else examples), "weight": _count(values, examples, mean)}
    shape = tuple(weights.shape)
    if tuple(values.shape[: len(shape)]) != shape:
        raise ValueError(
            f"{what} has shape {format_shape(tuple(values.shape))}, but the weights or ignored labels have shape "
            f"{format_shape(shape)}; return one number for each of them, without a mean or sum"
        )
    broadcast = jnp.broadcast_to(weights.reshape(shape + (1,) * (values.ndim - len(shape))), values.shape)
    if jnp.issubdtype(values.dtype, jnp.bool_) and jnp.issubdtype(broadcast.dtype, jnp.bool_):
        return {"sum": jnp.sum(values & broadcast, dtype="int32"), "weight": jnp.sum(broadcast, dtype="int32")}
    dtype = wide(values.dtype)
    broadcast = broadcast.astype(dtype)
    counted = jnp.where(broadcast != 0, values.astype(dtype), jnp.zeros((), dtype))  # 0 times NaN is NaN
    return {"sum": jnp.sum(counted * broadcast), "weight": jnp.sum(broadcast)}


def _count(values: Any, examples: int, like: Any) -> Any:
    return jnp.asarray(values.size if values.ndim else examples, like.dtype)


@dataclass(frozen=True)
class Mean(Metric):
    """The mean of a function (outputs, targets) that returns one number for each example, or one for the batch."""

    function: Callable[[Any, Any], Any]
    name: str = "the metric"
    mode: str | None = None  # type: ignore[misc]

    def tally(self, outputs: Any, targets: Any, weights: Any = None) -> Sums:
        values = jnp.asarray(self.function(outputs, targets))
        check_shape(values, outputs, targets, self.name)
        return weighted_sum(values, weights, leading(targets), self.name)

    def result(self, sums: Sums) -> Any:
        return ratio(sums["sum"], sums["weight"])


@dataclass(frozen=True)
class Accumulator:
    """A metric that a user defines by (start, update, result), and by merge for several processes."""

    first: Any
    change: Callable[..., Any]
    finish: Callable[[Any], Any]
    merge: Callable[[Any, Any], Any] | None = None
    name: str = "the metric"
    mode: str | None = None

    def start(self) -> Any:
        """The initial accumulator."""
        made = self.first() if callable(self.first) else self.first
        return jax.tree.map(lambda a: jnp.array(np.asarray(a)), made)

    def update(self, before: Any, outputs: Any, targets: Any, weights: Any) -> Any:
        """The accumulator after a batch."""
        if weights is None:
            after = self.change(before, outputs, targets)
        else:
            if not _takes(self.change, 4):
                raise ValueError(
                    f"{self.name}: there are weights or ignored labels, but its update takes no weights; write "
                    "update(accumulator, outputs, targets, weights), where weights are 0 for ignored labels"
                )
            after = self.change(before, outputs, targets, weights)
        after = jax.tree.map(jnp.asarray, after)
        told = [jax.tree.map(lambda a: f"{a.dtype}{format_shape(a.shape)}", tree) for tree in (before, after)]
        if told[0] != told[1]:
            raise ValueError(
                f"{self.name}: update made {told[1]} of {told[0]}; it must keep the structure, shapes and dtypes of "
                "start: start from 0.0 for numbers, from 0 for counts"
            )
        return after


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a function without a signature
        return True
    return True


def leading(tree: Any) -> int:
    """The number of examples in a tree of arrays."""
    return jax.tree.leaves(tree)[0].shape[0]


def check_shape(values: Any, outputs: Any, targets: Any, what: str) -> None:
    """Raise if outputs and targets of different shapes were broadcast to one number for every pair of examples."""
    known = [tuple(a.shape) for a in jax.tree.leaves((outputs, targets))]
    shape = tuple(values.shape)
    if shape and not any(shape == other[: len(shape)] for other in known):
        of = [
            f"{name}{jax.tree_util.keystr(path)} of {format_shape(tuple(leaf.shape))}"
            for name, tree in (("outputs", outputs), ("targets", targets))
            for path, leaf in jax.tree.leaves_with_path(tree)
        ]
        raise ValueError(
            f"{what} has shape {format_shape(shape)} for {' and '.join(of)}; "
            "it must be one number, or one for each example: reshape the targets to the shape of the outputs"
        )


def are_labels(outputs: Any, targets: Any) -> bool:
    """Whether targets are integer labels of the classes that the last axis of the outputs scores."""
    return (
        hasattr(outputs, "ndim")
        and hasattr(targets, "ndim")
        and jnp.issubdtype(targets.dtype, jnp.integer)
        and outputs.ndim == targets.ndim + 1
        and outputs.shape[-1] > 1
    )


def is_binary(outputs: Any, targets: Any) -> bool:
    """Whether there is one score for each target, as in binary classification."""
    if (
        not hasattr(outputs, "ndim")
        or not hasattr(targets, "ndim")
        or jnp.issubdtype(targets.dtype, jnp.complexfloating)
    ):
        return False
    given, wanted = tuple(outputs.shape), tuple(targets.shape)
    return given in (wanted, (*wanted, 1))


def are_probabilities(outputs: Any, targets: Any) -> bool:
    """Whether targets are probabilities of the classes that the last axis of the outputs scores."""
    return (
        hasattr(outputs, "ndim")
        and hasattr(targets, "ndim")
        and outputs.shape == targets.shape
        and outputs.ndim > 1
        and outputs.shape[-1] > 1
        and jnp.issubdtype(targets.dtype, jnp.floating)
    )


def check_ignore(label: Any) -> int | None:
    """Raise unless it is None or an integer label.

    Raises:
        TypeError: anything else.
    """
    if label is None:
        return None
    if isinstance(label, (bool, np.bool_)) or not isinstance(label, (int, np.integer)):
        raise TypeError(f"ignore_label must be an integer label, such as 255 or -1, not {label!r}")
    return int(label)


def ignoring(labels: Any, ignore: int | None, weights: Any) -> tuple[Any, Any]:
    """Labels in which 0 replaces the ignored label, and weights that are 0 there.

    Example:
        >>> labels, weights = ignoring(jnp.array([3, 255]), 255, None)
        >>> labels.tolist(), weights.tolist()
        ([3, 0], [True, False])
    """
    if ignore is None or not jnp.issubdtype(labels.dtype, jnp.integer):
        return labels, weights
    limits = jnp.iinfo(labels.dtype)
    if not limits.min <= ignore <= limits.max:  # such as -1 for uint8
        return labels, weights
    there = labels != jnp.asarray(ignore, labels.dtype)
    labels = jnp.where(there, labels, jnp.zeros((), labels.dtype))
    return labels, multiplied(weights, there)


def multiplied(weights: Any, more: Any) -> Any:
    """The product of two arrays of weights, broadcast to the longer shape; None stands for weights of 1."""
    if weights is None or more is None:
        return more if weights is None else weights
    if weights.ndim < more.ndim:
        weights = weights.reshape(weights.shape + (1,) * (more.ndim - weights.ndim))
    else:
        more = more.reshape(more.shape + (1,) * (weights.ndim - more.ndim))
    if weights.dtype == bool and more.dtype == bool:
        return weights & more
    dtype = weights.dtype if weights.dtype != bool else more.dtype
    return weights.astype(dtype) * more.astype(dtype)
