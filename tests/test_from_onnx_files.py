"""ONNX files as they come: with open sizes, weights beside them, damaged, or with what cannot be read."""

import jax
import numpy as np
import pytest

import fcnn
from fcnn import interop

onnx = pytest.importorskip("onnx", reason="files are read with onnx: pip install 'fcnn[interop]'")
pytest.importorskip("onnxruntime", reason="files are run by onnxruntime: pip install 'fcnn[dev]'")

from onnx_files import agree, pieces, random, written  # noqa: E402

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
