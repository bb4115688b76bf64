"""Networks that are not a chain: layers named once, and used by a function any number of times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .. import names
from ..errors import format_shape, layer_path
from ..geometry import Shape, is_shape
from ..layer import Context, Layer
from ..layers.function import PROBES, abstract, called, lost_batch
from ..types import Params, State
from .parts import Composite, Parts, named, walked


@dataclass(frozen=True, repr=False)
class Graph(Composite):
    """The result of ``graph(**layers)(wiring)``."""

    parts: Parts
    wiring: Callable[..., Any]

    def named_parts(self) -> Parts:
        return self.parts

    def infer_shape(self, *shapes: Shape) -> Any:
        return walked(self, shapes)[0]

    def part_shapes(self, shapes: tuple[Shape, ...]) -> dict[str, tuple[Shape, ...]]:
        return walked(self, shapes)[1]

    def walk_shapes(self, shapes: tuple[Shape, ...]) -> tuple[Any, dict[str, tuple[Shape, ...]]]:
        """Call the wiring on shapes alone; nothing is computed."""
        out, used = [self._probed(shapes, batch) for batch in PROBES][-1]
        for name, _ in self.parts:
            if name not in used._seen:
                raise ValueError(f"the layer {name!r} is named but the wiring never calls it; call it or leave it out")
        return jax.tree.map(lambda leaf: tuple(leaf.shape[1:]), out), used._seen

    def _probed(self, shapes: tuple[Shape, ...], batch: int) -> tuple[Any, _Shapes]:
        used = _Shapes(dict(self.parts))
        out = jax.eval_shape(lambda *inputs: called(self.wiring, inputs, _INPUTS, used), *abstract(shapes, batch))
        _check_outputs(out, batch)
        return out, used

    def walk(self, context: Context, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        layers = _Run(dict(self.parts), context, params, state)
        y = called(self.wiring, inputs, _INPUTS, layers)
        for name, _ in self.parts:
            if name not in layers._uses:
                raise ValueError(f"the layer {name!r} is named but the wiring never calls it; call it or leave it out")
        _check_outputs(y, inputs[0].shape[0])
        return y, {name: layers._state[name] for name, _ in self.parts if layers._state.get(name)}

    def __repr__(self) -> str:
        layers = ", ".join(f"{name}={names.code(layer)}" for name, layer in self.parts)
        return f"fcnn.graph({layers})({names.code(self.wiring)})"

    def __reduce__(self) -> tuple[Any, ...]:
        # used as a decorator, graph() binds the network to the wiring's own name
        place = tuple(getattr(self.wiring, what, "") for what in ("__module__", "__qualname__"))
        return (names.imported, place) if names.find(*place) is self else super().__reduce__()


#: advice for a wiring that takes a different number of inputs
_INPUTS = "init and out_shape take the shape of every input, apply every input"


def _check_outputs(out: Any, batch: int) -> None:
    """Raise unless a wiring returned arrays that keep the batch as their first axis."""
    leaves = jax.tree.leaves(out)
    if not leaves or not all(hasattr(leaf, "shape") for leaf in leaves):
        raise TypeError(
            f"the wiring returned a {type(out).__name__}; it must return an array, or a tuple or dict of arrays"
        )
    for leaf in leaves:
        if not leaf.shape or leaf.shape[0] != batch:
            raise ValueError(
                f"the wiring returned {lost_batch(leaf.shape)}; outputs keep the batch as their first axis"
            )


class _Layers:
    """The first argument of a wiring: the layers as attributes, and ``params``."""

    def __init__(self, parts: dict[str, Layer]) -> None:
        self._parts = parts

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._parts:
            raise ValueError(
                f"the wiring calls layer.{name}, but the graph's layers are {', '.join(self._parts)}; "
                f"name it: graph({name}=...)"
            )
        return lambda *inputs: self._use(name, inputs)

    def _use(self, name: str, inputs: tuple[Any, ...]) -> Any:
        raise NotImplementedError


class _Run(_Layers):
    """Layers that compute."""

    def __init__(self, parts: dict[str, Layer], context: Context, params: Params, state: State) -> None:
        super().__init__(parts)
        self._context = context
        self.params = params
        self._state = dict(state)
        self._uses: Counter[str] = Counter()

    def _use(self, name: str, inputs: tuple[Any, ...]) -> Any:
        y, new_state = self._context.part(
            name, self._parts[name], self.params, self._state, inputs, use=self._uses[name]
        )
        self._uses[name] += 1
        if new_state:
            self._state[name] = new_state
        return y


class _Shapes(_Layers):
    """Layers that only infer shapes."""

    def __init__(self, parts: dict[str, Layer]) -> None:
        super().__init__(parts)
        self._seen: dict[str, tuple[Shape, ...]] = {}
        self.params = _Known(self)

    def _use(self, name: str, inputs: tuple[Any, ...]) -> Any:
        part = self._parts[name]
        with layer_path(name):
            for x in inputs:
                if not hasattr(x, "shape"):
                    raise TypeError(
                        f"takes arrays, the wiring gave it a {type(x).__name__}; make it one, such as by jnp.stack"
                    )
            shapes = part.accept_shapes(tuple(tuple(x.shape[1:]) for x in inputs))
            out = part.infer_shape(*shapes)
            first = self._seen.setdefault(name, shapes)
            if first != shapes and _declared(part, first) != _declared(part, shapes):
                one, other = (" and ".join(map(format_shape, each)) for each in (first, shapes))
                raise ValueError(
                    f"is used on inputs of {one} and of {other}, which ask for parameters of "
                    "different shapes; a shared layer needs inputs that suit one set"
                )
        batch = inputs[0].shape[0]
        dtype = jnp.result_type(float)
        return jax.tree.map(lambda shape: jnp.zeros((batch, *shape), dtype), out, is_leaf=is_shape)


class _Known(Mapping[str, Any]):
    """Placeholders, with the right shapes, for the parameters of the layers used so far."""

    def __init__(self, layers: _Shapes) -> None:
        self._layers = layers

    def __getitem__(self, name: str) -> Any:
        part = self._layers._parts.get(name)
        if part is None:
            raise ValueError(f"the wiring reads layer.params[{name!r}], but the graph has no such layer")
        if name not in self._layers._seen:
            raise ValueError(
                f"the wiring reads layer.params[{name!r}] before it calls layer.{name}, so its shape is not known yet; "
                "call the layer first"
            )
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), _declared(part, self._layers._seen[name]))

    def __iter__(self) -> Any:
        return iter(self._layers._seen)

    def __len__(self) -> int:
        return len(self._layers._seen)


def _declared(part: Layer, shapes: tuple[Shape, ...]) -> Any:
    """Shapes and dtypes of a part's parameters."""
    return jax.eval_shape(lambda: part.init_part(jax.random.key(0), shapes))


def graph(**layers: Any) -> Callable[[Callable[..., Any]], Graph]:
    """Name layers once, and wire them by a function that may use each of them any number of times.

    All uses of a layer share one entry in params; ``jax.grad`` sums over the uses. In training each use draws its own
    dropout mask, and running statistics are passed from one use to the next.

    Args:
        layers: the layers by name.

    Returns:
        A function that takes the wiring, ``wiring(layer, *inputs)``, and returns the network; it can be used
        as a decorator. In the wiring, ``layer.name(x)`` applies a layer and ``layer.params["name"]`` is its
        entry in params, for tied weights. The wiring may return one array, or a tuple or dict of arrays.

    Raises:
        ValueError: no layers, or one named ``params``; when shapes are given, a layer that is never called, that is
            not named, or that is used on inputs that need different parameters.
        TypeError: an argument that is neither a layer nor a function.

    Source:
        Bromley et al., "Signature verification using a siamese time delay neural network", 1993, for one
        network used twice.

    Example:
        >>> import fcnn
        >>> @graph(encode=fcnn.Dense(3))
        ... def distance(layer, a, b):
        ...     return jnp.square(layer.encode(a) - layer.encode(b)).sum(-1, keepdims=True)
        >>> params = distance.init(jax.random.key(0), (5,), (5,))
        >>> jax.tree.map(jnp.shape, params)
        {'encode': {'bias': (3,), 'kernel': (5, 3)}}
        >>> distance.apply(params, jnp.ones((1, 5)), jnp.ones((1, 5))).tolist()
        [[0.0]]
    """
    with layer_path("graph"):
        if not layers:
            raise ValueError("has no layers; name at least one, graph(encode=fcnn.Dense(3))")
        if "params" in layers:
            raise ValueError("a layer cannot be named 'params': layer.params is the dict of all parameters")
        for name in layers:
            if name.startswith("_"):
                raise ValueError(f"a layer's name in a graph cannot begin with an underscore, as {name!r} does")
        parts = named((), layers)

    def wire(wiring: Callable[..., Any]) -> Graph:
        if not callable(wiring) or isinstance(wiring, Layer):
            raise TypeError(f"graph: the wiring must be a function (layer, *inputs), not {wiring!r}")
        return Graph(parts, wiring)

    return wire
