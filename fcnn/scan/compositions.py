"""Rules for compositions, whose parts are rewritten one by one, and for scans inside the window."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..compose.graph import Graph
from ..compose.parallel import Branches, Residual
from ..compose.remat import Remat
from ..compose.repeat import Repeat
from ..compose.serial import Serial
from ..errors import format_shape, layer_path
from ..geometry import Shape, is_shape
from ..layer import Layer
from ..layers.function import Function
from .activation_layout import FIELD, FLAT, POINT, ActivationLayout, Part, RewriteOptions, Rewritten
from .fields import AtPositions, Between, Cropped
from .positions import at_positions
from .rules import least, refuse, rewritten, same
from .sliding import settled


def serial(net: Serial, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """Rewrite the parts in order."""
    parts, kernels = [], []
    for name, layer in net.parts:
        with layer_path(name):
            part = rewritten(layer, layout, options)
        layout = part.layout
        if part.layer is not None:
            parts.append((name, part.layer))
        kernels += [((name, *path), shape) for path, shape in part.kernels]
    return Part(Serial(tuple(parts)) if parts else None, layout, tuple(kernels))


def parallel(net: Any, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """Parallel parts: all must have outputs at the same samples; they are cropped to the shortest."""
    found: dict[str, Part] = {}
    for name, layer in net.named_parts():
        with layer_path(name):
            found[name] = rewritten(layer, layout, options)
    if isinstance(net, Residual) and net.shortcut is None:
        found["shortcut"] = Part(None, layout)
    values = {name: part.layout for name, part in found.items()}
    first = next(iter(values.values()))
    for name, other in values.items():
        if (other.kind, other.grid) != (first.kind, first.grid):
            refuse(net, f"joins {_where(first)} and, in {name}, {_where(other)}", options)
    if first.kind == FLAT and isinstance(net, Branches) and net.join == "concat" and len(values) > 1:
        refuse(net, "joins flattened values of a window", options, "put Flatten after the branches")
    keep = tuple(map(min, *(v.extent for v in values.values()))) if len(values) > 1 else first.extent
    layers: dict[str, Layer | None] = {}
    for name, part in found.items():
        layer = part.layer
        if part.layout.extent != keep:
            layer = Cropped(layer if layer is not None else Function(same), keep)
        elif layer is None and not (isinstance(net, Residual) and name == "shortcut" and net.shortcut is None):
            layer = Function(same)
        layers[name] = layer
    kernels = [((name, *path), shape) for name, part in found.items() for path, shape in part.kernels]
    joined: Layer
    if isinstance(net, Residual):
        joined = Residual(layers["body"] or Function(same), layers["shortcut"])
    else:
        joined = Branches(tuple((name, layer or Function(same)) for name, layer in layers.items()), net.join)
    shape = net.infer_shape(layout.shape)
    return Part(joined, first._replace(shape=shape, extent=keep), tuple(kernels))


def _where(layout: ActivationLayout) -> str:
    steps = format_shape(layout.grid.step)
    return f"values {steps} samples apart" if layout.kind == FIELD else f"a {layout.kind} value"


def repeat(net: Repeat, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """Copies of a part, whose output must have the layout of its input."""
    part = rewritten(net.layer, layout, options)
    if part.layer is None:
        return Part(None, layout)
    if part.layout != layout:
        refuse(net, f"takes {_where(layout)} and gives {_where(part.layout)}", options)
    return Part(dataclasses.replace(net, layer=part.layer), layout, part.kernels)


def remat(net: Remat, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """A part whose activations are recomputed in the backward pass."""
    part = rewritten(net.layer, layout, options)
    layer = None if part.layer is None else dataclasses.replace(net, layer=part.layer)
    return part._replace(layer=layer)


def between(net: Between, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """A layer between others that have no parameters."""
    before = Part(None, layout) if net.before is None else rewritten(net.before, layout, options)
    part = rewritten(net.layer, before.layout, options)
    after = Part(None, part.layout) if net.after is None else rewritten(net.after, part.layout, options)
    return part._replace(layer=_joined(before.layer, part.layer, after.layer), layout=after.layout)


def _joined(before: Layer | None, layer: Layer | None, after: Layer | None) -> Layer | None:
    """A layer between others that have no parameters; each of the three may be None."""
    if before is None and after is None:
        return layer
    return Between(layer if layer is not None else Function(same), before, after)


def cropped(net: Cropped, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """A layer of whose output only the first values are kept."""
    part = rewritten(net.layer, layout, options)
    return _fewer(part, net.keep, options)


def positions(net: AtPositions, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """Positions of a scan inside the window."""
    layout = layout._replace(grid=dataclasses.replace(layout.grid, local=net.keep))
    if options.train and not layout.grid.single and net.layer.init_state(net.local):
        refuse(net.layer, "in training takes statistics over positions that several windows hold", options)
    first = settled(layout, options)
    layout, keep = first.layout, least(first.layout.grid, options)
    shape = net.infer_shape(layout.shape)
    layer = _joined(first.layer, AtPositions(net.layer, keep, net.local), None)
    return Part(layer, layout._replace(shape=shape, extent=keep))


def _fewer(part: Part, local: Shape, options: RewriteOptions) -> Part:
    """Keep the first values of every window."""
    layout = part.layout._replace(
        grid=dataclasses.replace(part.layout.grid, local=local), shape=(*local, part.layout.shape[-1])
    )
    keep = least(layout.grid, options)
    layer = Cropped(part.layer if part.layer is not None else Function(same), keep)
    last = settled(layout._replace(extent=keep), options)
    return part._replace(layer=_joined(None, layer, last.layer), layout=last.layout)


def inlined(made: Rewritten, positions: Shape, layer: Layer, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """A scan inside the window: its layers are rewritten like any other part of the window's network."""
    if layout.kind != FIELD:
        refuse(layer, "scans an input without space axes", options)
    if made.layout.kind != POINT or not is_shape(made.layout.shape) or len(made.layout.shape) != 1:
        refuse(layer, "gives more than one vector for each of its own windows", options)
    part = rewritten(made.net, layout, options)
    if part.layout.grid.local != positions:
        part = _fewer(part, positions, options)
    return part._replace(kernels=(*made.kernels, *part.kernels))


def graph(net: Graph, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """A graph, whose wiring is not analysed: it is allowed only where each window is one example."""
    if layout.grid.single:
        return at_positions(net, layout, options)
    refuse(net, "wires its layers by a function, which is not analysed", options)
