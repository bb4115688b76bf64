"""Metrics, computed over all examples and not as a mean over batches.

A metric is a value that knows whether high or low is better: ``metrics={"f1": training.metrics.f1()}``. Sums over each
batch are added, and the metric is computed from the totals. So it does not depend on how the examples are split into
batches, parts, devices or processes.
"""

from __future__ import annotations

from ..errors import layer_path
from ..geometry import integer
from ..layers.hyperparameters import check_number
from .classification import Accuracy, ByClass, ConfusionMatrix
from .regression import Error, SignalToNoise


def accuracy(*, ignore_label: int | None = None) -> Accuracy:
    """Accuracy: the fraction of labels whose score is the highest, or whose single score has the right sign.

    Args:
        ignore_label: a label to leave out, such as 255.

    Returns:
        A metric.

    Example:
        >>> float(accuracy()(jnp.array([[0.0, 9.0], [0.0, 9.0]]), jnp.array([1, 0])))
        0.5
    """
    with layer_path("accuracy"):
        return Accuracy(ignore_label)


def top_k(k: int, *, ignore_label: int | None = None) -> Accuracy:
    """Top-k accuracy: the fraction of labels that are among the k highest scores.

    Args:
        k: number of scores; ties are broken in favour of lower classes.
        ignore_label: a label to leave out.

    Returns:
        A metric.

    Raises:
        ValueError: a k below 1.

    Example:
        >>> float(top_k(2)(jnp.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), jnp.array([1, 2])))
        0.5
    """
    with layer_path("top_k"):
        return Accuracy(ignore_label, integer(k, "k"))


def confusion_matrix(*, ignore_label: int | None = None) -> ConfusionMatrix:
    r"""Confusion matrix: how often class i was predicted as class j.

    .. math:: C_{ij} = \#\{n : y_n = i,\ \operatorname{argmax}_k z_{nk} = j\}

    Args:
        ignore_label: a label to leave out.

    Returns:
        A metric whose result is an array (classes, classes); it cannot be monitored.

    Source:
        ``sklearn.metrics.confusion_matrix``.

    Example:
        >>> confusion_matrix()(jnp.array([[0.0, 9.0], [0.0, 9.0]]), jnp.array([1, 0])).tolist()
        [[0, 1], [0, 1]]
    """
    with layer_path("confusion_matrix"):
        return ConfusionMatrix(ignore_label)


def precision(average: str | None = "macro", *, ignore_label: int | None = None) -> ByClass:
    r"""Precision: the fraction of the predictions of a class that are right.

    .. math:: P_k = \frac{\#\{\hat y = k, y = k\}}{\#\{\hat y = k\}}

    Args:
        average: "macro", the mean over classes that occur; "weighted", the same weighted by their frequency; "micro",
            from the counts of all classes together; "binary", the value of class 1; None, an array with a value for
            each class, NaN for those that do not occur.
        ignore_label: a label to leave out.

    Returns:
        A metric; 0 for a class that was never predicted.

    Raises:
        ValueError: an unknown average.

    Source:
        ``sklearn.metrics.precision_score``.

    Example:
        >>> float(precision("binary")(jnp.array([[1.0], [1.0], [-1.0]]), jnp.array([[1], [0], [1]])))
        0.5
    """
    with layer_path("precision"):
        return ByClass(ignore_label, "precision", average)


def recall(average: str | None = "macro", *, ignore_label: int | None = None) -> ByClass:
    r"""Recall: the fraction of the labels of a class that were predicted.

    .. math:: R_k = \frac{\#\{\hat y = k, y = k\}}{\#\{y = k\}}

    Args:
        average: as for :func:`precision`.
        ignore_label: a label to leave out.

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
    with layer_path("recall"):
        return ByClass(ignore_label, "recall", average)


def f1(average: str | None = "macro", *, ignore_label: int | None = None) -> ByClass:
    r"""F1 score: the harmonic mean of precision and recall.

    .. math:: F_k = \frac{2 \#\{\hat y = k, y = k\}}{\#\{\hat y = k\} + \#\{y = k\}}

    Args:
        average: as for :func:`precision`.
        ignore_label: a label to leave out.

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
    with layer_path("f1"):
        return ByClass(ignore_label, "f1", average)


def iou(average: str | None = "macro", *, ignore_label: int | None = None) -> ByClass:
    r"""Intersection over union of predicted and true positions of a class (Jaccard index).

    .. math:: J_k = \frac{\#\{\hat y = k, y = k\}}{\#\{\hat y = k\} + \#\{y = k\} - \#\{\hat y = k, y = k\}}

    Args:
        average: as for :func:`precision`; "macro" is the mean IoU of segmentation.
        ignore_label: a label to leave out, such as 255.

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
    with layer_path("iou"):
        return ByClass(ignore_label, "iou", average)


def mean_absolute_error() -> Error:
    """Mean absolute error, over all values of all examples.

    Returns:
        A metric for outputs and targets of the same shape.

    Example:
        >>> float(mean_absolute_error()(jnp.array([[1.0], [3.0]]), jnp.array([[0.0], [0.0]])))
        2.0
    """
    return Error("absolute")


def mean_squared_error() -> Error:
    """Mean squared error, over all values of all examples.

    Returns:
        A metric for outputs and targets of the same shape.

    Example:
        >>> float(mean_squared_error()(jnp.array([[1.0], [3.0]]), jnp.array([[0.0], [0.0]])))
        5.0
    """
    return Error("squared")


def psnr(peak: float = 1.0) -> SignalToNoise:
    r"""Peak signal-to-noise ratio in decibels, averaged over the examples.

    .. math:: \frac{1}{N} \sum_n 10 \log_{10} \frac{\text{peak}^2}{\operatorname{mean}((\hat x_n - x_n)^2)}

    Args:
        peak: the largest value that a sample can have.

    Returns:
        A metric for outputs and targets of the same shape.

    Raises:
        ValueError: a peak that is not above 0.

    Example:
        >>> round(float(psnr()(jnp.full((1, 4, 4, 1), 0.1), jnp.zeros((1, 4, 4, 1)))), 4)
        20.0
    """
    with layer_path("psnr"):
        peak = check_number(peak, "peak")
        if not peak > 0:
            raise ValueError(
                f"peak is {peak:g}, it must be above 0; give the largest value that a sample can have, such as 1 or 255"
            )
        return SignalToNoise(peak=peak)


#: functions that make metrics; passing one without calling it is a common mistake
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
