"""Metrics of labels of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from ..errors import format_shape
from ..ops.dtypes import together
from .metric import (
    Metric,
    Sums,
    are_labels,
    are_probabilities,
    check_ignore,
    ignoring,
    is_binary,
    leading,
    ratio,
    weighted_sum,
)


@dataclass(frozen=True)
class _Classes(Metric):
    """The base of metrics of labels.

    Attributes:
        ignore_label: a label to leave out.
    """

    ignore_label: int | None = None

    def __post_init__(self) -> None:
        check_ignore(self.ignore_label)

    def pairs(self, outputs: Any, targets: Any, weights: Any) -> tuple[Any, Any, Any, int] | None:
        """Predicted and true class of every label, their weights, and the number of classes; None for probabilities."""
        if are_probabilities(outputs, targets):
            return None
        if is_binary(outputs, targets):
            predicted = (outputs.reshape(targets.shape) > 0).astype("int32")
            classes = 2
        elif are_labels(outputs, targets):
            predicted, classes = jnp.argmax(outputs, -1).astype("int32"), outputs.shape[-1]
        else:
            given = [f"{kind}{format_shape(tuple(a.shape))}" for a in (outputs, targets) for kind in (str(a.dtype),)]
            raise ValueError(
                f"{type(self).__name__} needs scores (batch, *space, classes) and integer labels (batch, *space), or "
                f"one score for each label of 0 or 1, not {given[0]} and {given[1]}; reshape them"
            )
        labels, weights = ignoring(targets, self.ignore_label, weights)
        if labels.dtype == bool:
            labels = labels.astype("int32")
        # without widening, 259 would become 3 in 8 bits
        predicted, labels = together(predicted, labels)
        return predicted, labels, _for_labels(weights, labels.shape), classes


def _for_labels(weights: Any, shape: tuple[int, ...]) -> Any:
    if weights is None:
        return None
    return jnp.broadcast_to(weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim)), shape)


def _counted(places: Any, weights: Any, length: int) -> Any:
    """For each of 0, 1, ..., length - 1 the total weight of its occurrences in ``places``."""
    places = places.reshape(-1)
    if weights is None or weights.dtype == bool:
        if weights is not None:
            places = jnp.where(weights.reshape(-1), places, length)
        return jnp.zeros(length, "int32").at[places].add(1, mode="drop")
    weights = weights.reshape(-1)
    return jnp.zeros(length, weights.dtype).at[places].add(weights, mode="drop")


@dataclass(frozen=True)
class Accuracy(_Classes):
    """What :func:`accuracy` and :func:`top_k` return."""

    k: int = 1
    mode: ClassVar[str | None] = "max"

    def tally(self, outputs: Any, targets: Any, weights: Any = None) -> Sums | None:
        found = self.pairs(outputs, targets, weights)
        if found is None:
            return None
        predicted, labels, weights, classes = found
        right = predicted == labels
        if self.k > 1:
            if not are_labels(outputs, targets):
                raise ValueError(
                    f"top_k({self.k}) needs a score for each class: end the network in outputs (batch, *space, classes)"
                )
            # the rank of the label's score; ties are broken in favour of lower classes, as in argmax
            place = jnp.clip(labels, 0, classes - 1).astype("int32")[..., None]
            own = jnp.take_along_axis(outputs, place, -1)
            behind = (outputs < own) | ((outputs == own) & (jnp.arange(classes, dtype="int32") >= place))
            right = (jnp.sum(~behind, -1, dtype="int32") < self.k) & (labels >= 0) & (labels < classes)
        return weighted_sum(right, weights, leading(targets), "accuracy")

    def result(self, sums: Sums) -> Any:
        return ratio(sums["sum"], sums["weight"])


@dataclass(frozen=True)
class ConfusionMatrix(_Classes):
    """What :func:`confusion_matrix` returns."""

    def tally(self, outputs: Any, targets: Any, weights: Any = None) -> Sums | None:
        found = self.pairs(outputs, targets, weights)
        if found is None:
            return None
        predicted, labels, weights, classes = found
        inside = (labels >= 0) & (labels < classes)
        place = jnp.where(inside, labels * classes + predicted, classes**2)
        return {"count": _counted(place, weights, classes**2).reshape(classes, classes)}

    def result(self, sums: Sums) -> Any:
        return sums["count"]


#: how the values of the classes are averaged
AVERAGES = ("macro", "micro", "weighted", "binary", None)


@dataclass(frozen=True)
class ByClass(_Classes):
    """What :func:`precision`, :func:`recall`, :func:`f1` and :func:`iou` return."""

    kind: str = "f1"
    average: str | None = "macro"
    mode: ClassVar[str | None] = "max"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.average not in AVERAGES:
            raise ValueError(f"average is {self.average!r}, expected one of {', '.join(map(repr, AVERAGES))}")

    def tally(self, outputs: Any, targets: Any, weights: Any = None) -> Sums | None:
        found = self.pairs(outputs, targets, weights)
        if found is None:
            return None
        predicted, labels, weights, classes = found
        if self.average == "binary" and classes != 2:
            raise ValueError(f"average='binary' is for two classes, but the network scores {classes}; use 'macro'")
        correct = jnp.where(predicted == labels, labels, classes)
        return {
            "correct": _counted(correct, weights, classes),
            "predicted": _counted(predicted, weights, classes),
            "labels": _counted(jnp.where(labels < 0, classes, labels), weights, classes),
        }

    def result(self, sums: Sums) -> Any:
        correct, predicted, labels = sums["correct"], sums["predicted"], sums["labels"]
        occurs = (predicted + labels) != 0
        if self.average == "micro":
            correct, predicted, labels = correct.sum(), predicted.sum(), labels.sum()
        value = ratio(*self._quotient(correct, predicted, labels), otherwise=0.0)
        if self.average == "micro":
            return value
        if self.average == "binary":
            return value[1]
        occurs, labels = occurs.astype(value.dtype), labels.astype(value.dtype)
        if self.average == "weighted":
            return ratio((value * labels).sum(), labels.sum())
        if self.average == "macro":
            return ratio((value * occurs).sum(), occurs.sum())  # as in scikit-learn: over classes that occur
        return ratio(value * occurs, occurs)

    def _quotient(self, correct: Any, predicted: Any, labels: Any) -> tuple[Any, Any]:
        if self.kind == "precision":
            return correct, predicted
        if self.kind == "recall":
            return correct, labels
        if self.kind == "f1":
            return 2 * correct, predicted + labels
        return correct, predicted + labels - correct
