"""From a network for one window to a network that computes it at every position.

Every part is asked what it does to a window. A part that slides a window of its own (convolution, pooling) slides
over the whole field instead, its samples as far apart as the values of one window are there. ``Flatten`` and what
sees a whole window become a convolution, or pooling, with what is left of the window as kernel. Parts that look at
every position by itself stay as they are. Anything else is refused, by name and with the reason.

Source:
    Sermanet et al., "OverFeat", 2014, section 3.5, for dense layers as convolutions;
    Giusti et al. 2013 for fragments, Li, Zhao and Wang 2014 for dilation.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Any, NoReturn

import jax

from .. import geometry, names
from ..compose.graph import Graph
from ..compose.neighbours import is_elementwise
from ..compose.parallel import Branches, Residual
from ..compose.remat import Remat
from ..compose.repeat import Repeat
from ..compose.serial import Serial
from ..errors import at, shown
from ..geometry import Shape, is_shape
from ..layer import Layer
from ..layers import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LocallyConnected,
    LocalResponseNorm,
    LpPool,
    Maxout,
    MaxPool,
)
from ..layers.function import Function
from .fields import AtPositions, Between, Cropped, Fragmented, OverlappingBatchNorm, split_axis
from .lattice import Lattice
from .positionwise import applied, why_not_positionwise
from .value import FIELD, FLAT, POINT, Part, Rewritten, Value, Way

#: what to do about a part that cannot share its work, in a scan and in a network that is written as convolutions
_PATCHES = 'Scan(..., method="patches") computes it position by position'
_NO_CONVOLUTION = "it is no convolution; leave it out, or convert the network up to it"


@functools.lru_cache(maxsize=256)
def rewrite(net: Layer, shape: Shape, lattice: Lattice, extent: Shape, way: Way) -> Rewritten:
    """Rewrite a network for one window.

    Args:
        net: the network.
        shape: what it sees, (*window, channels).
        lattice: where the samples of the windows lie.
        extent: samples of the image along each axis.
        way: how the work is shared.

    Raises:
        ValueError: a part that cannot be computed for all positions together; the message names it and says why.
    """
    part = _rewrite(net, Value(FIELD, lattice, shape, extent), way)
    return Rewritten(part.layer if part.layer is not None else Function(same), part.value, part.kernels, way)


def same(x: jax.Array) -> jax.Array:
    """The value itself, where nothing is left to do."""
    return x


def _rewrite(layer: Layer, value: Value, way: Way) -> Part:
    rule = next((rule for kind, rule in RULES.items() if type(layer) is kind), None)
    if rule is not None:
        return rule(layer, value, way)
    return _other(layer, value, way)


def refuse(layer: Layer, reason: str, way: Way, instead: str = "") -> NoReturn:
    """Raise for a part that cannot be computed for all positions together."""
    way_out = (instead and f"{instead}, or ") + (_NO_CONVOLUTION if way.whole else _PATCHES)
    raise ValueError(f"{names.code(layer)} {reason}, so positions cannot share its work; {way_out}")


# Parts that slide a window.


def _conv(layer: Conv, value: Value, way: Way) -> Part:
    if value.kind == FIELD and way.whole:
        return _as_it_is(layer, value)
    if value.kind != FIELD:
        return _other(layer, value, way)
    _check_border(layer, geometry.slide(value.shape[:-1], layer.kernel, **_options(layer)), way)
    return _slid(layer, layer.kernel, layer.stride, layer.dilation, value, way)


def _pool(layer: Any, value: Value, way: Way) -> Part:
    if value.kind == FIELD and way.whole:
        return _as_it_is(layer, value)
    if value.kind != FIELD:
        return _other(layer, value, way)
    options = {**_options(layer), "stride": layer.window if layer.stride is None else layer.stride}
    _check_border(layer, geometry.slide(value.shape[:-1], layer.window, ceil_mode=layer.ceil_mode, **options), way)
    plain = dataclasses.replace(layer, ceil_mode=False)
    return _slid(plain, layer.window, options["stride"], layer.dilation, value, way)


def _options(layer: Any) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}


def _check_border(layer: Layer, windows: geometry.Windows, way: Way) -> None:
    if any(map(any, windows.constant_pads)):
        refuse(
            layer,
            f"pads the window of {shown(windows.space)}: its border is part of what it computes, and lies elsewhere in "
            "every window",
            way,
            'use padding="VALID"',
        )


def _slid(layer: Any, kernel: Any, stride: Any, dilation: Any, value: Value, way: Way) -> Part:
    """Slide a window over a field: its samples lie as far apart as the values of one scanned window."""
    before, rank = value.lattice, value.lattice.rank
    k, s, e = (
        geometry.per_axis(n, rank, what) for n, what in ((kernel, "kernel"), (stride, "stride"), (dilation, "dilation"))
    )
    after, s = before.after(k, s, e, fragments=way.fragments)
    shape = layer.infer_shape(value.shape)
    out_channels = shape[-1]
    if not way.fragments:
        steps = tuple(b // a for a, b in zip(before.pitch, after.pitch, strict=True))
        spread = tuple(n * f for n, f in zip(e, before.fragments, strict=True))
        slid = dataclasses.replace(layer, stride=_plain(steps), dilation=_plain(spread), padding="VALID")
        extent = geometry.slide(value.extent, k, stride=steps, dilation=spread).out
        return Part(slid, Value(FIELD, after, (*after.local, out_channels), extent))
    axes = range(rank)
    splits, left = zip(*(split_axis(before, after, a, k[a], s[a], e[a]) for a in axes), strict=True)
    slid = dataclasses.replace(layer, stride=_plain(left), padding="VALID")
    extent = tuple(split.length for split in splits)
    seen = tuple(split.need if split.picks else n for split, n in zip(splits, value.extent, strict=True))
    untouched = all(split.parts == 1 and not split.picks for split in splits)
    if not (untouched and geometry.slide(seen, k, stride=left, dilation=e).out == extent):
        slid = Fragmented(slid, splits)
    return Part(slid, Value(FIELD, after, (*after.local, out_channels), extent))


def _plain(sizes: Shape) -> int | Shape:
    return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)


def _window(layer: Any, value: Value, way: Way) -> Part:
    """Let a layer see all that is left of the window; what it makes is one value for each."""
    part = _slid(layer, value.lattice.local, 1, 1, value, way)
    return part._replace(value=part.value._replace(kind=POINT, shape=part.value.shape[-1:]))


def _global(pool: Callable[..., Layer]) -> Callable[[Layer, Value, Way], Part]:
    def rule(layer: Layer, value: Value, way: Way) -> Part:
        if value.kind != FIELD:
            return _other(layer, value, way)
        return _window(pool(_plain(value.lattice.local)), value, way)

    return rule


def _adaptive(pool: Callable[..., Layer]) -> Callable[[Any, Value, Way], Part]:
    def rule(layer: Any, value: Value, way: Way) -> Part:
        if value.kind != FIELD:
            return _other(layer, value, way)
        local = value.lattice.local
        cells = geometry.per_axis(layer.out, len(local), "out")
        bounds = [[(i * m // n, -(-(i + 1) * m // n)) for i in range(n)] for m, n in zip(local, cells, strict=True)]
        windows = tuple(_regular([stop - start for start, stop in axis]) for axis in bounds)
        steps = tuple(_regular([b - a for (a, _), (b, _) in pairwise(axis)] or [1]) for axis in bounds)
        if None in windows or None in steps:
            refuse(layer, f"lays cells of different sizes over the {shown(local)} values of a window", way)
        if 0 in steps:
            refuse(layer, f"lays several cells over one of the {shown(local)} values of a window", way)
        return _slid(pool(windows, stride=steps), windows, steps, 1, value, way)

    return rule


def _regular(sizes: list[int]) -> int | None:
    return sizes[0] if len(set(sizes)) == 1 else None


# Parts that see the whole window as a vector.


def _flatten(layer: Flatten, value: Value, way: Way) -> Part:
    if value.kind == FIELD:
        shape = layer.infer_shape(value.shape)
        return Part(None, value._replace(kind=POINT if value.lattice.single else FLAT, shape=shape))
    if value.kind == FLAT or len(value.shape) == 1:
        return Part(None, value)
    return _other(layer, value, way)


def _dense(layer: Dense, value: Value, way: Way) -> Part:
    if value.kind != FLAT:
        return _part_wise(layer, value, way)
    local = value.lattice.local
    channels = value.shape[-1] // prod(local)
    options = {name: getattr(layer, name) for name in ("bias", "kernel_init", "bias_init")}
    conv = Conv(layer.features, _plain(local), **options)
    field = value._replace(kind=FIELD, shape=(*local, channels))
    return _window(conv, field, way)._replace(kernels=((("kernel",), (*local, channels, layer.features)),))


# Parts that look at every position, or every number, by itself.


def _as_it_is(layer: Layer, value: Value) -> Part:
    shape = layer.infer_shape(value.shape)
    lattice = dataclasses.replace(value.lattice, local=shape[:-1])
    return Part(layer, Value(FIELD, lattice, shape, shape[:-1]))


def _part_wise(layer: Layer, value: Value, way: Way) -> Part:
    """A layer that works along the channels, at every position by itself."""
    if value.kind == FLAT:
        refuse(
            layer,
            "follows Flatten and sees all values of a window at once",
            way,
            "put it before Flatten or after a Dense",
        )
    if value.kind == POINT and len(value.shape) != 1:
        return _at_positions(layer, value, way)
    return Part(layer, value._replace(shape=layer.infer_shape(value.shape)))


def _dropout(layer: Dropout, value: Value, way: Way) -> Part:
    if layer.whole_channels and value.kind == FLAT:
        return _part_wise(layer, value, way)
    if value.lattice.single and layer.whole_channels:
        return _at_positions(layer, value, way)
    return Part(layer, value)


def _batch_norm(layer: BatchNorm, value: Value, way: Way) -> Part:
    vectors = len(value.shape) == (1 if value.kind == POINT else len(value.extent) + 1)
    if value.kind == FLAT or not way.train or not vectors:
        return _part_wise(layer, value, way)
    fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(BatchNorm)}
    held = _held(layer, value.lattice) if isinstance(layer, OverlappingBatchNorm) else ()
    return Part(OverlappingBatchNorm(**fields, lattice=value.lattice, held=held), value)


def _held(layer: OverlappingBatchNorm, lattice: Lattice) -> tuple[Shape, ...]:
    """How often the values inside a window count for a norm in a scan of it: once for each of its own windows."""
    found = []
    for axis, n in enumerate(lattice.local):
        uses = layer.uses(axis).tolist()
        found.append((*uses, *(0,) * (n - len(uses))))
    return tuple(found)


def _whole_space(reason: str) -> Callable[[Layer, Value, Way], Part]:
    def rule(layer: Layer, value: Value, way: Way) -> Part:
        if value.kind == FIELD and way.whole:
            return _as_it_is(layer, value)
        if value.lattice.single:
            return _at_positions(layer, value, way)
        refuse(layer, reason, way)

    return rule


def _other(layer: Layer, value: Value, way: Way) -> Part:
    """A function or a layer of somebody's own: as it stands if it looks at every position by itself."""
    if isinstance(layer, Function) and is_elementwise(layer):
        return Part(layer, value)
    if value.lattice.single:
        as_it_is = isinstance(layer, Function) and value.kind == POINT and _along_channels(layer, value, way)
        return Part(layer, value) if as_it_is else _at_positions(layer, value, way)
    if layer.init_state(value.shape):
        refuse(layer, "keeps a state of its own, which cannot be seen to be the same at all positions", way)
    flat, rank = value.kind == FLAT, value.lattice.rank
    shape = layer.infer_shape(value.shape)
    if not flat and not (is_shape(shape) and len(shape) == rank + 1):
        axes = f"{rank} axis" if rank == 1 else f"{rank} axes"
        refuse(layer, f"makes {shown(shape)} of {shown(value.shape)}, which is not (*space, channels) of {axes}", way)
    # the array that holds a flattened field has as many numbers as ever, so a function of numbers may see any of them
    larger = None if flat or way.whole else value.extent
    for train in (False, True) if way.train and not isinstance(layer, Function) else (False,):
        function = applied(layer, value.shape, train=train)
        reason = why_not_positionwise(function, value.shape, 2 if flat else rank + 1, larger)
        if reason is not None:
            reason = f"follows Flatten and {reason.replace('positions', 'values of a window')}" if flat else reason
            refuse(layer, f"{'in training ' * train}{reason}", way)
    return Part(layer, value._replace(shape=shape))


def _along_channels(layer: Layer, value: Value, way: Way) -> bool:
    """Whether a function of vectors does the same with a field of them, such as a softmax along the last axis."""
    if not is_shape(value.shape) or len(value.shape) != 1 or layer.infer_shape(value.shape) != value.shape:
        return False
    field = (2,) * value.lattice.rank + value.shape
    return why_not_positionwise(applied(layer, value.shape), field, None, _least(value.lattice, way)) is None


def _at_positions(layer: Layer, value: Value, way: Way) -> Part:
    """Use a layer on what single windows make, as if they were examples of a batch."""
    keep = _least(value.lattice, way)
    out = layer.infer_shape(*layer.accept_shapes((value.shape,)))
    return Part(AtPositions(layer, keep, value.shape), Value(POINT, value.lattice, out, keep))


def _least(lattice: Lattice, way: Way) -> Shape:
    """Values along each axis that all windows together hold, in the longest fragment where there are fragments."""
    if not way.fragments:
        return lattice.count
    return tuple(-(-n // f) for n, f in zip(lattice.count, lattice.fragments, strict=True))


# Compositions.


def _serial(net: Serial, value: Value, way: Way) -> Part:
    parts, kernels = [], []
    for name, layer in net.parts:
        with at(name):
            part = _rewrite(layer, value, way)
        value = part.value
        if part.layer is not None:
            parts.append((name, part.layer))
        kernels += [((name, *path), shape) for path, shape in part.kernels]
    return Part(Serial(tuple(parts)) if parts else None, value, tuple(kernels))


def _parallel(net: Any, value: Value, way: Way) -> Part:
    found: dict[str, Part] = {}
    for name, layer in net.named_parts():
        with at(name):
            found[name] = _rewrite(layer, value, way)
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
    steps = shown(value.lattice.step)
    return f"values {steps} samples apart" if value.kind == FIELD else f"a {value.kind} value"


def _repeat(net: Repeat, value: Value, way: Way) -> Part:
    part = _rewrite(net.layer, value, way)
    if part.layer is None:
        return Part(None, value)
    if part.value != value:
        refuse(net, f"takes {_where(value)} and gives {_where(part.value)}", way)
    return Part(dataclasses.replace(net, layer=part.layer), value, part.kernels)


def _remat(net: Remat, value: Value, way: Way) -> Part:
    part = _rewrite(net.layer, value, way)
    layer = None if part.layer is None else dataclasses.replace(net, layer=part.layer)
    return part._replace(layer=layer)


def _between(net: Between, value: Value, way: Way) -> Part:
    before = Part(None, value) if net.before is None else _rewrite(net.before, value, way)
    part = _rewrite(net.layer, before.value, way)
    after = Part(None, part.value) if net.after is None else _rewrite(net.after, part.value, way)
    return part._replace(layer=_joined(before.layer, part.layer, after.layer), value=after.value)


def _joined(before: Layer | None, layer: Layer | None, after: Layer | None) -> Layer | None:
    """A layer between others that have no parameters, each of which may be nothing."""
    if before is None and after is None:
        return layer
    return Between(layer if layer is not None else Function(same), before, after)


def _cropped(net: Cropped, value: Value, way: Way) -> Part:
    part = _rewrite(net.layer, value, way)
    return _fewer(part, net.keep, way)


def _positions(net: AtPositions, value: Value, way: Way) -> Part:
    """Positions of a scan inside the window."""
    value = value._replace(lattice=dataclasses.replace(value.lattice, local=net.keep))
    if way.train and not value.lattice.single and net.layer.init_state(net.local):
        refuse(net.layer, "in training takes statistics over positions that several windows hold", way)
    first = _settled(value, way)
    value, keep = first.value, _least(first.value.lattice, way)
    shape = net.infer_shape(value.shape)
    layer = _joined(first.layer, AtPositions(net.layer, keep, net.local), None)
    return Part(layer, value._replace(shape=shape, extent=keep))


def _fewer(part: Part, local: Shape, way: Way) -> Part:
    """Keep the first values of every window."""
    value = part.value._replace(
        lattice=dataclasses.replace(part.value.lattice, local=local), shape=(*local, part.value.shape[-1])
    )
    keep = _least(value.lattice, way)
    layer = Cropped(part.layer if part.layer is not None else Function(same), keep)
    last = _settled(value._replace(extent=keep), way)
    return part._replace(layer=_joined(None, layer, last.layer), value=last.value)


def _settled(value: Value, way: Way) -> Part:
    """Leave out what is at no scanned position, where one value of a window is left.

    As long as a window holds several, there are values between the positions. :meth:`Lattice.after` does the same where
    a part with a stride leaves one.
    """
    lattice = value.lattice
    axes = zip(lattice.local, lattice.stride, lattice.pitch, strict=True)
    if all(n > 1 or not scan or scan == g for n, scan, g in axes):
        return Part(None, value)
    return _slid(MaxPool(1), 1, 1, 1, value, way)


def inlined(made: Rewritten, positions: Shape, layer: Layer, value: Value, way: Way) -> Part:
    """A scan inside the window: the layers that it is made of are parts of the window's network like any other."""
    if value.kind != FIELD:
        refuse(layer, "scans what is no space", way)
    if made.value.kind != POINT or not is_shape(made.value.shape) or len(made.value.shape) != 1:
        refuse(layer, "makes more than one vector for each of its own windows", way)
    part = _rewrite(made.net, value, way)
    if part.value.lattice.local != positions:
        part = _fewer(part, positions, way)
    return part._replace(kernels=(*made.kernels, *part.kernels))


def _graph(net: Graph, value: Value, way: Way) -> Part:
    if value.lattice.single:
        return _at_positions(net, value, way)
    refuse(net, "wires its layers by a function, which is not looked into", way)


_PER_WINDOW = "takes its statistics over the whole window"
#: what becomes of each kind of layer; :mod:`fcnn.scan.layer` adds its own
RULES: dict[type[Layer], Callable[[Any, Value, Way], Part]] = {
    Conv: _conv,
    **dict.fromkeys((MaxPool, AvgPool, LpPool), _pool),
    GlobalMaxPool: _global(MaxPool),
    GlobalAvgPool: _global(AvgPool),
    AdaptiveMaxPool: _adaptive(MaxPool),
    AdaptiveAvgPool: _adaptive(AvgPool),
    Flatten: _flatten,
    Dense: _dense,
    **dict.fromkeys((LayerNorm, LocalResponseNorm, Maxout), _part_wise),
    Dropout: _dropout,
    **dict.fromkeys((BatchNorm, OverlappingBatchNorm), _batch_norm),
    **dict.fromkeys((GroupNorm, InstanceNorm), _whole_space(_PER_WINDOW)),
    LocallyConnected: _whole_space("has a kernel of its own for every place in the window"),
    ConvTranspose: _whole_space("pads the window, and makes values between the samples"),
    Serial: _serial,
    **dict.fromkeys((Residual, Branches), _parallel),
    Repeat: _repeat,
    Remat: _remat,
    Graph: _graph,
    Between: _between,
    Cropped: _cropped,
    AtPositions: _positions,
}
