"""Normalisation by the activity of neighbouring channels: local response normalisation."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax

from .. import geometry, ops
from ..facts import EachPosition, Locality
from ..geometry import Shape
from ..layer import Layer
from ..types import Params
from .hyperparameters import check_number


@dataclass(frozen=True, repr=False)
class LocalResponseNorm(Layer):
    r"""Divide by the activity of neighbouring channels at the same position.

    .. math:: y_i = x_i \Big/ \Bigl(k + \alpha \sum_{j = i - \lfloor n/2 \rfloor}^{i + \lfloor (n - 1)/2 \rfloor}
        x_j^2 \Bigr)^\beta

    The formula and the default constants are the paper's; PyTorch's ``alpha=a`` is ``alpha=a / size`` here.

    Args:
        size: n, the number of channels in the neighbourhood.
        alpha: weight of the sum of squares.
        beta: exponent.
        k: offset, above 0.

    Shapes:
        x (batch, *space, channels) to the same.

    Raises:
        ValueError: a number out of range.

    Source:
        Krizhevsky, Sutskever and Hinton, "ImageNet classification", 2012, section 3.3.

    Example:
        >>> LocalResponseNorm().out_shape((27, 27, 96))
        (27, 27, 96)
    """

    _: KW_ONLY
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0

    def check(self) -> dict[str, Any]:
        return {
            "size": geometry.integer(self.size, "size"),
            "alpha": check_number(self.alpha, "alpha"),
            "beta": check_number(self.beta, "beta"),
            "k": check_number(self.k, "k", above=0),
        }

    def locality(self, shape: Shape) -> Locality:
        return EachPosition()

    def multiply_adds(self, shape: Shape) -> int:
        return 0

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.local_response_norm(inputs[0], size=self.size, alpha=self.alpha, beta=self.beta, k=self.k)
