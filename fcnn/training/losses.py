"""Losses with a number of their own, as values: equal numbers make equal losses, which compile once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..errors import at, shown
from ..layers.norm import check_number
from ..ops.dtypes import wide


@dataclass(frozen=True)
class Smoothed:
    """What :func:`smoothed` returns.

    Attributes:
        smoothing: the share of every target that is spread over all classes.
    """

    smoothing: float

    #: integer targets are labels of the classes that the outputs score, and are checked as such
    scores_classes: ClassVar[bool] = True

    def __call__(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """The loss of every target, (batch, *space), by ``optax.losses``."""
        from optax import losses

        _check_targets(outputs, targets)
        dtype = wide(outputs.dtype)
        if targets.ndim == outputs.ndim:
            wanted = targets.astype(dtype)
        else:
            wanted = jax.nn.one_hot(targets, outputs.shape[-1], dtype=dtype)
        return losses.softmax_cross_entropy(outputs.astype(dtype), losses.smooth_labels(wanted, self.smoothing))


def smoothed(smoothing: float = 0.1) -> Smoothed:
    r"""Softmax cross-entropy whose targets are a little unsure, computed in float32 or wider.

    .. math:: \ell = -\sum_k q_k \log \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad q = (1 - \epsilon) t + \frac{\epsilon}{K}

    with K classes and t the distribution wanted, 1 at the label. With :math:`\epsilon = 0` it is the cross-entropy.

    Args:
        smoothing: :math:`\epsilon`, in [0, 1].

    Shapes:
        outputs: scores z, (batch, *space, classes).
        targets: labels (batch, *space), integers; or distributions t, (batch, *space, classes), of floating point,
            such as mixed labels.

    Returns:
        A function (outputs, targets) to the loss of every target, (batch, *space). It is a value: equal for equal
        smoothing, so a training that asks for it again compiles nothing.

    Raises:
        ValueError: a smoothing out of range; targets whose shape is not that of labels or distributions.
        TypeError: a smoothing that is not a number; labels that are not integers.

    Source:
        Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016, section 7.

    Example:
        >>> smoothed(0.1) == smoothed(0.1)
        True
        >>> scores = jnp.array([[2.0, 0.0]])
        >>> bool(jnp.isclose(smoothed(0.2)(scores, jnp.array([0])), jnp.log(1 + jnp.exp(-2.0)) + 0.1 * 2.0)[0])
        True
    """
    with at("smoothed"):
        smoothing = check_number(smoothing, "smoothing")
        if not 0 <= smoothing <= 1:
            raise ValueError(
                f"smoothing is {smoothing:g}, it must be in [0, 1]: it is the share of a target spread over all classes"
            )
        return Smoothed(smoothing)


def _check_targets(outputs: Any, targets: Any) -> None:
    scores, given = tuple(outputs.shape), tuple(targets.shape)
    if given == scores:
        if not jnp.issubdtype(targets.dtype, jnp.floating):
            raise TypeError(
                f"smoothed: targets {shown(given)} of the shape of the outputs are distributions over classes and "
                f"must be of floating point, not {targets.dtype}; use .astype('float32')"
            )
    elif given == scores[:-1]:
        if not jnp.issubdtype(targets.dtype, jnp.integer):
            raise TypeError(f"smoothed: labels must be integers, not {targets.dtype}; use .astype('int32')")
    else:
        raise ValueError(
            f"smoothed: targets of {shown(given)} do not suit outputs of {shown(scores)}; give labels of "
            f"{shown(scores[:-1])}, or distributions over classes of {shown(scores)}"
        )
