"""Compositions, whose parts are rewritten one by one, and scans inside the window."""

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
from .fields import AtPositions, Between, Cropped
from .positions import at_positions
from .rules import least, refuse, rewritten, same
from .sliding import settled
from .value import FIELD, FLAT, POINT, Part, Rewritten, Value, Way


def serial(net: Serial, value: Value, way: Way) -> Part:
    """Part after part."""
    parts, kernels = [], []
    for name, layer in net.parts:
        with layer_path(name):
            part = rewritten(layer, value, way)
        value = part.value
        if part.layer is not None:
            parts.append((name, part.layer))
        kernels += [((name, *path), shape) for path, shape in part.kernels]
    return Part(Serial(tuple(parts)) if parts else None, value, tuple(kernels))


def parallel(net: Any, value: Value, way: Way) -> Part:
    """Parts side by side: all must make values at the same samples, and are cut to the shortest."""
    found: dict[str, Part] = {}
    for name, layer in net.named_parts():
        with layer_path(name):
            found[name] = rewritten(layer, value, way)
    if isinstance(net, Residual) and net.shortcut is None:
        found["shortcut"] = Part(None, value)
    values = {name: part.value for name, part in found.items()}
    first = next(iter(values.values()))
    for name, other in values.items():
        if (other.kind, other.lattice) != (first.kind, first.lattice):
            refuse(net, f"joins {_where(first)} and, in {name}, {_where(other)}", way)
    if first.kind == FLAT and isinstance(net, Branches) and net.join == "concat" and len(values) > 1:
        refuse(net, "joins flattened values of a window", way, "put Flatten after the branches")
    keep = tuple(map(min, *(v.extent for v in values.values()))) if len(values) > 1 else first.extent
    layers: dict[str, Layer | None] = {}
    for name, part in found.items():
        layer = part.layer
        if part.value.extent != keep:
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
    shape = net.infer_shape(value.shape)
    return Part(joined, first._replace(shape=shape, extent=keep), tuple(kernels))


def _where(value: Value) -> str:
    steps = format_shape(value.lattice.step)
    return f"values {steps} samples apart" if value.kind == FIELD else f"a {value.kind} value"


def repeat(net: Repeat, value: Value, way: Way) -> Part:
    """Copies of a part, which must make what it takes."""
    part = rewritten(net.layer, value, way)
    if part.layer is None:
        return Part(None, value)
    if part.value != value:
        refuse(net, f"takes {_where(value)} and gives {_where(part.value)}", way)
    return Part(dataclasses.replace(net, layer=part.layer), value, part.kernels)


def remat(net: Remat, value: Value, way: Way) -> Part:
    """A part whose inner values are computed again."""
    part = rewritten(net.layer, value, way)
    layer = None if part.layer is None else dataclasses.replace(net, layer=part.layer)
    return part._replace(layer=layer)


def between(net: Between, value: Value, way: Way) -> Part:
    """A layer between others without parameters."""
    before = Part(None, value) if net.before is None else rewritten(net.before, value, way)
    part = rewritten(net.layer, before.value, way)
    after = Part(None, part.value) if net.after is None else rewritten(net.after, part.value, way)
    return part._replace(layer=_joined(before.layer, part.layer, after.layer), value=after.value)


def _joined(before: Layer | None, layer: Layer | None, after: Layer | None) -> Layer | None:
    """A layer between others that have no parameters, each of which may be nothing."""
    if before is None and after is None:
        return layer
    return Between(layer if layer is not None else Function(same), before, after)


def cropped(net: Cropped, value: Value, way: Way) -> Part:
    """A layer of which the first values are kept."""
    part = rewritten(net.layer, value, way)
    return _fewer(part, net.keep, way)


def positions(net: AtPositions, value: Value, way: Way) -> Part:
    """Positions of a scan inside the window."""
    value = value._replace(lattice=dataclasses.replace(value.lattice, local=net.keep))
    if way.train and not value.lattice.single and net.layer.init_state(net.local):
        refuse(net.layer, "in training takes statistics over positions that several windows hold", way)
    first = settled(value, way)
    value, keep = first.value, least(first.value.lattice, way)
    shape = net.infer_shape(value.shape)
    layer = _joined(first.layer, AtPositions(net.layer, keep, net.local), None)
    return Part(layer, value._replace(shape=shape, extent=keep))


def _fewer(part: Part, local: Shape, way: Way) -> Part:
    """Keep the first values of every window."""
    value = part.value._replace(
        lattice=dataclasses.replace(part.value.lattice, local=local), shape=(*local, part.value.shape[-1])
    )
    keep = least(value.lattice, way)
    layer = Cropped(part.layer if part.layer is not None else Function(same), keep)
    last = settled(value._replace(extent=keep), way)
    return part._replace(layer=_joined(None, layer, last.layer), value=last.value)


def inlined(made: Rewritten, positions: Shape, layer: Layer, value: Value, way: Way) -> Part:
    """A scan inside the window: the layers that it is made of are parts of the window's network like any other."""
    if value.kind != FIELD:
        refuse(layer, "scans what is no space", way)
    if made.value.kind != POINT or not is_shape(made.value.shape) or len(made.value.shape) != 1:
        refuse(layer, "makes more than one vector for each of its own windows", way)
    part = rewritten(made.net, value, way)
    if part.value.lattice.local != positions:
        part = _fewer(part, positions, way)
    return part._replace(kernels=(*made.kernels, *part.kernels))


def graph(net: Graph, value: Value, way: Way) -> Part:
    """A wiring, which is not looked into: it may be used where single windows are examples."""
    if value.lattice.single:
        return at_positions(net, value, way)
    refuse(net, "wires its layers by a function, which is not looked into", way)
