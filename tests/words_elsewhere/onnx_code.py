"""Run one node of ONNX, written as a call: Conv(W=[6, 4, 3, 3], strides=[2, 2])."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

#: the operator set; onnxruntime knows it whole
OPSET = 23
#: inputs that hold numbers; of any other input a list is the shape of random values
NUMBERS = {
    "pads": np.int64, "sizes": np.int64, "scales": np.float32, "axes": np.int64, "ratio": None,
    "constant_value": None, "training_mode": np.bool_, "min": None, "max": None,
}  # fmt: skip
#: attributes that onnx.reference of onnx 1.23 does not take as the text of the standard says; onnxruntime does
NOT_IN_REFERENCE = {("ConvTranspose", "output_shape"), ("LRN", "size")}
#: what onnxruntime, in float32, is compared to
SINGLE = 1e-5
EXACT = 1e-10
#: attributes are float32, and so are the constants of composed operators and statistics with stash_type 1, the default
ATTRIBUTES_ARE_SINGLE = 1e-6


class Operators(dict):
    """Names of operators, each a function that gives its node."""

    def __missing__(self, name: str) -> Any:
        onnx = importlib.import_module("onnx")
        if not onnx.defs.has(name):
            raise KeyError(name)
        return lambda **given: (name, given)


def run_onnx(code: str, x: np.ndarray) -> list[tuple[np.ndarray, dict, dict, float]]:
    """Outputs of x, channels first, by onnx.reference in float64 and onnxruntime in float32.

    Returns:
        For each of the two: y, the random inputs by name, the statistics after a training step, and a tolerance.
    """
    onnx = importlib.import_module("onnx")
    name, given = eval(code, {}, Operators())
    schema = onnx.defs.get_schema(name, OPSET)
    attributes = {k: v for k, v in given.items() if k in schema.attributes}
    random = np.random.default_rng(3)
    arrays, constants, inputs = {}, {}, []
    for place in list(schema.inputs)[1:]:
        if place.name not in given:
            inputs.append("")
            continue
        inputs.append(place.name)
        value = given[place.name]
        if place.name in NUMBERS:
            constants[place.name] = np.asarray(value, NUMBERS[place.name] or x.dtype)
        else:
            drawn = random.normal(size=value)
            arrays[place.name] = 0.5 + np.abs(drawn) if "var" in place.name else drawn
    unknown = set(given) - set(attributes) - set(arrays) - set(constants)
    if unknown:
        raise TypeError(f"{name} has no {sorted(unknown)}")
    while inputs and not inputs[-1]:
        inputs.pop()
    outputs = [o.name for o in schema.outputs][: 3 if attributes.get("training_mode") else 1]
    floats = [a for a in schema.attributes.values() if a.type == onnx.defs.OpSchema.AttrType.FLOAT]
    composed = schema.has_function or schema.has_context_dependent_function
    results = []
    for dtype, execute, tolerance in (
        (np.float64, _by_reference, ATTRIBUTES_ARE_SINGLE if floats or composed else EXACT),
        (np.float32, _by_runtime, SINGLE),
    ):
        if execute is _by_reference and any((name, key) in NOT_IN_REFERENCE for key in given):
            continue
        feeds = {"data0": x.astype(dtype)} | {k: v.astype(dtype) for k, v in arrays.items()}
        feeds |= {k: v.astype(dtype) if NUMBERS[k] is None else v for k, v in constants.items()}
        node = onnx.helper.make_node(name, ["data0", *inputs], outputs, **attributes)
        found = execute(_model(onnx, node, feeds, outputs, dtype), feeds)
        after = {k.replace("running", "input"): v for k, v in zip(outputs[1:], found[1:], strict=True)}
        results.append((found[0], arrays, after, tolerance))
    return results


def _model(onnx: Any, node: Any, feeds: dict, outputs: list[str], dtype: Any) -> Any:
    helper = onnx.helper
    declared = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feeds.items()
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph([node], "row", declared, [helper.make_tensor_value_info(o, kind, None) for o in outputs])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _by_reference(model: Any, feeds: dict) -> list[np.ndarray]:
    reference = importlib.import_module("onnx.reference")
    return reference.ReferenceEvaluator(model).run(None, feeds)


def _by_runtime(model: Any, feeds: dict) -> list[np.ndarray]:
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)
