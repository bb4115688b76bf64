"""ONNX files as networks of the library."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import format_shape, layer_path
from ...geometry import Shape, check_shape, is_shape
from ...identity import Key
from ...layer import Layer
from ...types import Params, State
from .builder import Builder
from .labels import labels_of
from .load import Input, Model, example_shape, load, nodes_of, weights_of
from .node import Node, value_of
from .rules import REASONS, RULES, WAY_OUT
from .simplify import simplified
from .structure import Piece, assemble
from .values import Constant, Merged, Unreadable, Value, channels_last

#: numbers of examples, and sizes of open axes, for which a file is read twice: what differs depends on them
_BATCHES = (61, 67)
_SPACES = (256, 320)


def from_onnx(
    source: str | os.PathLike[str] | bytes | Any, *, shape: Shape | tuple[Shape, ...] | None = None
) -> tuple[Layer, Params, State]:
    r"""Read a network from an ONNX file.

    The network is made of the library's layers: convolutions, pooling, normalisations and dense layers as layers,
    elementwise operations as functions, sums and joins as ``residual`` and ``branches``, and as ``graph`` where the
    file has another form. It computes what the file computes, for any number of examples, and is a network like any
    other: it trains, prints, pickles, and goes into every tool.

    Axes are as everywhere here: the file's (batch, channels, \*space) is (batch, \*space, channels), in the inputs and
    in the outputs. The weights are converted, and no transposition is left where the file itself has none. An input
    that the file transposes to channels first at once, as files from TensorFlow do, is channels last already and stays
    so.

    Nodes that are equal and share their weights are one layer with one entry in params; a weight that is used in two
    forms, such as as it is and transposed, is two entries. Dropout and BatchNorm stay layers, so that training goes on
    as the file's network would. A constant of several numbers next to a value becomes a parameter, since the file does
    not say which ones were trained. Half precision becomes float32.

    Args:
        source: a path, the bytes of a file, or an ``onnx.ModelProto``. Weights in files beside it are found.
        shape: shape of one example, (\*space, channels), or a tuple of shapes for several inputs; needed where the file
            leaves sizes open and the network depends on them.

    Returns:
        ``(net, params, state)``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no ONNX file; operators that are not read, all of them at once; a node that mixes examples; sizes
            that are open and matter; a shape that does not suit the file.
        ImportError: the package onnx is not installed.

    Source:
        ONNX operators, versions 1 to 25.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Conv(6, 5), jax.nn.relu, fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(10))
        >>> params = net.init(jax.random.key(0), (28, 28, 1))
        >>> again, weights, state = from_onnx(fcnn.interop.to_onnx(net, params, None, (28, 28, 1)))
        >>> again == net, jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, weights))
        (True, True)
    """
    with layer_path("from_onnx"):
        model = load(source)
        given = _shapes(model.inputs, shape)
        left_open = _open(model, given)
        try:
            sizes, others = (_sizes(model, given, turn) for turn in (0, 1))
            first = _read(model, sizes)
            second = first if sizes == others else _read(model, others)
        except ValueError as error:
            if left_open:
                raise ValueError(
                    f"{left_open}, and cannot be read with {_SPACES[0]} for each of them: {error}"
                ) from None
            raise
        _compare(left_open, first, second)
    return first.layer, _arrays(first.params), _arrays(first.state)


def _shapes(inputs: tuple[Input, ...], shape: Any) -> list[Shape | None]:
    """The shapes of one example that the caller gave, one for each input."""
    if not inputs:
        raise ValueError("the file's graph has no input, so it is no network")
    if shape is None:
        return [None] * len(inputs)
    shapes = [shape] if is_shape(shape) or not isinstance(shape, tuple) else list(shape)
    if len(shapes) != len(inputs):
        names = ", ".join(given.name for given in inputs)
        raise ValueError(
            f"shape has {len(shapes)} shapes, the file has the {len(inputs)} inputs {names}; give one each"
        )
    return [check_shape(one) for one in shapes]


def _sizes(model: Model, given: list[Shape | None], turn: int) -> list[Shape]:
    """The shape of every input, with the batch; open sizes get numbers that tell whether they matter."""
    found = [_of_input(model, known, shape) for known, shape in zip(model.inputs, given, strict=True)]
    made = [(first or _BATCHES[turn], *(n or _SPACES[turn] for n in rest)) for first, *rest in found]
    if len({sizes[0] for sizes in made}) > 1:
        counts = ", ".join(f"{known.name!r} {sizes[0]}" for known, sizes in zip(model.inputs, made, strict=True))
        raise ValueError(
            f"the inputs have different numbers of examples: {counts}; the first axis must be the same for all, so "
            "make those without examples initialisers of the file"
        )
    return made


def _of_input(model: Model, known: Input, shape: Shape | None) -> tuple[int | None, ...]:
    """The shape of an input as the file and the caller give it, with the batch; None where both leave a size open."""
    sizes = known.sizes
    if shape is not None:
        last = (shape[-1], *shape[:-1]) if len(shape) > 1 and not starts_channels_last(model, known.name) else shape
        if sizes is None:
            return (None, *last)
        if len(sizes) != len(shape) + 1:
            raise ValueError(
                f"shape {format_shape(shape)} has {len(shape)} axes, an example of the input {known.name!r} is "
                f"{example_shape(known)} (channels first) in the file"
            )
        if any(there is not None and here != there for here, there in zip(last, sizes[1:], strict=True)):
            raise ValueError(
                f"shape {format_shape(shape)} does not suit the input {known.name!r}, whose examples are "
                f"{example_shape(known)} (channels first) in the file"
            )
        return (sizes[0], *last)
    if sizes is None:
        raise ValueError(f"the file does not say the shape of its input {known.name!r}; give shape=(*space, channels)")
    if len(sizes) < 2:
        raise ValueError(
            f"the input {known.name!r} has {len(sizes)} axes; it must be (batch, channels) or (batch, channels, *space)"
        )
    return sizes


def starts_channels_last(model: Model, name: str) -> bool:
    """Whether the file transposes an input to channels first before anything else."""
    users = [node for node, _ in model.nodes if name in node.inputs]
    first = [
        node.kind == "Transpose" and node.get("perm") in ([0, 2, 1], [0, 3, 1, 2], [0, 4, 1, 2, 3]) for node in users
    ]
    return bool(first) and all(first)


def _read(model: Model, sizes: list[Shape]) -> Piece:
    """The network for inputs of certain sizes."""
    b = Builder(sizes[0][0])
    known: dict[str, Any] = dict(model.constants)
    last = False
    for number, (given, shape) in enumerate(zip(model.inputs, sizes, strict=True)):
        as_it_is = starts_channels_last(model, given.name)
        last = last or as_it_is
        order = tuple(range(len(shape))) if as_it_is else channels_last(len(shape))
        kind = jnp.zeros(()).dtype if given.dtype.kind == "f" else given.dtype
        known[given.name] = Value(-1 - number, shape, order, kind)
    _run(b, model.nodes, known, model.version)
    outs = []
    for name in model.outputs:
        b.path = ()
        value = known[name]
        if isinstance(value, Constant):
            raise ValueError(f"the output {name!r} does not depend on the input")
        try:
            value = value_of(value)
            own = last and value.rank > 2 and value.order == tuple(range(value.rank))
            outs.append(b.in_order(value) if own else b.image(value))
        except Unreadable as error:
            raise ValueError(f"the output {name!r} {_with_way_out(error)}") from None
    ends = tuple(value.source for value in outs)
    return assemble(simplified(b.steps, ends), ends, labels_of(model.outputs), len(model.inputs))


def _run(b: Builder, nodes: Any, known: dict[str, Any], version: int) -> None:
    """Read nodes one after another into the values that are known."""
    for node, proto in nodes:
        b.path = node.path
        operands = [known.get(name) if name else None for name in node.inputs]
        made = _chosen(b, node, operands, known) if node.kind == "If" else _made(b, node, proto, operands, version)
        known.update({name: value for name, value in zip(node.outputs, made, strict=False) if name})


def _chosen(b: Builder, node: Node, operands: list[Any], known: dict[str, Any]) -> list[Any]:
    """The branch of an If whose condition does not depend on the input."""
    if not isinstance(operands[0], Constant):
        raise ValueError(f"{_who(node)}: chooses by the input what it computes, and a network here computes the same")
    graph = node.get("then_branch" if operands[0].array.reshape(()) else "else_branch")
    constants = weights_of(graph)
    nodes = nodes_of(graph, node.version, constants)  # adds what its Constant nodes hold
    inner = {**known, **constants}
    _run(b, nodes, inner, node.version)
    return [inner[out.name] for out in graph.output]


def _made(b: Builder, node: Node, proto: Any, operands: list[Any], version: int) -> list[Any]:
    """The values that a node computes."""
    for name, value in zip(node.inputs, operands, strict=True):
        if name and value is None:
            raise ValueError(f"{_who(node)}: its input {name!r} is computed nowhere; the file is damaged")
    if not any(isinstance(value, Value | Merged) for value in operands):
        return [Constant(np.asarray(array)) for array in _evaluated(node, proto, operands, version)]
    rule = RULES.get(node.kind)
    if rule is None:
        why = REASONS.get(node.kind, "is read where it depends on constants alone, and here it depends on the input")
        raise ValueError(f"{_who(node)}: {why}; {WAY_OUT}")
    try:
        made = rule(b, node, operands)
    except Unreadable as error:
        raise ValueError(f"{_who(node)}: {_with_way_out(error)}") from None
    return list(made) if isinstance(made, list) else [made]


def _with_way_out(error: Unreadable) -> str:
    """A message with what to do, unless it says so itself."""
    return str(error) if ";" in str(error) else f"{error}; {WAY_OUT}"


def _who(node: Node) -> str:
    return f"node {node.name!r} ({node.kind})" if node.name else f"the {node.kind} that gives {node.outputs[0]!r}"


def _evaluated(node: Node, proto: Any, operands: list[Any], version: int) -> list[Any]:
    """A node of constants, by the onnx package's own implementation."""
    if node.kind == "Identity":
        return [operands[0].array]
    if node.kind in ("Squeeze", "Unsqueeze") and "axes" in node.attributes:  # not in the package, before version 13
        change = np.squeeze if node.kind == "Squeeze" else np.expand_dims
        return [change(operands[0].array, tuple(node.get("axes")))]
    from onnx.reference import ReferenceEvaluator

    inputs = {name: value.array for name, value in zip(node.inputs, operands, strict=True) if name}
    try:
        return list(ReferenceEvaluator(proto, opsets={"": version}).run(None, inputs))
    except Exception as error:  # whatever an operator raises on what the file holds
        raise ValueError(f"{_who(node)}: cannot be computed: {error}") from None


def _open(model: Model, given: list[Shape | None]) -> str:
    """What is said of sizes that neither the file nor the caller gives; "": there are none."""
    names = [
        f"{known.name!r} {example_shape(known)}" for known, shape in zip(model.inputs, given, strict=True)
        if shape is None and known.sizes is not None and None in known.sizes[1:]
    ]  # fmt: skip
    if not names:
        return ""
    return (
        f"the file leaves sizes of its input {', '.join(names)} (channels first) open; give "
        "shape=(*space, channels). Without it the network must not depend on them"
    )


def _compare(left_open: str, first: Piece, second: Piece) -> None:
    """Raise where the network depends on what the file leaves open."""
    if Key(first.layer) == Key(second.layer) and _shapes_of(first) == _shapes_of(second):
        return
    if left_open:
        raise ValueError(f"{left_open}, and it does")
    raise ValueError(
        "the network depends on the number of examples, and a network here treats every example by itself; write the "
        "file for one example"
    )


def _shapes_of(piece: Piece) -> Any:
    return jax.tree.map(np.shape, (piece.params, piece.state))


def _arrays(tree: Any) -> Any:
    """The weights as arrays of JAX."""
    return {
        name: _arrays(value) if isinstance(value, dict) else jnp.asarray(np.asarray(value, order="C"))
        for name, value in tree.items()
    }
