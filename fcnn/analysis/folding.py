"""A trained network without normalisation by stored statistics: factor and offset move into the layers beside."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .. import geometry, names
from ..checks import check_mapping
from ..compose.graph import Graph
from ..compose.parallel import Branches, Residual
from ..compose.parts import Parts, lift
from ..compose.remat import Remat
from ..compose.repeat import Repeat
from ..compose.serial import Serial
from ..errors import layer_path
from ..identity import nearest
from ..layer import Layer
from ..layers import BatchNorm, Conv, ConvTranspose, Dense, Dropout, InstanceNorm, LocallyConnected, ScaleChannels
from ..ops.dtypes import wide
from ..scan import Scan
from ..types import Params, State

#: layers whose kernel and bias take a factor and an offset of their output
_KERNELS = (Conv, ConvTranspose, Dense, LocallyConnected)


@dataclass(frozen=True)
class _Folded:
    """A part of the folded network.

    Attributes:
        layer: the part; None: nothing is left of it.
        params: its parameters.
        free: whether it is a factor and an offset alone, which a layer beside may take.
    """

    layer: Layer | None
    params: Params
    free: bool = False


def fold(net: Any, params: Params, state: State | None = None) -> tuple[Layer, Params]:
    r"""A network that computes what ``apply`` gives, without batch normalisation and without a state.

    With stored statistics, batch normalisation is :math:`y = a x + b` for each channel, with
    :math:`a = \gamma / \sqrt{v + \epsilon}` and :math:`b = \beta - a m`. A convolution, dense or locally connected
    layer before it takes both into its kernel and bias: :math:`a (w x + c) + b = (a w) x + (a c + b)`. So does a layer
    after it, if it pads with no zeros. Where there is neither, such as before a ReLU at the beginning of a residual
    branch, a ``ScaleChannels`` with a bias is left. Instance normalisation with running statistics is treated likewise.

    It goes through ``serial``, ``residual``, ``branches``, ``repeat``, ``remat``, ``Scan`` and ``graph``; in a graph, a
    layer takes what follows it if the wiring uses both once and nothing comes between. The parts keep their names.

    Args:
        net: the network.
        params: its parameters.
        state: its state.

    Returns:
        ``(net, params)``, whose ``apply(params, x)`` needs no state. It is for inference: dropout stays a layer, but
        batches are not normalised any more.

    Raises:
        ValueError: a layer of another class has a state, or a composition of another class holds a normalisation.
        TypeError: params or state that are no dicts.

    Source:
        Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
        2018, equation 14.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Conv(8, 3, bias=False), fcnn.BatchNorm(), jax.nn.relu)
        >>> params, state = net.init(jax.random.key(0), (9, 9, 1)), net.init_state((9, 9, 1))
        >>> folded, weights = fold(net, params, state)
        >>> folded, jax.tree.map(jnp.shape, weights)
        (fcnn.serial(fcnn.Conv(8, 3), jax.nn.relu), {'conv1': {'bias': (8,), 'kernel': (3, 3, 1, 8)}})
    """
    with layer_path("fold"):
        net = lift(net)
        made = _folded(net, check_mapping("params", params), check_mapping("state", state or {}), 0)
    return made.layer or lift(jax.nn.identity), made.params


def _folded(layer: Layer, params: Params, state: State, copies: int) -> _Folded:
    """Fold a layer; its arrays have an axis for each of the repeats around it."""
    if isinstance(layer, (BatchNorm, InstanceNorm)) and type(layer).forward_eval in _STORED:
        return _of_norm(layer, params, state, copies) if layer.running else _Folded(layer, params)
    if (kind := nearest(layer, _COMPOSITIONS)) is not None:
        return _COMPOSITIONS[kind](layer, params, state, copies)
    if jax.tree.leaves(state):
        raise ValueError(
            f"{names.code(layer)} has a state that is no running statistics of BatchNorm or InstanceNorm; fold "
            "the parts beside it, and leave it as it is"
        )
    return _Folded(layer, params)


#: how norms compute at inference; a subclass that computes otherwise is not folded
_STORED = (BatchNorm.forward_eval, InstanceNorm.forward_eval)


def _of_norm(layer: Any, params: Params, state: State, copies: int) -> _Folded:
    """The factor and the offset of a norm."""
    if not {"mean", "variance"} <= state.keys():
        raise ValueError(f"{names.code(layer)} has no running statistics in the state; give the state of the network")
    dtype = jnp.asarray(state["mean"]).dtype
    mean, variance = (jnp.asarray(state[name]).astype(wide(dtype)) for name in ("mean", "variance"))
    factor = jax.lax.rsqrt(variance + jnp.asarray(layer.epsilon, variance.dtype))
    if "scale" in params:
        factor = factor * jnp.asarray(params["scale"]).astype(factor.dtype)
    offset = -factor * mean
    if "bias" in params:
        offset = offset + jnp.asarray(params["bias"]).astype(offset.dtype)
    return _Folded(ScaleChannels(1.0, bias=True), {"scale": factor, "bias": offset}, free=True)


# compositions


def _children(layer: Any, params: Params, state: State, copies: int) -> dict[str, _Folded]:
    found = {}
    for name, part in layer.named_parts():
        with layer_path(name):
            found[name] = _folded(part, params.get(name, {}), state.get(name, {}), copies)
    return found


def _collected(parts: Mapping[str, _Folded]) -> Params:
    return {name: part.params for name, part in parts.items() if part.params}


def _serial(layer: Any, params: Params, state: State, copies: int) -> _Folded:
    parts = _children(layer, params, state, copies)
    order = list(parts)
    for place, name in enumerate(order):
        if not parts[name].free:
            continue
        before = next((n for n in reversed(order[:place]) if not _nothing(parts[n])), None)
        after = next((n for n in order[place + 1 :] if not _nothing(parts[n])), None)
        for other, take in ((before, _take_after), (after, _take_before)):
            made = None if other is None else take(parts[other], parts[name].params, copies)
            if other is not None and made is not None:
                parts[other], parts[name] = made, _Folded(None, {})
                break
    left = _layers(parts)
    return _Folded(Serial(left), _collected(parts)) if left else _Folded(None, {})


def _layers(parts: Mapping[str, _Folded]) -> Parts:
    """What is left of the parts, under their names."""
    return tuple((name, part.layer) for name, part in parts.items() if part.layer is not None)


def _nothing(part: _Folded) -> bool:
    """Whether a part does nothing at inference."""
    return part.layer is None or type(part.layer) is Dropout


def _beside(layer: Any, params: Params, state: State, copies: int) -> _Folded:
    """Residual blocks and branches: each part by itself."""
    parts = {name: _present(part) for name, part in _children(layer, params, state, copies).items()}
    if isinstance(layer, Residual):
        layers = dict(_layers(parts))
        made: Layer = Residual(layers["body"], layers.get("shortcut"))
    else:
        made = Branches(_layers(parts), layer.join)
    return _Folded(made, _collected(parts))


def _present(part: _Folded) -> _Folded:
    return part if part.layer is not None else _Folded(lift(jax.nn.identity), {})


def _inside(name: str, deeper: int) -> Callable[..., _Folded]:
    """A composition of one network, whose params are those of the network."""

    def rule(layer: Any, params: Params, state: State, copies: int) -> _Folded:
        made = _present(_folded(getattr(layer, name), params, state, copies + deeper))
        return _Folded(dataclasses.replace(layer, **{name: made.layer}), made.params)

    return rule


def _graph(layer: Any, params: Params, state: State, copies: int) -> _Folded:
    """A graph: a norm goes into the layer before it, where the wiring uses both once and one right after the other."""
    parts = {name: _present(part) for name, part in _children(layer, params, state, copies).items()}
    for name, other in _pairs(layer):
        if parts[name].free:
            made = _take_after(parts[other], parts[name].params, copies)
            if made is not None:
                parts[other], parts[name] = made, _Folded(lift(jax.nn.identity), {})
    return _Folded(Graph(_layers(parts), layer.wiring), _collected(parts))


def _pairs(layer: Graph) -> Iterator[tuple[str, str]]:
    """Parts and the part that alone makes their input, as far as the wiring tells without computing."""
    record = _Wires(dict(layer.parts))
    try:
        record.keep(layer.wiring(record, _Wire("")))
    except Exception:  # a wiring that computes with what it is given: nothing is known of it
        return
    for name, wire in record.inputs.items():
        if wire.maker and record.calls[name] == record.calls[wire.maker] == 1 and wire.uses == 1:
            yield name, wire.maker


class _Wire:
    """A value of a wiring: which layer makes it, and how often it is used."""

    def __init__(self, maker: str) -> None:
        self.maker, self.uses = maker, 0


class _Wires:
    """Stands for the layers in a call of a wiring."""

    def __init__(self, parts: dict[str, Layer]) -> None:
        self._parts = parts
        self.inputs: dict[str, _Wire] = {}
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Callable[..., _Wire]:
        if name.startswith("_") or name not in self._parts:
            raise AttributeError(name)

        def call(*given: _Wire) -> _Wire:
            self.calls[name] += 1
            for wire in given:
                wire.uses += 1
            if len(given) == 1:
                self.inputs[name] = given[0]
            return _Wire(name)

        return call

    def keep(self, made: Any) -> None:
        """Count the outputs as uses."""
        for wire in jax.tree.leaves(made, is_leaf=lambda leaf: isinstance(leaf, _Wire)):
            wire.uses += 1


_COMPOSITIONS: dict[type, Callable[..., _Folded]] = {
    Serial: _serial,
    Residual: _beside,
    Branches: _beside,
    Repeat: _inside("layer", 1),
    Remat: _inside("layer", 0),
    Scan: _inside("net", 0),
    Graph: _graph,
}


# factors and offsets in other layers


def _take_after(part: _Folded, affine: Params, copies: int) -> _Folded | None:
    """A part that multiplies its output by the factors and adds the offsets; None: it cannot."""
    layer: Any = part.layer
    if type(layer) is Serial:
        return _at(layer, part, affine, copies, -1, _take_after)
    if type(layer) is Remat:
        inner = _take_after(_Folded(layer.layer, part.params), affine, copies)
        return None if inner is None else _Folded(dataclasses.replace(layer, layer=inner.layer), inner.params)
    if type(layer) is ScaleChannels and part.free:
        factor, offset = affine["scale"], affine["bias"]
        both = {"scale": part.params["scale"] * factor, "bias": part.params["bias"] * factor + offset}
        return _Folded(layer, both, free=True)
    kind = nearest(layer, _KERNELS)
    if kind is None:
        return None
    kernel = _entry(layer, part.params, "kernel")
    factor, offset = affine["scale"], affine["bias"]
    made = {"kernel": (kernel * _along(factor, kernel.ndim, copies)).astype(kernel.dtype)}
    if layer.bias:
        bias = _entry(layer, part.params, "bias")
        offset = bias * _along(factor, bias.ndim, copies) + _along(offset, bias.ndim, copies)
    elif kind is LocallyConnected:  # whose bias has a value for every position
        positions = kernel.shape[copies : copies + (kernel.ndim - copies - 2) // 2]
        offset = jnp.broadcast_to(
            _along(offset, copies + len(positions) + 1, copies), (*kernel.shape[:copies], *positions, kernel.shape[-1])
        )
    made["bias"] = offset.astype(kernel.dtype)
    return _Folded(dataclasses.replace(layer, bias=True), made)


def _take_before(part: _Folded, affine: Params, copies: int) -> _Folded | None:
    """A part that multiplies its input by the factors and adds the offsets; None: it cannot."""
    layer: Any = part.layer
    if type(layer) is Serial:
        return _at(layer, part, affine, copies, 0, _take_before)
    kind = nearest(layer, _KERNELS)
    if kind not in (Conv, Dense) or (kind is Conv and _pads_with_zeros(layer)):
        return None
    kernel = _entry(layer, part.params, "kernel")
    factor, offset = affine["scale"], affine["bias"]
    groups = getattr(layer, "groups", 1)
    lead, out = kernel.shape[:copies], kernel.shape[-1]
    into = kernel.shape[-2]

    def rows(values: Any) -> Any:
        """Values of the input channels where the kernel has them: (*copies, 1, ..., in / groups, out)."""
        split = values.reshape(*lead, groups, into)
        spread = jnp.repeat(jnp.moveaxis(split, -2, -1), out // groups, axis=-1)
        return spread.reshape(*lead, *[1] * (kernel.ndim - copies - 2), into, out)

    wider = kernel.astype(factor.dtype)
    shift = (wider * rows(offset)).sum(tuple(range(copies, kernel.ndim - 1)))
    bias = shift + _entry(layer, part.params, "bias") if layer.bias else shift
    made = {"kernel": (wider * rows(factor)).astype(kernel.dtype), "bias": bias.astype(kernel.dtype)}
    return _Folded(dataclasses.replace(layer, bias=True), made)


def _pads_with_zeros(layer: Any) -> bool:
    """Whether zeros are added, to which an offset would not belong."""
    mode, amount = geometry.split(layer.padding)
    if mode is not None:
        return False
    return amount not in ("VALID", 0) and not (isinstance(amount, tuple) and not any(map(any, amount)))


def _at(
    layer: Serial, part: _Folded, affine: Params, copies: int, place: int, take: Callable[..., _Folded | None]
) -> _Folded | None:
    """The first or last part of a chain takes the factors and offsets."""
    order = [name for name, inner in layer.parts if type(inner) is not Dropout]
    if not order:
        return None
    name = order[place]
    inner = dict(layer.parts)[name]
    made = take(_Folded(inner, part.params.get(name, {})), affine, copies)
    if made is None:
        return None
    parts = tuple((n, made.layer if n == name else p) for n, p in layer.parts)
    return _Folded(Serial(parts), {**part.params, name: made.params})  # type: ignore[arg-type]


def _entry(layer: Layer, params: Params, name: str) -> Any:
    """An array of a layer."""
    if name not in params:
        raise ValueError(f"{names.code(layer)} has no {name} in params; give the parameters of the network")
    return jnp.asarray(params[name])


def _along(values: Any, rank: int, copies: int) -> Any:
    """Values (*copies, channels) with axes of one entry between, next to an array of that many axes."""
    return values.reshape(*values.shape[:copies], *[1] * (rank - copies - 1), values.shape[-1])
