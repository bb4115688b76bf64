"""Losses and penalties, each with its gradient."""

from __future__ import annotations

import numpy as np


class _Loss:
    """A loss that is run forward, then backward.

    ``forward(outputs, targets)`` returns a number, ``backward()`` its gradient with respect to the outputs.
    """

    def __init__(self) -> None:
        self._gradient: np.ndarray | None = None

    def forward(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """Compute the loss and keep what backward needs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self) -> np.ndarray:
        """Return the gradient of the latest loss with respect to the outputs."""
        if self._gradient is None:
            raise ValueError(f"{type(self).__name__}: backward needs a forward before it")
        return self._gradient


class SquaredError(_Loss):
    r"""The mean of the squared errors over all entries.

    .. math:: L = \frac{1}{m} \sum (a - y)^2, \qquad \frac{\partial L}{\partial a} = \frac{2}{m} (a - y)

    Shapes:
        outputs a and targets y of equal shape, m entries.

    Raises:
        ValueError: if the shapes differ.

    Source:
        Rumelhart, Hinton and Williams 1986, equation 3, with the mean in place of half the sum.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import SquaredError
        >>> loss = SquaredError()
        >>> loss.forward(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]])), loss.backward().tolist()
        (2.5, [[1.0, -2.0]])
    """

    def forward(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        if outputs.shape != np.shape(targets):
            raise ValueError(f"outputs have shape {outputs.shape}, targets {np.shape(targets)}")
        errors = outputs - targets
        self._gradient = 2 * errors / errors.size
        return float((errors**2).mean())


class SoftmaxCrossEntropy(_Loss):
    r"""The negative log-probability of the label under softmax, averaged over examples.

    .. math:: L = -\frac{1}{m} \sum_n \ln p_{n, y_n}, \quad p = \operatorname{softmax}(s), \qquad
        \frac{\partial L}{\partial s_{n, i}} = \frac{1}{m} \bigl( p_{n, i} - [i = y_n] \bigr)

    Shapes:
        outputs s (..., classes), integer targets y (...), m of them.

    Raises:
        TypeError: if labels are not integers.
        ValueError: if labels have another shape or are not valid classes.

    Source:
        Bridle, "Probabilistic interpretation of feedforward classification network outputs", 1990.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import SoftmaxCrossEntropy
        >>> loss = SoftmaxCrossEntropy()
        >>> round(loss.forward(np.zeros((1, 2)), np.array([0])), 4), loss.backward().tolist()
        (0.6931, [[-0.5, 0.5]])
    """

    def forward(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        wanted = _one_hot(outputs, targets)  # (..., classes)
        shifted = outputs - outputs.max(-1, keepdims=True)  # leaves the probabilities unchanged and keeps exp finite
        log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        examples = wanted.sum()
        self._gradient = (np.exp(log_p) - wanted) / examples
        return float(-(log_p * wanted).sum() / examples)


class Hinge(_Loss):
    r"""The loss of a multi-class support vector machine, averaged over examples.

    .. math:: L = \frac{1}{m} \sum_n \sum_{j \ne y_n} \max(0,\, s_{n, j} - s_{n, y_n} + 1), \qquad
        \frac{\partial L}{\partial s_{n, j}} = \frac{1}{m} [s_{n, j} - s_{n, y_n} + 1 > 0] \text{ for } j \ne y_n

    The gradient of the label's own score is minus the sum of the others.

    Shapes:
        outputs s (..., classes), integer targets y (...), m of them.

    Raises:
        TypeError: if labels are not integers.
        ValueError: if labels have another shape or are not valid classes.

    Source:
        Weston and Watkins, "Support vector machines for multi-class pattern recognition", 1999, equation 1.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Hinge
        >>> loss = Hinge()
        >>> loss.forward(np.array([[3.0, 2.5, 1.0]]), np.array([0])), loss.backward().tolist()
        (0.5, [[-1.0, 1.0, 0.0]])
    """

    def forward(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        wanted = _one_hot(outputs, targets)  # (..., classes)
        examples = wanted.sum()
        own = (outputs * wanted).sum(-1, keepdims=True)  # (..., 1)
        margins = (outputs - own + 1) * (1 - wanted)
        violated = (margins > 0).astype(outputs.dtype)
        self._gradient = (violated - wanted * violated.sum(-1, keepdims=True)) / examples
        return float((margins * violated).sum() / examples)


class L1:
    r"""A penalty on absolute values, which drives small weights to 0.

    .. math:: L = \lambda \sum |w|, \qquad \frac{\partial L}{\partial w} = \lambda \operatorname{sign} w

    Args:
        strength: :math:`\lambda`.

    Source:
        Tibshirani, "Regression shrinkage and selection via the lasso", 1996.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import L1
        >>> penalty = L1(0.5)
        >>> penalty.value(np.array([1.0, -3.0])), penalty.gradient(np.array([1.0, -3.0])).tolist()
        (2.0, [0.5, -0.5])
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def value(self, w: np.ndarray) -> float:
        """The penalty."""
        return float(self.strength * np.abs(w).sum())

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """Its gradient, 0 at 0."""
        return self.strength * np.sign(w)


class L2:
    r"""A penalty on squares, which pulls large weights towards 0.

    .. math:: L = \lambda \sum w^2, \qquad \frac{\partial L}{\partial w} = 2 \lambda w

    Args:
        strength: :math:`\lambda`.

    Source:
        Krogh and Hertz, "A simple weight decay can improve generalization", 1991, equation 1, without the half.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import L2
        >>> penalty = L2(0.5)
        >>> penalty.value(np.array([1.0, -3.0])), penalty.gradient(np.array([1.0, -3.0])).tolist()
        (5.0, [1.0, -3.0])
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def value(self, w: np.ndarray) -> float:
        """The penalty."""
        return float(self.strength * np.square(w).sum())

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """Its gradient."""
        return 2 * self.strength * w


def _one_hot(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """An array (..., classes) with a 1 at the label of each example."""
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"targets must be integer labels, not {labels.dtype}")
    if labels.shape != outputs.shape[:-1]:
        raise ValueError(f"targets have shape {labels.shape}, outputs {outputs.shape} ask for {outputs.shape[:-1]}")
    if labels.size and not (labels.min() >= 0 and labels.max() < outputs.shape[-1]):
        raise ValueError(f"targets run from {labels.min()} to {labels.max()}, there are {outputs.shape[-1]} classes")
    return (labels[..., None] == np.arange(outputs.shape[-1])).astype(outputs.dtype)
