"""Resizing the space."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .. import ops
from ..facts import Locality, Resampled, WholeSpace
from ..geometry import Shape
from ..layer import Layer
from ..ops.interpolation import Sampling, as_matrix, check_options, check_target, samplings
from ..types import Params


@dataclass(frozen=True, repr=False)
class Resize(Layer):
    r"""Resize the space to a size, or by a factor.

    Along an axis of M samples, output i of m lies at

    .. math:: u_i = (i + \tfrac12) s - \tfrac12, \qquad s = M / m \text{ or } 1 / \text{scale},

    or with ``align_corners`` at :math:`u_i = i (M - 1) / (m - 1)`, and is a weighted sum of the samples around it;
    :func:`fcnn.ops.resize` documents the weights.

    Args:
        size: samples along each axis; an integer applies to every axis, None keeps an axis unchanged, such as
            (None, 24).
        scale: instead of a size, the factor to multiply it by; the result is rounded down to whole samples.
        method: "nearest", "nearest_exact", "linear" or "cubic"; "bilinear", "trilinear", "bicubic" and "tricubic" are
            other names of the last two.
        align_corners: PyTorch's option, for "linear" and "cubic".
        antialias: whether to low-pass filter when downsampling; for "linear" and "cubic". None: the default of the
            convention, False for PyTorch and True for jax.image.
        convention: "torch": the results of ``torch.nn.functional.interpolate``; "jax": those of ``jax.image.resize``,
            which differ for "nearest" (PyTorch's "nearest-exact"), for "cubic", and in the default of antialias.

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: an unknown name, a size below 1, or an option that the method does not have.
        TypeError: both or neither of size and scale.

    Source:
        torch.nn.functional.interpolate and jax.image.resize; Keys, "Cubic convolution interpolation for digital image
        processing", 1981.

    Example:
        >>> Resize((64, 48)).out_shape((28, 28, 3)), Resize(scale=2, method="nearest").out_shape((28, 28, 3))
        ((64, 48, 3), (56, 56, 3))
        >>> Resize(5, align_corners=True).apply({}, jax.numpy.array([[[0.0], [1.0], [4.0]]])).ravel().tolist()
        [0.0, 0.5, 1.0, 2.5, 4.0]
    """

    size: int | tuple[int | None, ...] | None = None
    _: KW_ONLY
    scale: float | tuple[float, ...] | None = None
    method: str = "linear"
    align_corners: bool = False
    antialias: bool | None = None
    convention: str = "torch"

    def check(self) -> dict[str, Any]:
        size, scale = check_target(self.size, self.scale)
        return {"size": size, "scale": scale, **check_options(**self._options())}

    def infer_shape(self, *shapes: Shape) -> Shape:
        return (*(axis.out for axis in self.axes(shapes[0])), shapes[0][-1])

    def locality(self, shape: Shape) -> Locality:
        if self.size is not None or self.align_corners:
            reason = "has steps that depend on the size of the image"
            return WholeSpace(reason, "resize by a factor, fcnn.Resize(scale=2), and without align_corners")
        return Resampled("makes values between the samples", operations=self.by_matrices)

    def multiply_adds(self, shape: Shape) -> int:
        return 0

    def by_matrices(self, x: jax.Array) -> jax.Array:
        """The same by matrix products, whose entries show which inputs each output depends on."""
        for axis, sampling in enumerate(self.axes(x.shape[1:]), start=1):
            matrix = as_matrix(sampling).astype(x.dtype)
            x = jnp.moveaxis(jnp.tensordot(x, matrix, (axis, 1)), -1, axis)
        return x

    def axes(self, shape: Shape) -> list[Sampling]:
        """The sampling along each axis of an example of this shape."""
        return samplings(shape, (self.size, self.scale), self._options())

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.resize(inputs[0], self.size, scale=self.scale, **self._options())

    def _options(self) -> dict[str, Any]:
        names = ("method", "align_corners", "antialias", "convention")
        return {name: getattr(self, name) for name in names}
