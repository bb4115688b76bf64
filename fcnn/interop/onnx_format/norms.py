"""The ONNX nodes of normalisations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...geometry import Shape
from ..channel_order import to_first
from .graph import Graph, Inexpressible, Value, channels_first

Arrays = dict[str, np.ndarray]


def batch_norm(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    """By stored statistics, or by those of the batch."""
    if not layer.running:  # by the statistics of the batch
        value = graph.in_order(value)
        axes = [value.axis(axis) for axis in range(value.rank - 1)]
        name = _normalised(graph, value.name, axes, layer.epsilon)
        return Value(_affine(graph, name, arrays, value), value.shape, value.order)
    channels = value.shape[-1]
    scale, bias = arrays.get("scale", np.ones(channels)), arrays.get("bias", np.zeros(channels))
    order: Any = slice(None)
    if value.flat is not None:
        order = to_first(value.flat)
    named = [("scale", scale), ("bias", bias), ("mean", arrays["mean"]), ("variance", arrays["variance"])]
    weights = [graph.floats(array[order], name) for name, array in named]
    given = value.name if value.flat is not None else graph.image(value)
    name = graph.node("BatchNormalization", [given, *weights], epsilon=layer.epsilon)
    return graph.made(name, out, flat=value.flat)


def _normalised(graph: Graph, name: str, axes: list[int], epsilon: float) -> str:
    """(x - mean) / sqrt(variance + epsilon) over axes."""
    places = graph.integers(axes)
    centred = graph.node("Sub", [name, graph.node("ReduceMean", [name, places], keepdims=1)])
    square = graph.node("ReduceMean", [graph.node("Mul", [centred, centred]), places], keepdims=1)
    root = graph.node("Sqrt", [graph.node("Add", [square, graph.floats(epsilon)])])
    return graph.node("Div", [centred, root])


def _affine(graph: Graph, name: str, arrays: Arrays, value: Value) -> str:
    """Times the scale plus the bias, whose axes are the last ones here."""
    for entry, kind in (("scale", "Mul"), ("bias", "Add")):
        if entry in arrays:
            array = arrays[entry].reshape((1,) * (value.rank - arrays[entry].ndim) + arrays[entry].shape)
            name = graph.node(kind, [name, graph.floats(np.transpose(array, value.order), entry)])
    return name


def layer_norm(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    """Over the axes of the layer."""
    axes = layer.axes if isinstance(layer.axes, tuple) else (layer.axes,)
    value = graph.in_order(value)
    own = sorted(axis % value.rank for axis in axes)
    name = _normalised(graph, value.name, [value.axis(axis) for axis in own], layer.epsilon)
    sizes = [value.shape[axis] if axis in own else 1 for axis in range(value.rank)]
    return Value(
        _affine(graph, name, {k: a.reshape(sizes) for k, a in arrays.items()}, value), value.shape, value.order
    )


def group_norm(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    """Over the space and the channels of each group; without groups, over the space of each channel."""
    groups = layer.groups if hasattr(layer, "groups") else value.shape[-1]
    image = graph.ordered(value, channels_first(value.rank))
    sizes = [value.shape[axis] for axis in image.order[1:]]
    split = graph.node("Reshape", [image.name, graph.integers([0, groups, sizes[0] // groups, *sizes[1:]])])
    name = _normalised(graph, split, list(range(2, value.rank + 1)), layer.epsilon)
    name = graph.node("Reshape", [name, graph.integers([0, *sizes])])
    return Value(_affine(graph, name, arrays, image), value.shape, image.order)


def instance_norm(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    """Over the space of each channel, or by stored statistics."""
    if layer.running:
        return batch_norm(graph, layer, arrays, value, out)
    return group_norm(graph, layer, arrays, value, out)


def response_norm(graph: Graph, layer: Any, arrays: Arrays, value: Value, out: Shape) -> Value:
    """By the squares of neighbouring channels."""
    if layer.size % 2 == 0:
        raise Inexpressible("has an even size, at which ONNX's LRN sees another neighbour")
    # ONNX divides alpha by the size
    name = graph.node(
        "LRN", [graph.image(value)], size=layer.size, alpha=layer.alpha * layer.size, beta=layer.beta, bias=layer.k
    )
    return graph.made(name, out)
