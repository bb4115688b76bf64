"""A wiring as a program: the operations of its function, and each use of a layer as one operation among them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray

from ..geometry import Shape, is_shape
from ..layer import Layer
from ..layers.function import Function
from .graph import Graph
from .remat import Remat

#: the name of the primitive that stands for one use of a layer; its parameter ``use`` counts them from 0
LAYER = "layer"


class Use(NamedTuple):
    """One use of a layer in a wiring: its name, and the shapes of its inputs with their batch."""

    name: str
    inputs: tuple[Shape, ...]


class Wiring(NamedTuple):
    """A wiring as a program.

    Attributes:
        program: the closed jaxpr of the wiring as a function of the leaves of params and the inputs.
        out: the form of its result, a tree of ``jax.ShapeDtypeStruct``.
        uses: the uses of layers, in order.
    """

    program: Any
    out: Any
    uses: tuple[Use, ...]


def traced(net: Graph, params: Any, *shapes: Shape, batch: int = 1) -> Wiring:
    """Trace the wiring of a graph without looking into its layers.

    Args:
        net: the graph.
        params: a tree like its params, of anything that has shapes; the wiring may read them.
        shapes: shape of one example of each input.
        batch: number of examples.

    Example:
        >>> net = fcnn.graph(conv=fcnn.Conv(4, 3))(lambda layer, x: jax.nn.relu(layer.conv(x)))
        >>> wiring = traced(net, {"conv": {}}, (8, 8, 3))
        >>> [eqn.primitive.name for eqn in wiring.program.jaxpr.eqns][0], wiring.uses
        ('layer', (Use(name='conv', inputs=((1, 8, 8, 3),)),))
    """
    net.infer_shape(*shapes)  # raises where the wiring is wrong
    parts, uses = dict(net.parts), []
    struct = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.zeros(()).dtype)

    def wired(params: Any, *inputs: Any) -> Any:
        return net.wiring(_Opaque(parts, params, uses), *inputs)

    program, out = jax.make_jaxpr(wired, return_shape=True)(
        jax.tree.map(lambda a: struct(a.shape), params), *(struct((batch, *shape)) for shape in shapes)
    )
    return Wiring(program, out, tuple(uses))


@functools.cache
def _layer() -> Any:
    from jax.extend import core  # heavy to import, and only tools that look into wirings need it

    primitive = core.Primitive(LAYER)
    primitive.multiple_results = True

    @primitive.def_abstract_eval
    def shape(*avals: Any, use: int, outs: tuple[tuple[int, ...], ...], dtype: Any) -> Any:
        return [ShapedArray(out, dtype) for out in outs]

    return primitive


class _Opaque:
    """What a wiring gets as its first argument: layers that note down how they are used."""

    def __init__(self, parts: dict[str, Layer], params: Any, uses: list[Use]) -> None:
        self._parts, self.params, self._uses = parts, params, uses

    def __getattr__(self, name: str) -> Callable[..., Any]:
        part = self._parts[name]

        def use(*inputs: Any) -> Any:
            shapes = part.infer_shape(*(tuple(x.shape[1:]) for x in inputs))
            leaves, form = jax.tree.flatten(shapes, is_leaf=is_shape)
            outs = tuple((inputs[0].shape[0], *leaf) for leaf in leaves)
            dtype = inputs[0].dtype
            function = part.layer if isinstance(part, Remat) else part
            if isinstance(function, Function):  # such as a comparison, which makes truth values
                dtype = jax.eval_shape(function.function, *inputs).dtype
            number = len(self._uses)
            self._uses.append(Use(name, tuple(tuple(x.shape) for x in inputs)))
            return jax.tree.unflatten(form, _layer().bind(*inputs, use=number, outs=outs, dtype=dtype))

        return use
