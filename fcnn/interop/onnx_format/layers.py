"""The ONNX nodes of layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ... import geometry, names
from ... import layers as ours
from ...geometry import Shape
from ...identity import nearest
from ...ops.pad import cropped
from ...ops.pool import pool_windows
from ...scan import Scan
from ...transposed import transposed
from ..channel_order import to_first, transposed_kernel
from . import norms
from .graph import Graph, Inexpressible, Value, channels_first

Arrays = dict[str, np.ndarray]
#: (graph, layer, its arrays by name, its input, shape of its output with the batch) to its output
Rule = Callable[[Graph, Any, Arrays, Value, Shape], Value]


def rule_of(layer: Any) -> Rule | None:
    """How a layer that is no composition is written; None: operation by operation.

    Raises:
        Inexpressible: ONNX has no form for it.
    """
    kind = nearest(layer, (*RULES, *_WHY))
    if kind in _WHY:
        raise Inexpressible(f"{names.code(layer)} {_WHY[kind]}")
    return RULES.get(kind) if kind is not None else None


def _sizes(value: Any, rank: int) -> list[int]:
    return list(geometry.per_axis(value, rank, "size", 0))


def _pads(pads: Any) -> list[int]:
    return [lo for lo, _ in pads] + [hi for _, hi in pads]


def _padded(graph: Graph, value: Value, pads: Any, fill: str = "constant", constant: float = 0.0) -> str:
    """The name of an image with samples added, or for negative numbers taken away."""
    name = graph.image(value)
    if not any(map(any, pads)):
        return name
    amounts = graph.integers([0, 0, *(lo for lo, _ in pads), 0, 0, *(hi for _, hi in pads)])
    if fill == "constant":
        return graph.node("Pad", [name, amounts, graph.floats(constant)], mode="constant")
    return graph.node("Pad", [name, amounts], mode=fill)


def _conv(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    space = value.shape[1:-1]
    windows = geometry.slide(space, layer.kernel, stride=layer.stride, padding=layer.padding, dilation=layer.dilation)
    pads, name = windows.pads, None
    if windows.fill != "constant" or any(min(pair) < 0 for pair in pads):
        name, pads = _padded(graph, value, pads, windows.fill), [(0, 0)] * len(space)
    weights = [graph.floats(np.moveaxis(arrays["kernel"], (-1, -2), (0, 1)), "kernel")]
    weights += [graph.floats(arrays["bias"], "bias")] if "bias" in arrays else []
    made = graph.node(
        "Conv", [name or graph.image(value), *weights], kernel_shape=list(windows.kernel), group=layer.groups,
        strides=list(windows.stride), dilations=list(windows.dilation), pads=_pads(pads),
    )  # fmt: skip
    return graph.made(made, out)


def _conv_transpose(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    if geometry.split(layer.padding)[0] is not None:
        raise Inexpressible("adds what it crops to the other end, which ONNX's ConvTranspose does not")
    space, rank = value.shape[1:-1], value.rank - 2
    options = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "output_padding", "out")}
    wanted, crops = transposed(space, layer.kernel, **options)[:2]
    kernel, stride = _sizes(layer.kernel, rank), _sizes(layer.stride, rank)
    dilation = _sizes(layer.dilation, rank)
    if any(lo < 0 for lo, _ in crops):
        raise Inexpressible("adds samples before its result, which ONNX's ConvTranspose does not")
    full = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(space, stride, dilation, kernel, strict=True)]
    more = [max(w + lo - n, 0) for w, (lo, _), n in zip(wanted, crops, full, strict=True)]
    ends = [n + m - w - lo for n, m, w, (lo, _) in zip(full, more, wanted, crops, strict=True)]
    inputs = [graph.image(value), graph.floats(transposed_kernel(arrays["kernel"], layer.groups), "kernel")]
    inputs += [graph.floats(arrays["bias"], "bias")] if "bias" in arrays else []
    made = graph.node(
        "ConvTranspose", inputs, kernel_shape=kernel, strides=stride, dilations=dilation, group=layer.groups,
        pads=[lo for lo, _ in crops] + ends, output_padding=more,
    )  # fmt: skip
    return graph.made(made, out)


def _dense(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    kernel, bias = arrays["kernel"], arrays.get("bias")
    more = [graph.floats(bias, "bias")] if bias is not None else []
    if value.rank == 2:
        kernel = kernel if value.flat is None else kernel[to_first(value.flat)]
        return graph.made(graph.node("Gemm", [value.name, graph.floats(kernel, "kernel"), *more]), out)
    rank = value.rank - 2  # a dense layer at every position is a convolution of one sample
    weight = graph.floats(kernel.T.reshape(*kernel.T.shape, *[1] * rank), "kernel")
    return graph.made(graph.node("Conv", [graph.image(value), weight, *more], kernel_shape=[1] * rank), out)


def _flatten(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    if len(out) != 2:
        value = graph.ordered(value, tuple(range(value.rank)))
        name = graph.node("Reshape", [graph.named(value), graph.integers([-1, *out[1:]])])
        return Value(name, tuple(out), tuple(range(len(out))))
    name = graph.node("Flatten", [graph.image(value)], axis=1)
    one = prod(value.shape[1:-1]) == 1 or value.shape[-1] == 1 or value.rank == 2
    return graph.made(name, out, flat=None if one else value.shape[1:])


def _pool(kind: str) -> Rule:
    """Pooling over windows."""

    def rule(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
        space = value.shape[1:-1]
        windows = pool_windows(space, layer.window, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
        if windows.fill != "constant" and any(windows.overhang):
            raise Inexpressible("pools past the copies of samples, which ONNX's pooling does not")
        pads = [(lo, hi + more) for (lo, hi), more in zip(windows.pads, windows.overhang, strict=True)]
        options: dict[str, Any] = {
            "kernel_shape": list(windows.kernel), "strides": list(windows.stride), "dilations": list(windows.dilation),
        }  # fmt: skip
        if windows.fill == "constant" and all(max(pair) < k for pair, k in zip(pads, windows.kernel, strict=True)):
            options["pads"], pads = _pads(pads), [(0, 0)] * len(pads)  # else by a node of its own
        if kind == "LpPool":
            power = float(layer.power)
            if power != int(power):
                raise Inexpressible(f"has the power {power}, and ONNX's LpPool takes whole numbers")
            name = _padded(graph, value, pads, windows.fill)
            return graph.made(graph.node("LpPool", [name], p=int(power), **options), out)
        if kind == "MaxPool":
            small = float(np.finfo(graph.dtype).min)
            name = _padded(graph, value, pads, windows.fill, small)
            return graph.made(graph.node("MaxPool", [name], **options), out)
        return _average(graph, layer, value, windows, pads, options, out)

    return rule


def _average(
    graph: Graph, layer: Any, value: Value, windows: Any, pads: Any, options: dict[str, Any], out: Shape
) -> Value:
    """Sums over windows times the share of a sample, which differs at borders."""
    count = prod(windows.kernel)
    name = _padded(graph, value, pads, windows.fill)
    sums = graph.node("AveragePool", [name], count_include_pad=1, **options)
    if layer.divisor is not None:
        return graph.made(graph.node("Mul", [sums, graph.floats(count / layer.divisor)]), out)
    samples = [np.asarray(n, float) for n in windows.counts(padding=layer.count_padding)]
    seen = samples[0]
    for axis in samples[1:]:
        seen = np.multiply.outer(seen, axis)
    if (seen == count).all():
        return graph.made(sums, out)
    return graph.made(graph.node("Mul", [sums, graph.floats((count / seen)[None, None])]), out)


def _whole(kind: str) -> Rule:
    """Pooling over the whole space."""

    def rule(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
        if value.rank == 2:
            return value
        name = graph.node(kind, [graph.image(value)])
        return graph.made(graph.node("Flatten", [name], axis=1), out)

    return rule


def _adaptive(kind: str) -> Rule:
    """Pooling to a wanted size: equal windows where the size divides, else axis by axis."""

    def rule(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
        name, rank = graph.image(value), value.rank - 2
        for axis, (n, m) in enumerate(zip(value.shape[1:-1], out[1:-1], strict=True)):
            if n == m:
                continue
            if n % m == 0:
                sizes = [n // m if i == axis else 1 for i in range(rank)]
                pooled = "AveragePool" if kind == "mean" else "MaxPool"
                name = graph.node(pooled, [name], kernel_shape=sizes, strides=sizes)
                continue
            pieces = []
            for i in range(m):
                first, last = i * n // m, -(-(i + 1) * n // m)
                bounds = [graph.integers([number]) for number in (first, last, axis + 2)]
                piece = graph.node("Slice", [name, *bounds])
                reduced = "ReduceMean" if kind == "mean" else "ReduceMax"
                pieces.append(graph.node(reduced, [piece, graph.integers([axis + 2])], keepdims=1))
            name = graph.node("Concat", pieces, axis=axis + 2)
        return graph.made(name, out)

    return rule


def _maxout(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    image = graph.ordered(value, channels_first(value.rank))
    sizes = [value.shape[axis] for axis in image.order[1:]]
    pieces = sizes[0] // out[-1]
    split = graph.node("Reshape", [graph.named(image), graph.integers([0, out[-1], pieces, *sizes[1:]])])
    return graph.made(graph.node("ReduceMax", [split, graph.integers([2])], keepdims=0), out)


def _prelu(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    value = graph.in_order(value)
    slope = np.asarray(arrays["slope"]).reshape(1, -1, *[1] * max(value.rank - 2, 0))
    return graph.made(graph.node("PRelu", [graph.image(value), graph.floats(slope, "slope")]), out)


def _scale_channels(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    value = graph.in_order(value)
    name = graph.image(value)
    for entry, kind in (("scale", "Mul"), ("bias", "Add")):
        if entry in arrays:
            array = arrays[entry].reshape(1, -1, *[1] * max(value.rank - 2, 0))
            name = graph.node(kind, [name, graph.floats(array, entry)])
    return graph.made(name, out)


def _channel_shuffle(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    image = graph.ordered(value, channels_first(value.rank))
    sizes = [value.shape[axis] for axis in image.order[1:]]
    split = graph.node("Reshape", [image.name, graph.integers([0, layer.groups, -1, *sizes[1:]])])
    turned = graph.node("Transpose", [split], perm=[0, 2, 1, *range(3, value.rank + 1)])
    return graph.made(graph.node("Reshape", [turned, graph.integers([0, *sizes])]), out)


def _pixel_shuffle(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    factors, space = _sizes(layer.factor, value.rank - 2), list(value.shape[1:-1])
    if value.rank == 4 and len(set(factors)) == 1:
        name = graph.node("DepthToSpace", [graph.image(value)], blocksize=factors[0], mode=layer.order)
        return graph.made(name, out)
    rank, channels = len(space), [out[-1]]
    parts = [*channels, *factors] if layer.order == "CRD" else [*factors, *channels]
    split = graph.node("Reshape", [graph.image(value), graph.integers([0, *parts, *space])])
    first = 1 if layer.order == "CRD" else 1 + rank  # where the channels are, and the factors
    own = [2 + i for i in range(rank)] if layer.order == "CRD" else [1 + i for i in range(rank)]
    perm = [0, first, *(axis for i in range(rank) for axis in (2 + rank + i, own[i]))]
    turned = graph.node("Transpose", [split], perm=perm)
    return graph.made(graph.node("Reshape", [turned, graph.integers([0, out[-1], *out[1:-1]])]), out)


def _pixel_unshuffle(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    factors, rank = _sizes(layer.factor, value.rank - 2), value.rank - 2
    parts = [n for size, factor in zip(out[1:-1], factors, strict=True) for n in (size, factor)]
    split = graph.node("Reshape", [graph.image(value), graph.integers([0, value.shape[-1], *parts])])
    inner, outer = [3 + 2 * i for i in range(rank)], [2 + 2 * i for i in range(rank)]
    perm = [0, 1, *inner, *outer] if layer.order == "CRD" else [0, *inner, 1, *outer]
    turned = graph.node("Transpose", [split], perm=perm)
    return graph.made(graph.node("Reshape", [turned, graph.integers([0, out[-1], *out[1:-1]])]), out)


#: ways of resizing that ONNX's node has, by method and whether corners are aligned
_RESIZE: dict[tuple[str, bool], dict[str, Any]] = {
    ("nearest", False): {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ("linear", False): {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    ("linear", True): {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ("cubic", False): {"mode": "cubic", "coordinate_transformation_mode": "half_pixel", "cubic_coeff_a": -0.75},
    ("cubic", True): {"mode": "cubic", "coordinate_transformation_mode": "align_corners", "cubic_coeff_a": -0.75},
}


def _resize(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    options = _RESIZE.get((layer.method, layer.align_corners))
    exact = layer.scale is None or all(float(s).is_integer() for s in np.atleast_1d(layer.scale))
    if options is not None and exact and layer.convention == "torch" and not layer.antialias and value.rank <= 4:
        sizes = graph.integers([out[-1], *out[1:-1]])
        kept = graph.node("Slice", [graph.node("Shape", [graph.image(value)]), *map(graph.integers, ([0], [1]))])
        wanted = graph.node("Concat", [kept, sizes], axis=0)
        return graph.made(graph.node("Resize", [graph.image(value), "", "", wanted], **options), out)
    name, letters = graph.image(value), "abdefgh"[: value.rank - 2]
    for axis, (n, m) in enumerate(zip(value.shape[1:-1], out[1:-1], strict=True)):
        if n != m or layer.scale is not None:  # what each output takes of each sample, along one axis
            matrix = _weights(layer, axis, n, m, value.rank - 2)
            new = letters.replace(letters[axis], "k")
            name = graph.node("Einsum", [name, graph.floats(matrix)], equation=f"nc{letters},{letters[axis]}k->nc{new}")
    return graph.made(name, out)


def _weights(layer: Any, axis: int, n: int, m: int, rank: int) -> np.ndarray:
    """The matrix (samples before, samples after) of resizing along one axis."""
    given = {"size": m} if layer.scale is None else {"scale": float(np.broadcast_to(layer.scale, rank)[axis])}
    alone = dataclasses.replace(layer, **{"size": None, "scale": None, **given})
    return np.asarray(alone.forward({}, np.eye(n, dtype=np.float32)[..., None]))[..., 0]


def _pad(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    mode, amount = geometry.split(layer.padding)
    rank = value.rank - 2
    pads = geometry.pairs(amount, rank)
    name = _padded(graph, value, pads, "constant" if mode is None else geometry.FILL[mode], layer.value)
    return graph.made(name, out)


def _crop(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    amounts = cropped(value.shape[1:], layer.amount, layer.size)
    starts = [lo for lo, _ in amounts]
    ends = [lo + n for lo, n in zip(starts, out[1:-1], strict=True)]
    bounds = [graph.integers(numbers) for numbers in (starts, ends, list(range(2, value.rank)))]
    return graph.made(graph.node("Slice", [graph.image(value), *bounds]), out)


def _unchanged(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    return value


#: the rule of every layer that ONNX has a form for
RULES: dict[type, Rule] = {
    ours.Conv: _conv,
    ours.ConvTranspose: _conv_transpose,
    ours.Dense: _dense,
    ours.Flatten: _flatten,
    ours.MaxPool: _pool("MaxPool"),
    ours.AvgPool: _pool("AveragePool"),
    ours.LpPool: _pool("LpPool"),
    ours.GlobalMaxPool: _whole("GlobalMaxPool"),
    ours.GlobalAvgPool: _whole("GlobalAveragePool"),
    ours.AdaptiveAvgPool: _adaptive("mean"),
    ours.AdaptiveMaxPool: _adaptive("max"),
    ours.BatchNorm: norms.batch_norm,
    ours.LayerNorm: norms.layer_norm,
    ours.GroupNorm: norms.group_norm,
    ours.InstanceNorm: norms.instance_norm,
    ours.LocalResponseNorm: norms.response_norm,
    ours.Maxout: _maxout,
    ours.PReLU: _prelu,
    ours.ScaleChannels: _scale_channels,
    ours.ChannelShuffle: _channel_shuffle,
    ours.PixelShuffle: _pixel_shuffle,
    ours.PixelUnshuffle: _pixel_unshuffle,
    ours.Pad: _pad,
    ours.Crop: _crop,
    ours.Resize: _resize,
    ours.Dropout: _unchanged,
    ours.StochasticDepth: _unchanged,
}

#: layers that ONNX has no form for, and why
_WHY: dict[type, str] = {
    ours.LocallyConnected: "has a kernel for every position, and ONNX's convolutions have one for all",
    Scan: "applies a network at every position; write it as convolutions by fcnn.fully_convolutional",
}
