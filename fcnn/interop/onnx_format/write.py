"""Networks as ONNX files: a node for each layer, from the trace."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import names
from ...checks import check_mapping
from ...compose.parts import lift
from ...errors import layer_path
from ...geometry import Shape, check_shape
from ...layer import Context
from ...layers.function import Function
from ...paths import path_of
from ...tracing.api import trace
from ...tracing.node import Node, Trace
from ...types import Params, State
from ...version import __version__
from ..atomic import write_bytes
from . import activations, layers, operations
from .graph import Graph, Inexpressible, Value, channels_first

#: the version of ONNX's operators: the first with GELU
OPSET = 20


def to_onnx(
    net: Any,
    params: Params,
    state: State | None,
    *shapes: Shape,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    r"""Write a network as an ONNX graph, with a node or a few for each layer, named by its path.

    Images have the channels first there, (batch, channels, \*space), in the inputs, the outputs and in between: the
    order is in the weights, and nothing is transposed on the way. The number of examples is left open. Dropout is
    gone, and normalisations use their stored statistics, as in ``apply``. Blocks under ``repeat`` are written one
    after another.

    Args:
        net: the network.
        params: its parameters.
        state: its state; None or {} where it has none.
        shapes: shape of one example of every input, (\*space, channels); sizes of the space are fixed.
        path: a file, written whole or not at all.

    Returns:
        The ``onnx.ModelProto``. Inputs are named ``input``, or ``input1``, ``input2``, ...; outputs ``output``, or by
        their places.

    Raises:
        ValueError: a layer or operation that ONNX has no form for, with its path; shapes that do not suit the network.
        ImportError: the package onnx is not installed.

    Source:
        ONNX operators, version 20.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Conv(6, 5), jax.nn.relu, fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(10))
        >>> model = to_onnx(net, net.init(jax.random.key(0), (28, 28, 1)), None, (28, 28, 1))
        >>> [node.name for node in model.graph.node]
        ['conv1/Conv', 'relu1/Relu', 'max_pool1/MaxPool', 'flatten1/Flatten', 'dense1/Gemm', 'output']
    """
    try:
        import onnx
    except ImportError:
        raise ImportError("to_onnx needs the package onnx: pip install 'fcnn[interop]'") from None
    with layer_path("to_onnx"):
        net = lift(net)
        params, state = check_mapping("params", params), check_mapping("state", state or {})
        if not shapes:
            raise ValueError("there is no shape; give the shape of one example of every input, (*space, channels)")
        checked = [check_shape(shape) for shape in shapes]
    traced = trace(net, *checked)
    dtype = np.dtype(jnp.zeros(()).dtype)
    graph = Graph(dtype)
    writer = _Writer(graph, params, state)
    labels = ["input"] if len(checked) == 1 else [f"input{i}" for i in range(1, len(checked) + 1)]
    given = [graph.made(graph.fresh(name), (-1, *shape)) for name, shape in zip(labels, checked, strict=True)]
    made = writer.run(traced, dict(zip(traced.inputs, given, strict=True)), ())
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    outputs = _ends(graph, traced, made)
    examples = [jax.ShapeDtypeStruct((1, *shape), dtype) for shape in checked]
    out = jax.eval_shape(lambda params, state, *x: net.apply(params, *x, state=state), params, state, *examples)
    dtypes = [np.dtype(leaf.dtype) for leaf in jax.tree.leaves(out)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            net.label,
            [_declared(onnx, value, kind) for value in given],
            [
                _declared(onnx, value, onnx.helper.np_dtype_to_tensor_dtype(one), name)
                for (name, value), one in zip(outputs, dtypes, strict=True)
            ],
            graph.weights,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=9,
        producer_name="fcnn",
        producer_version=__version__,
    )
    onnx.checker.check_model(model)
    if path is not None:
        write_bytes(path_of(path), model.SerializeToString())
    return model


def _ends(graph: Graph, traced: Trace, made: list[Value]) -> list[tuple[str, Value]]:
    """The outputs under their names."""
    tree = jax.tree.unflatten(traced.form, list(range(len(made)))) if traced.form is not None else 0
    places = jax.tree.leaves_with_path(tree)
    found = []
    for (place, _), value in zip(places, made, strict=True):
        label = "output" + "".join(f"/{getattr(step, 'key', getattr(step, 'idx', ''))}" for step in place)
        graph.end(value, label)
        found.append((label, value))
    return found


def _declared(onnx: Any, value: Value, kind: int, name: str = "") -> Any:
    order = channels_first(value.rank)
    sizes = ["batch" if axis == 0 else value.shape[axis] for axis in order]
    return onnx.helper.make_tensor_value_info(name or value.name, kind, sizes)


class _Writer:
    """Turns the nodes of a trace into nodes of a graph."""

    def __init__(self, graph: Graph, params: Params, state: State) -> None:
        self.graph, self.params, self.state = graph, params, state

    def run(self, traced: Trace, known: dict[int, Value], copies: Shape, place: str = "") -> list[Value]:
        """Add all nodes of a trace; gives its outputs.

        Args:
            traced: the trace.
            known: its values so far, by number.
            copies: the number of the copy in each of the repeats around it.
            place: the name of its nodes; "": that of each.
        """
        for number, path in traced.params:
            known.setdefault(number, self._constant(self._entry(self.params, path, copies)))
        for number, path in traced.state:
            known.setdefault(number, self._constant(self._entry(self.state, path, copies)))
        for number, value in traced.constants:
            known.setdefault(number, self._constant(value))
        for node in traced.nodes:
            self.graph.path = place or node.path + "".join(f"[{copy}]" for copy in copies)
            try:
                made = self._node(traced, node, [known.get(n) for n in node.inputs], known, copies)
            except Inexpressible as error:
                raise ValueError(
                    f"to_onnx: {self.graph.path or node.what}: {error}; write this part with other operations, or the "
                    "whole network by interop.export"
                ) from None
            known.update(zip(node.outputs, made, strict=True))
        return [known[number] for number in traced.outputs]

    @staticmethod
    def _constant(value: Any) -> Value:
        array = np.asarray(value)
        return Value("", array.shape, tuple(range(array.ndim)), array)

    @staticmethod
    def _entry(tree: Any, path: str, copies: Shape) -> np.ndarray:
        for step in filter(None, path.split("/")):
            tree = tree[step]
        return np.asarray(tree)[copies] if copies else np.asarray(tree)

    def _node(
        self, traced: Trace, node: Node, operands: list[Any], known: dict[int, Value], copies: Shape
    ) -> list[Value]:
        shapes = [(-1, *traced.shapes[n]) if traced.batched[n] else tuple(traced.shapes[n]) for n in node.outputs]
        if node.layer is None:
            return self._operation(node, operands, shapes, known, copies)
        if isinstance(node.layer, Function) and node.inside:
            found = activations.known(self.graph, node.layer, operands, shapes[0])
            if found is not None:
                return [found]
            (inside,) = node.inside
            return self.run(inside, dict(zip(inside.inputs, operands, strict=True)), copies)
        rule = layers.rule_of(node.layer)
        if rule is None:
            return self._by_operations(node, operands, known, copies)
        arrays = {name: np.asarray(known[n].constant) for name, n in (*node.params, *node.state)}
        try:
            return [rule(self.graph, node.layer, arrays, operands[0], shapes[0])]
        except Inexpressible as error:
            raise Inexpressible(f"{names.code(node.layer)} {error}") from None

    def _by_operations(self, node: Node, operands: list[Any], known: dict[int, Value], copies: Shape) -> list[Value]:
        """A layer of the user's own, or one that ONNX does not have, operation by operation."""
        params, state = ({name: known[n].constant for name, n in own} for own in (node.params, node.state))

        def computed(*inputs: Any) -> Any:
            return node.layer.run(Context(train=False, plan=False), params, state, inputs)[0]

        (use,) = trace(Function(computed), *(value.shape[1:] for value in operands)).nodes
        (inside,) = use.inside
        return self.run(inside, dict(zip(inside.inputs, operands, strict=True)), copies, self.graph.path)

    def _operation(
        self, node: Node, operands: list[Any], shapes: list[Shape], known: dict[int, Value], copies: Shape
    ) -> list[Value]:
        if node.inside:
            return self._loop(node, known, copies)
        if all(value.constant is not None for value in operands):
            made = node.equation.primitive.bind(
                *(jnp.asarray(value.constant) for value in operands), **node.equation.params
            )
            made = made if node.equation.primitive.multiple_results else [made]
            return [self._constant(array) for array in made]
        return operations.convert(self.graph, str(node.primitive), dict(node.equation.params), operands, shapes)

    def _loop(self, node: Node, known: dict[int, Value], copies: Shape) -> list[Value]:
        """The copies of a repeated block, one after another."""
        (inside,) = node.inside[:1]
        inner = next((n.copies for n in inside.nodes if n.copies), ())
        if node.primitive in ("remat2", "checkpoint", "remat"):
            return self.run(inside, dict(zip(inside.inputs, [known[n] for n in node.inputs], strict=False)), copies)
        if len(inner) <= len(copies) or len(inside.outputs) != 1:
            raise Inexpressible("runs a loop of its own, which is not unrolled")
        (carry,) = [known[n] for n in node.inputs if known[n].constant is None]
        made = {n for step in inside.nodes for n in step.outputs}
        (start,) = [n for n, batched in enumerate(inside.batched) if batched and n not in made]  # what is carried
        for copy in range(inner[len(copies)]):
            (carry,) = self.run(inside, {start: carry}, (*copies, copy))
        return [carry]
