"""What people write who know other libraries: each gets one sentence that says what to write here."""

import importlib
import re

import jax
import numpy as np
import pytest
from mistakes import images, refused

import fcnn
from fcnn import elsewhere

NET = fcnn.serial(fcnn.Conv(4, 3), jax.nn.relu, fcnn.Flatten(), fcnn.Dense(3))
MODULES = [
    "fcnn", "fcnn.ops", "fcnn.data", "fcnn.data.augment", "fcnn.training", "fcnn.analysis", "fcnn.draw", "fcnn.interop",
    "fcnn.models", "fcnn.reference", "fcnn.scan", "fcnn.testing", "fcnn.layers", "fcnn.compose", "fcnn.selftest",
]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_dir_shows_names_of_the_library_alone(name):
    module = importlib.import_module(name)
    shown = dir(module)
    assert shown == sorted(module.__all__)
    for entry in shown:
        value = getattr(module, entry)
        home = getattr(value, "__module__", None) or getattr(value, "__name__", "fcnn")
        assert str(home).startswith("fcnn") or not callable(value), entry


#: names that their users know, counted over the libraries' own tutorials, and what must be in the answer
NAMES = {
    "Conv2d": "fcnn.Conv(features, kernel)",
    "Conv1d": "fcnn.Conv",
    "Conv3D": "fcnn.Conv",
    "Linear": "fcnn.Dense(features)",
    "ConvTranspose2d": "fcnn.ConvTranspose",
    "Conv2DTranspose": "fcnn.ConvTranspose",
    "ReLU": "jax.nn.relu",
    "LeakyReLU": "jax.nn.leaky_relu(x, 0.3)",
    "LRN": "alpha=a / n, k=1",
    "relu": "jax.nn.relu",
    "Softmax": "jax.nn.softmax",
    "MaxPool2d": "fcnn.MaxPool(window)",
    "MaxPooling2D": "fcnn.MaxPool",
    "AvgPool2d": "count_padding=True",
    "AveragePooling2D": "fcnn.AvgPool",
    "AdaptiveAvgPool2d": "fcnn.AdaptiveAvgPool",
    "GlobalAveragePooling2D": "fcnn.GlobalAvgPool()",
    "BatchNorm2d": "fcnn.BatchNorm()",
    "BatchNormalization": "fcnn.BatchNorm(momentum=0.99, epsilon=1e-3, unbiased=False)",
    "LayerNormalization": "epsilon=1e-3",
    "RMSNorm": "fcnn.ScaleChannels(1.0)",
    "GELU": "jax.nn.gelu(x, approximate=False)",
    "Dropout2d": "whole_channels=True",
    "Sequential": "fcnn.serial(",
    "Module": "fcnn.Layer",
    "Model": "fcnn.graph",
    "nn": "fcnn.Conv",
    "Embedding": "Parameter",
    "CrossEntropyLoss": "optax.losses",
    "MSELoss": "optax.losses",
    "Adam": "optax.adam",
    "optim": "optax.adam",
    "DataLoader": "fcnn.fit",
    "no_grad": "jax.grad",
    "Tensor": "jax.numpy.asarray",
    "save": "fcnn.interop.save_weights",
    "DepthwiseConv2D": "groups=channels",
    "SeparableConv2D": "fcnn.serial(",
    "UpSampling2D": "fcnn.Resize(scale=2)",
    "Identity": "lambda x: x",
    "FanOut": "fcnn.branches",
    "LSTM": "jax.lax.scan",
    "depth_to_space": "fcnn.PixelShuffle(factor)",
    "ZeroPad2d": "fcnn.Pad(1)",
    "ReplicationPad3d": "REFLECT",
    "CenterCrop": "fcnn.Crop(size=size)",
    "DropPath": "fcnn.StochasticDepth(rate)",
    "LayerScale": "fcnn.ScaleChannels(initial)",
    "DenseGeneral": "fcnn.Dense",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_other_libraries_at_the_door(name):
    with pytest.raises(AttributeError, match=rf"module 'fcnn' has no attribute '{name}'; .") as caught:
        getattr(fcnn, name)
    assert NAMES[name] in str(caught.value)
    assert not hasattr(fcnn, name)


def test_unknown_names_are_unknown_and_what_is_advised_exists():
    with pytest.raises(AttributeError, match=r"module 'fcnn' has no attribute 'Blorp'$"):
        fcnn.Blorp  # noqa: B018
    text = " ".join([*elsewhere._NAMES.values(), *elsewhere._METHODS.values()])
    for path in set(re.findall(r"\b(?:fcnn|jax)(?:\.\w+)+", text)):
        value = {"fcnn": fcnn, "jax": jax}[path.split(".")[0]]
        for step in path.split(".")[1:]:
            value = getattr(value, step)
    for name in elsewhere._ACTIVATIONS.values():
        assert callable(getattr(jax.nn, name))
    assert not set(fcnn.__all__) & {*elsewhere._NAMES, *elsewhere._ACTIVATIONS}


METHODS = {
    "train": "net.apply_train", "eval": "net.apply(params, x)", "fit": "fcnn.fit(", "predict": "net.apply(",
    "summary": "fcnn.summary(net, shape)", "state_dict": "net.init(key, shape)", "compile": "fcnn.fit(",
    "evaluate": "fcnn.evaluate(", "named_parameters": "net.init", "children": "net.parts", "to": "jax.device_put",
    "zero_grad": "jax.grad", "load_state_dict": "net.apply(params, x)", "save": "fcnn.interop.save_weights",
    "get_layer": 'net["name"]', "count_params": "fcnn.summary", "half": "astype",
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_methods_of_other_libraries(name):
    for net in (NET, fcnn.Dense(3), fcnn.residual(jax.nn.relu), fcnn.Scan(NET, 8)):
        with pytest.raises(AttributeError, match=rf"has no attribute '{name}'; .") as caught:
            getattr(net, name)
        assert METHODS[name] in str(caught.value)
    with pytest.raises(AttributeError, match=r"'Serial' has no attribute 'blorp'$"):
        NET.blorp  # noqa: B018


@pytest.mark.parametrize("net", [NET, fcnn.Dense(3), fcnn.Conv(4, 3), fcnn.residual(jax.nn.relu)], ids=repr)
def test_a_network_is_not_called_and_says_what_to_call(net):
    with refused(TypeError, net.label, "net.apply(params, x)", "net.init(key, shape)"):
        net(images(2, 8, 8, 1))
    with pytest.raises(TypeError, match=r"a network holds no arrays: net\.init"):
        net.parameters()
    with pytest.raises(TypeError, match=r"write net\.apply\(params, x\)"):
        net.forward(images(2, 8, 8, 1))
    assert bool(net) is True


OPTIONS = [
    (lambda: fcnn.Conv(16, kernel_size=3), "conv", "Conv has no argument kernel_size; write kernel=3"),
    (lambda: fcnn.Conv(in_channels=3, out_channels=16, kernel_size=3), "conv", "comes from the shape given to init"),
    (lambda: fcnn.Conv(filters=16, kernel_size=3), "conv", "no argument filters; write features=16"),
    (lambda: fcnn.Conv(16, 3, use_bias=False), "conv", "no argument use_bias; write bias=False"),
    (lambda: fcnn.Conv(16, 3, activation="relu"), "conv", "fcnn.serial(layer, jax.nn.relu)"),
    (lambda: fcnn.Conv(16, 3, strides=2), "conv", "no argument strides; write stride=2"),
    (lambda: fcnn.Conv(16, 3, padding_mode="circular"), "conv", 'padding="CIRCULAR"'),
    (lambda: fcnn.Conv(16, 3, feature_group_count=2), "conv", "write groups=2"),
    (lambda: fcnn.MaxPool(pool_size=2), "max_pool", "write window=2"),
    (lambda: fcnn.MaxPool(kernel_size=2), "max_pool", "it takes window, stride"),
    (lambda: fcnn.Dropout(p=0.5), "dropout", "write rate=0.5"),
    (lambda: fcnn.Dense(units=10), "dense", "write features=10"),
    (lambda: fcnn.Dense(in_features=3, out_features=10), "dense", "shape given to init"),
    (lambda: fcnn.BatchNorm(eps=1e-3), "batch_norm", "write epsilon=0.001"),
    (lambda: fcnn.BatchNorm(num_features=3), "batch_norm", "shape given to init"),
    (lambda: fcnn.PixelShuffle(upscale_factor=2), "pixel_shuffle", "write factor=2"),
    (lambda: fcnn.Crop(cropping=1), "crop", "write amount=1"),
    (lambda: fcnn.Resize(scale_factor=2), "resize", "write scale=2"),
    (lambda: fcnn.Resize(8, mode="bicubic"), "resize", "write method='bicubic'"),
    (lambda: fcnn.StochasticDepth(drop_prob=0.1), "stochastic_depth", "write rate=0.1"),
    (lambda: fcnn.PReLU(num_parameters=64), "prelu", "write per_channel=True"),
    (lambda: fcnn.ScaleChannels(layer_scale_init_value=1e-6), "scale_channels", "write initial=1e-06"),
    (lambda: fcnn.GroupNorm(num_groups=4), "group_norm", "write groups=4"),
    (lambda: fcnn.AvgPool(2, count_include_pad=True), "avg_pool", "write count_padding=True"),
    (lambda: fcnn.Dense(3, blorp=1), "dense", "no argument blorp; it takes features, bias, kernel_init, bias_init"),
    (lambda: fcnn.Conv(3, 16, 3), "conv", "for PyTorch's Conv2d(3, 16, 3) write Conv(16, 3)"),
    (lambda: fcnn.Conv(2, 3, 2), "conv", "and for a stride of 2 Conv(2, 3, stride=2)"),
    (lambda: fcnn.ConvTranspose(3, 16, 3, 2), "conv_transpose", "write ConvTranspose(16, 3)"),
    (
        lambda: fcnn.MaxPool(2, 2),
        "max_pool",
        "takes 1 value by position, 2 were given; write MaxPool(2, stride=2)",
    ),
    (lambda: fcnn.AvgPool(3, 1), "avg_pool", "write AvgPool(3, stride=1)"),
    (lambda: fcnn.LpPool(2, 3), "lp_pool", "write LpPool(3, power=2)"),
    (lambda: fcnn.Dense(784, 10), "dense", "write Dense(10)"),
    (lambda: fcnn.BatchNorm(64), "batch_norm", "write BatchNorm()"),
    (lambda: fcnn.LayerNorm(64), "layer_norm", "write LayerNorm()"),
    (lambda: fcnn.GroupNorm(4, 64), "group_norm", "write GroupNorm(4)"),
    (lambda: fcnn.Flatten(1), "flatten", "give options by keyword: first, last"),
    (lambda: fcnn.Scan(NET, 8, 2), "scan", "stride"),
]


@pytest.mark.parametrize(("make", "where", "says"), OPTIONS)
def test_hyperparameters_of_other_libraries(make, where, says):
    with refused(TypeError, where, says):
        make()


def test_arrays_of_other_libraries_and_what_is_none():
    torch = pytest.importorskip("torch")
    params = NET.init(jax.random.key(0), (8, 8, 1))
    with refused(TypeError, "serial", "torch.Tensor", "x.numpy()", "permute(0, 2, 3, 1)"):
        NET.apply(params, torch.zeros(2, 1, 8, 8))
    with refused(TypeError, "serial", "a list", "use jnp.asarray"):
        NET.apply(params, [[1.0]])

    class Image:
        """Like a picture of Pillow: an object that NumPy can read."""

        __array_interface__ = np.zeros((8, 8, 1), "uint8").__array_interface__

    Image.__module__ = "PIL.Image"
    with refused(TypeError, "serial", "a PIL.Image.Image", "numpy.asarray(x)"):
        NET.apply(params, Image())
