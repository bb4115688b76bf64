"""An ONNX file as nodes and constants."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import format_shape
from ...paths import path_of
from .labels import modules
from .node import Node
from .values import Constant


@dataclass(frozen=True)
class Input:
    """An input of the network.

    Attributes:
        name: its name.
        sizes: its shape, with the batch; None for a size that the file leaves open.
        dtype: its dtype.
    """

    name: str
    sizes: tuple[int | None, ...] | None
    dtype: np.dtype


@dataclass(frozen=True)
class Model:
    """What a file says.

    Attributes:
        inputs: the inputs of the network.
        outputs: the names of its outputs.
        nodes: its nodes, in an order in which they can be computed.
        constants: its initialisers.
        version: of its operators.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    nodes: tuple[tuple[Node, Any], ...]
    constants: dict[str, Constant]
    version: int


def load(source: Any) -> Model:
    """Read a file, bytes, or a ``ModelProto``; nothing of it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ONNX file, or it is damaged.
        ImportError: the package onnx is not installed.
    """
    try:
        import onnx
        import onnx.inliner
    except ImportError:
        raise ImportError("from_onnx needs the package onnx: pip install 'fcnn[interop]'") from None
    proto = parsed(source)
    if not proto.graph.output or not proto.opset_import:
        raise ValueError("this is no ONNX model: it has no graph with outputs; give a file written by an exporter")
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    graph = proto.graph
    version = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    if graph.sparse_initializer:
        raise ValueError("the file has sparse initialisers, which are not read; write it with dense ones")
    constants = weights_of(graph)
    inputs = tuple(_input(onnx, given) for given in graph.input if given.name not in constants)
    nodes = nodes_of(graph, version, constants)
    _check_known([proto for _, proto in nodes])
    return Model(inputs, tuple(out.name for out in graph.output), nodes, constants, version)


def nodes_of(graph: Any, version: int, constants: dict[str, Constant]) -> tuple[tuple[Node, Any], ...]:
    """The nodes of a graph; its constants are added to those that are known."""
    import onnx

    nodes = [node for node in graph.node if node.op_type != "Constant" or _keep(onnx, node, constants)]
    used = {name for node in graph.node for name in node.input} | {out.name for out in graph.output}
    for node in graph.node:  # what the branches of an If read
        for attribute in node.attribute:
            used |= {name for inner in attribute.g.node for name in inner.input}
    return tuple((_node(onnx, node, version, frozenset(used)), node) for node in nodes)


def weights_of(graph: Any) -> dict[str, Constant]:
    """The initialisers of a graph."""
    import onnx

    return {weight.name: Constant(_array(onnx, weight), weight.name) for weight in graph.initializer}


def parsed(source: Any) -> Any:
    """The ``ModelProto`` of a path, of bytes, or given."""
    import onnx
    from google.protobuf.message import DecodeError

    if isinstance(source, onnx.ModelProto):
        return source
    try:
        if isinstance(source, bytes):
            return onnx.load_from_string(source)
        if not isinstance(source, str | os.PathLike):
            raise TypeError(f"the source must be a path, bytes or a ModelProto, not a {type(source).__name__}")
        path = path_of(source)
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
        return onnx.load(str(path))
    except DecodeError:
        what = "the bytes are" if isinstance(source, bytes) else f"{source} is"
        raise ValueError(f"{what} no ONNX model, or damaged; give a file written by an exporter") from None
    except (onnx.checker.ValidationError, OSError) as error:
        if isinstance(error, FileNotFoundError) and "there is no file" in str(error):
            raise
        raise ValueError(f"the weights that {source} keeps beside it cannot be read: {error}") from None


def _array(onnx: Any, tensor: Any) -> np.ndarray:
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise ValueError(f"the weight {tensor.name!r} is damaged: {error}") from None


def _input(onnx: Any, given: Any) -> Input:
    kind = given.type.tensor_type
    if not given.type.HasField("tensor_type"):
        raise ValueError(f"the input {given.name!r} is no array; sequences and maps are not read")
    sizes = None
    if kind.HasField("shape"):
        sizes = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    if dtype.kind not in "fiub":
        raise ValueError(f"the input {given.name!r} holds values of type {dtype}, and a network takes numbers")
    return Input(given.name, sizes, dtype)


def _keep(onnx: Any, node: Any, constants: dict[str, Constant]) -> bool:
    """Whether a Constant stays a node; most become constants at once."""
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            value = _array(onnx, value)
        elif attribute.name in ("value_float", "value_floats"):
            value = np.asarray(value, np.float32)
        elif attribute.name in ("value_int", "value_ints"):
            value = np.asarray(value, np.int64)
        else:
            return True
        constants[node.output[0]] = Constant(value)  # without a name, since it is no weight that could be shared
    return False


def _node(onnx: Any, node: Any, version: int, used: frozenset[str]) -> Node:
    attributes = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, list | tuple) or type(value).__name__.startswith("Repeated"):
            value = [item.decode() if isinstance(item, bytes) else item for item in value]
        attributes[attribute.name] = value
    return Node(
        node.op_type, node.name, tuple(node.input), tuple(node.output), _path(node), attributes, version, used
    )  # fmt: skip


#: what PyTorch's exporter says of a node: the modules that it is in, as a list in Python's syntax
_SCOPES = "pkg.torch.onnx.name_scopes"
#: what exporters call the weight of a module
_WEIGHTS = ("weight", "kernel", "W", "w", "gamma", "scale")


def _path(node: Any) -> tuple[str, ...]:
    """The modules that a node is in: from its name, from what PyTorch notes, or from the name of its weight."""
    path = modules(node.name)
    if path:
        return path
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            scopes = re.findall(r"'([^']*)'", entry.value)
            return modules("/".join(scopes[-2].split(".")) + "/" if len(scopes) > 1 else "")
    first, _, last = (node.input[1] if len(node.input) > 1 else "").replace("/", ".").rpartition(".")
    return (re.sub(r"\W+", "_", first).strip("_"),) if first and last in _WEIGHTS else ()


def _check_known(nodes: list[Any]) -> None:
    """Raise with all operators at once that are not read."""
    from .rules import CONSTANT_ONLY, REASONS, RULES, WAY_OUT

    unknown = Counter(
        node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        for node in nodes
        if node.op_type not in RULES.keys() | CONSTANT_ONLY | REASONS.keys() or node.domain not in ("", "ai.onnx")
    )
    refused = Counter(node.op_type for node in nodes if node.op_type in REASONS and node.op_type != "If")
    if not unknown and not refused:
        return
    listed = [f"{kind} ({count})" for kind, count in sorted(unknown.items())]
    listed += [f"{kind} ({count}): {REASONS[kind]}" for kind, count in sorted(refused.items())]
    raise ValueError(
        "these operators of the file are not read:\n  " + "\n  ".join(listed) + f"\nfor each of them, {WAY_OUT}"
    )


def example_shape(given: Input) -> str:
    """The shape of one example as far as it is known, for messages."""
    if given.sizes is None:
        return "unknown"
    return format_shape(tuple("?" if n is None else n for n in given.sizes[1:]))  # type: ignore[arg-type]
