"""What every node of an ONNX file makes of an input."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np

from ..errors import layer_path
from .onnx_import.load import load, parsed
from .onnx_import.read import starts_channels_last


def onnx_activations(source: Any, *inputs: Any) -> dict[str, np.ndarray]:
    r"""Run an ONNX file and keep what every node gives.

    onnxruntime computes it where it is installed, otherwise the reference of the package onnx, which is slow.

    Args:
        source: a path, the bytes of a file, or an ``onnx.ModelProto``.
        inputs: arrays (batch, \*space, channels); the file gets them with the channels first, unless it transposes them
            itself.

    Returns:
        The outputs of the nodes as the file has them, (batch, channels, \*space), by the names of the nodes, or of
        their outputs where they have none, in the order of computation. Constants are left out.

    Raises:
        ValueError: no ONNX file, or another number of inputs than the file has.
        ImportError: the package onnx is not installed.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Conv(2, 3), jax.nn.relu)
        >>> params, x = net.init(jax.random.key(0), (5, 5, 1)), jnp.ones((1, 5, 5, 1))
        >>> model = fcnn.interop.to_onnx(net, params, None, (5, 5, 1))
        >>> {name: array.shape for name, array in onnx_activations(model, x).items()}
        {'conv1/Conv': (1, 2, 3, 3), 'relu1/Relu': (1, 2, 3, 3), 'output': (1, 2, 3, 3)}
        >>> fcnn.interop.compare(net, params, None, x, onnx_activations(model, x)).ok
        True
    """
    with layer_path("onnx_activations"):
        model = load(source)
        if len(inputs) != len(model.inputs):
            names = ", ".join(given.name for given in model.inputs)
            raise ValueError(
                f"{len(inputs)} inputs were given, the file has the {len(model.inputs)} inputs {names}; give one each"
            )
        given = {}
        for known, x in zip(model.inputs, inputs, strict=True):
            array = np.asarray(x)
            if array.ndim > 2 and not starts_channels_last(model, known.name):
                array = np.moveaxis(array, -1, 1)
            given[known.name] = np.ascontiguousarray(array, known.dtype)
    proto = parsed(source)
    names = {output: node.name or output for node in proto.graph.node for output in node.output[:1]}
    kept = type(proto)()
    kept.CopyFrom(proto)
    del kept.graph.output[:]
    kept.graph.output.extend(type(proto.graph.output[0])(name=name) for name in names)
    made = _run(kept, given)
    batch = next(iter(given.values())).shape[0]
    found = zip(names.values(), made, strict=True)
    return {name: array for name, array in found if array.ndim and array.shape[0] == batch and array.dtype.kind == "f"}


def _run(proto: Any, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    if importlib.util.find_spec("onnxruntime") is not None:
        runtime: Any = importlib.import_module("onnxruntime")  # by name: it need not be there
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL  # every node stays
        session = runtime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, given))
    from onnx.reference import ReferenceEvaluator

    return [np.asarray(array) for array in ReferenceEvaluator(proto).run(None, given)]
