"""From a network of fcnn to the same network in the hand-written NumPy reference."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import layers, names, reference
from ..context import Context
from ..geometry import Shape
from ..identity import nearest
from ..layer import Layer
from ..ops.dense import depth_mask, dropout_mask
from ..tracing.record import Program, Use, record
from ..types import Params, State
from .arithmetic.program import Placed
from .arithmetic.program import program as written

#: a function that gives the gradients of a network's parameters, as a tree like params
Collect = Callable[[], dict[str, Any]]


class Unwritten(NotImplementedError):
    """Raised for a layer that has no hand-written counterpart."""


class Written(reference.Node):
    """A whole hand-written network: the node of its outermost layer, and the state updates of training."""

    def __init__(self, node: reference.Node, moved: Callable[[], State]) -> None:
        super().__init__()
        self.params, self.gradients = node.params, node.gradients
        self._node, self._moved = node, moved

    def forward(self, *inputs: np.ndarray) -> Any:
        return self._node.forward(*inputs)

    def backward(self, gradient: Any) -> tuple[np.ndarray, ...]:
        return self._node.backward(gradient)

    def state(self) -> State:
        """The state after the latest forward, a tree like the one given; at inference it is unchanged."""
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
    """Build the reference network equivalent to a network.

    Args:
        net: a network of the library's layers and compositions, and of functions whose primitives have hand-written
            rules (see :mod:`fcnn.analysis.arithmetic`).
        params: its parameters.
        shapes: shape of one example of each input.
        state: its state, if it has one.
        key: in training, the key of the dropout masks.
        batch: number of examples, for the shapes of dropout masks.
        train: whether to build ``apply_train`` rather than ``apply``.

    Returns:
        The node and a function. The node's ``forward`` takes NumPy arrays and returns the network's output, an array or
        a tuple or dict of them; its ``backward`` takes a gradient of the same structure; its ``state()`` is the state
        after the latest forward. The function returns the gradients of the parameters, accumulated over all uses since
        the last ``clear``, as a tree like params.

    Raises:
        Unwritten: if a layer or function has no hand-written counterpart; the message names it.

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
    builder = _Builder(train, _Trees(key, params, gradients, state, new_state))
    node = builder.network(record(net, shapes, train=train, batch=batch), ())

    def moved() -> State:
        for norm, statistics in builder.latest.values():
            for name, value in statistics.items():
                value[...] = getattr(norm, f"new_{name}")
        return jax.tree.map(np.copy, new_state)

    return Written(node, moved), lambda: jax.tree.map(np.copy, gradients)


class _Trees(NamedTuple):
    """The random key and the trees of a network.

    All uses of a layer get views of the same arrays: they read the same parameters and add to the same gradients, and
    a wiring that reads ``layer.params`` does likewise.
    """

    key: Any
    params: Any
    gradients: Any
    state: Any
    new_state: Any

    def own(self, path: str, copies: tuple[int, ...], folds: tuple[int | None, ...] = ()) -> _Trees:
        """The key and subtrees of one use of a layer; the arrays' first axes index copies in loops."""
        key, numbers = self.key, iter(copies)
        for fold in folds:
            key = None if key is None else jax.random.fold_in(key, next(numbers) if fold is None else fold)
        found = []
        for tree in self[1:]:
            for step in filter(None, path.split("/")):
                tree = tree.get(step.split("#")[0], {})
            for i in copies:
                tree = jax.tree.map(lambda a, i=i: a[i, ...], tree)  # the dots keep it a view
            found.append(tree)
        return _Trees(key, *found)

    def only(self, params: Any, state: Any) -> _Trees:
        """The entries that were passed to one use of a layer."""
        chosen = ({name: tree[name] for name in params} for tree in (self.params, self.gradients))
        kept = ({name: tree[name] for name in state} for tree in (self.state, self.new_state))
        return _Trees(self.key, *chosen, *kept)


class _Builder:
    """Builds nodes from the recorded program of a network.

    Layers are built in the order in which they run, because statistics pass from each use of a layer to the next.

    Attributes:
        train: whether the network is being trained.
        trees: those of the network.
        latest: in training, the latest use of every norm with running statistics, by place, and the arrays that receive
            its new statistics.
    """

    def __init__(self, train: bool, trees: _Trees) -> None:
        self.train, self.trees = train, trees
        self.latest: dict[Any, tuple[reference.BatchNorm | reference.InstanceNorm, Any]] = {}

    def network(self, program: Program, copies: tuple[int, ...], path: str = "") -> reference.Node:
        """The node of a network, or of a part of it."""
        nodes: dict[str, reference.Node] = {}

        def placed(equation: Any, turns: tuple[int, ...]) -> Placed:
            use = program.uses[equation.params["use"]]
            node = self._use(use, (*copies, *turns))
            nodes["/".join(map(str, (use.path, *turns)))] = node
            return Placed(node, len(use.inputs))

        trees = self.trees.own(path, copies)
        # the nodes of norms read and update the state themselves
        fixed = [trees.key] * program.train
        body = written(program.jaxpr, jax.tree.structure(program.output), placed, fixed)
        return _Network(body, nodes, trees)

    def _use(self, use: Use, copies: tuple[int, ...]) -> reference.Node:
        layer, shapes = use.layer, tuple(tuple(x.shape[1:]) for x in use.inputs)
        batch = use.inputs[0].shape[0]
        if use.inside is not None:
            return self._scan(use, copies, batch, shapes[0])
        if isinstance(layer, layers.Function):
            return _function(layer, batch, shapes)
        trees = self.trees.own(use.path, copies, use.folds).only(use.params, use.state)
        node = self._leaf(layer, trees, (*_homes(use.path), *copies), (batch, *shapes[0]))
        node.params, node.gradients = trees.params, trees.gradients
        return node

    def _scan(self, use: Use, copies: tuple[int, ...], batch: int, shape: Shape) -> reference.Node:
        layer = use.layer
        drawing = next((part for part in _within(layer.net) if part.needs_key()), None)
        if self.train and self.trees.key is not None and drawing is not None:
            raise Unwritten(
                f"{names.code(layer)} in training: the random numbers of {names.code(drawing)} are not those of "
                "single windows"
            )
        grid, seen = layer.placed(shape)
        context = Context(train=self.train, path=tuple(filter(None, use.path.split("/"))))
        inside = record(layer.net, (seen,), train=self.train, batch=batch * prod(grid.positions), context=context)
        return reference.Scan(self.network(inside, copies, use.path), grid.local, stride=grid.stride)

    def _leaf(self, layer: Any, trees: _Trees, place: Any, shape: tuple[int, ...]) -> reference.Node:
        if nearest(layer, (layers.Dropout, layers.StochasticDepth)):
            if not self.train or trees.key is None or layer.rate == 0:
                return reference.Identity()
            if isinstance(layer, layers.Dropout):
                mask = dropout_mask(trees.key, shape, layer.rate, whole_channels=layer.whole_channels)
            else:
                mask = depth_mask(trees.key, shape, layer.rate)
            return reference.Dropout(np.broadcast_to(np.asarray(mask, np.float64), shape), layer.rate)
        if nearest(layer, (layers.BatchNorm, layers.InstanceNorm)):
            return self._running(layer, trees, place)
        known = nearest(layer, _LEAVES)
        if known is None and hasattr(layer, "named_parts"):
            raise Unwritten(
                f"{names.code(layer)} transforms its layers, as vmap and grad do, which has no hand-written counterpart"
            )
        if known is None:
            raise Unwritten(f"{names.code(layer)} has no hand-written counterpart")
        kind, options = _LEAVES[known]
        return kind(**trees.params, **{name: getattr(layer, name) for name in options})

    def _running(self, layer: layers.BatchNorm | layers.InstanceNorm, trees: _Trees, place: Any) -> reference.Node:
        """The node of a norm that can keep running statistics."""
        options = {name: getattr(layer, name) for name in ("momentum", "epsilon", "unbiased")}
        before, _ = self.latest.get(place, (None, None))
        given = {**trees.params, **trees.state, **options, "after": before}
        if isinstance(layer, layers.BatchNorm):
            node = reference.BatchNorm(**given, train=self.train or not layer.running)
        else:
            node = reference.InstanceNorm(**given, train=self.train, running=layer.running)
        if self.train and layer.running:
            self.latest[place] = node, trees.new_state
        return node


def _homes(path: str) -> tuple[str, ...]:
    """The path of a use as in params."""
    return tuple(step.split("#")[0] for step in path.split("/"))


def _within(part: Any) -> Iterator[Layer]:
    """A layer and all layers inside it."""
    if isinstance(part, Layer):
        yield part
        part = [getattr(part, field.name) for field in dataclasses.fields(part)]  # type: ignore[arg-type]
    if isinstance(part, (tuple, list)):
        for item in part:
            yield from _within(item)


_SLIDING = ("stride", "padding", "dilation", "groups")
_POOLING = ("window", "stride", "padding", "dilation", "ceil_mode")

#: the reference's node for each layer, and the hyperparameters passed to it
_LEAVES: dict[type, tuple[Any, tuple[str, ...]]] = {
    layers.Conv: (reference.Conv, _SLIDING),
    layers.ConvTranspose: (reference.ConvTranspose, (*_SLIDING, "output_padding", "out")),
    layers.LocallyConnected: (reference.LocallyConnected, _SLIDING),
    layers.Dense: (reference.Dense, ()),
    layers.Flatten: (reference.Flatten, ("first", "last")),
    layers.Maxout: (reference.Maxout, ("pieces",)),
    layers.ChannelShuffle: (reference.ChannelShuffle, ("groups",)),
    layers.PixelShuffle: (reference.PixelShuffle, ("factor", "order")),
    layers.PixelUnshuffle: (reference.PixelUnshuffle, ("factor", "order")),
    layers.Pad: (reference.Pad, ("padding", "value")),
    layers.Crop: (reference.Crop, ("amount", "size")),
    layers.Resize: (reference.Resize, ("size", "scale", "method", "align_corners", "antialias", "convention")),
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

#: functions with a node in the reference; all others are decomposed into primitives, including those whose derivative
#: at a kink differs in JAX (abs and leaky_relu)
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
        return written(jax.make_jaxpr(layer.function)(*structs))


@contextlib.contextmanager
def _unwritten(what: str) -> Iterator[None]:
    """Name the function in the error about a primitive without a rule."""
    try:
        yield
    except NotImplementedError as error:
        raise Unwritten(f"{what}: {error}") from None


class _Network(reference.Node):
    """A network as a node: its program takes the parameters, which wirings may read, in addition to the inputs.

    Args:
        body: the program.
        parts: the uses of layers, by path.
        trees: those of the network.
    """

    def __init__(self, body: reference.Node, parts: dict[str, reference.Node], trees: _Trees) -> None:
        super().__init__()
        for name, node in parts.items():
            self.params |= {f"{name}.{key}": value for key, value in node.params.items()}
            self.gradients |= {f"{name}.{key}": value for key, value in node.gradients.items()}
        self._body = body
        self._leaves, self._totals = jax.tree.leaves(trees.params), jax.tree.leaves(trees.gradients)
        self._state = jax.tree.leaves(trees.state)

    def forward(self, *inputs: np.ndarray) -> Any:
        return self._body.forward(*self._leaves, *self._state, *inputs)

    def backward(self, gradient: Any) -> tuple[np.ndarray, ...]:
        found = self._body.backward(gradient)
        for total, share in zip(self._totals, found, strict=False):
            total += share
        return found[len(self._totals) + len(self._state) :]
