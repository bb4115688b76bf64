"""From a network of fcnn to the same network written out by hand in NumPy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray

from .. import layers, names, reference
from ..compose.graph import Graph
from ..compose.parallel import Branches, Residual
from ..compose.parts import Composite
from ..compose.repeat import Repeat
from ..compose.serial import Serial
from ..geometry import Shape
from ..given import Params, State, fold
from ..layer import Layer
from ..ops.dense import dropout_mask
from .arithmetic import program

#: a function that gives the gradient of a part's parameters, as a tree like params
Collect = Callable[[], dict[str, Any]]


class Unwritten(NotImplementedError):
    """A layer that has no counterpart written by hand."""


def to_reference(
    net: Layer,
    params: Params,
    *shapes: Shape,
    state: State | None = None,
    key: jax.Array | None = None,
    batch: int = 1,
    train: bool = False,
) -> tuple[reference.Node, Collect]:
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
        The node, whose ``forward`` takes NumPy arrays; and a function that gives the gradients of the
        parameters, summed over all uses since the last ``clear``, as a tree like params.

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
    builder = _Builder(batch, train)
    return builder.build(net, _numpy(params), _numpy(state or {}), key, shapes)


class _Builder:
    """What stays the same on the way down a network."""

    def __init__(self, batch: int, train: bool) -> None:
        self.batch, self.train = batch, train

    def build(
        self, layer: Layer, params: Any, state: Any, key: Any, shapes: tuple[Shape, ...]
    ) -> tuple[reference.Node, Collect]:
        """One layer or composition."""
        if isinstance(layer, Serial):
            parts = self._parts(layer, params, state, key, shapes)
            return reference.Chain([node for node, _ in parts.values()]), _collected(parts)
        if isinstance(layer, Residual):
            parts = self._parts(layer, params, state, key, shapes)
            return reference.Residual(*(node for node, _ in parts.values())), _collected(parts)
        if isinstance(layer, Branches):
            parts = self._parts(layer, params, state, key, shapes)
            return reference.Branches([node for node, _ in parts.values()], join=layer.join), _collected(parts)
        if isinstance(layer, Repeat):
            return self._repeat(layer, params, state, key, shapes)
        if isinstance(layer, Graph):
            return self._graph(layer, params, state, key, shapes)
        if isinstance(layer, layers.Function):
            return _function(layer, self.batch, shapes), dict
        node = self._leaf(layer, params, state, key, shapes)
        return node, lambda: {name: np.array(value) for name, value in node.gradients.items()}

    def _parts(self, layer: Any, params: Any, state: Any, key: Any, shapes: tuple[Shape, ...]) -> dict[str, Any]:
        inner = layer.part_shapes(shapes)
        return {
            name: self.build(part, params.get(name, {}), state.get(name, {}), _fold(key, name), inner[name])
            for name, part in layer.named_parts()
        }

    def _repeat(self, layer: Repeat, params: Any, state: Any, key: Any, shapes: Any) -> tuple[reference.Node, Collect]:
        copies = []
        for i in range(layer.n):
            own_params, own_state = jax.tree.map(lambda a, i=i: a[i], (params, state))
            own_key = None if key is None else jax.random.fold_in(key, i)
            copies.append(self.build(layer.layer, own_params, own_state, own_key, shapes))

        def collect() -> dict[str, Any]:
            return jax.tree.map(lambda *leaves: np.stack(leaves), *(gradients() for _, gradients in copies))

        return reference.Chain([node for node, _ in copies]), collect

    def _graph(self, layer: Graph, params: Any, state: Any, key: Any, shapes: Any) -> tuple[reference.Node, Collect]:
        inner = layer.part_shapes(shapes)
        uses: dict[str, int] = {}
        nodes: dict[str, reference.Node] = {}
        parts: dict[str, tuple[reference.Node, Collect]] = {}
        for name, part in layer.named_parts():
            if part.statistics(*inner[name]) and self.train:
                raise Unwritten(f"{name}: running statistics that pass from use to use are not written by hand")
            parts[name] = self.build(part, params.get(name, {}), state.get(name, {}), _fold(key, name), inner[name])
            nodes[name] = parts[name][0]

        def wired(params: Any, *inputs: Any) -> Any:
            return layer.wiring(_Opaque(dict(layer.parts), params, uses), *inputs)

        struct = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.zeros(()).dtype)
        abstract = jax.tree.map(lambda a: struct(a.shape), params)
        traced = jax.make_jaxpr(wired)(abstract, *(struct((self.batch, *shape)) for shape in shapes))
        if len(traced.jaxpr.outvars) != 1:
            raise Unwritten("a graph of several outputs is not written by hand")
        drawn = [name for name, count in uses.items() if count > 1 and _draws(dict(layer.parts)[name])]
        if drawn and self.train:
            raise Unwritten(f"{drawn[0]}: a mask for every use of a shared dropout is not written by hand")
        try:
            body = program(traced, nodes)
        except NotImplementedError as error:
            raise Unwritten(f"the wiring {names.code(layer.wiring)}: {error}") from None
        leaves, tree = jax.tree.flatten(params)
        node = _Wired(body, leaves)

        def collect() -> dict[str, Any]:
            direct = jax.tree.unflatten(tree, node.direct)
            used = {name: gradients() for name, (_, gradients) in parts.items()}
            return jax.tree.map(np.add, {name: value for name, value in used.items() if value}, direct)

        node.inner = list(nodes.values())
        return node, collect

    def _leaf(self, layer: Any, params: Any, state: Any, key: Any, shapes: tuple[Shape, ...]) -> reference.Node:
        if isinstance(layer, layers.Dropout):
            if not self.train or key is None or layer.rate == 0:
                return reference.Identity()
            shape = (self.batch, *shapes[0])
            mask = dropout_mask(key, shape, layer.rate, whole_channels=layer.whole_channels)
            return reference.Dropout(np.broadcast_to(np.asarray(mask, np.float64), shape), layer.rate)
        if isinstance(layer, layers.BatchNorm):
            options = {"momentum": layer.momentum, "epsilon": layer.epsilon, "train": self.train}
            return reference.BatchNorm(params.get("scale"), params.get("bias"), **state, **options)
        if type(layer) not in _LEAVES:
            raise Unwritten(f"{names.code(layer)} has no counterpart written by hand")
        kind, options = _LEAVES[type(layer)]
        return kind(**params, **{name: getattr(layer, name) for name in options})


_SLIDING = ("stride", "padding", "dilation", "groups")
_POOLING = ("window", "stride", "padding", "dilation", "ceil_mode")

#: the reference's node for each layer, and the hyperparameters it takes over
_LEAVES: dict[type, tuple[Any, tuple[str, ...]]] = {
    layers.Conv: (reference.Conv, _SLIDING),
    layers.ConvTranspose: (reference.ConvTranspose, (*_SLIDING, "output_padding")),
    layers.LocallyConnected: (reference.LocallyConnected, _SLIDING),
    layers.Dense: (reference.Dense, ()),
    layers.Flatten: (reference.Flatten, ()),
    layers.Maxout: (reference.Maxout, ("pieces",)),
    layers.MaxPool: (reference.MaxPool, _POOLING),
    layers.AvgPool: (reference.AvgPool, (*_POOLING, "count_padding")),
    layers.LpPool: (reference.LpPool, (*_POOLING, "power")),
    layers.GlobalMaxPool: (reference.GlobalMaxPool, ()),
    layers.GlobalAvgPool: (reference.GlobalAvgPool, ()),
    layers.AdaptiveAvgPool: (reference.AdaptiveAvgPool, ("out",)),
    layers.AdaptiveMaxPool: (reference.AdaptiveMaxPool, ("out",)),
    layers.LayerNorm: (reference.LayerNorm, ("epsilon",)),
    layers.GroupNorm: (reference.GroupNorm, ("groups", "epsilon")),
    layers.InstanceNorm: (reference.InstanceNorm, ("epsilon",)),
    layers.LocalResponseNorm: (reference.LocalResponseNorm, ("size", "alpha", "beta", "k")),
}

#: functions whose derivative the reference has by name; all others are taken apart into primitives
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
    jax.nn.leaky_relu: reference.LeakyReLU,
    jnp.square: reference.Square,
    jnp.abs: reference.Abs,
    jnp.exp: reference.Exp,
}


def _function(layer: layers.Function, batch: int, shapes: tuple[Shape, ...]) -> reference.Node:
    if layer.function in _FUNCTIONS:
        return _FUNCTIONS[layer.function]()
    structs = [jax.ShapeDtypeStruct((batch, *shape), jnp.zeros(()).dtype) for shape in shapes]
    try:
        return program(jax.make_jaxpr(layer.function)(*structs))
    except NotImplementedError as error:
        raise Unwritten(f"the function {names.code(layer)}: {error}") from None


@functools.cache
def _layer() -> Any:
    """The primitive that stands for a layer, not looked into, in the trace of a wiring."""
    from jax.extend import core  # heavy to import, and only gradient checks need it

    primitive = core.Primitive("layer")

    @primitive.def_abstract_eval
    def shape(*avals: Any, name: str, out: Shape) -> Any:
        return ShapedArray((avals[0].shape[0], *out), avals[0].dtype)

    return primitive


class _Opaque:
    """What a wiring gets when it is traced to be written by hand: layers that are not looked into."""

    def __init__(self, parts: dict[str, Layer], params: Any, uses: dict[str, int]) -> None:
        self._parts, self.params, self._uses = parts, params, uses

    def __getattr__(self, name: str) -> Callable[..., Any]:
        part = self._parts[name]

        def use(*inputs: Any) -> Any:
            self._uses[name] = self._uses.get(name, 0) + 1
            out = part.infer_shape(*(tuple(x.shape[1:]) for x in inputs))
            return _layer().bind(*inputs, name=name, out=out)

        return use


class _Wired(reference.Node):
    """A wiring as a node: its program takes the parameters that it may read beside the inputs."""

    inner: list[reference.Node]

    def __init__(self, body: reference.Node, leaves: list[np.ndarray]) -> None:
        super().__init__()
        self._body, self._leaves = body, leaves
        self.direct = [np.zeros(leaf.shape) for leaf in leaves]

    def forward(self, *inputs: np.ndarray) -> np.ndarray:
        return self._body.forward(*self._leaves, *inputs)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        found = self._body.backward(gradient)
        for total, share in zip(self.direct, found, strict=False):
            total += share
        return found[len(self.direct) :]

    def clear(self) -> None:
        for node in self.inner:
            node.clear()
        for total in self.direct:
            total[...] = 0


def _collected(parts: dict[str, tuple[reference.Node, Collect]]) -> Collect:
    def collect() -> dict[str, Any]:
        found = {name: gradients() for name, (_, gradients) in parts.items()}
        return {name: value for name, value in found.items() if value}

    return collect


def _draws(layer: Layer) -> bool:
    inner = [part for _, part in layer.named_parts()] if isinstance(layer, Composite) else []
    inner += [layer.layer] if isinstance(layer, Repeat) else []
    return layer.needs_key() or any(map(_draws, inner))


def _fold(key: Any, name: str) -> Any:
    return None if key is None else fold(key, name)


def _numpy(tree: Any) -> Any:
    return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)
