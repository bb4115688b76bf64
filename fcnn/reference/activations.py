"""Elementwise functions and their derivatives."""

from __future__ import annotations

import math

import numpy as np

from .node import Node


class Identity(Node):
    r"""The input itself: :math:`y = x`, :math:`y' = 1`.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Identity
        >>> Identity().forward(np.array([2.0])).tolist()
        [2.0]
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.keep(x)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        self.recall(gradient)
        return (gradient,)


class _Entrywise(Node):
    r"""The base of elementwise functions: backward multiplies by the derivative.

    .. math:: y = f(x), \qquad \frac{\partial L}{\partial x} = \frac{\partial L}{\partial y} f'(x)
    """

    def f(self, x: np.ndarray) -> np.ndarray:
        """The function."""
        raise NotImplementedError

    def df(self, x: np.ndarray) -> np.ndarray:
        """Its derivative."""
        raise NotImplementedError

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.keep(self.f(x), x)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = self.recall(gradient)
        return (gradient * self.df(x),)


class Square(_Entrywise):
    r"""The square: :math:`y = x^2`, :math:`y' = 2x`.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Square
        >>> Square().forward(np.array([-3.0])).tolist()
        [9.0]
    """

    def f(self, x: np.ndarray) -> np.ndarray:
        return x * x

    def df(self, x: np.ndarray) -> np.ndarray:
        return 2 * x


class Abs(_Entrywise):
    r"""The absolute value: :math:`y = |x|`, :math:`y' = \operatorname{sign} x`, 0 at 0.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Abs
        >>> Abs().forward(np.array([-3.0])).tolist()
        [3.0]
    """

    def f(self, x: np.ndarray) -> np.ndarray:
        return np.abs(x)

    def df(self, x: np.ndarray) -> np.ndarray:
        return np.sign(x)


class Exp(_Entrywise):
    r"""The exponential: :math:`y = e^x`, :math:`y' = e^x`.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Exp
        >>> Exp().forward(np.array([0.0])).tolist()
        [1.0]
    """

    def f(self, x: np.ndarray) -> np.ndarray:
        return np.exp(x)

    df = f


class Sigmoid(_Entrywise):
    r"""The logistic function: :math:`y = 1 / (1 + e^{-x})`, :math:`y' = y (1 - y)`.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Sigmoid
        >>> gate = Sigmoid()
        >>> gate.forward(np.array([0.0])).tolist(), gate.backward(np.ones(1))[0].tolist()
        ([0.5], [0.25])
    """

    def f(self, x: np.ndarray) -> np.ndarray:
        small = np.exp(-np.abs(x))  # never overflows
        return np.where(x >= 0, 1 / (1 + small), small / (1 + small))

    def df(self, x: np.ndarray) -> np.ndarray:
        return self.f(x) * self.f(-x)  # f(-x) is 1 - y without cancellation


class Tanh(_Entrywise):
    r"""The hyperbolic tangent: :math:`y = \tanh x`, :math:`y' = 1 - y^2`.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Tanh
        >>> Tanh().forward(np.array([0.0])).tolist()
        [0.0]
    """

    def f(self, x: np.ndarray) -> np.ndarray:
        return np.tanh(x)

    def df(self, x: np.ndarray) -> np.ndarray:
        return 1 - np.tanh(x) ** 2


class LeakyReLU(_Entrywise):
    r"""The rectifier with a slope a below zero: :math:`y = x` for x > 0, else :math:`a x`.

    .. math:: y' = 1 \text{ for } x > 0, \text{ else } a

    Args:
        negative_slope: a.

    Source:
        Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models", 2013, equation 2.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import LeakyReLU
        >>> LeakyReLU(0.5).forward(np.array([-2.0, 2.0])).tolist()
        [-1.0, 2.0]
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def f(self, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, self.negative_slope * x)

    def df(self, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, 1.0, self.negative_slope).astype(x.dtype)


class ReLU(_Entrywise):
    r"""The rectifier: :math:`y = \max(x, 0)`, :math:`y' = [x > 0]`, so 0 at 0.

    Source:
        Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", 2010.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import ReLU
        >>> gate = ReLU()
        >>> gate.forward(np.array([-1.0, 0.0, 2.0])).tolist(), gate.backward(np.ones(3))[0].tolist()
        ([0.0, 0.0, 2.0], [0.0, 0.0, 1.0])
    """

    def f(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0)

    def df(self, x: np.ndarray) -> np.ndarray:
        return (x > 0).astype(x.dtype)


class ELU(_Entrywise):
    r"""The exponential linear unit: :math:`y = x` for x > 0, else :math:`a (e^x - 1)`.

    .. math:: y' = 1 \text{ for } x > 0, \text{ else } a e^x

    Args:
        alpha: a.

    Source:
        Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by ELUs", 2016, equation 15.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import ELU
        >>> ELU().forward(np.array([0.0, 2.0])).tolist()
        [0.0, 2.0]
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def f(self, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))

    def df(self, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, 1, self.alpha * np.exp(np.minimum(x, 0)))


class GELU(_Entrywise):
    r"""The Gaussian error linear unit, :math:`y = x \Phi(x)`, with the normal distribution or its approximation.

    .. math:: \Phi(x) = \tfrac12 \bigl(1 + \operatorname{erf}(x / \sqrt 2)\bigr) \quad\text{or}\quad
        \tfrac12 \bigl(1 + \tanh u\bigr), \; u = \sqrt{2 / \pi} \, (x + 0.044715 x^3), \qquad
        y' = \Phi(x) + x \Phi'(x)

    Args:
        approximate: whether to use the form with tanh.

    Source:
        Hendrycks and Gimpel, "Gaussian error linear units", 2016, section 2.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import GELU
        >>> [GELU(approximate=a).forward(np.array([1.0])).round(4).tolist() for a in (True, False)]
        [[0.8412], [0.8413]]
    """

    def __init__(self, approximate: bool = True) -> None:
        super().__init__()
        self.approximate = approximate

    def f(self, x: np.ndarray) -> np.ndarray:
        return x * self._cdf(x)

    def df(self, x: np.ndarray) -> np.ndarray:
        if self.approximate:
            slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)  # du/dx
            density = 0.5 * (1 - np.tanh(self._u(x)) ** 2) * slope
        else:
            density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return self._cdf(x) + x * density

    def _cdf(self, x: np.ndarray) -> np.ndarray:
        if self.approximate:
            return 0.5 * (1 + np.tanh(self._u(x)))
        # erfc instead of 1 + erf, which would lose all digits for large negative x
        return 0.5 * np.vectorize(math.erfc, otypes=[np.float64])(-x / math.sqrt(2)).astype(x.dtype)

    def _u(self, x: np.ndarray) -> np.ndarray:
        return math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


class SiLU(_Entrywise):
    r"""The input times its sigmoid (swish): :math:`y = x s(x)`, :math:`y' = s + x s (1 - s)`.

    Source:
        Ramachandran, Zoph and Le, "Searching for activation functions", 2017.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import SiLU
        >>> SiLU().forward(np.array([0.0])).tolist()
        [0.0]
    """

    def f(self, x: np.ndarray) -> np.ndarray:
        return x * Sigmoid().f(x)

    def df(self, x: np.ndarray) -> np.ndarray:
        return Sigmoid().f(x) + x * Sigmoid().df(x)


class Softplus(_Entrywise):
    r"""The smooth rectifier: :math:`y = \ln(1 + e^x)`, whose derivative is the sigmoid.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Softplus
        >>> Softplus().forward(np.array([0.0])).round(4).tolist()
        [0.6931]
    """

    def f(self, x: np.ndarray) -> np.ndarray:
        return np.logaddexp(x, np.zeros_like(x))

    def df(self, x: np.ndarray) -> np.ndarray:
        return Sigmoid().f(x)
