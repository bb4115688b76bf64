"""Networks that are read from ONNX files compute what the files compute, and every tool takes them."""

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
pytest.importorskip("onnxruntime", reason="files are run by onnxruntime: pip install 'fcnn[dev]'")

from onnx_cases import to_last  # noqa: E402
from onnx_files import agree, assert_equal, random, truth, written  # noqa: E402
from test_onnx import REFUSED  # noqa: E402

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
    assert type(again["stage2"]["serial1"]["residual1"]).__name__ == "Residual"
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
        "stem/conv", "stem/act", "blocks_0/body", "gate/serial1/pool", "gate/serial1/sigmoid",
        "branches1/branch1", "branches1/branch2",
    ]  # fmt: skip
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
