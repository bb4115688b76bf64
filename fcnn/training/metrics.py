"""Numbers that are reported beside the loss, each that of all examples and not a mean over batches.

A metric is a value with the direction in which it is good: ``metrics={"f1": training.metrics.f1()}``. From each batch
it takes sums, which are added up; its result is computed from the sums of the whole. So it does not depend on how the
examples are split into batches, parts, devices or processes.
"""

from __future__ import annotations

from ..errors import at
from ..geometry import integer
from ..layers.checks import check_number
from .classification import Accuracy, ByClass, ConfusionMatrix
from .regression import Error, SignalToNoise


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
