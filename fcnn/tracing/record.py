"""A network as a program in which every use of a layer is one operation."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray

from ..checks import checked_shapes
from ..context import Context
from ..errors import outermost_path
from ..geometry import Shape
from ..types import Params, State
from .structure import structure

#: the name of the primitive that represents one use of a layer; its parameter ``use`` numbers the uses from 0, and
#: ``state`` is the number of its results, the last ones, that are new state
LAYER = "layer"


class Use(NamedTuple):
    """One use of a layer.

    Attributes:
        path: the path of the use.
        layer: the layer.
        params: shapes and dtypes of its parameters.
        state: shapes and dtypes of its state.
        inputs: shapes and dtypes of its inputs, with their batch.
        output: shape and dtype of its output, or a tree of those for several outputs.
        folds: the numbers folded into its random key, step by step; None for the number of a copy in a loop.
        inside: for a layer that scans, the network that is applied to one window; else None.
        positions: for a layer that scans, windows along each axis.
    """

    path: str
    layer: Any
    params: Any
    state: Any
    inputs: tuple[Any, ...]
    output: Any
    folds: tuple[int | None, ...] = ()
    inside: Program | None = None
    positions: Shape = ()


class Program(NamedTuple):
    """A network as a program.

    Attributes:
        jaxpr: a closed jaxpr. Its arguments are, in training, a random key, then the leaves of params, state and the
            inputs; its results are the leaves of the output and the new state. Each use of a layer is an equation of
            the primitive ``layer``: its arguments are the leaves of the layer's params, state and inputs; its results
            are the leaves of its output and, in training, of its new state.
        uses: the uses of layers, in the order of computation.
        params: shapes and dtypes of params.
        state: shapes and dtypes of state.
        inputs: shapes and dtypes of the inputs, with their batch.
        output: shape and dtype of the output, or a tree of those for several outputs.
        train: whether the network was recorded in training mode.
    """

    jaxpr: Any
    uses: tuple[Use, ...]
    params: Any
    state: Any
    inputs: tuple[Any, ...]
    output: Any
    train: bool


def record(
    net: Any,
    shapes: tuple[Shape, ...],
    *,
    train: bool = False,
    batch: Any = 1,
    dtype: Any = None,
    context: Context | None = None,
) -> Program:
    """Record a network; nothing is computed.

    Args:
        net: the network.
        shapes: shape of one example of each input.
        train: whether to record the network in training mode.
        batch: number of examples.
        dtype: dtype of the inputs; None: JAX's default.
        context: the pass that the network is a part of; None: the network is run by itself.

    Raises:
        ValueError: the shapes do not suit the network.

    Example:
        >>> net = fcnn.graph(conv=fcnn.Conv(4, 3))(lambda layer, x: jax.nn.relu(layer.conv(x)))
        >>> program = record(net, ((8, 8, 3),))
        >>> [use.path for use in program.uses], program.jaxpr.jaxpr.eqns[0].primitive.name
        (['conv'], 'layer')
    """
    params, state = structure(net, shapes)
    dtype = jnp.zeros(()).dtype if dtype is None else dtype
    inputs = tuple(jax.ShapeDtypeStruct((batch, *shape), dtype) for shape in shapes)
    recorder = Recorder()

    def walk(key: Any, params: Params, state: State, *inputs: Any) -> Any:
        if context is not None:
            return recorder.part(net, dataclasses.replace(context, record=recorder), params, state, inputs)
        with outermost_path(net.label):
            return recorder.part(net, Context(train=train, root=key, record=recorder), params, state, inputs)

    key = jax.eval_shape(lambda: jax.random.key(0)) if train else None
    jaxpr, (output, _) = jax.make_jaxpr(walk, return_shape=True)(key, params, state, *inputs)
    return Program(jaxpr, tuple(recorder.uses), params, state, inputs, output, train)


class Recorder:
    """Replaces the computation of layers while a network is recorded."""

    def __init__(self) -> None:
        self.uses: list[Use] = []

    def part(
        self, layer: Any, context: Context, params: Params, state: State, inputs: tuple[Any, ...]
    ) -> tuple[Any, State]:
        """A part of a composition; if the part applies a transformation such as ``vmap`` to layers, it is one use."""
        known = len(self.uses)
        try:
            return layer.run(context, params, state, inputs)
        except NotImplementedError:  # the primitive for a layer has no rules for transformations
            del self.uses[known:]
            return self.use(layer, context, params, state, inputs)

    def use(
        self, layer: Any, context: Context, params: Params, state: State, inputs: tuple[Any, ...]
    ) -> tuple[Any, State]:
        """One use of a layer; its own checks run once for each combination of shapes and dtypes."""
        checked_shapes(inputs, layer.inputs, layer.floating)
        given: Any = jax.tree.map(_kind, (params, state, inputs))
        leaves, form = jax.tree.flatten(given)
        output, new_state = _outcome(layer, context.train, form, tuple(leaves))
        new_state = new_state if context.train else {}
        use = Use(context.place, layer, given[0], given[1], given[2], output, _folds(context))
        y, new_state = self._bind(use, new_state, (params, state, inputs))
        return y, new_state if context.train else state

    def scan(
        self,
        layer: Any,
        net: Any,
        context: Context,
        params: Params,
        state: State,
        x: Any,
        window: Shape,
        positions: Shape,
    ) -> tuple[Any, State]:
        """One use of a layer that applies a network to every window of its input."""
        inside = record(net, (window,), train=context.train, batch=x.shape[0], dtype=x.dtype, context=context)
        output = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((a.shape[0], *positions, *a.shape[1:]), a.dtype), inside.output
        )
        given: Any = jax.tree.map(_kind, (params, state, (x,)))
        use = Use(context.place, layer, given[0], given[1], given[2], output, _folds(context), inside, positions)
        y, new_state = self._bind(use, given[1] if context.train else {}, (params, state, (x,)))
        return y, new_state if context.train else state

    def _bind(self, use: Use, new_state: Any, given: Any) -> tuple[Any, State]:
        outs, form = jax.tree.flatten((use.output, new_state))
        avals = tuple((tuple(out.shape), out.dtype) for out in outs)
        number = len(self.uses)
        self.uses.append(use)
        state = len(jax.tree.leaves(new_state))
        made = _primitive().bind(*map(jnp.asarray, jax.tree.leaves(given)), use=number, outs=avals, state=state)
        return jax.tree.unflatten(form, made)


@functools.cache
def _primitive() -> Any:
    from jax.extend import core  # slow to import, and only tools that analyse networks need it

    primitive = core.Primitive(LAYER)
    primitive.multiple_results = True

    @primitive.def_abstract_eval
    def shape(*avals: Any, use: int, outs: tuple[tuple[Shape, Any], ...], state: int) -> Any:
        return [ShapedArray(shape, dtype) for shape, dtype in outs]

    return primitive


def _folds(context: Context) -> tuple[int | None, ...]:
    return tuple(fold if isinstance(fold, int) else None for fold in context.folds)


def _kind(a: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(a.shape, a.dtype)


@functools.lru_cache(maxsize=4096)
def _outcome(layer: Any, train: bool, form: Any, leaves: tuple[Any, ...]) -> Any:
    """Shapes and dtypes of output and new state."""

    def run(key: Any, leaves: Any) -> Any:
        return layer.run(Context(train=train, root=key, plan=False), *jax.tree.unflatten(form, leaves))

    key = jax.eval_shape(lambda: jax.random.key(0)) if train else None
    return jax.eval_shape(run, key, list(leaves))
