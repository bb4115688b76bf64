"""Small ONNX files made in a test, and what onnxruntime gives for them."""

import jax.numpy as jnp
import numpy as np
import onnxruntime as runtime
from onnx import TensorProto, helper, numpy_helper
from onnx_cases import to_last

from fcnn import interop

FLOAT = TensorProto.FLOAT


def written(nodes, inputs, outputs, weights=(), opset=20, ir=9):
    """A file of nodes (kind, inputs, outputs, attributes); shapes of inputs, names of outputs."""
    made = [helper.make_node(kind, ins, outs, **attributes) for kind, ins, outs, attributes in nodes]
    graph = helper.make_graph(
        made, "net",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(weights).items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def truth(model, *inputs):
    """What onnxruntime gives."""
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {given.name: x for given, x in zip(session.get_inputs(), inputs, strict=True)})


def assert_equal(found, wanted, tolerance=1e-5):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1e-30, np.abs(b).max()))


def agree(model, *inputs, tolerance=1e-5, **options):
    """Read a file and compare with onnxruntime; gives the network."""
    net, params, state = interop.from_onnx(model, **options)
    made = net.apply(params, *(jnp.asarray(to_last(x)) for x in inputs), state=state)
    made = list(made.values()) if isinstance(made, dict) else [made]
    assert_equal([np.asarray(y) for y in made], [to_last(y) for y in truth(model, *inputs)], tolerance)
    return net, params, state


def pieces(*nodes, weights=(), shape=(2, 4, 5, 6), opset=20):
    """A chain of nodes on x, of one input and constants each."""
    rows, before = [], "x"
    for number, (kind, more, attributes) in enumerate(nodes):
        rows.append((kind, [before, *more], [f"y{number}"], attributes))
        before = f"y{number}"
    return written(rows, {"x": list(shape)}, [before], weights, opset)
