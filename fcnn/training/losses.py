"""Losses as values: losses with equal arguments are equal, so a step with them is compiled once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, overload

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import format_shape, layer_path
from ..identity import Value
from ..layers.hyperparameters import check_number
from ..ops.dtypes import wide
from .metric import check_ignore, ignoring


@dataclass(frozen=True)
class CrossEntropy:
    """What :func:`cross_entropy` returns without outputs.

    Attributes:
        class_weights: the weight of each class; None: all are 1.
        ignore_label: a label to leave out.
        smoothing: the part of every target that is distributed over all classes.
    """

    class_weights: tuple[float, ...] | None = None
    ignore_label: int | None = None
    smoothing: float = 0.0

    #: integer targets are checked as labels of the classes that the outputs score
    scores_classes: ClassVar[bool] = True

    def __call__(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """The loss of every target, (batch, *space), times the weight of its class; 0 for the ignored label."""
        from optax import losses

        shares = self._check(outputs, targets)
        dtype = wide(outputs.dtype)
        outputs = outputs.astype(dtype)
        weights = None if self.class_weights is None else jnp.asarray(self.class_weights, dtype)
        if shares:
            wanted = targets.astype(dtype)
            if self.smoothing:
                wanted = losses.smooth_labels(wanted, self.smoothing)
            return losses.softmax_cross_entropy(outputs, wanted if weights is None else wanted * weights)
        targets, there = ignoring(targets, self.ignore_label, None)
        if self.smoothing:
            wanted = losses.smooth_labels(jax.nn.one_hot(targets, outputs.shape[-1], dtype=dtype), self.smoothing)
            found = losses.softmax_cross_entropy(outputs, wanted if weights is None else wanted * weights)
        else:
            found = losses.softmax_cross_entropy_with_integer_labels(outputs, targets)
            found = found if weights is None else found * weights[targets]
        return found if there is None else jnp.where(there, found, jnp.zeros((), dtype))

    def weights(self, targets: jax.Array) -> jax.Array | None:
        """The weight of each target in the mean, (batch, *space); None: all are 1.

        The mean of a batch is the sum of the losses divided by the sum of these weights, as in PyTorch.
        """
        if not jnp.issubdtype(targets.dtype, jnp.integer):
            return None
        targets, there = ignoring(targets, self.ignore_label, None)
        if self.class_weights is None:
            return there
        found = jnp.asarray(self.class_weights, jnp.result_type(float))[targets]
        return found if there is None else jnp.where(there, found, jnp.zeros((), found.dtype))

    def _check(self, outputs: Any, targets: Any) -> bool:
        scores, given = tuple(outputs.shape), tuple(targets.shape)
        if self.class_weights is not None and len(self.class_weights) != scores[-1]:
            raise ValueError(
                f"cross_entropy: class_weights has {len(self.class_weights)} numbers, but the outputs score "
                f"{scores[-1]} classes; give one for each"
            )
        if given == scores and jnp.issubdtype(targets.dtype, jnp.floating):
            return True
        if given != scores[:-1] or not jnp.issubdtype(targets.dtype, jnp.integer):
            raise ValueError(
                f"cross_entropy: targets of {targets.dtype}{format_shape(given)} do not suit outputs of "
                f"{format_shape(scores)}; give integer labels of {format_shape(scores[:-1])}, or class probabilities "
                f"of floating point, {format_shape(scores)}"
            )
        return False


@overload
def cross_entropy(
    outputs: jax.Array,
    labels: jax.Array,
    *,
    class_weights: Sequence[float] | None = None,
    ignore_label: int | None = None,
    smoothing: float = 0.0,
) -> jax.Array: ...


@overload
def cross_entropy(
    *,
    class_weights: Sequence[float] | None = None,
    ignore_label: int | None = None,
    smoothing: float = 0.0,
) -> CrossEntropy: ...


def cross_entropy(
    outputs: jax.Array | None = None,
    labels: jax.Array | None = None,
    *,
    class_weights: Sequence[float] | None = None,
    ignore_label: int | None = None,
    smoothing: float = 0.0,
) -> Any:
    r"""Softmax cross-entropy, computed in float32 or wider. Without outputs, the loss as a value for ``fit``.

    .. math:: \ell = -\sum_k w_k q_k \log \frac{e^{z_k}}{\sum_j e^{z_j}},
        \qquad q = (1 - \epsilon) t + \frac{\epsilon}{K}

    where t is 1 at the label y and 0 elsewhere, or the given class probabilities. The mean over a batch is
    :math:`\sum \ell / \sum w_y` over the labels that are not ignored, in ``fit`` and ``evaluate`` as in PyTorch.

    Args:
        outputs: scores z, (batch, *space, K).
        labels: classes y, (batch, *space), integers; or class probabilities, (batch, *space, K), in floating point, as
            mixing augmentation makes them.
        class_weights: w, a number for each class; None: 1.
        ignore_label: a label to leave out, such as 255; its loss is 0.
        smoothing: :math:`\epsilon`, in [0, 1].

    Returns:
        The loss of every label, (batch, *space), by ``optax.losses``. Without outputs, a function of (outputs, labels)
        that returns it; functions with equal arguments are equal.

    Raises:
        ValueError: numbers out of range; targets whose shape or dtype is not that of labels or probabilities.
        TypeError: arguments of the wrong kind.

    Source:
        ``torch.nn.CrossEntropyLoss``; for the smoothing Szegedy et al., "Rethinking the Inception architecture for
        computer vision", 2016, section 7.

    Example:
        >>> print(f"{cross_entropy(jnp.zeros((1, 10)), jnp.array([3])).item():.4f}")
        2.3026
        >>> loss = cross_entropy(class_weights=(1.0, 3.0), ignore_label=255)
        >>> [round(v, 4) for v in loss(jnp.zeros((3, 2)), jnp.array([0, 1, 255])).tolist()]
        [0.6931, 2.0794, 0.0]
    """
    with layer_path("cross_entropy"):
        if class_weights is not None:
            class_weights = _class_weights(class_weights)
        loss = CrossEntropy(class_weights, check_ignore(ignore_label), _share(smoothing))  # type: ignore[arg-type]
    if outputs is None and labels is None:
        return loss
    if outputs is None or labels is None:
        raise TypeError("cross_entropy: give outputs and labels, or neither of them for a loss to pass to fit")
    return loss(outputs, labels)


#: integer targets are checked as labels of the classes that the outputs score
cross_entropy.scores_classes = True  # type: ignore[attr-defined]


def _class_weights(given: Any) -> tuple[float, ...]:
    array = np.asarray(given)
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not array.size:
        raise TypeError(f"class_weights must be a number for each class, such as (1.0, 2.0), not {given!r}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"class_weights is {array.tolist()}, the numbers must be finite and at least 0")
    return tuple(array.astype(float).tolist())


def _share(smoothing: Any) -> float:
    smoothing = check_number(smoothing, "smoothing")
    if not 0 <= smoothing <= 1:
        raise ValueError(
            f"smoothing is {smoothing:g}, it must be in [0, 1]; it is the part of a target distributed over all classes"
        )
    return float(smoothing)


@dataclass(frozen=True)
class LabelSmoothing(Value):
    """What :func:`label_smoothing` returns.

    Attributes:
        smoothing: the part of every target that is distributed over all classes.
    """

    smoothing: float

    #: integer targets are checked as labels of the classes that the outputs score
    scores_classes: ClassVar[bool] = True

    def __call__(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """The loss of every target, (batch, *space), by ``optax.losses``."""
        _check_targets(outputs, targets)
        return CrossEntropy(smoothing=self.smoothing)(outputs, targets)


def label_smoothing(smoothing: float = 0.1) -> LabelSmoothing:
    r"""Softmax cross-entropy with smoothed targets, computed in float32 or wider.

    .. math:: \ell = -\sum_k q_k \log \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad q = (1 - \epsilon) t + \frac{\epsilon}{K}

    with K classes and target probabilities t, which are 1 at the label. For :math:`\epsilon = 0` this is the plain
    cross-entropy.

    Args:
        smoothing: :math:`\epsilon`, in [0, 1].

    Shapes:
        outputs: scores z, (batch, *space, classes).
        targets: labels (batch, *space), integers; or probabilities t, (batch, *space, classes), in floating point, such
            as mixed labels.

    Returns:
        A function (outputs, targets) that returns the loss of every target, (batch, *space). Functions with equal
        smoothing are equal, so that a second run compiles nothing.

    Raises:
        ValueError: a smoothing out of range; targets whose shape is not that of labels or probabilities.
        TypeError: a smoothing that is not a number; labels that are not integers.

    Source:
        Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016, section 7.

    Example:
        >>> label_smoothing(0.1) == label_smoothing(0.1)
        True
        >>> scores = jnp.array([[2.0, 0.0]])
        >>> bool(jnp.isclose(label_smoothing(0.2)(scores, jnp.array([0])), jnp.log(1 + jnp.exp(-2.0)) + 0.1 * 2.0)[0])
        True
    """
    with layer_path("label_smoothing"):
        return LabelSmoothing(_share(smoothing))


def _check_targets(outputs: Any, targets: Any) -> None:
    scores, given = tuple(outputs.shape), tuple(targets.shape)
    if given == scores:
        if not jnp.issubdtype(targets.dtype, jnp.floating):
            raise TypeError(
                f"label_smoothing: targets {format_shape(given)} of the shape of the outputs are class probabilities "
                f"and must be of floating point, not {targets.dtype}; use .astype('float32')"
            )
    elif given == scores[:-1]:
        if not jnp.issubdtype(targets.dtype, jnp.integer):
            raise TypeError(f"label_smoothing: labels must be integers, not {targets.dtype}; use .astype('int32')")
    else:
        raise ValueError(
            f"label_smoothing: targets of {format_shape(given)} do not suit outputs of {format_shape(scores)}; give "
            f"labels of {format_shape(scores[:-1])}, or class probabilities of {format_shape(scores)}"
        )
