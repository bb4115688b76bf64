"""Layers with random hyperparameters that fit a given input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import layers
from ..compose.graph import graph
from ..geometry import FILL, Shape
from ..layer import Layer

#: the most entries of one example of the output, so that a case takes milliseconds
LARGEST = 1200
#: the fewest values that a normalisation averages: for two, the gradient is a difference of nearly equal numbers
LEAST_AVERAGED = 3

Draw = Callable[[np.random.Generator, Shape], Layer]


def fitting(kind: str, generator: np.random.Generator, shape: Shape, batch: int) -> Layer | None:
    """Draw a layer of a kind until it fits an input.

    Args:
        kind: a key of :data:`KINDS`.
        generator: source of the hyperparameters.
        shape: shape of one example.
        batch: number of examples.

    Returns:
        The layer, or None if fifty draws did not fit.

    Example:
        >>> fitting("MaxPool", np.random.default_rng(0), (6, 6, 2), 2).out_shape((6, 6, 2))[-1]
        2
    """
    for _ in range(50):
        layer = KINDS[kind](generator, shape)
        try:
            out = layer.out_shape(shape)
        except ValueError:  # the window is too large, or sees only padding
            continue
        if math.prod(out) <= LARGEST and _averaged(layer, shape, batch) >= LEAST_AVERAGED:
            return layer
    return None


def input_shape(generator: np.random.Generator, rank: int, channels: int | None = None) -> Shape:
    """The shape of one example with ``rank`` space axes: 4 to 9 samples in 1-D, to 8 in 2-D, to 5 in 3-D."""
    high = {1: 10, 2: 9, 3: 6}[rank]
    space = (int(n) for n in generator.integers(4, high, rank))
    return (*space, int(generator.integers(1, 7)) if channels is None else channels)


def pick(generator: np.random.Generator, *choices: Any) -> Any:
    """One of several values, at random."""
    return choices[int(generator.integers(len(choices)))]


def _averaged(layer: Layer, shape: Shape, batch: int) -> int:
    """The number of values that a normalisation averages; a sufficient number for other layers."""
    space, channels = math.prod(shape[:-1]), shape[-1]
    if isinstance(layer, layers.BatchNorm):
        return batch * space
    if isinstance(layer, layers.LayerNorm):
        return channels
    if isinstance(layer, layers.GroupNorm):
        return space * channels // layer.groups
    return space if isinstance(layer, layers.InstanceNorm) else LEAST_AVERAGED


def _flag(generator: np.random.Generator) -> bool:
    return bool(generator.integers(2))


def _sizes(generator: np.random.Generator, rank: int, low: int, high: int) -> int | Shape:
    """One number for all axes, or one per axis."""
    if _flag(generator):
        return int(generator.integers(low, high))
    return tuple(int(n) for n in generator.integers(low, high, rank))


def _cells(generator: np.random.Generator, rank: int) -> Any:
    """Cells along each axis; None leaves an axis unchanged."""
    cells = _sizes(generator, rank, 1, 6)
    return cells if isinstance(cells, int) else tuple(pick(generator, n, n, None) for n in cells)


def _padding(generator: np.random.Generator, rank: int, *names: str) -> Any:
    chosen = int(generator.integers(len(names) + 2 + ("EDGE" in names)))
    if chosen < len(names):
        return names[chosen]
    if chosen == len(names) + 2:
        return pick(generator, *FILL), int(generator.integers(3))
    if chosen == len(names):
        return int(generator.integers(3))
    return tuple((int(lo), int(hi)) for lo, hi in generator.integers(0, 3, (rank, 2)))


def _divisor(generator: np.random.Generator, number: int) -> int:
    return pick(generator, *(d for d in range(1, number + 1) if number % d == 0))


def _sliding(kind: Any, *paddings: str, more: Callable[[Any, int], dict[str, Any]] | None = None) -> Draw:
    def draw(generator: np.random.Generator, shape: Shape) -> Layer:
        rank = len(shape) - 1
        groups = _divisor(generator, shape[-1])
        options = {} if more is None else more(generator, rank)
        return kind(
            groups * int(generator.integers(1, 1 + max(1, 6 // groups))),
            _sizes(generator, rank, 1, {1: 6, 2: 4, 3: 4}[rank]),
            stride=_sizes(generator, rank, 1, 4),
            padding=_padding(generator, rank, *paddings),
            dilation=_sizes(generator, rank, 1, 4 if rank == 1 else 3),
            groups=groups,
            bias=_flag(generator),
            **options,
        )

    return draw


def _pool(kind: Any, more: Callable[[Any], dict[str, Any]]) -> Draw:
    def draw(generator: np.random.Generator, shape: Shape) -> Layer:
        rank = len(shape) - 1
        return kind(
            _sizes(generator, rank, 1, 4),
            stride=pick(generator, None, _sizes(generator, rank, 1, 4)),
            padding=_padding(generator, rank, *_ALL),
            dilation=_sizes(generator, rank, 1, 3),
            ceil_mode=_flag(generator),
            **more(generator),
        )

    return draw


def put_back(layer: Any, x: Any) -> Any:
    """Max pooling followed by unpooling."""
    return layer.unpool(layer.pool(x), x)


def _unpool(generator: np.random.Generator, shape: Shape) -> Layer:
    pool: Any = _pool(layers.MaxPool, lambda g: {})(generator, shape)
    options = {name: getattr(pool, name) for name in ("stride", "padding", "dilation", "ceil_mode")}
    return graph(pool=pool, unpool=layers.MaxUnpool(pool.window, **options))(put_back)


def _norm(kind: Any) -> Draw:
    return lambda g, shape: kind(scale=_flag(g), bias=_flag(g), epsilon=pick(g, 1e-5, 1e-3))


def _response(g: np.random.Generator, shape: Shape) -> Layer:
    numbers = {"alpha": pick(g, 1e-4, 0.3), "beta": pick(g, 0.75, 0.5), "k": pick(g, 1.0, 2.0)}
    return layers.LocalResponseNorm(size=int(g.integers(1, 6)), **numbers)


def _shuffle(kind: Any) -> Draw:
    return lambda g, shape: kind(_sizes(g, len(shape) - 1, 1, 4), order=pick(g, "CRD", "DCR"))


def _pairs(generator: np.random.Generator, rank: int) -> Any:
    return pick(
        generator, int(generator.integers(3)), tuple((int(a), int(b)) for a, b in generator.integers(0, 3, (rank, 2)))
    )


def _pad(generator: np.random.Generator, rank: int) -> Layer:
    mode, amount = pick(generator, None, *FILL), _pairs(generator, rank)
    return layers.Pad(amount, value=pick(generator, 0.0, -1.5)) if mode is None else layers.Pad((mode, amount))


def _crop(generator: np.random.Generator, shape: Shape) -> Layer:
    if _flag(generator):
        return layers.Crop(_pairs(generator, len(shape) - 1))
    return layers.Crop(size=_cells(generator, len(shape) - 1))


def _resize(generator: np.random.Generator, shape: Shape) -> Layer:
    rank, method = len(shape) - 1, pick(generator, "nearest", "nearest_exact", "linear", "cubic")
    options = {"method": method, "convention": pick(generator, "torch", "jax")}
    if method in ("linear", "cubic"):
        aligned = options["convention"] == "torch" and _flag(generator)
        options |= {"antialias": _flag(generator), "align_corners": aligned}
    if _flag(generator):
        return layers.Resize(_cells(generator, rank), **options)
    return layers.Resize(scale=pick(generator, 2, 0.5, 1.5, tuple(1.0 + n / 4 for n in range(rank))), **options)


_ALL = ("VALID", "SAME", "SAME_LOWER", "CAUSAL", "CIRCULAR", "REFLECT", "EDGE")

#: for every layer of the library, by name, a function that draws one for an input shape
KINDS: dict[str, Draw] = {
    "Conv": _sliding(layers.Conv, *_ALL),
    "ConvTranspose": _sliding(
        layers.ConvTranspose,
        "VALID",
        "SAME",
        "SAME_LOWER",
        more=lambda g, rank: {"output_padding": _sizes(g, rank, 0, 2)},
    ),
    "LocallyConnected": _sliding(layers.LocallyConnected, *_ALL),
    "Dense": lambda g, shape: layers.Dense(int(g.integers(1, 7)), bias=_flag(g)),
    "Flatten": lambda g, shape: layers.Flatten(first=1 + int(g.integers(len(shape)))),
    "MaxPool": _pool(layers.MaxPool, lambda g: {}),
    "MaxUnpool": _unpool,
    "AvgPool": _pool(layers.AvgPool, lambda g: {"count_padding": _flag(g), "divisor": pick(g, None, None, 3)}),
    "LpPool": _pool(layers.LpPool, lambda g: {"power": pick(g, 1.0, 1.5, 2.0, 3.0)}),
    "GlobalMaxPool": lambda g, shape: layers.GlobalMaxPool(),
    "GlobalAvgPool": lambda g, shape: layers.GlobalAvgPool(),
    "AdaptiveMaxPool": lambda g, shape: layers.AdaptiveMaxPool(_cells(g, len(shape) - 1)),
    "AdaptiveAvgPool": lambda g, shape: layers.AdaptiveAvgPool(_cells(g, len(shape) - 1)),
    "Maxout": lambda g, shape: layers.Maxout(_divisor(g, shape[-1])),
    "PReLU": lambda g, shape: layers.PReLU(per_channel=_flag(g)),
    "ScaleChannels": lambda g, shape: layers.ScaleChannels(pick(g, 0.5, 1.0), bias=bool(g.integers(2))),
    "ChannelShuffle": lambda g, shape: layers.ChannelShuffle(_divisor(g, shape[-1])),
    "PixelShuffle": _shuffle(layers.PixelShuffle),
    "PixelUnshuffle": _shuffle(layers.PixelUnshuffle),
    "Pad": lambda g, shape: _pad(g, len(shape) - 1),
    "Crop": _crop,
    "Resize": _resize,
    "StochasticDepth": lambda g, shape: layers.StochasticDepth(pick(g, 0.1, 0.3, 0.5)),
    "Dropout": lambda g, shape: layers.Dropout(pick(g, 0.1, 0.3, 0.5), whole_channels=_flag(g)),
    "BatchNorm": _norm(layers.BatchNorm),
    "LayerNorm": _norm(layers.LayerNorm),
    "GroupNorm": lambda g, shape: layers.GroupNorm(_divisor(g, shape[-1]), scale=_flag(g), bias=_flag(g)),
    "InstanceNorm": _norm(layers.InstanceNorm),
    "LocalResponseNorm": _response,
}

#: layers whose output in training differs from that at inference
MODES = ("BatchNorm", "Dropout", "StochasticDepth")
#: layers that also take inputs without space axes
VECTORS = (
    "Dense", "Maxout", "BatchNorm", "LayerNorm", "Dropout", "LocalResponseNorm", "PReLU", "ScaleChannels",
    "StochasticDepth",     "ChannelShuffle",
)  # fmt: skip
