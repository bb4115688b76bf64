"""From a network of fcnn to the same network written out by hand in NumPy."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import layers, names, reference
from ..compose.graph import Graph
from ..compose.parallel import Branches, Residual
from ..compose.parts import Composite
from ..compose.remat import Remat
from ..compose.repeat import Repeat
from ..compose.serial import Serial
from ..compose.wiring import traced
from ..geometry import Shape
from ..given import Params, State, fold
from ..identity import nearest
from ..layer import Layer
from ..ops.dense import dropout_mask
from ..scan import Scan
from .arithmetic import program

#: a function that gives the gradients of a network's parameters, as a tree like params
Collect = Callable[[], dict[str, Any]]


class Unwritten(NotImplementedError):
    """A layer that has no counterpart written by hand."""


class Written(reference.Node):
    """A whole network written by hand: the node of its outermost layer, and what training does to the state."""

    def __init__(self, node: reference.Node, moved: Callable[[], State]) -> None:
        super().__init__()
        self.params, self.gradients = node.params, node.gradients
        self._node, self._moved = node, moved

    def forward(self, *inputs: np.ndarray) -> Any:
        return self._node.forward(*inputs)

    def backward(self, gradient: Any) -> tuple[np.ndarray, ...]:
        return self._node.backward(gradient)

    def state(self) -> State:
        """The state after the latest forward, a tree like the one given; in use, that one."""
        return self._moved()


def to_reference(
    net: Layer,
    params: Params,
    *shapes: Shape,
    state: State | None = None,
    key: jax.Array | None = None,
    batch: int = 1,
    train: bool = False,
) -> tuple[Written, Collect]:
    """Build the reference network that computes what a network computes.

    Args:
        net: a network of the library's layers and compositions; functions in it may be any that are made of
            elementwise and linear operations.
        params: its parameters.
        shapes: shape of one example of each input.
        state: its state, where it has one.
        key: in training, the key whose dropout masks are used.
        batch: number of examples, for the shapes of dropout masks.
        train: whether to build ``apply_train`` rather than ``apply``.

    Returns:
        The node, whose ``forward`` takes NumPy arrays and returns what the network does, an array or a tuple or
        dict of them; whose ``backward`` takes a gradient of the same form; and whose ``state()`` is the state after
        the latest forward. And a function that gives the gradients of the parameters, summed over all uses since
        the last ``clear``, as a tree like params.

    Raises:
        Unwritten: a layer or function without a counterpart written by hand; the message names it.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Dense(1, bias=False), jnp.tanh)
        >>> node, gradients = to_reference(net, {"dense1": {"kernel": jnp.array([[2.0]])}}, (1,))
        >>> y = node.forward(np.array([[3.0]]))
        >>> _ = node.backward(np.ones((1, 1)))
        >>> bool(np.isclose(gradients()["dense1"]["kernel"][0, 0], 3 * (1 - np.tanh(6.0) ** 2), rtol=1e-5))
        True
    """
    params, state = jax.tree.map(lambda a: np.array(a, np.float64), (params, state or {}))
    gradients, new_state = jax.tree.map(np.zeros_like, params), jax.tree.map(np.copy, state)
    builder = _Builder(train)
    node = builder.build(net, _Place((), key, params, gradients, state, new_state), batch, shapes)

    def moved() -> State:
        for norm, statistics in builder.latest.values():
            for name, value in statistics.items():
                value[...] = getattr(norm, f"new_{name}")
        return jax.tree.map(np.copy, new_state)

    return Written(node, moved), lambda: jax.tree.map(np.copy, gradients)


class _Place(NamedTuple):
    """One use of a layer: where in the network it is, its random key, and what it has of the network's trees.

    The arrays are those of the whole network, or views of them. So all uses of a layer read the same parameters and
    add to the same gradients, and a wiring that reads ``layer.params`` does likewise.
    """

    path: tuple[str | int, ...]
    key: Any
    params: Any
    gradients: Any
    state: Any
    new_state: Any

    def part(self, name: str, use: int = 0) -> _Place:
        """The place of a named part; ``use`` counts the uses of a shared part, each with random numbers of its own."""
        key = None if self.key is None else fold(self.key, name)
        if use and key is not None:
            key = jax.random.fold_in(key, use)
        params, gradients, state, new_state = (tree.get(name, {}) for tree in self[2:])
        return _Place((*self.path, name), key, params, gradients, state, new_state)

    def copy(self, i: int) -> _Place:
        """The place of one of several copies of a layer, whose arrays have a first axis for the copies."""
        key = None if self.key is None else jax.random.fold_in(self.key, i)
        params, gradients, state, new_state = jax.tree.map(lambda a: a[i, ...], self[2:])  # the dots keep it a view
        return _Place((*self.path, i), key, params, gradients, state, new_state)


class _Builder:
    """What stays the same on the way down a network.

    Layers are built in the order in which they run, because statistics pass from each use of a layer to the next.

    Attributes:
        train: whether the network is being trained.
        latest: the latest use of every norm with running statistics in training, by path, and where its new ones go.
    """

    def __init__(self, train: bool) -> None:
        self.train = train
        self.latest: dict[tuple[str | int, ...], tuple[reference.BatchNorm | reference.InstanceNorm, Any]] = {}

    def build(self, layer: Layer, place: _Place, batch: int, shapes: tuple[Shape, ...]) -> reference.Node:
        """One use of a layer or composition."""
        if isinstance(layer, Serial):
            return reference.Chain(self._parts(layer, place, batch, shapes))
        if isinstance(layer, Residual):
            return reference.Residual(*self._parts(layer, place, batch, shapes))
        if isinstance(layer, Branches):
            return reference.Branches(self._parts(layer, place, batch, shapes), join=layer.join)
        if isinstance(layer, Repeat):
            return reference.Chain([self.build(layer.layer, place.copy(i), batch, shapes) for i in range(layer.n)])
        if isinstance(layer, Remat):
            return self.build(layer.layer, place, batch, shapes)
        if isinstance(layer, Graph):
            return self._graph(layer, place, batch, shapes)
        if isinstance(layer, Scan):
            return self._scan(layer, place, batch, shapes[0])
        if isinstance(layer, layers.Function):
            return _function(layer, batch, shapes)
        node = self._leaf(layer, place, (batch, *shapes[0]))
        node.params, node.gradients = place.params, place.gradients
        return node

    def _parts(self, layer: Composite, place: _Place, batch: int, shapes: tuple[Shape, ...]) -> list[reference.Node]:
        inner = layer.part_shapes(shapes)
        return [self.build(part, place.part(name), batch, inner[name]) for name, part in layer.named_parts()]

    def _graph(self, layer: Graph, place: _Place, batch: int, shapes: tuple[Shape, ...]) -> reference.Node:
        with _unwritten(f"the wiring {names.code(layer.wiring)}"):
            wired, out, uses = traced(layer, place.params, *shapes, batch=batch)
        parts = dict(layer.parts)
        counts: Counter[str] = Counter()
        nodes: list[reference.Node] = []
        for name, inputs in uses:
            own = tuple(shape[1:] for shape in inputs)
            nodes.append(self.build(parts[name], place.part(name, counts[name]), inputs[0][0], own))
            counts[name] += 1
        with _unwritten(f"the wiring {names.code(layer.wiring)}"):
            body = program(wired, jax.tree.structure(out), nodes)
        return _Wired(body, dict(zip((name for name, _ in uses), nodes, strict=True)), place)

    def _scan(self, layer: Scan, place: _Place, batch: int, shape: Shape) -> reference.Node:
        drawing = next((part for part in _within(layer.net) if part.needs_key()), None)
        if self.train and place.key is not None and drawing is not None:
            raise Unwritten(
                f"{names.code(layer)} in training: the random numbers of {names.code(drawing)} are not those of "
                "single windows"
            )
        lattice, seen = layer.placed(shape)
        node = self.build(layer.net, place, batch * prod(lattice.positions), (seen,))
        return reference.Scan(node, lattice.local, stride=lattice.stride)

    def _leaf(self, layer: Any, place: _Place, shape: tuple[int, ...]) -> reference.Node:
        if nearest(layer, (layers.Dropout,)):
            if not self.train or place.key is None or layer.rate == 0:
                return reference.Identity()
            mask = dropout_mask(place.key, shape, layer.rate, whole_channels=layer.whole_channels)
            return reference.Dropout(np.broadcast_to(np.asarray(mask, np.float64), shape), layer.rate)
        if nearest(layer, (layers.BatchNorm, layers.InstanceNorm)):
            return self._running(layer, place)
        known = nearest(layer, _LEAVES)
        if known is None:
            raise Unwritten(f"{names.code(layer)} has no counterpart written by hand")
        kind, options = _LEAVES[known]
        return kind(**place.params, **{name: getattr(layer, name) for name in options})

    def _running(self, layer: layers.BatchNorm | layers.InstanceNorm, place: _Place) -> reference.Node:
        """A norm that can keep running statistics."""
        options = {name: getattr(layer, name) for name in ("momentum", "epsilon", "unbiased")}
        before, _ = self.latest.get(place.path, (None, None))
        given = {**place.params, **place.state, **options, "after": before}
        if isinstance(layer, layers.BatchNorm):
            node = reference.BatchNorm(**given, train=self.train or not layer.running)
        else:
            node = reference.InstanceNorm(**given, train=self.train, running=layer.running)
        if self.train and layer.running:
            self.latest[place.path] = node, place.new_state
        return node


def _within(part: Any) -> Iterator[Layer]:
    """A layer and all layers that it is made of."""
    if isinstance(part, Layer):
        yield part
        part = [getattr(part, field.name) for field in dataclasses.fields(part)]  # type: ignore[arg-type]
    if isinstance(part, (tuple, list)):
        for item in part:
            yield from _within(item)


_SLIDING = ("stride", "padding", "dilation", "groups")
_POOLING = ("window", "stride", "padding", "dilation", "ceil_mode")

#: the reference's node for each layer, and the hyperparameters it takes over
_LEAVES: dict[type, tuple[Any, tuple[str, ...]]] = {
    layers.Conv: (reference.Conv, _SLIDING),
    layers.ConvTranspose: (reference.ConvTranspose, (*_SLIDING, "output_padding", "out")),
    layers.LocallyConnected: (reference.LocallyConnected, _SLIDING),
    layers.Dense: (reference.Dense, ()),
    layers.Flatten: (reference.Flatten, ("first", "last")),
    layers.Maxout: (reference.Maxout, ("pieces",)),
    layers.PReLU: (reference.PReLU, ()),
    layers.ScaleChannels: (reference.ScaleChannels, ()),
    layers.MaxPool: (reference.MaxPool, _POOLING),
    layers.MaxUnpool: (reference.MaxUnpool, _POOLING),
    layers.AvgPool: (reference.AvgPool, (*_POOLING, "count_padding", "divisor")),
    layers.LpPool: (reference.LpPool, (*_POOLING, "power")),
    layers.GlobalMaxPool: (reference.GlobalMaxPool, ()),
    layers.GlobalAvgPool: (reference.GlobalAvgPool, ()),
    layers.AdaptiveAvgPool: (reference.AdaptiveAvgPool, ("out",)),
    layers.AdaptiveMaxPool: (reference.AdaptiveMaxPool, ("out",)),
    layers.LayerNorm: (reference.LayerNorm, ("epsilon", "axes")),
    layers.GroupNorm: (reference.GroupNorm, ("groups", "epsilon")),
    layers.LocalResponseNorm: (reference.LocalResponseNorm, ("size", "alpha", "beta", "k")),
}

#: functions whose derivative the reference has by name; all others are taken apart into primitives, as are those that
#: have another slope at their kink in JAX (abs and leaky_relu)
_FUNCTIONS: dict[Any, Callable[[], reference.Node]] = {
    jax.nn.relu: reference.ReLU,
    jnp.tanh: reference.Tanh,
    jax.nn.sigmoid: reference.Sigmoid,
    jax.nn.softmax: reference.Softmax,
    jax.nn.log_softmax: reference.LogSoftmax,
    jax.nn.gelu: reference.GELU,
    jax.nn.silu: reference.SiLU,
    jax.nn.softplus: reference.Softplus,
    jax.nn.elu: reference.ELU,
    jnp.square: reference.Square,
    jnp.exp: reference.Exp,
}


def _function(layer: layers.Function, batch: int, shapes: tuple[Shape, ...]) -> reference.Node:
    if layer.function in _FUNCTIONS:
        return _FUNCTIONS[layer.function]()
    structs = [jax.ShapeDtypeStruct((batch, *shape), jnp.zeros(()).dtype) for shape in shapes]
    with _unwritten(f"the function {names.code(layer)}"):
        return program(jax.make_jaxpr(layer.function)(*structs))


@contextlib.contextmanager
def _unwritten(what: str) -> Iterator[None]:
    """Say of which function it is that a primitive is not written by hand."""
    try:
        yield
    except NotImplementedError as error:
        raise Unwritten(f"{what}: {error}") from None


class _Wired(reference.Node):
    """A wiring as a node: its program takes the parameters, which it may read, beside the inputs.

    Args:
        body: the program.
        parts: a use of every layer.
        place: that of the graph.
    """

    def __init__(self, body: reference.Node, parts: dict[str, reference.Node], place: _Place) -> None:
        super().__init__()
        for name, node in parts.items():
            self.params |= {f"{name}.{key}": value for key, value in node.params.items()}
            self.gradients |= {f"{name}.{key}": value for key, value in node.gradients.items()}
        self._body = body
        self._leaves, self._totals = jax.tree.leaves(place.params), jax.tree.leaves(place.gradients)

    def forward(self, *inputs: np.ndarray) -> Any:
        return self._body.forward(*self._leaves, *inputs)

    def backward(self, gradient: Any) -> tuple[np.ndarray, ...]:
        found = self._body.backward(gradient)
        for total, share in zip(self._totals, found, strict=False):
            total += share
        return found[len(self._totals) :]
