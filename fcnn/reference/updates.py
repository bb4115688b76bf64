"""Update rules for gradient descent."""

from __future__ import annotations

import numpy as np

Arrays = dict[str, np.ndarray]


class SGD:
    r"""Gradient descent: a step against the gradient.

    .. math:: w \leftarrow w - \eta \, g

    Args:
        learning_rate: :math:`\eta`.

    Source:
        Robbins and Monro, "A stochastic approximation method", 1951.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import SGD
        >>> SGD(0.1).step({"w": np.array([1.0])}, {"w": np.array([5.0])})["w"].tolist()
        [0.5]
    """

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate

    def step(self, params: Arrays, gradients: Arrays) -> Arrays:
        """Return the new parameters; those that were given stay as they are."""
        _check(params, gradients)
        return {name: w - self.learning_rate * gradients[name] for name, w in params.items()}


class Momentum:
    r"""Gradient descent with a velocity that accumulates earlier gradients.

    .. math:: v \leftarrow \mu v + g, \qquad w \leftarrow w - \eta \, v

    Args:
        learning_rate: :math:`\eta`.
        momentum: :math:`\mu`.

    Source:
        Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Momentum
        >>> update, w = Momentum(0.1, momentum=0.5), {"w": np.array([1.0])}
        >>> for _ in range(2):
        ...     w = update.step(w, {"w": np.array([1.0])})
        >>> w["w"].round(9).tolist()    # steps of 0.1 and 0.15
        [0.75]
    """

    def __init__(self, learning_rate: float, momentum: float = 0.9) -> None:
        self.learning_rate, self.momentum = learning_rate, momentum
        self.velocity: Arrays = {}

    def step(self, params: Arrays, gradients: Arrays) -> Arrays:
        """Return the new parameters; those that were given stay as they are."""
        return {name: w - self.learning_rate * v for name, w, _, v in self._moved(params, gradients)}

    def _moved(self, params: Arrays, gradients: Arrays) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        """Update the velocities; return name, parameter, gradient and velocity of each parameter."""
        _check(params, gradients)
        for name, g in gradients.items():
            self.velocity[name] = self.momentum * self.velocity.get(name, np.zeros_like(g)) + g
        return [(name, w, gradients[name], self.velocity[name]) for name, w in params.items()]


class Nesterov(Momentum):
    r"""Momentum with a look-ahead: the step uses the next velocity.

    .. math:: v \leftarrow \mu v + g, \qquad w \leftarrow w - \eta \, (g + \mu v)

    Args:
        learning_rate: :math:`\eta`.
        momentum: :math:`\mu`.

    Source:
        Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013, section 2.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Nesterov
        >>> Nesterov(0.1, momentum=0.5).step({"w": np.array([1.0])}, {"w": np.array([2.0])})["w"].round(9).tolist()
        [0.7]
    """

    def step(self, params: Arrays, gradients: Arrays) -> Arrays:
        """Return the new parameters; those that were given stay as they are."""
        moved = self._moved(params, gradients)
        return {name: w - self.learning_rate * (g + self.momentum * v) for name, w, g, v in moved}


class Adam:
    r"""Steps scaled by running means of the gradient and of its square.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \qquad
        w \leftarrow w - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Args:
        learning_rate: :math:`\eta`.
        b1: :math:`\beta_1`.
        b2: :math:`\beta_2`.
        epsilon: added to the denominator to keep the quotient finite.

    Source:
        Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Adam
        >>> Adam(0.1).step({"w": np.array([1.0])}, {"w": np.array([5.0])})["w"].round(6).tolist()
        [0.9]
    """

    def __init__(self, learning_rate: float, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-8) -> None:
        self.learning_rate, self.b1, self.b2, self.epsilon = learning_rate, b1, b2, epsilon
        self.steps = 0
        self.mean: Arrays = {}
        self.square: Arrays = {}

    def step(self, params: Arrays, gradients: Arrays) -> Arrays:
        """Return the new parameters; those that were given stay as they are."""
        _check(params, gradients)
        self.steps += 1
        new = {}
        for name, w in params.items():
            g = gradients[name]
            self.mean[name] = self.b1 * self.mean.get(name, np.zeros_like(g)) + (1 - self.b1) * g
            self.square[name] = self.b2 * self.square.get(name, np.zeros_like(g)) + (1 - self.b2) * g**2
            mean = self.mean[name] / (1 - self.b1**self.steps)  # the means start at 0 and are too small at first
            square = self.square[name] / (1 - self.b2**self.steps)
            new[name] = w - self.learning_rate * mean / (np.sqrt(square) + self.epsilon)
        return new


def _check(params: Arrays, gradients: Arrays) -> None:
    if params.keys() != gradients.keys():
        raise ValueError(f"gradients of {sorted(gradients)} are given for parameters {sorted(params)}")
    for name, w in params.items():
        if w.shape != gradients[name].shape:
            raise ValueError(f"{name} has shape {w.shape}, its gradient {gradients[name].shape}")
