"""Operators as onnxruntime computes them: patterns of several, older versions, ways of resizing, odd graphs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn import interop

onnx = pytest.importorskip("onnx", reason="files are read with onnx: pip install 'fcnn[interop]'")
pytest.importorskip("onnxruntime", reason="files are run by onnxruntime: pip install 'fcnn[dev]'")

from onnx_cases import to_last  # noqa: E402
from onnx_files import agree, assert_equal, pieces, random, truth, written  # noqa: E402

PATTERNS = {
    "silu": ([("Sigmoid", ["x"], ["s"], {}), ("Mul", ["x", "s"], ["y"], {})], {}, "fcnn.serial(jax.nn.silu)"),
    "hard swish": (
        [
            ("Add", ["x", "three"], ["a"], {}),
            ("Clip", ["a", "zero", "six"], ["b"], {}),
            ("Mul", ["x", "b"], ["c"], {}),
            ("Div", ["c", "six"], ["y"], {}),
        ],
        {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)},
        "fcnn.serial(jax.nn.hard_silu)",
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
        "fcnn.serial(functools.partial(jax.nn.gelu, approximate=False))",
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
        "fcnn.serial(jax.numpy.negative, fcnn.LayerNorm(epsilon=1e-06))",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
def test_functions_that_are_written_out_are_found(name):
    nodes, weights, code = PATTERNS[name]
    if name == "layer norm":  # an input that is transposed at once would be channels last
        nodes = [("Neg", ["z"], ["x"], {}), *nodes]
    model = written(nodes, {"z" if name == "layer norm" else "x": ["n", 4, 5, 6]}, ["y"], weights)
    net, _, _ = agree(model, random(2, 4, 5, 6))
    assert repr(net) == code


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


def test_an_older_hardmax_of_several_axes():
    with pytest.raises(ValueError, match=r"Hardmax.*over axis 1 and all behind it at once"):
        interop.from_onnx(pieces(("Hardmax", [], {}), opset=12))
    agree(pieces(("Hardmax", [], {"axis": 3}), opset=12), random(2, 4, 5, 6))
