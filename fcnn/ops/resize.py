"""Resizing the space of plain arrays: every output is a weighted sum of a few samples along each axis."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..errors import layer_path
from .dtypes import beside, floating, wide
from .interpolation import Sampling, check_options, check_target, kernel, place, samplings, taps
from .windows import copies

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


def resize(
    x: Float[Array, "batch *space channels"],
    size: int | Sequence[int | None] | None = None,
    *,
    scale: float | Sequence[float] | None = None,
    method: str = "linear",
    align_corners: bool = False,
    antialias: bool | None = None,
    convention: str = "torch",
) -> Float[Array, "batch *out channels"]:
    r"""Resize the space, one axis after another.

    Along an axis of M samples, output i of m lies at

    .. math:: u_i = (i + \tfrac12) s - \tfrac12, \qquad s = M / m \text{ or } 1 / \text{scale},

    or with ``align_corners`` at :math:`u_i = i (M - 1) / (m - 1)`, and is

    .. math:: y_i = \sum_j w_{ij} x_j, \qquad w_{ij} \propto k\bigl((j - u_i) / \max(s, 1)\bigr)

    where the division by s applies only with ``antialias``. For "linear" k is the triangle
    :math:`\max(1 - |t|, 0)`, for "cubic" Keys' kernel of four samples. "nearest" takes sample
    :math:`\lfloor i s \rfloor`, "nearest_exact" sample :math:`\lfloor (i + \frac12) s \rfloor`.

    The two conventions differ in three points. Past the ends of the space PyTorch repeats the first and the last
    sample; jax.image omits samples there and divides by the sum of the remaining weights, as PyTorch does with
    antialiasing. Keys' a is -0.75 in PyTorch, and -0.5 with antialiasing and in jax.image. The "nearest" of jax.image
    is "nearest_exact".

    Args:
        x: input.
        size: samples along each axis; an integer applies to every axis, None keeps an axis unchanged, such as
            (None, 24).
        scale: instead of a size, the factor to multiply it by; the result is rounded down to whole samples.
        method: "nearest", "nearest_exact", "linear" or "cubic"; "bilinear", "trilinear", "bicubic" and "tricubic" are
            other names of the last two.
        align_corners: PyTorch's option, for "linear" and "cubic"; with ``antialias`` it changes only s, as in PyTorch.
        antialias: whether to low-pass filter when downsampling; for "linear" and "cubic". None: the default of the
            convention, False for PyTorch and True for jax.image.
        convention: "torch" or "jax". If the scale does not give a whole size, the step is 1 / scale in PyTorch, and
            M / m in jax.image, which takes only sizes.

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, *out, channels), dtype of x; half precision is computed in float32 and rounded once.

    Raises:
        ValueError: an unknown name, a size below 1, an option that the method does not have, or a symbolic space.
        TypeError: both or neither of size and scale.

    Source:
        Keys, "Cubic convolution interpolation for digital image processing", 1981, equation 15;
        torch.nn.functional.interpolate and jax.image.resize.

    Example:
        >>> x = jnp.array([0.0, 1.0, 4.0]).reshape(1, 3, 1)
        >>> resize(x, 6).ravel().tolist()
        [0.0, 0.25, 0.75, 1.75, 3.25, 4.0]
        >>> resize(x, 5, align_corners=True).ravel().tolist()
        [0.0, 0.5, 1.0, 2.5, 4.0]
        >>> resize(x, scale=2, method="nearest").ravel().tolist()
        [0.0, 0.0, 1.0, 1.0, 4.0, 4.0]
    """
    with layer_path("resize"):
        x = floating(x)
        options = check_options(method, align_corners, antialias, convention)
        axes = samplings(x.shape[1:], check_target(size, scale), options)
    y = x.astype(wide(x.dtype)) if options["method"] in ("linear", "cubic") else x
    for axis, sampling in enumerate(axes, start=1):
        y = _along(y, axis, sampling)
    return y.astype(x.dtype)


def _along(x: Array, axis: int, sampling: Sampling) -> Array:
    """Resize one axis."""
    if _finer(sampling):
        return _in_phases(x, axis, sampling)
    samples, weights = taps(sampling)
    if weights.shape[1] == 1:  # nearest, or one sample for each output
        if np.array_equal(samples.ravel(), np.arange(sampling.size)):
            return x
        return jnp.take(x, samples.ravel(), axis, mode="clip")
    weights = weights.astype(x.dtype).reshape(*weights.shape, *(1,) * (x.ndim - axis - 1))
    if weights.shape[1] <= 4:
        parts = [
            jnp.take(x, samples[:, k], axis, mode="clip") * beside(weights[:, k], x) for k in range(weights.shape[1])
        ]
        return functools.reduce(jnp.add, parts)
    seen = jnp.take(x, samples, axis, mode="clip")
    return jnp.sum(seen * beside(weights, seen), axis + 1)


def _finer(sampling: Sampling) -> bool:
    """Whether the size grows by a whole factor, and samples past the ends, if any, are copies of the border."""
    if sampling.aligned or sampling.step.numerator != 1 or sampling.out != sampling.size * sampling.step.denominator:
        return False
    # for the triangle without widening, dividing by the sum of weights is the same as repeating the border samples
    return sampling.method != "cubic" or (sampling.convention == "torch" and not sampling.antialias)


def _in_phases(x: Array, axis: int, sampling: Sampling) -> Array:
    """Resize by a whole factor: outputs at the same offset from their samples (a phase) have the same weights."""
    count = sampling.step.denominator
    if count == 1:
        return x
    if sampling.method in ("linear", "cubic"):
        border = 1 if sampling.method == "linear" else 2
        x = copies(x, (*((0, 0),) * (axis - 1), (border, border)), "edge")
        phases = [_phase(x, axis, sampling, border, i) for i in range(count)]
    else:
        phases = [x] * count
    y = jnp.stack(phases, axis + 1)
    return y.reshape(*y.shape[:axis], sampling.out, *y.shape[axis + 2 :])


def _phase(x: Array, axis: int, sampling: Sampling, border: int, i: int) -> Array:
    """Outputs i, i + f, i + 2 f, ... of a resizing by f, as weighted sums of the padded x shifted by whole samples."""
    u = place(i, sampling)
    offsets = np.arange(1 - border, border + 1) + math.floor(u)
    weights = kernel(sampling)(offsets - float(u))
    parts = []
    for offset, weight in zip(offsets.tolist(), weights.tolist(), strict=True):
        if weight != 0:
            start = border + offset
            parts.append(lax.slice_in_dim(x, start, start + sampling.size, axis=axis) * np.asarray(weight, x.dtype))
    return functools.reduce(jnp.add, parts)
