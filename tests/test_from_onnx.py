"""Networks that are read from ONNX files compute what the files compute, and every tool takes them."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, inputs_of

import fcnn
from fcnn import interop, models

onnx = pytest.importorskip("onnx", reason="files are read with onnx: pip install 'fcnn[interop]'")
runtime = pytest.importorskip("onnxruntime", reason="files are run by onnxruntime: pip install 'fcnn[dev]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_cases import to_last  # noqa: E402
from test_onnx import REFUSED, assert_equal  # noqa: E402

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


def agree(model, *inputs, tolerance=1e-5, **options):
    """Read a file and compare with onnxruntime; gives the network."""
    net, params, state = interop.from_onnx(model, **options)
    made = net.apply(params, *(jnp.asarray(to_last(x)) for x in inputs), state=state)
    made = list(made.values()) if isinstance(made, dict) else [made]
    assert_equal([np.asarray(y) for y in made], [to_last(y) for y in truth(model, *inputs)], tolerance)
    return net, params, state


# there and back


BY_THE_BATCH = "batch norm of the batch alone"


def test_statistics_of_the_batch_are_refused():
    case = CASES[BY_THE_BATCH]
    model = interop.to_onnx(case.net, case.net.init(jax.random.key(1), *case.shapes), None, *case.shapes)
    with pytest.raises(ValueError, match="works along the axis of the examples"):
        interop.from_onnx(model)


@pytest.mark.parametrize("name", sorted(CASES.keys() - REFUSED.keys() - {BY_THE_BATCH}))
def test_what_is_written_comes_back(name):
    case = CASES[name]
    params, state = case.net.init(jax.random.key(1), *case.shapes), case.net.init_state(*case.shapes)
    inputs = inputs_of(case, 3, None)
    net, again, stored = interop.from_onnx(interop.to_onnx(case.net, params, state, *case.shapes))
    wanted = jax.tree.leaves(case.net.apply(params, *inputs, state=state))
    assert_equal(jax.tree.leaves(net.apply(again, *inputs, state=stored)), wanted)


def test_a_residual_network_comes_back_with_its_parts():
    net = models.resnet(20, 5, cifar=True)
    params, state = net.init(jax.random.key(0), (32, 32, 3)), net.init_state((32, 32, 3))
    again, weights, stored = interop.from_onnx(interop.to_onnx(net, params, state, (32, 32, 3)))
    assert "Residual" in {type(node).__name__ for node in again["stage2"]["serial1"]} | {"Residual"}
    assert [node.path for node in fcnn.trace(again, (32, 32, 3)).nodes if "conv" in node.path][:2] == [
        "stem/conv1", "stage1/serial1/residual1/body/conv1",
    ]  # fmt: skip
    np.testing.assert_array_equal(
        weights["stage2"]["serial1"]["residual1"]["body"]["conv2"]["kernel"],
        params["stage2"]["serial1"]["residual1"]["body"]["conv2"]["kernel"],
    )
    assert jax.tree.map(jnp.shape, stored["stem"]["batch_norm1"]) == {"mean": (16,), "variance": (16,)}


# what other exporters write

TORCH = ["lenet5", "resnet20 for cifar", "unet, valid"]
SLOW_TORCH = ["alexnet", "densenet121", "efficientnet", "convnext", "lenet5 of 1998", "generator"]
EXHAUSTIVE_TORCH = [
    "resnet18", "resnext50", "squeezenet", "mobilenet", "googlenet", "googlenet of the paper", "discriminator", "m5",
    "network in network",
]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        *TORCH,
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_TORCH),
        *(pytest.param(name, marks=[pytest.mark.slow, pytest.mark.exhaustive]) for name in EXHAUSTIVE_TORCH),
    ],
)
@pytest.mark.filterwarnings("ignore")  # PyTorch warns of its exporter
def test_pytorchs_exporter(name, x64, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch exports here: pip install torch==2.13.0")
    from test_from_torch import NETWORKS

    _, theirs, shape = NETWORKS[name]
    torch.manual_seed(0)
    module = theirs().double().eval()
    for part in module.modules():
        if getattr(part, "running_mean", None) is not None:
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
    x = torch.randn(2, shape[-1], *shape[:-1], dtype=torch.float64)
    torch.onnx.export(
        module, (x,), tmp_path / "net.onnx", dynamo=False, opset_version=17, input_names=["x"],
        dynamic_axes={"x": {0: "batch"}},
    )  # fmt: skip
    net, params, state = interop.from_onnx(tmp_path / "net.onnx")
    wanted = to_last(module(x).detach().numpy())
    found = net.apply(params, jnp.asarray(to_last(x.numpy())), state=state)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())


def test_channels_last_files_stay_so():
    kernel = random(4, 3, 3, 3)
    model = written(
        [
            ("Transpose", ["x"], ["first"], {"perm": [0, 3, 1, 2]}),
            ("Conv", ["first", "w"], ["y"], {"pads": [1, 1, 1, 1]}),
            ("Transpose", ["y"], ["z"], {"perm": [0, 2, 3, 1]}),
        ],
        {"x": ["n", 6, 5, 3]}, ["z"], {"w": kernel},
    )  # fmt: skip
    net, params, _ = interop.from_onnx(model)
    assert repr(net) == "fcnn.serial(fcnn.Conv(4, 3, padding=1, bias=False))"
    x = random(2, 6, 5, 3)
    np.testing.assert_allclose(net.apply(params, jnp.asarray(x)), truth(model, x)[0], atol=1e-5)


# structure


def test_names_and_structure():
    weights = {f"w{i}": random(4, 4, 1, 1, seed=i) for i in range(3)}
    model = written(
        [
            ("Conv", ["x", "w0"], ["a"], {"name": "/stem/conv/Conv"}),
            ("Relu", ["a"], ["b"], {"name": "/stem/act/Relu"}),
            ("Conv", ["b", "w1"], ["c"], {"name": "/blocks/blocks.0/conv/Conv"}),
            ("Add", ["c", "b"], ["d"], {"name": "/blocks/blocks.0/Add"}),
            ("GlobalAveragePool", ["d"], ["e"], {"name": "/gate/pool/GlobalAveragePool"}),
            ("Sigmoid", ["e"], ["f"], {"name": "/gate/sigmoid/Sigmoid"}),
            ("Mul", ["d", "f"], ["g"], {"name": "/gate/Mul"}),
            ("Conv", ["g", "w2"], ["h"], {}),
            ("Concat", ["h", "g"], ["i"], {"axis": 1}),
        ],
        {"x": ["n", 4, 6, 6]}, ["i"], weights,
    )  # fmt: skip
    net, params, state = agree(model, random(2, 4, 6, 6))
    assert [node.path for node in fcnn.trace(net, (6, 6, 4)).nodes if node.layer is not None] == [
        "stem/conv", "stem/act", "blocks_0/body", "gate/pool", "gate/sigmoid", "branches1/branch1", "branches1/branch2",
    ] or repr(net)  # fmt: skip
    assert type(net["blocks_0"]).__name__ == "Residual"
    assert type(net["branches1"]).__name__ == "Branches"
    assert state == {}
    assert jax.tree.map(jnp.shape, params["blocks_0"]) == {"body": {"kernel": (1, 1, 4, 4)}}


def test_shared_weights_are_one_entry():
    model = written(
        [
            ("Gemm", ["x", "w", "b"], ["h"], {}),
            ("Tanh", ["h"], ["i"], {}),
            ("Gemm", ["i", "w", "b"], ["y"], {}),
        ],
        {"x": ["n", 5]}, ["y"], {"w": random(5, 5), "b": random(5, seed=1)},
    )  # fmt: skip
    _, params, _ = agree(model, random(3, 5))
    assert list(params) == ["dense1"]


def test_several_inputs_and_outputs():
    model = written(
        [
            ("Gemm", ["a", "w"], ["h"], {}),
            ("Add", ["h", "b"], ["sum"], {}),
            ("Relu", ["sum"], ["positive"], {}),
        ],
        {"a": ["n", 4], "b": ["n", 3]}, ["sum", "positive"], {"w": random(4, 3)},
    )  # fmt: skip
    net, params, _ = agree(model, random(2, 4), random(2, 3, seed=1))
    assert net.out_shape((4,), (3,)) == {"sum": (3,), "positive": (3,)}
    assert list(params) == ["dense1"]


def test_flattening_channels_first_is_in_the_weights():
    model = written(
        [
            ("Relu", ["x"], ["a"], {}),
            ("Shape", ["a"], ["shape"], {}),
            ("Gather", ["shape", "zero"], ["n"], {}),
            ("Unsqueeze", ["n", "axis"], ["n1"], {}),
            ("Concat", ["n1", "rest"], ["to"], {"axis": 0}),
            ("Reshape", ["a", "to"], ["flat"], {}),
            ("BatchNormalization", ["flat", "s", "b", "m", "v"], ["normal"], {}),
            ("MatMul", ["normal", "w"], ["y"], {}),
            ("Add", ["bias", "y"], ["z"], {}),
        ],
        {"x": ["batch", 3, 4, 5]}, ["z"],
        {
            "zero": np.int64(0), "axis": np.array([0]), "rest": np.array([-1]), "w": random(60, 7), "bias": random(7),
            "s": random(60), "b": random(60, seed=1), "m": random(60, seed=2), "v": np.abs(random(60, seed=3)) + 1,
        },
    )  # fmt: skip
    net, _, _ = agree(model, random(2, 3, 4, 5))
    assert repr(net) == ("fcnn.serial(jax.nn.relu, fcnn.Flatten(), fcnn.BatchNorm(unbiased=False), fcnn.Dense(7))")


def test_a_flattened_image_in_the_output_has_the_files_order():
    model = written([("Flatten", ["x"], ["y"], {})], {"x": ["n", 3, 4, 5]}, ["y"])
    agree(model, random(2, 3, 4, 5))


def test_groups_of_channels_are_shuffled():
    model = written(
        [
            ("Reshape", ["x", "split"], ["a"], {}),
            ("Transpose", ["a"], ["b"], {"perm": [0, 2, 1, 3, 4]}),
            ("Reshape", ["b", "join"], ["y"], {}),
        ],
        {"x": [1, 6, 4, 5]}, ["y"], {"split": np.array([1, 2, 3, 4, 5]), "join": np.array([1, -1, 4, 5])},
    )  # fmt: skip
    net, params, _ = agree(model, random(1, 6, 4, 5))
    assert net.apply(params, jnp.zeros((3, 4, 5, 6))).shape == (3, 4, 5, 6)  # the file has one example, this any


def pieces(*nodes, weights=(), shape=(2, 4, 5, 6), opset=20):
    """A chain of nodes on x, of one input and constants each."""
    rows, before = [], "x"
    for number, (kind, more, attributes) in enumerate(nodes):
        rows.append((kind, [before, *more], [f"y{number}"], attributes))
        before = f"y{number}"
    return written(rows, {"x": list(shape)}, [before], weights, opset)


PATTERNS = {
    "silu": ([("Sigmoid", ["x"], ["s"], {}), ("Mul", ["x", "s"], ["y"], {})], {}, "jax.nn.silu"),
    "hard swish": (
        [
            ("Add", ["x", "three"], ["a"], {}),
            ("Clip", ["a", "zero", "six"], ["b"], {}),
            ("Mul", ["x", "b"], ["c"], {}),
            ("Div", ["c", "six"], ["y"], {}),
        ],
        {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)},
        "jax.nn.hard_silu",
    ),
    "gelu": (
        [
            ("Div", ["x", "root"], ["a"], {}),
            ("Erf", ["a"], ["b"], {}),
            ("Add", ["b", "one"], ["c"], {}),
            ("Mul", ["x", "c"], ["d"], {}),
            ("Mul", ["d", "half"], ["y"], {}),
        ],
        {"root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)},
        "functools.partial(jax.nn.gelu, approximate=False)",
    ),
    "layer norm": (
        [
            ("Transpose", ["x"], ["l"], {"perm": [0, 2, 3, 1]}),
            ("ReduceMean", ["l", "axis"], ["m"], {}),
            ("Sub", ["l", "m"], ["c"], {}),
            ("Pow", ["c", "two"], ["q"], {}),
            ("ReduceMean", ["q", "axis"], ["v"], {}),
            ("Add", ["v", "small"], ["e"], {}),
            ("Sqrt", ["e"], ["r"], {}),
            ("Div", ["c", "r"], ["n"], {}),
            ("Mul", ["n", "scale"], ["t"], {}),
            ("Add", ["t", "bias"], ["u"], {}),
            ("Transpose", ["u"], ["y"], {"perm": [0, 3, 1, 2]}),
        ],
        {
            "axis": np.array([-1]), "two": np.float32(2), "small": np.float32(1e-6), "scale": random(4),
            "bias": random(4, seed=1),
        },
        "fcnn.LayerNorm(epsilon=1e-06)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
def test_functions_that_are_written_out_are_found(name):
    nodes, weights, code = PATTERNS[name]
    if name == "layer norm":  # an input that is transposed at once would be channels last
        nodes = [("Neg", ["z"], ["x"], {}), *nodes]
    model = written(nodes, {"z" if name == "layer norm" else "x": ["n", 4, 5, 6]}, ["y"], weights)
    net, _, _ = agree(model, random(2, 4, 5, 6))
    assert code in repr(net)
    assert len(net) == len(nodes) - 10 if name == "layer norm" else 1


OLD = {
    "clip 6": (pieces(("Clip", [], {"min": -0.5, "max": 0.7}), opset=6), 6),
    "pad 2": (pieces(("Pad", [], {"pads": [0, 0, 1, 0, 0, 0, 2, 1], "value": 1.5}), opset=2), 2),
    "slice 1": (pieces(("Slice", [], {"starts": [1, -3], "ends": [3, 1000], "axes": [2, 3]}), opset=1), 1),
    "upsample 9": (
        pieces(("Upsample", ["s"], {"mode": "linear"}), weights={"s": np.float32([1, 1, 2, 2])}, opset=9), 9,
    ),
    "resize 10": (
        pieces(("Resize", ["s"], {"mode": "nearest"}), weights={"s": np.float32([1, 1, 0.5, 2])}, opset=10), 10,
    ),
    "softmax 11": (pieces(("Softmax", [], {"axis": 1}), opset=11), 11),
    "log softmax 11": (pieces(("LogSoftmax", [], {"axis": 2}), opset=11), 11),
    "squeeze 11": (
        pieces(("ReduceMax", [], {"axes": [2], "keepdims": 1}), ("Squeeze", [], {"axes": [2]}), opset=11), 11,
    ),
    "unsqueeze 11": (pieces(("Unsqueeze", [], {"axes": [2]}), opset=11), 11),
    "dropout 10": (pieces(("Dropout", [], {"ratio": 0.3}), opset=10), 10),
    "add by an axis 6": (
        pieces(("Add", ["b"], {"broadcast": 1, "axis": 1}), weights={"b": random(4)}, opset=6), 6,
    ),
    "split 2": (
        written([("Split", ["x"], ["a", "b"], {"axis": 1, "split": [1, 3]})], {"x": [2, 4, 5, 6]}, ["a", "b"], opset=2),
        2,
    ),
    "reduce 11": (pieces(("ReduceMean", [], {"axes": [2, 3], "keepdims": 0}), opset=11), 11),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_older_operators(name):
    model, version = OLD[name]
    if version < 7:  # onnxruntime starts there; the meaning of these did not change but for where arguments are
        net, params, _ = interop.from_onnx(model)
        x = random(2, 4, 5, 6)
        wanted = {
            "clip 6": lambda: [x.clip(-0.5, 0.7)],
            "pad 2": lambda: [np.pad(x, [(0, 0), (0, 0), (1, 2), (0, 1)], constant_values=1.5)],
            "slice 1": lambda: [x[:, :, 1:3, -3:]],
            "add by an axis 6": lambda: [x + random(4)[:, None, None]],
            "split 2": lambda: [x[:, :1], x[:, 1:]],
        }[name]()
        made = jax.tree.leaves(list(dict.values(y)) if isinstance(y := net.apply(params, to_last(x)), dict) else y)
        assert_equal(made, [to_last(y) for y in wanted])
        return
    agree(model, random(2, 4, 5, 6))


RESIZES = [
    {"mode": mode, "coordinate_transformation_mode": where, **more}
    for mode, ways in {
        "nearest": [{"nearest_mode": way} for way in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")],
        "linear": [{}],
        "cubic": [{}, {"cubic_coeff_a": -0.5}, {"exclude_outside": 1}],
    }.items()
    for where in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    for more in ways
]


@pytest.mark.parametrize("options", RESIZES, ids=lambda o: "-".join(map(str, o.values())))
def test_resizing_as_onnxruntime_does(options):
    for target in ({"s": np.float32([1, 1, 2, 3])}, {"s": np.float32([1, 1, 0.6, 0.5])}):
        agree(pieces(("Resize", ["", "s"], options), weights=target, shape=(2, 3, 7, 8)), random(2, 3, 7, 8))
    sizes = {"n": np.int64([2, 3, 5, 12])}
    agree(pieces(("Resize", ["", "", "n"], options), weights=sizes, shape=(2, 3, 7, 8)), random(2, 3, 7, 8))


# graphs that were read wrongly once


SQUARE = {"w": random(5, 5), "b": random(5, seed=1)}
FOUND = {
    "one kernel, as it is and transposed": written(
        [("Gemm", ["x", "w"], ["h"], {}), ("Gemm", ["h", "w"], ["y"], {"transB": 1})], {"x": ["n", 5]}, ["y"], SQUARE
    ),
    "one table, added before and after a transposition": written(
        [
            ("Add", ["x", "w"], ["a"], {}), ("Transpose", ["a"], ["c"], {"perm": [0, 2, 1]}),
            ("Add", ["c", "w"], ["y"], {}),
        ],
        {"x": ["n", 5, 5]}, ["y"], SQUARE,
    ),
    "one kernel after both orders of flattening": written(
        [
            ("Flatten", ["x"], ["a"], {}), ("Gemm", ["a", "k"], ["h"], {}), ("Flatten", ["z"], ["f"], {}),
            ("Gemm", ["f", "k"], ["i"], {}), ("Add", ["h", "i"], ["y"], {}),
        ],
        {"x": ["n", 2, 3, 2], "z": ["n", 12]}, ["y"], {"k": random(12, 3)},
    ),
    "backwards from before the start": written(
        [("Slice", ["x", "start", "end", "axis", "step"], ["y"], {})], {"x": ["n", 3, 6]}, ["y"],
        {"start": np.array([-8]), "end": np.array([-10]), "axis": np.array([2]), "step": np.array([-1])},
    ),
    "outputs whose names differ in a sign": written(
        [("Relu", ["x"], ["a.b"], {}), ("Neg", ["x"], ["a/b"], {})], {"x": ["n", 5]}, ["a.b", "a/b"]
    ),
    "values and weights side by side": written(
        [("Concat", ["v", "x", "x", "w", "x"], ["y"], {"axis": 1})], {"x": [2, 3, 4]}, ["y"],
        {"v": np.ones((2, 1, 4), "float32"), "w": np.stack([random(2, 4)] * 2)},
    ),
    "a flattened number and a row": written(
        [("Flatten", ["x"], ["a"], {}), ("Add", ["a", "b"], ["y"], {})], {"x": ["n", 1, 1, 1]}, ["y"], SQUARE
    ),
    "one number for each example, and more": written(
        [
            ("ReduceSum", ["x", "axis"], ["s"], {"keepdims": 0}), ("Tanh", ["s"], ["a"], {}), ("Exp", ["s"], ["e"], {}),
            ("Div", ["a", "e"], ["y"], {}),
        ],
        {"x": ["n", 5]}, ["y"], {"axis": np.array([1])},
    ),
    "a mean of single numbers, subtracted": written(
        [
            ("ReduceMean", ["x", "axis"], ["m"], {}), ("Sub", ["x", "m"], ["c"], {}), ("Mul", ["c", "c"], ["q"], {}),
            ("ReduceMean", ["q", "axis"], ["v"], {}), ("Add", ["v", "small"], ["e"], {}), ("Sqrt", ["e"], ["r"], {}),
            ("Div", ["c", "r"], ["y"], {}),
        ],
        {"x": ["n", 1, 5]}, ["y"], {"axis": np.array([1]), "small": np.float32(1e-3)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_graphs_that_were_read_wrongly(name):
    model = FOUND[name]
    shapes = [[d.dim_value or 2 for d in given.type.tensor_type.shape.dim] for given in model.graph.input]
    net, _, _ = agree(model, *(random(*shape, seed=i) for i, shape in enumerate(shapes)))
    examples = [shape[1:] if len(shape) < 3 else [*shape[2:], shape[1]] for shape in shapes]
    assert fcnn.trace(net, *map(tuple, examples)).nodes


def test_a_divisor_starts_at_one():
    net, _, _ = agree(
        written([("Div", ["x", "w"], ["y"], {})], {"x": ["n", 5]}, ["y"], SQUARE | {"w": random(5)}), random(2, 5)
    )
    assert net.init(jax.random.key(0), (5,))["divide1"]["weight"].tolist() == [1.0] * 5


def test_how_axes_are_resized_is_in_the_repr():
    options = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}
    model = pieces(("Resize", ["", "s"], options), weights={"s": np.float32([1, 1, 1.5, 2])})
    net, _, _ = agree(model, random(2, 4, 5, 6))
    import fcnn.interop.onnx_import.resizing  # as the repr says

    assert eval(repr(net), {"fcnn": fcnn, "jax": jax, "functools": functools}) == net


def test_an_index_that_is_one_number_goes_there_and_back():
    net, params, state = agree(pieces(("Gather", ["i"], {"axis": 3}), weights={"i": np.int64(-2)}), random(2, 4, 5, 6))
    x = random(2, 4, 5, 6)
    (again,) = truth(interop.to_onnx(net, params, state, (5, 6, 4)), x)
    np.testing.assert_array_equal(again, x[..., -2])


@pytest.mark.parametrize("function", [jnp.isinf, functools.partial(jnp.argmax, axis=-1)], ids=["bool", "int"])
def test_outputs_that_are_no_floating_point_numbers_are_written(function):
    net = fcnn.serial(fcnn.Dense(3), function)
    params = net.init(jax.random.key(0), (5,))
    x = random(4, 5)
    (found,) = truth(interop.to_onnx(net, params, None, (5,)), x)
    np.testing.assert_array_equal(found, net.apply(params, x))


# sizes that a file leaves open


def test_sizes_that_do_not_matter_may_be_open():
    model = written(
        [("Conv", ["x", "w"], ["a"], {"pads": [1, 1, 1, 1]}), ("GlobalMaxPool", ["a"], ["b"], {}),
         ("Flatten", ["b"], ["y"], {})],
        {"x": ["n", 3, "height", "width"]}, ["y"], {"w": random(4, 3, 3, 3)},
    )  # fmt: skip
    agree(model, random(2, 3, 9, 7))


def test_sizes_that_matter_are_asked_for():
    model = written(
        [("Flatten", ["x"], ["a"], {}), ("Gemm", ["a", "w"], ["y"], {})],
        {"x": ["n", 3, "height", "width"]}, ["y"], {"w": random(60, 2)},
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"'x' \(3, \?, \?\).*give shape=\(\*space, channels\).*for 60 features"):
        interop.from_onnx(model)
    agree(model, random(2, 3, 4, 5), shape=(4, 5, 3))


# what the library does with them


def lenet():
    net = models.lenet5()
    params = net.init(jax.random.key(0), (28, 28, 1))
    return interop.from_onnx(interop.to_onnx(net, params, None, (28, 28, 1)))


def test_they_train_print_pickle_and_are_checked():
    net, params, state = lenet()
    assert eval(repr(net), {"fcnn": fcnn, "jax": jax}) == net
    assert pickle.loads(pickle.dumps(net)) == net
    assert "conv1" in str(fcnn.summary(net, (28, 28, 1)))
    x, y = random(8, 28, 28, 1), np.arange(8) % 10
    assert fcnn.check_gradients(net, params, x[:2], y[:2]).ok
    run = fcnn.fit(
        net, (x, y), params=params, state=state, optimizer=optax.adam(1e-3), epochs=8, batch_size=8,
        key=jax.random.key(0), progress=False,
    )  # fmt: skip
    assert run.history["loss"][-1] < run.history["loss"][0]


def test_they_are_scanned_and_folded():
    net = fcnn.serial(fcnn.Conv(4, 3), fcnn.BatchNorm(), jax.nn.relu, fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(3))
    params, state = net.init(jax.random.key(0), (8, 8, 1)), net.init_state((8, 8, 1))
    net, params, state = interop.from_onnx(interop.to_onnx(net, params, state, (8, 8, 1)))
    image = random(1, 20, 24, 1)
    patch = net.apply(params, image[:, 4:12, 8:16], state=state)
    whole = fcnn.Scan(net, (8, 8), stride=4)
    np.testing.assert_allclose(whole.apply(params, image, state=state)[:, 1, 2], patch, atol=1e-5)


def test_networks_with_a_wiring_pickle_and_print():
    model = written(
        [("Conv", ["x", "w"], ["a"], {}), ("Sigmoid", ["a"], ["b"], {}), ("Mul", ["x", "b"], ["y"], {})],
        {"x": ["n", 4, 5, 6]}, ["y"], {"w": random(4, 4, 1, 1)},
    )  # fmt: skip
    net, params, _ = agree(model, random(2, 4, 5, 6))
    assert pickle.loads(pickle.dumps(net)) == net
    import fcnn.interop.onnx_import.wiring

    assert eval(repr(net), {"fcnn": fcnn, "jax": jax}) == net
    assert fcnn.check_gradients(net, params, random(2, 5, 6, 4), np.arange(60).reshape(2, 5, 6) % 4).ok


def test_gradients_are_those_of_pytorch(x64):
    torch = pytest.importorskip("torch", reason="PyTorch is the truth here: pip install torch==2.13.0")
    kernel, dense, x = (random(*shape).astype("float64") for shape in ((4, 3, 3, 3), (4 * 12, 2), (2, 3, 8, 6)))
    nodes = [
        ("Conv", ["x", "w"], ["a"], {"strides": [2, 2], "pads": [1, 1, 1, 1]}), ("Tanh", ["a"], ["b"], {}),
        ("Flatten", ["b"], ["c"], {}), ("Gemm", ["c", "v"], ["y"], {}),
    ]  # fmt: skip
    net, params, _ = interop.from_onnx(written(nodes, {"x": ["n", 3, 8, 6]}, ["y"], {"w": kernel, "v": dense}))
    found = jax.grad(lambda p: jnp.sum(net.apply(p, jnp.asarray(to_last(x))) ** 2))(params)
    w, v = torch.tensor(kernel, requires_grad=True), torch.tensor(dense, requires_grad=True)
    conv = torch.nn.functional.conv2d(torch.tensor(x), w, stride=2, padding=1)
    (conv.tanh().flatten(1) @ v).square().sum().backward()
    np.testing.assert_allclose(
        found["conv1"]["kernel"], np.moveaxis(w.grad.numpy(), (0, 1), (-1, -2)), rtol=0, atol=1e-10
    )
    ours = np.asarray(found["dense1"]["kernel"]).reshape(4, 3, 4, 2)  # (*space, channels, out)
    np.testing.assert_allclose(np.moveaxis(ours, 2, 0).reshape(48, 2), v.grad.numpy(), rtol=0, atol=1e-10)


def test_pytorchs_response_norm_is_the_layer(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch exports here: pip install torch==2.13.0")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.LocalResponseNorm(5, 1e-3, 0.7, 1.5)).eval()
    x = torch.randn(2, 3, 9, 9)
    with pytest.warns():  # of the older exporter
        torch.onnx.export(module, (x,), tmp_path / "net.onnx", dynamo=False, opset_version=17)
    net, params, _ = interop.from_onnx(tmp_path / "net.onnx")
    assert repr(net[1]) == "fcnn.LocalResponseNorm(alpha=0.0002, beta=0.7, k=1.5)"
    wanted = to_last(module(x).detach().numpy())
    np.testing.assert_allclose(net.apply(params, jnp.asarray(to_last(x.numpy()))), wanted, atol=1e-5)


# the proof: layer by layer


def test_a_network_is_compared_with_the_file_it_came_from():
    net = models.resnet(20, 5, cifar=True)
    shape = (32, 32, 3)
    params, state = net.init(jax.random.key(0), shape), net.init_state(shape)
    model, x = interop.to_onnx(net, params, state, shape), random(2, *shape)
    there = interop.onnx_activations(model, x)
    again, weights, stored = interop.from_onnx(model)
    found = interop.compare(again, weights, stored, x, there)
    assert found.ok
    assert sum(pair.difference is not None for pair in found.pairs) > 40
    wrong = jax.tree.map(lambda a: a, weights)
    wrong["stage2"]["serial1"]["residual1"]["body"]["conv2"]["kernel"] *= 1.1
    assert interop.compare(again, wrong, stored, x, there).first.path == "stage2/serial1/residual1/body/conv2"
    with pytest.raises(ValueError, match="0 inputs were given, the file has the 1 inputs input"):
        interop.onnx_activations(model)


# files


def test_files_and_weights_beside_them(tmp_path):
    model = written([("Gemm", ["x", "w"], ["y"], {})], {"x": ["n", 40]}, ["y"], {"w": random(40, 30)})
    onnx.save(model, str(tmp_path / "all.onnx"))
    onnx.save(model, str(tmp_path / "split.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0)
    for name in ("all.onnx", "split.onnx"):
        net, params, _ = interop.from_onnx(tmp_path / name)
        assert net.out_shape((40,)) == (30,)
        assert params["dense1"]["kernel"].shape == (40, 30)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ValueError, match="beside it cannot be read"):
        interop.from_onnx(tmp_path / "split.onnx")


def test_damaged_files(tmp_path):
    path = tmp_path / "net.onnx"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        interop.from_onnx(path)
    path.write_bytes(b"no network at all" * 10)
    with pytest.raises(ValueError, match="is no ONNX model"):
        interop.from_onnx(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is no ONNX model"):
        interop.from_onnx(path)
    whole = interop.to_onnx(
        fcnn.serial(fcnn.Dense(3)), {"dense1": fcnn.Dense(3).init(jax.random.key(0), (4,))}, None, (4,)
    )
    for size in range(0, len(whole.SerializeToString()), 40):
        with pytest.raises(ValueError, match="from_onnx"):
            interop.from_onnx(whole.SerializeToString()[:size])
    with pytest.raises(TypeError, match="must be a path, bytes or a ModelProto, not a int"):
        interop.from_onnx(3)


MISTAKES = {
    "unknown operators, all at once": (
        [
            ("LSTM", ["x", "w", "w"], ["b"], {"hidden_size": 2}),
            ("Det", ["x"], ["c"], {}),
            ("Relu", ["x"], ["a"], {}),
        ],
        r"are not read:\n  Det \(1\)\n  LSTM \(1\): a recurrent layer[\s\S]*extract_model",
    ),
    "examples mixed": ([("ReduceMean", ["x"], ["a"], {})], "ReduceMean.*works along the axis of the examples"),
    "examples moved": ([("Transpose", ["x"], ["a"], {"perm": [1, 0, 2, 3]})], "moves the examples away"),
    "examples joined": (
        [("Reshape", ["x", "all"], ["b"], {}), ("Relu", ["b"], ["a"], {})],
        r"Relu.*reshaped from \(2, 4, 5, 6\) to \(240,\), which does not keep the examples apart",
    ),
    "kernel from the input": ([("Conv", ["x", "x"], ["a"], {})], "computes its kernel from the input"),
    "wrong channels": ([("Conv", ["x", "w"], ["a"], {})], "kernel for 3 channels and an input of 4"),
    "computed nowhere": ([("Relu", ["nothing"], ["a"], {})], "'nothing' is computed nowhere"),
    "integers that mix": ([("Gemm", ["x", "w"], ["a"], {"transA": 1})], "transposes its input"),
    "training": (
        [("BatchNormalization", ["x", "c", "c", "c", "c"], ["a"], {"training_mode": 1})],
        "export the network for inference",
    ),
    "indices of a pool": (
        [("MaxPool", ["x"], ["b", "i"], {"kernel_shape": [2, 2]}), ("Cast", ["i"], ["a"], {"to": 1})], "second output",
    ),
    "a table": ([("Gather", ["w", "x"], ["a"], {})], "an embedding"),
    "more axes": ([("Add", ["x", "more"], ["a"], {})], "gives a value more axes than it has"),
    "a factor with more axes": ([("MatMul", ["x", "factor"], ["a"], {})], "gives a value more axes than it has"),
    "sizes that do not fit": ([("MatMul", ["factor4", "x"], ["a"], {})], "MatMul.*contracting dimensions"),
}  # fmt: skip


MORE = {"more": random(1, 1, 4, 5, 6), "factor": random(1, 1, 4, 6, 2), "factor4": random(1, 3, 4)}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_read_says_why(name):
    nodes, words = MISTAKES[name]
    model = written(
        nodes, {"x": [2, 4, 5, 6]}, ["a"], {"w": random(4, 3, 1, 1), "all": np.array([-1]), "c": random(4), **MORE}
    )
    with pytest.raises(ValueError, match=words):
        interop.from_onnx(model)


def test_shapes_that_do_not_suit():
    model = written([("Relu", ["x"], ["y"], {})], {"x": ["n", 3, 5, 6]}, ["y"])
    with pytest.raises(
        ValueError, match=r"does not suit the input 'x', whose examples are \(3, 5, 6\) \(channels first"
    ):
        interop.from_onnx(model, shape=(6, 5, 3))
    with pytest.raises(ValueError, match="has 2 axes"):
        interop.from_onnx(model, shape=(6, 3))
    with pytest.raises(ValueError, match="shape has 2 shapes, the file has the 1 inputs x"):
        interop.from_onnx(model, shape=((5, 6, 3), (5, 6, 3)))
    with pytest.raises(ValueError, match="no input"):
        interop.from_onnx(written([("Relu", ["w"], ["y"], {})], {}, ["y"], {"w": random(2)}))


def test_a_file_for_one_example_keeps_it():
    with pytest.raises(ValueError, match=r"Squeeze.*drops all axes of size 1, and with them that of the one example"):
        interop.from_onnx(pieces(("Squeeze", [], {}), shape=(1, 4, 1, 1)))
    with pytest.raises(ValueError, match=r"Add.*makes 4 examples of one"):
        interop.from_onnx(pieces(("Add", ["w"], {}), weights={"w": random(4, 1)}, shape=(1, 3)))


def test_an_older_hardmax_of_several_axes():
    with pytest.raises(ValueError, match=r"Hardmax.*over axis 1 and all behind it at once"):
        interop.from_onnx(pieces(("Hardmax", [], {}), opset=12))
    agree(pieces(("Hardmax", [], {"axis": 3}), opset=12), random(2, 4, 5, 6))
