"""Resize and Upsample: the library's layer where it is the same, else weights by ONNX's formulas."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ... import layers
from .builder import Builder
from .node import Made, Node, Operand, array_of, integers_of, operand, same_or_all, value_of
from .values import Unreadable, channels_last


class Axis(NamedTuple):
    """The resizing of one axis.

    Attributes:
        size: samples before.
        out: samples after.
        scale: the factor, of which ``out`` is the rounded product.
    """

    size: int
    out: int
    scale: float


class Way(NamedTuple):
    """How values between the samples are found, under ONNX's names."""

    mode: str
    coordinates: str
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


def resample(x: jax.Array, axes: tuple[tuple[int, Axis], ...], way: Way) -> jax.Array:
    """Resize axes one after another.

    Args:
        x: (batch, ...).
        axes: which axis, counted with the batch, and its sizes.
        way: how values between the samples are found.

    Example:
        >>> way = Way("nearest", "asymmetric", "floor")
        >>> resample(jnp.array([[1.0, 2.0]]), axes=((1, Axis(2, 4, 2.0)),), way=way).tolist()
        [[1.0, 1.0, 2.0, 2.0]]
    """
    for place, axis in axes:
        if way.mode == "nearest":
            x = jnp.take(x, nearest_samples(axis, way), axis=place)
        else:
            made = jnp.tensordot(x, weights(axis, way).astype(x.dtype), axes=((place,), (1,)))
            x = jnp.moveaxis(made, -1, place)
    return x


def positions(axis: Axis, coordinates: str) -> np.ndarray:
    """Where the outputs lie, in samples of the input.

    Example:
        >>> positions(Axis(4, 2, 0.5), "half_pixel").tolist(), positions(Axis(4, 2, 0.5), "align_corners").tolist()
        ([0.5, 2.5], [0.0, 3.0])
    """
    i = np.arange(axis.out, dtype=float)
    centres = (i + 0.5) / axis.scale - 0.5
    if coordinates == "half_pixel":
        return centres
    if coordinates == "pytorch_half_pixel":
        return centres if axis.out > 1 else np.zeros(axis.out)
    if coordinates == "half_pixel_symmetric":  # the centre of what would be without rounding stays the centre
        return axis.size / 2 * (1 - axis.out / (axis.size * axis.scale)) + centres
    if coordinates == "align_corners":
        return i * (axis.size - 1) / (axis.out - 1) if axis.out > 1 else np.zeros(axis.out)
    return i / axis.scale


def nearest_samples(axis: Axis, way: Way) -> np.ndarray:
    """The sample that each output takes.

    Example:
        >>> nearest_samples(Axis(4, 2, 0.5), Way("nearest", "half_pixel")).tolist()
        [0, 2]
    """
    where = positions(axis, way.coordinates)
    rounded = {
        "round_prefer_floor": np.ceil(where - 0.5), "round_prefer_ceil": np.floor(where + 0.5),
        "floor": np.floor(where), "ceil": np.ceil(where),
    }[way.nearest]  # fmt: skip
    return np.clip(rounded, 0, axis.size - 1).astype(np.int32)


def weights(axis: Axis, way: Way) -> np.ndarray:
    """The weights (outputs, samples) of linear or cubic interpolation.

    Example:
        >>> weights(Axis(2, 3, 1.5), Way("linear", "align_corners")).tolist()
        [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    where = positions(axis, way.coordinates)
    whole = np.floor(where).astype(int)
    narrow = min(axis.scale, 1.0) if way.antialias else 1.0
    reach = math.ceil((1 if way.mode == "linear" else 2) / narrow)
    offsets = np.arange(1 - reach, reach + 1)
    distance = np.abs(offsets - (where - whole)[:, None]) * narrow
    if way.mode == "linear":
        share = np.maximum(1 - distance, 0)
    else:
        a = way.cubic
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        share = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
    samples = whole[:, None] + offsets
    if way.exclude_outside:
        share = np.where((samples >= 0) & (samples < axis.size), share, 0)
    if way.exclude_outside or way.antialias:
        share = share / share.sum(1, keepdims=True)
    matrix = np.zeros((axis.out, axis.size))
    np.add.at(matrix, (np.arange(axis.out)[:, None], np.clip(samples, 0, axis.size - 1)), share)
    return matrix


def resize(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Resize, and Upsample before it."""
    x = b.in_order(value_of(operands[0]))
    axes = [axis % x.rank for axis in node.get("axes") or range(x.rank)]
    scales, sizes = _target(node, operands)
    if node.kind == "Upsample" or node.version < 11:
        way = Way(node.get("mode", "nearest"), "asymmetric", "floor")
    else:
        way = Way(
            node.get("mode", "nearest"), node.get("coordinate_transformation_mode", "half_pixel"),
            node.get("nearest_mode", "round_prefer_floor"), node.get("cubic_coeff_a", -0.75),
            bool(node.get("exclude_outside", 0)), bool(node.get("antialias", 0)),
        )  # fmt: skip
    if way.coordinates == "tf_crop_and_resize":
        raise Unreadable("crops while it resizes (tf_crop_and_resize)")
    made = _axes(node, [x.shape[axis] for axis in axes], scales, sizes)
    changed = {axis: one for axis, one in zip(axes, made, strict=True) if one.out != one.size or one.scale != 1}
    if not changed:
        return x
    b.own_axes(x, list(changed))
    if 2 < x.rank < 6 and x.order == channels_last(x.rank) and 1 not in changed:
        space = [changed.get(axis, Axis(x.shape[axis], x.shape[axis], 1.0)) for axis in range(2, x.rank)]
        layer = _layer(space, way)
        if layer is not None:
            return b.layer(layer, x)
    places = tuple((x.place(axis), one) for axis, one in changed.items())
    return b.call(functools.partial(resample, axes=places, way=way), [x])


def _target(node: Node, operands: list[Operand]) -> tuple[list[float] | None, list[int] | None]:
    """The scales or the sizes that a node gives."""
    place = 1 if node.kind == "Upsample" or node.version < 11 else 2
    given, sizes = operand(operands, place), operand(operands, 3)
    if sizes is not None and array_of(sizes, "sizes").size:
        return None, integers_of(sizes, "sizes")
    if given is None:
        scales = node.get("scales") or [1.0, 1.0, node.get("height_scale", 1.0), node.get("width_scale", 1.0)]
        return [float(s) for s in scales], None
    return [float(str(s)) for s in array_of(given, "scales")], None


def _axes(node: Node, before: list[int], scales: list[float] | None, sizes: list[int] | None) -> list[Axis]:
    if scales is not None:
        return [Axis(n, math.floor(n * s), s) for n, s in zip(before, scales, strict=True)]
    sizes = sizes or []
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return [Axis(n, m, m / n) for n, m in zip(before, sizes, strict=True)]
    ratios = [m / n for n, m in zip(before, sizes, strict=True)]
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [Axis(n, math.floor(ratio * n + 0.5), ratio) for n in before]


#: ONNX's ways that the layer has as well, by mode, coordinates and rounding
_SAME = {
    ("nearest", "asymmetric", "floor"): {"method": "nearest"},
    ("linear", "half_pixel", ""): {},
    ("linear", "pytorch_half_pixel", ""): {},
    ("linear", "align_corners", ""): {"align_corners": True},
    ("cubic", "half_pixel", ""): {"method": "cubic"},
    ("cubic", "pytorch_half_pixel", ""): {"method": "cubic"},
    ("cubic", "align_corners", ""): {"method": "cubic", "align_corners": True},
}


def _layer(space: list[Axis], way: Way) -> Any:
    """The layer that resizes so; None: there is none."""
    whole = all(one.scale.is_integer() for one in space)
    mode = way.nearest if way.mode == "nearest" else ""
    if way.mode == "nearest" and whole and way.coordinates == "half_pixel" and way.nearest.startswith("round"):
        # every sample is repeated, and no output lies half way between two
        mode, way = "floor", way._replace(coordinates="asymmetric")
    options = _SAME.get((way.mode, way.coordinates, mode))
    if options is None or way.exclude_outside or way.antialias or (way.mode == "cubic" and way.cubic != -0.75):
        return None
    if any(one.out == 1 for one in space) and way.coordinates.endswith("half_pixel"):
        return None
    if whole:
        return layers.Resize(scale=same_or_all([int(one.scale) for one in space]), **options)
    if any(not math.isclose(one.out, one.size * one.scale) for one in space):
        return None  # the layer's step would be that of the rounded size
    return layers.Resize(same_or_all([one.out for one in space]), **options)


RULES = {"Resize": resize, "Upsample": resize}
