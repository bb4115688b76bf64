"""Numbers that are reported beside the loss, each that of all examples and not a mean over batches.

A metric is a value with the direction in which it is good: ``metrics={"f1": training.metrics.f1()}``. From each batch
it takes sums, which are added up; its result is computed from the sums of the whole. So it does not depend on how the
examples are split into batches, parts, devices or processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from ..errors import at, shown
from ..geometry import integer
from ..layers.checks import check_number
from ..ops.dtypes import together, wide
from .tally import Metric, Sums, are_labels, are_shares, check_ignore, leading, one_score, ratio, weighed, without


@dataclass(frozen=True)
class _Classes(Metric):
    """What metrics of labels have in common.

    Attributes:
        ignore_label: a label that does not count.
    """

    ignore_label: int | None = None

    def __post_init__(self) -> None:
        check_ignore(self.ignore_label)

    def pairs(self, outputs: Any, targets: Any, weights: Any) -> tuple[Any, Any, Any, int] | None:
        """Class said and class wanted for every label, their weights, and the number of classes."""
        if are_shares(outputs, targets):
            return None
        if one_score(outputs, targets):
            said = (outputs.reshape(targets.shape) > 0).astype("int32")
            classes = 2
        elif are_labels(outputs, targets):
            said, classes = jnp.argmax(outputs, -1).astype("int32"), outputs.shape[-1]
        else:
            given = [f"{kind}{shown(tuple(a.shape))}" for a in (outputs, targets) for kind in (str(a.dtype),)]
            raise ValueError(
                f"{type(self).__name__} takes scores (batch, *space, classes) and integer labels (batch, *space), or "
                f"one score for each label of 0 or 1, not {given[0]} and {given[1]}"
            )
        wanted, weights = without(targets, self.ignore_label, weights)
        if wanted.dtype == bool:
            wanted = wanted.astype("int32")
        # labels of few bits are widened: 259 is not 3
        said, wanted = together(said, wanted)
        return said, wanted, _for_labels(weights, wanted.shape), classes


def _for_labels(weights: Any, shape: tuple[int, ...]) -> Any:
    if weights is None:
        return None
    return jnp.broadcast_to(weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim)), shape)


def _counted(places: Any, weights: Any, length: int) -> Any:
    """For each of 0, 1, ..., length - 1 the weight of the places that have it; whole numbers where all count alike."""
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
        said, wanted, weights, classes = found
        right = said == wanted
        if self.k > 1:
            if not are_labels(outputs, targets):
                raise ValueError(f"top_k({self.k}) needs a score for each class, (batch, *space, classes)")
            # scores that are not below the label's stand before it; of equal ones those of lower classes, as in argmax
            place = jnp.clip(wanted, 0, classes - 1).astype("int32")[..., None]
            own = jnp.take_along_axis(outputs, place, -1)
            behind = (outputs < own) | ((outputs == own) & (jnp.arange(classes, dtype="int32") >= place))
            right = (jnp.sum(~behind, -1, dtype="int32") < self.k) & (wanted >= 0) & (wanted < classes)
        return weighed(right, weights, leading(targets), "accuracy")

    def result(self, sums: Sums) -> Any:
        return ratio(sums["sum"], sums["weight"])


@dataclass(frozen=True)
class ConfusionMatrix(_Classes):
    """What :func:`confusion_matrix` returns."""

    def tally(self, outputs: Any, targets: Any, weights: Any = None) -> Sums | None:
        found = self.pairs(outputs, targets, weights)
        if found is None:
            return None
        said, wanted, weights, classes = found
        inside = (wanted >= 0) & (wanted < classes)
        place = jnp.where(inside, wanted * classes + said, classes**2)
        return {"count": _counted(place, weights, classes**2).reshape(classes, classes)}

    def result(self, sums: Sums) -> Any:
        return sums["count"]


#: how one number is made of those of the classes
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
        said, wanted, weights, classes = found
        if self.average == "binary" and classes != 2:
            raise ValueError(f"average='binary' is for two classes, and the network scores {classes}; use 'macro'")
        both = jnp.where(said == wanted, wanted, classes)
        return {
            "both": _counted(both, weights, classes),
            "said": _counted(said, weights, classes),
            "wanted": _counted(jnp.where(wanted < 0, classes, wanted), weights, classes),
        }

    def result(self, sums: Sums) -> Any:
        both, said, wanted = sums["both"], sums["said"], sums["wanted"]
        occurs = (said + wanted) != 0
        if self.average == "micro":
            both, said, wanted = both.sum(), said.sum(), wanted.sum()
        value = ratio(*self._quotient(both, said, wanted), otherwise=0.0)
        if self.average == "micro":
            return value
        if self.average == "binary":
            return value[1]
        occurs, wanted = occurs.astype(value.dtype), wanted.astype(value.dtype)
        if self.average == "weighted":
            return ratio((value * wanted).sum(), wanted.sum())
        if self.average == "macro":
            return ratio((value * occurs).sum(), occurs.sum())  # as in scikit-learn: over classes that occur
        return ratio(value * occurs, occurs)

    def _quotient(self, both: Any, said: Any, wanted: Any) -> tuple[Any, Any]:
        if self.kind == "precision":
            return both, said
        if self.kind == "recall":
            return both, wanted
        if self.kind == "f1":
            return 2 * both, said + wanted
        return both, said + wanted - both


# numbers


@dataclass(frozen=True)
class Error(Metric):
    """What :func:`mean_absolute_error`, :func:`mean_squared_error` and :func:`psnr` return."""

    kind: str = "absolute"
    peak: float = 1.0
    mode: ClassVar[str | None] = "min"

    def tally(self, outputs: Any, targets: Any, weights: Any = None) -> Sums:
        if tuple(outputs.shape) != tuple(targets.shape):
            raise ValueError(
                f"{self.kind} error: outputs have shape {shown(tuple(outputs.shape))} and targets "
                f"{shown(tuple(targets.shape))}; give targets the shape of the outputs"
            )
        dtype = wide(jnp.result_type(outputs.dtype, "float32"))
        gap = outputs.astype(dtype) - targets.astype(dtype)
        values = jnp.abs(gap) if self.kind == "absolute" else gap * gap
        if self.kind == "psnr":
            values = jnp.mean(values.reshape(len(values), -1), 1)
            values = 10 * jnp.log10(jnp.asarray(self.peak**2, dtype) / values)
        return weighed(values, weights, len(values), f"{self.kind} error")

    def result(self, sums: Sums) -> Any:
        return ratio(sums["sum"], sums["weight"])


@dataclass(frozen=True)
class SignalToNoise(Error):
    """What :func:`psnr` returns."""

    kind: str = "psnr"
    mode: ClassVar[str | None] = "max"


def accuracy(*, ignore_label: int | None = None) -> Accuracy:
    """The share of labels that have the highest score, or whose one score has the right sign; higher is better.

    Args:
        ignore_label: a label that does not count, such as 255.

    Returns:
        A metric.

    Example:
        >>> float(accuracy()(jnp.array([[0.0, 9.0], [0.0, 9.0]]), jnp.array([1, 0])))
        0.5
    """
    with at("accuracy"):
        return Accuracy(ignore_label)


def top_k(k: int, *, ignore_label: int | None = None) -> Accuracy:
    """The share of labels that are among the k highest scores; higher is better.

    Args:
        k: scores that are looked at; of equal ones those of lower classes come first.
        ignore_label: a label that does not count.

    Returns:
        A metric.

    Raises:
        ValueError: a k below 1.

    Example:
        >>> float(top_k(2)(jnp.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), jnp.array([1, 2])))
        0.5
    """
    with at("top_k"):
        return Accuracy(ignore_label, integer(k, "k"))


def confusion_matrix(*, ignore_label: int | None = None) -> ConfusionMatrix:
    r"""How often each class was taken for each other; an array, which is neither better high nor low.

    .. math:: C_{ij} = \#\{n : y_n = i,\ \operatorname{argmax}_k z_{nk} = j\}

    Args:
        ignore_label: a label that does not count.

    Returns:
        A metric, whose result is (classes, classes).

    Source:
        ``sklearn.metrics.confusion_matrix``.

    Example:
        >>> confusion_matrix()(jnp.array([[0.0, 9.0], [0.0, 9.0]]), jnp.array([1, 0])).tolist()
        [[0, 1], [0, 1]]
    """
    with at("confusion_matrix"):
        return ConfusionMatrix(ignore_label)


def precision(average: str | None = "macro", *, ignore_label: int | None = None) -> ByClass:
    r"""Of what was taken for a class, the share that is of it; higher is better.

    .. math:: P_k = \frac{\#\{\hat y = k, y = k\}}{\#\{\hat y = k\}}

    Args:
        average: "macro", the mean over classes that occur; "weighted", by how often they do; "micro", of all counts;
            "binary", that of class 1; None, an array of all classes, NaN for those that do not occur.
        ignore_label: a label that does not count.

    Returns:
        A metric; 0 where a class was never said.

    Raises:
        ValueError: an unknown average.

    Source:
        ``sklearn.metrics.precision_score``.

    Example:
        >>> float(precision("binary")(jnp.array([[1.0], [1.0], [-1.0]]), jnp.array([[1], [0], [1]])))
        0.5
    """
    with at("precision"):
        return ByClass(ignore_label, "precision", average)


def recall(average: str | None = "macro", *, ignore_label: int | None = None) -> ByClass:
    r"""Of what is of a class, the share that was found; higher is better.

    .. math:: R_k = \frac{\#\{\hat y = k, y = k\}}{\#\{y = k\}}

    Args:
        average: as for :func:`precision`.
        ignore_label: a label that does not count.

    Returns:
        A metric.

    Raises:
        ValueError: an unknown average.

    Source:
        ``sklearn.metrics.recall_score``.

    Example:
        >>> float(recall("binary")(jnp.array([[1.0], [1.0], [-1.0]]), jnp.array([[1], [0], [1]])))
        0.5
    """
    with at("recall"):
        return ByClass(ignore_label, "recall", average)


def f1(average: str | None = "macro", *, ignore_label: int | None = None) -> ByClass:
    r"""The harmonic mean of precision and recall; higher is better.

    .. math:: F_k = \frac{2 \#\{\hat y = k, y = k\}}{\#\{\hat y = k\} + \#\{y = k\}}

    Args:
        average: as for :func:`precision`.
        ignore_label: a label that does not count.

    Returns:
        A metric.

    Raises:
        ValueError: an unknown average.

    Source:
        ``sklearn.metrics.f1_score``.

    Example:
        >>> float(f1("binary")(jnp.array([[1.0], [1.0], [-1.0]]), jnp.array([[1], [0], [1]])))
        0.5
    """
    with at("f1"):
        return ByClass(ignore_label, "f1", average)


def iou(average: str | None = "macro", *, ignore_label: int | None = None) -> ByClass:
    r"""Intersection over union of where a class was said and where it is (Jaccard index); higher is better.

    .. math:: J_k = \frac{\#\{\hat y = k, y = k\}}{\#\{\hat y = k\} + \#\{y = k\} - \#\{\hat y = k, y = k\}}

    Args:
        average: as for :func:`precision`; "macro" is the mean IoU of segmentation.
        ignore_label: a label that does not count, such as 255.

    Returns:
        A metric.

    Raises:
        ValueError: an unknown average.

    Source:
        ``sklearn.metrics.jaccard_score``; Everingham et al., "The Pascal visual object classes challenge: a
        retrospective", 2015, section 4.4.

    Example:
        >>> labels = jnp.array([[1, 0, 255]])
        >>> float(iou(ignore_label=255)(jnp.array([[[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]]), labels))
        0.25
    """
    with at("iou"):
        return ByClass(ignore_label, "iou", average)


def mean_absolute_error() -> Error:
    """The mean of the absolute value of output - target over all numbers; lower is better.

    Returns:
        A metric, for outputs and targets of one shape.

    Example:
        >>> float(mean_absolute_error()(jnp.array([[1.0], [3.0]]), jnp.array([[0.0], [0.0]])))
        2.0
    """
    return Error("absolute")


def mean_squared_error() -> Error:
    """The mean of (output - target) squared over all numbers; lower is better.

    Returns:
        A metric, for outputs and targets of one shape.

    Example:
        >>> float(mean_squared_error()(jnp.array([[1.0], [3.0]]), jnp.array([[0.0], [0.0]])))
        5.0
    """
    return Error("squared")


def psnr(peak: float = 1.0) -> SignalToNoise:
    r"""Peak signal-to-noise ratio in decibels, the mean of those of the examples; higher is better.

    .. math:: \frac{1}{N} \sum_n 10 \log_{10} \frac{\text{peak}^2}{\operatorname{mean}((\hat x_n - x_n)^2)}

    Args:
        peak: the largest value that a sample can have.

    Returns:
        A metric, for outputs and targets of one shape.

    Raises:
        ValueError: a peak that is not above 0.

    Example:
        >>> round(float(psnr()(jnp.full((1, 4, 4, 1), 0.1), jnp.zeros((1, 4, 4, 1)))), 4)
        20.0
    """
    with at("psnr"):
        peak = check_number(peak, "peak")
        if not peak > 0:
            raise ValueError(f"peak is {peak:g}, it must be above 0: it is the largest value that a sample can have")
        return SignalToNoise(peak=peak)


#: the functions that make the ready ones, which people hand in without calling them
READY = (
    accuracy,
    confusion_matrix,
    f1,
    iou,
    mean_absolute_error,
    mean_squared_error,
    precision,
    psnr,
    recall,
    top_k,
)
