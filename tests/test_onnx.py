"""ONNX files give in onnxruntime what apply gives: every case, every network of models, and functions by operations."""

import collections
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, inputs_of

import fcnn
from fcnn import interop, models

onnx = pytest.importorskip("onnx", reason="files are written with onnx: pip install 'fcnn[interop]'")
runtime = pytest.importorskip("onnxruntime", reason="files are run by onnxruntime: pip install 'fcnn[dev]'")

from onnx_cases import to_last as last  # noqa: E402
from onnx_files import assert_equal  # noqa: E402


def first(x):
    return np.moveaxis(np.asarray(x), -1, 1) if np.ndim(x) > 2 else np.asarray(x)


def both(net, shapes, inputs=None, model=None):
    """What onnxruntime gives and what apply gives, with random weights and statistics."""
    random = np.random.default_rng(0)
    params, state = net.init(jax.random.key(0), *shapes), net.init_state(*shapes)
    # biases and factors that leave no term out; kernels as they are drawn, so that deep networks round as usual
    params = jax.tree.map(lambda a: a + 0.1 * random.normal(size=a.shape).astype(a.dtype) if a.ndim < 2 else a, params)
    state = jax.tree.map(lambda a: a * random.uniform(0.5, 2, a.shape).astype(a.dtype) + 0.1, state)
    if inputs is None:
        inputs = [random.normal(size=(2, *shape)).astype("float32") for shape in shapes]
    inputs = [np.asarray(x) for x in inputs]
    model = interop.to_onnx(net, params, state, *shapes)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {declared.name: first(x) for declared, x in zip(session.get_inputs(), inputs, strict=True)}
    wanted = jax.jit(net.apply)(params, *map(jnp.asarray, inputs), state=state)
    return [last(y) for y in session.run(None, given)], jax.tree.leaves(wanted), model


#: cases that ONNX has no form for, and what is said of them
REFUSED = {
    "conv transpose circular": "adds what it crops to the other end",
    "locally connected": "has a kernel for every position",
    "max unpool": "uses the operation",
    "scan": "applies a network at every position; write it as convolutions",
    "scan by patches": "applies a network at every position; write it as convolutions",
}


@pytest.mark.parametrize("name", CASES)
def test_every_case_gives_the_same_or_is_refused_with_its_reason(name):
    case = CASES[name]
    if name in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name]):
            both(case.net, case.shapes, inputs_of(case, 3, None))
        return
    found, wanted, _ = both(case.net, case.shapes, inputs_of(case, 3, None))
    assert_equal(found, wanted)


NETWORKS = {
    "alexnet": (lambda: models.alexnet(5), (227, 227, 3)),
    "vgg": (lambda: models.vgg(11, 5, batch_norm=True), (32, 32, 3)),
    "googlenet": (lambda: models.googlenet(5), (64, 64, 3)),
    "googlenet with heads": (lambda: models.googlenet(5, auxiliary=True), (96, 96, 3)),
    "resnet": (lambda: models.resnet(18, 5), (33, 40, 3)),
    "resnext": (lambda: models.resnext(50, 5), (33, 40, 3)),
    "resnet for cifar": (lambda: models.resnet(20, 5, cifar=True), (32, 32, 3)),
    "resnet, preactivated": (lambda: models.resnet(20, 5, cifar=True, preactivation=True), (32, 32, 3)),
    "densenet": (lambda: models.densenet(121, 5), (33, 40, 3)),
    "squeezenet": (lambda: models.squeezenet(5), (64, 64, 3)),
    "mobilenet": (lambda: models.mobilenet_v2(5), (33, 40, 3)),
    "efficientnet": (lambda: models.efficientnet(0, 5), (33, 40, 3)),
    "efficientnet lite": (lambda: models.efficientnet_lite0(5), (33, 40, 3)),
    "convnext": (lambda: models.convnext_tiny(5), (32, 33, 3)),
    "unet": (lambda: models.unet(2, widths=(4, 8, 12)), (16, 24, 1)),
    "unet, valid": (lambda: models.unet(2, widths=(4, 8, 12), padding="VALID"), (44, 60, 1)),
    "lenet5": (lambda: models.lenet5(), (28, 28, 1)),
    "lenet5 of 1998": (lambda: models.lenet5_1998(), (32, 32, 1)),
    "network in network": (lambda: models.network_in_network(), (32, 32, 3)),
    "all convolutional": (lambda: models.all_convolutional(), (32, 32, 3)),
    "maxout": (lambda: models.maxout(), (28, 28, 1)),
    "connectomics": (lambda: models.connectomics(), (75, 75, 4)),
    "generator": (lambda: models.dcgan_generator(width=8), (1, 1, 10)),
    "discriminator": (lambda: models.dcgan_discriminator(width=8), (64, 64, 3)),
    "m5": (lambda: models.m5(width=8), (4000, 1)),
    "mlp": (lambda: models.mlp(8, 5), (6, 5, 2)),
    "features": (lambda: models.features(models.resnet(20, 5, cifar=True)), (32, 32, 3)),
}
QUICK = ("lenet5", "resnet for cifar", "unet, valid", "m5", "mlp", "features", "network in network", "generator")
SLOW = ("densenet", "efficientnet", "convnext")


def marks(name):
    """When a network is written and run."""
    if name in QUICK:
        return ()
    return pytest.mark.slow if name in SLOW else (pytest.mark.slow, pytest.mark.exhaustive)


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in NETWORKS])
def test_every_network_of_models_gives_the_same_without_a_transpose(name):
    make, shape = NETWORKS[name]
    found, wanted, model = both(make(), (shape,))
    assert_equal(found, wanted)
    assert not [node.name for node in model.graph.node if node.op_type == "Transpose"]


def squeezed(x):
    return x.mean((1, 2))


FUNCTIONS = {
    "max over channels": lambda x: x.max(-1, keepdims=True),
    "mean over rows": lambda x: x.mean(1),
    "channels and rows exchanged": lambda x: x.transpose(0, 3, 2, 1),
    "flattened by hand": lambda x: x.reshape(x.shape[0], -1),
    "rows joined": lambda x: x.reshape(x.shape[0], -1, x.shape[-1]),
    "some channels": lambda x: x[..., 1:3],
    "some rows, backwards": lambda x: x[:, ::-1],
    "chosen channels": lambda x: x[..., np.array([2, 0, 2])],
    "one channel": lambda x: x[..., 1],
    "padded": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 3)), constant_values=2.0),
    "own numbers": lambda x: x * np.arange(4.0, dtype="float32") + np.arange(6.0, dtype="float32")[:, None, None],
    "standardised": lambda x: (x - x.mean((1, 2, 3), keepdims=True)) / (x.std((1, 2, 3), keepdims=True) + 1e-3),
    "softmax over channels": jax.nn.softmax,
    "chosen by sign": lambda x: jnp.where(x > 0, x, jnp.exp(x) - 1),
    "clipped": lambda x: jnp.clip(x, -0.5, 0.5),
    "product by a matrix": lambda x: x @ np.ones((4, 3), "float32"),
    "powers and roots": lambda x: jnp.sqrt(x**2 + 1) + x**3 + jax.lax.rsqrt(1 + x * x) + jnp.cbrt(x),
    "exponentials": lambda x: jnp.expm1(x) + jnp.log1p(x * x) + jnp.exp2(x) + jax.scipy.special.erfc(x),
    "trigonometry": lambda x: jnp.sin(x) * jnp.cos(x) + jnp.arctan(x) + jnp.sinh(x),
    "repeated": lambda x: jnp.concatenate([x, 2 * x], 1),
    "cumulated": lambda x: jnp.cumsum(x, 1),
    "largest place": lambda x: x * (jnp.argmax(x, -1)[..., None] + 1).astype(x.dtype),
    "one vector for all positions": lambda x: x + squeezed(x)[:, None, None],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_written_operation_by_operation(name):
    net = fcnn.serial(fcnn.Conv(4, 1), FUNCTIONS[name])
    assert_equal(*both(net, ((6, 5, 3),))[:2])


ACTIVATIONS = [
    *("relu", "relu6", "sigmoid", "silu", "gelu", "elu", "selu", "celu", "leaky_relu", "softplus", "soft_sign", "tanh"),
    *("hard_sigmoid", "hard_silu", "hard_tanh", "log_sigmoid", "mish", "squareplus", "softmax", "log_softmax", "glu"),
]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    net = fcnn.serial(fcnn.Conv(4, 1), getattr(jax.nn, name), fcnn.Flatten(), fcnn.Dense(2))
    assert_equal(*both(net, ((6, 5, 3),))[:2], 3e-5)


@pytest.mark.parametrize(
    "function",
    [
        functools.partial(jax.nn.gelu, approximate=False),
        functools.partial(jax.nn.leaky_relu, negative_slope=0.2),
        functools.partial(jax.nn.elu, alpha=0.5),
        functools.partial(jnp.clip, min=0, max=1),
    ],
)
def test_activations_with_arguments(function):
    assert_equal(*both(fcnn.serial(fcnn.Dense(4), function), ((3,),))[:2])


def test_nodes_have_the_paths_of_layers_and_there_is_one_for_each():
    net = fcnn.serial(
        fcnn.Conv(4, 3), fcnn.BatchNorm(), jax.nn.relu, fcnn.residual(fcnn.Conv(4, 1)), fcnn.MaxPool(2),
        fcnn.Dropout(0.5), fcnn.Flatten(), fcnn.Dense(2),
    )  # fmt: skip
    model = both(net, ((8, 8, 1),))[2]
    assert [node.name for node in model.graph.node][:-1] == [
        *("conv1/Conv", "batch_norm1/BatchNormalization", "relu1/Relu", "residual1/body/Conv", "residual1/Add"),
        *("max_pool1/MaxPool", "flatten1/Flatten", "dense1/Gemm"),
    ]
    assert [weight.name for weight in model.graph.initializer][:2] == ["conv1/kernel", "conv1/bias"]


def test_a_repeated_block_is_written_copy_by_copy_and_any_batch_is_taken():
    net = fcnn.repeat(fcnn.serial(fcnn.Conv(4, 3, padding=1), fcnn.BatchNorm(), jax.nn.relu), 3)
    inputs = [np.random.default_rng(0).normal(size=(5, 6, 7, 4)).astype("float32")]
    found, wanted, model = both(net, ((6, 7, 4),), inputs)
    assert_equal(found, wanted)
    assert collections.Counter(node.op_type for node in model.graph.node)["Conv"] == 3


def test_the_file_is_written_whole_or_not_at_all(tmp_path):
    net = models.lenet5()
    params = net.init(jax.random.key(0), (28, 28, 1))
    interop.to_onnx(net, params, None, (28, 28, 1), path=tmp_path / "net.onnx")
    onnx.checker.check_model(str(tmp_path / "net.onnx"), full_check=True)
    with pytest.raises(ValueError, match="conv2: kernel"):
        interop.to_onnx(net, params, None, (4, 4, 1), path=tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="to_onnx: there is no shape"):
        interop.to_onnx(net, params, None)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_what_has_no_form_is_named_with_its_path():
    net = fcnn.serial(body=fcnn.serial(fcnn.Conv(2, 3), lambda x: jnp.sort(x, -1)))
    with pytest.raises(ValueError, match=r"to_onnx: body/.*: uses the operation sort, which has no form in ONNX here"):
        both(net, ((6, 5, 1),))
    net = fcnn.serial(fcnn.Conv(2, 3), lambda x: x - x.mean(0))
    with pytest.raises(ValueError, match="joins the examples of a batch"):
        both(net, ((6, 5, 1),))


@dataclass(frozen=True)
class Centred(fcnn.Layer):
    """A layer of the tests' own, with a parameter."""

    def parameters(self, shape):
        return {"offset": fcnn.Parameter(shape[-1:], jax.nn.initializers.ones)}

    def forward(self, params, x):
        return x - x.mean(-1, keepdims=True) + params["offset"]


def test_a_layer_of_ones_own_is_written_operation_by_operation():
    found, wanted, model = both(fcnn.serial(fcnn.Conv(4, 3), Centred(), fcnn.MaxPool(2)), ((8, 8, 1),))
    assert_equal(found, wanted)
    assert "centred1/ReduceSum" in [node.name for node in model.graph.node]
    assert not [node.name for node in model.graph.node if node.op_type == "Transpose"]


def test_pooling_with_padding_is_one_node():
    net = fcnn.serial(
        fcnn.MaxPool(3, stride=2, padding=1), fcnn.AvgPool(3, stride=2, padding=1, count_padding=True),
        fcnn.AvgPool(3, stride=2, padding=1, ceil_mode=True),
    )  # fmt: skip
    found, wanted, model = both(net, ((17, 16, 2),))
    assert_equal(found, wanted)
    kinds = collections.Counter(node.op_type for node in model.graph.node)
    assert (kinds["MaxPool"], kinds["AveragePool"], kinds["Pad"]) == (1, 2, 0)


def test_a_difference_would_be_seen():
    found, wanted, _ = both(models.lenet5(), ((28, 28, 1),))
    with pytest.raises(AssertionError):
        assert_equal([found[0] * 1.001], wanted)
