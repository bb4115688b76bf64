"""The onnx package's own tests, and its light networks, run through from_onnx: right, or refused with a reason."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="files are read with onnx: pip install 'fcnn[interop]'")

from onnx_cases import NUMBERS, difference, node_cases, run, stored_cases, to_last, ways  # noqa: E402

from fcnn import interop  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

#: operators that convolutional networks are made of; all their tests pass but for those in EXCEPTIONS
MAIN = [
    "Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool",
    "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization", "RMSNormalization",
    "LRN", "Add", "Sub", "Mul", "Div", "Concat", "Resize", "Pad", "Clip", "HardSwish", "HardSigmoid", "Softmax",
    "LogSoftmax", "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Sigmoid", "Tanh", "Softplus",
    "Softsign", "ThresholdedRelu", "Swish", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split",
    "DepthToSpace", "SpaceToDepth", "Dropout", "Upsample", "ReduceMean", "ReduceMax", "ReduceSum", "Identity",
]  # fmt: skip

#: why a test is not read: a network keeps the examples, its first axis, apart, and the tests treat it as any other
APART = (
    r"works along the axis of the examples", r"does not keep the examples apart", r"differ from example to example",
    r"moves the examples away", r"the inputs have different numbers of examples", r"mix examples",
    r"repeats the examples",
    r"changes the number of examples", r"multiplies (values of all|along the axis of the) examples",
    r"has \d axes; it must be", r"transposes its input", r"all examples together", r"depends on the number of examples",
    r"a factor for every example", r"expects? .*axes", r"gives a value more axes",
    r"the file does not say the shape",
)  # fmt: skip
#: other reasons
REASONS = (
    r"are not read:", r"computes its .* from the input", r"does not take its .* from the network's input",
    r"does not depend on the input", r"export the network for inference", r"second output", r"holds values of type",
    r"pools numbers of type", r"takes floating-point numbers", r"an embedding", r"tf_crop_and_resize",
    r"has a kernel that", r"has no bounds", r"is read where it depends on constants alone", r"takes entries along",
    r"even size", r"has no input", r"must be floating", r"no counterpart", r"drops values at inference",
    r"it is read where it names all axes", r"zero-size array", r"another number of entries",
)  # fmt: skip

#: tests of main operators that are not passed, and why
EXCEPTIONS = {
    "resize_downsample_scales_(cubic|linear)_align_corners": "the test divides by the length before it is rounded; "
    "onnxruntime and PyTorch, where such files come from, by the rounded one",
    "averagepool_2d_ceil_last_window_starts_on_pad": "its numbers are written with four digits",
    "transpose_all_permutations_1": "an input that is transposed to channels first at once is channels last",
}


def excepted(name):
    return any(re.search(pattern, name) for pattern in EXCEPTIONS)


def outcome(case):
    """ "passed", or the reasons why it is not read; raises where numbers are wrong."""
    said = []
    for inputs in ways(case):
        try:
            _, made, wanted = run(case, inputs)
        except ValueError as error:
            said.append(str(error))
            continue
        half = any(np.asarray(array).dtype == np.float16 for array in (*case.inputs, *case.outputs))
        off = difference(made, wanted)
        assert off <= (1e-3 if half else 1e-5), f"{case.name}: {off}"
        return "passed"
    return said


def wanted(case, which):
    """Whether a test is one of an operator of MAIN, of another operator, or of one that is written out."""
    kind = "written out" if "expanded" in case.name else "main" if case.kinds <= set(MAIN) else "other"
    return kind == which


@pytest.mark.parametrize(
    ("which", "least"),
    [
        ("main", 190),
        pytest.param("other", 190, marks=pytest.mark.exhaustive),
        pytest.param("written out", 195, marks=pytest.mark.exhaustive),
    ],
)
def test_every_test_of_an_operator_passes_or_is_refused_with_a_reason(which, least):
    from fcnn.interop.onnx_import.rules import RULES

    passed, odd, missing = [], [], []
    for case in node_cases():
        if not case.kinds & RULES.keys() or excepted(case.name) or not wanted(case, which):
            continue
        said = outcome(case)
        if said == "passed":
            passed.append(case.name)
            continue
        plain = [reason for reason in said if not any(re.search(known, reason) for known in APART)]
        odd += [(case.name, reason) for reason in plain if not any(re.search(known, reason) for known in REASONS)]
        if len(case.kinds) == 1 and case.kinds <= set(MAIN) and len(plain) == len(said):
            missing.append((case.name, said))
    assert not odd
    allowed = r"holds values|pools numbers|second output|export the network|tf_crop|computes its|drops values"
    assert not [entry for entry in missing if not re.search(allowed, " ".join(entry[1]))]
    assert len(passed) >= least, len(passed)


@pytest.mark.parametrize("folder", ["pytorch-converted", "pytorch-operator"])
def test_networks_that_were_exported_from_pytorch(folder, x64):
    passed, said = 0, {}
    for case in stored_cases(folder):
        if not all(np.asarray(array).dtype in NUMBERS for array in (*case.inputs, *case.outputs)):
            continue
        result = outcome(case)
        passed += result == "passed"
        if result != "passed":
            said[case.name] = result
    for name, reasons in said.items():
        assert all(any(re.search(known, reason) for known in APART + REASONS) for reason in reasons), (name, reasons)
    assert passed >= {"pytorch-converted": 77, "pytorch-operator": 20}[folder]


LIGHT = ["densenet121", "inception_v2", "shufflenet", "squeezenet"]
LARGE = ["bvlc_alexnet", "inception_v1", "resnet50", "vgg19", "zfnet512"]  # fmt: skip


@pytest.mark.parametrize("name", [*LIGHT, *(pytest.param(name, marks=pytest.mark.exhaustive) for name in LARGE)])
def test_light_networks_give_their_stored_outputs(name):
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    path = folder / f"light_{name}.onnx"
    net, params, state = interop.from_onnx(path)
    stored = onnx.TensorProto()
    stored.ParseFromString((folder / f"light_{name}_output_0.pb").read_bytes())
    wanted = to_last(onnx.numpy_helper.to_array(stored))
    found = net.apply(params, jnp.ones((1, 224, 224, 3)), state=state)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert net.out_shape((224, 224, 3)) == wanted.shape[1:]
