"""Positions, samples and weights of the outputs of a resized axis, as NumPy numbers.

The weights depend on sizes alone and are computed by NumPy, in float64, in advance. Only samples with a nonzero weight
are read, so a sample that is not finite affects only the outputs that depend on it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from ..errors import format_shape, refuse_traced
from ..geometry import Shape
from ..symbolic_sizes import symbolic
from .cells import cells_wanted, check_cells

#: the names of methods in PyTorch and jax.image, and the method that each stands for in any number of dimensions
METHODS = {
    "nearest": "nearest",
    "nearest_exact": "nearest_exact",
    **dict.fromkeys(("linear", "bilinear", "trilinear"), "linear"),
    **dict.fromkeys(("cubic", "bicubic", "tricubic"), "cubic"),
}
CONVENTIONS = ("torch", "jax")
#: a of Keys' cubic kernel: in PyTorch; in jax.image and in PyTorch with antialiasing
_TORCH_CUBIC, _CUBIC = -0.75, -0.5
#: weights up to this size are zeros with rounding errors
_NOTHING = 1e-12


class Sampling(NamedTuple):
    """The resizing of one axis.

    Attributes:
        size: samples before.
        out: samples after.
        step: distance between neighbouring outputs, in samples of the input.
        method: "nearest", "nearest_exact", "linear" or "cubic".
        aligned: whether the first and the last output lie on the first and the last sample.
        antialias: whether the kernel is widened by the step.
        convention: "torch" or "jax".
    """

    size: int
    out: int
    step: Fraction
    method: str
    aligned: bool
    antialias: bool
    convention: str


def check_options(method: Any, align_corners: Any, antialias: Any, convention: Any) -> dict[str, Any]:
    """Check the options of a resizing; the method is returned under its shortest name.

    Raises:
        ValueError: an unknown name, or options that contradict each other.
        TypeError: a flag that is not a bool.
    """
    if method not in METHODS:
        raise ValueError(
            f"method {method!r} is unknown; use one of {', '.join(METHODS)}; for areas use AdaptiveAvgPool"
        )
    if convention not in CONVENTIONS:
        raise ValueError(f'convention {convention!r} is unknown; use "torch" or "jax"')
    for flag, name in ((align_corners, "align_corners"), (antialias, "antialias")):
        if not isinstance(flag, bool) and not (flag is None and name == "antialias"):
            raise TypeError(f"{name} must be True or False, not {flag!r}")
    method, weighted = METHODS[method], METHODS[method] in ("linear", "cubic")
    if not weighted and (align_corners or antialias):
        option = "align_corners" if align_corners else "antialias"
        raise ValueError(f'{option} has no meaning for the method "{method}"; use it with "linear" or "cubic"')
    if convention == "jax" and align_corners:
        raise ValueError('align_corners is an option of PyTorch alone; leave it out, or use convention="torch"')
    return {"method": method, "align_corners": align_corners, "antialias": antialias, "convention": convention}


def check_target(size: Any, scale: Any) -> tuple[Any, Any]:
    """Check a size or a scale as far as possible without a shape."""
    if (size is None) == (scale is None):
        raise TypeError(
            f"size is {size!r} and scale is {scale!r}; give one of them: samples along each axis, such as (24, 24), or "
            "scale=2"
        )
    if size is not None:
        return check_cells(size, "size"), None
    refuse_traced(scale, "scale")
    several = isinstance(scale, (tuple, list))
    factors = tuple(map(_factor, scale)) if several else (_factor(scale),)
    if not factors:
        raise ValueError("scale is empty; give one number for each space axis, or one that holds along all")
    return None, factors if several else factors[0]


def _factor(value: Any) -> float:
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"scale must be a number, or one for each axis, not {value!r}")
    if not 0 < float(value) < math.inf:
        raise ValueError(f"scale is {float(value):g}, it must be finite and above 0: 2 doubles the size, 0.5 halves it")
    return int(value) if float(value).is_integer() else float(value)


def samplings(shape: Shape, target: tuple[Any, Any], options: dict[str, Any]) -> list[Sampling]:
    """The sampling along each axis of one example's space.

    Args:
        shape: shape of the example.
        target: the checked size and scale, one of them None.
        options: the result of :func:`check_options`.

    Raises:
        ValueError: no space, the wrong number of axes, or no samples left.

    Example:
        >>> options = check_options("bilinear", False, None, "torch")
        >>> [(a.out, str(a.step)) for a in samplings((10, 7, 3), (None, (2, 0.5)), options)]
        [(20, '1/2'), (3, '2')]
    """
    space = shape[:-1]
    if not space:
        raise ValueError(
            f"an input of {format_shape(shape)} has channels only and no space; resize before Flatten, on (*space, "
            "channels)"
        )
    size, scale = target
    steps: list[Fraction | None] = [None] * len(space)
    if size is not None:
        wanted = cells_wanted(size, space, "size")
    else:
        factors = scale if isinstance(scale, tuple) else (scale,) * len(space)
        if len(factors) != len(space):
            raise ValueError(
                f"scale {scale} is for {len(factors)} space axes, the input has {len(space)}; give {len(space)} "
                "numbers, or one that holds along every axis"
            )
        wanted = tuple(
            n * f if isinstance(f, int) else _rounded(n, f, shape) for n, f in zip(space, factors, strict=True)
        )
        if 0 in wanted:
            raise ValueError(
                f"scale {scale} leaves nothing of an input of {format_shape(shape)}; use a larger one, or a size"
            )
        steps = [1 / _fraction(f) if options["convention"] == "torch" or isinstance(f, int) else None for f in factors]
    return [_sampling(n, m, step, options, shape) for n, m, step in zip(space, wanted, steps, strict=True)]


def _fraction(factor: float) -> Fraction:
    """A factor as the intended fraction: 0.3 is 3 / 10, although the floating-point number is not."""
    exact = Fraction(factor)
    plain = exact.limit_denominator(1000)
    return plain if float(plain) == factor else exact


def _rounded(size: int, factor: float, shape: Shape) -> int:
    _refuse_symbolic(size, shape)
    return math.floor(size * factor)


def _sampling(size: int, out: int, step: Fraction | None, options: dict[str, Any], shape: Shape) -> Sampling:
    method, aligned, convention = options["method"], options["align_corners"], options["convention"]
    antialias = options["antialias"]
    antialias = (convention == "jax" if antialias is None else antialias) and method in ("linear", "cubic")
    if method == "nearest" and convention == "jax":
        method = "nearest_exact"
    if step is not None and out == size and (method == "linear" or antialias):
        step = Fraction(1)  # PyTorch does not resample an axis that keeps its size, whatever the scale
    if aligned:
        _refuse_symbolic(size, shape)
        step = Fraction(size - 1, out - 1) if out > 1 else Fraction(0)
    elif step is None or step.numerator != 1:
        _refuse_symbolic(size, shape)
        step = Fraction(size, out) if step is None else step
    return Sampling(size, out, step, method, aligned, antialias, convention)


def _refuse_symbolic(size: int, shape: Shape) -> None:
    if symbolic(size):
        raise ValueError(
            f"the space of an input of {format_shape(shape)} has symbolic sizes, for which the weights of a resizing "
            "are not known; use a scale that is a whole number, or export with a fixed space, where the batch may be "
            "symbolic"
        )


class Taps(NamedTuple):
    """The samples that each output depends on, and their weights.

    Shapes:
        samples and weights (outputs, samples of one output).
    """

    samples: np.ndarray
    weights: np.ndarray


@functools.lru_cache(maxsize=256)
def taps(sampling: Sampling) -> Taps:
    """The samples that each output of an axis depends on, and their weights, none of which is 0.

    Example:
        >>> options = check_options("linear", False, None, "torch")
        >>> (axis,) = samplings((3, 1), (2, None), options)
        >>> samples, weights = taps(axis)
        >>> samples.tolist(), weights.tolist()
        ([[0, 1], [1, 2]], [[0.75, 0.25], [0.25, 0.75]])
    """
    size, out, step = sampling.size, sampling.out, sampling.step
    if sampling.method.startswith("nearest"):
        half = Fraction(1, 2) * step if sampling.method == "nearest_exact" else Fraction(0)
        samples = np.array([min(math.floor(i * step + half), size - 1) for i in range(out)], np.int32)
        return Taps(samples[:, None], np.ones((out, 1)))
    places = [place(i, sampling) for i in range(out)]
    whole = np.array([math.floor(u) for u in places])
    part = np.array([float(u - math.floor(u)) for u in places])
    wider = max(float(step), 1.0) if sampling.antialias else 1.0
    reach = math.ceil((1 if sampling.method == "linear" else 2) * wider)
    offsets = np.arange(1 - reach, reach + 1)
    samples = whole[:, None] + offsets
    weights = kernel(sampling)((offsets - part[:, None]) / wider)
    if sampling.convention == "jax" or sampling.antialias:
        weights = np.where((samples >= 0) & (samples < size), weights, 0)
        weights = weights / weights.sum(1, keepdims=True)
    samples = np.clip(samples, 0, size - 1)
    needed = (np.abs(weights) > _NOTHING).any(0)
    samples, weights = samples[:, needed], weights[:, needed]
    # replace samples of weight 0, so that they are not read, by copies of another sample, which share its weight
    used = np.abs(weights) > _NOTHING
    first = used.argmax(1)[:, None]
    share = np.take_along_axis(weights, first, 1) / (1 + (~used).sum(1, keepdims=True))
    samples = np.where(used, samples, np.take_along_axis(samples, first, 1))
    weights = np.where(used, weights, share)
    np.put_along_axis(weights, first, share, 1)
    return Taps(samples.astype(np.int32), weights)


def as_matrix(sampling: Sampling) -> np.ndarray:
    """The weights of an axis as a matrix (outputs, samples).

    Example:
        >>> (axis,) = samplings((2, 1), (3, None), check_options("linear", False, None, "torch"))
        >>> as_matrix(axis).round(3).tolist()
        [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    samples, weights = taps(sampling)
    matrix = np.zeros((sampling.out, sampling.size))
    np.add.at(matrix, (np.arange(sampling.out)[:, None], samples), weights)
    return matrix


def place(i: int, sampling: Sampling) -> Fraction:
    """The position of output i, in samples of the input."""
    if sampling.aligned and not sampling.antialias:
        return i * sampling.step
    return (i + Fraction(1, 2)) * sampling.step - Fraction(1, 2)


def kernel(sampling: Sampling) -> Callable[[np.ndarray], np.ndarray]:
    """The weight of a sample by its distance from an output."""
    if sampling.method == "linear":
        return lambda t: np.maximum(1 - np.abs(t), 0)
    return functools.partial(
        _keys, _TORCH_CUBIC if sampling.convention == "torch" and not sampling.antialias else _CUBIC
    )


def _keys(a: float, t: np.ndarray) -> np.ndarray:
    """Keys' kernel, equation 15 of the paper, with a in place of -1/2."""
    t = np.abs(t)
    near, far = ((a + 2) * t - (a + 3)) * t * t + 1, a * (((t - 5) * t + 8) * t - 4)
    return np.where(t <= 1, near, np.where(t < 2, far, 0))
