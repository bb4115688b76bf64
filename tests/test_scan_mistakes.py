"""What a scan refuses, in which words, and which functions may be scanned."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_scan import filled, one_by_one

import fcnn
from fcnn.layer import Parameter
from fcnn.scan import Scan
from fcnn.tracing.positionwise import why_not_positionwise

relu = jax.nn.relu

GOOD = fcnn.serial(fcnn.Conv(2, 3), fcnn.Flatten(), fcnn.Dense(2))


def ending_in(*layers):
    return fcnn.serial(fcnn.Conv(2, 3), *layers, fcnn.Flatten(), fcnn.Dense(2))


MISTAKES = {
    "a stride of zero": (lambda: Scan(GOOD, 8, stride=0), ValueError, "scan: stride is 0, it must be at least 1"),
    "a window of zero": (lambda: Scan(GOOD, 0), ValueError, "scan: window"),
    "an unknown method": (lambda: Scan(GOOD, 8, method="fast"), ValueError, "method 'fast' is unknown"),
    "a list of layers": (lambda: Scan([GOOD], 8), TypeError, "unpack it with"),
    "fragments that are no flag": (lambda: Scan(GOOD, 8, fragments=2), TypeError, "fragments"),
    "a chunk of zero": (lambda: Scan(GOOD, 8, chunk=0), ValueError, "chunk"),
    "a window larger than the image": (
        lambda: Scan(GOOD, 8).out_shape((20, 7, 1)),
        ValueError,
        r"window of \(8, 8\) does not fit an input of \(20, 7, 1\)",
    ),
    "a window of another rank": (lambda: Scan(GOOD, (8, 8)).out_shape((20, 1)), ValueError, "window"),
    "no space": (lambda: Scan(GOOD, 8).out_shape((20,)), ValueError, "space dimensions"),
    "other channels": (
        lambda: Scan(GOOD, 8).apply(Scan(GOOD, 8).init(jax.random.key(0), (9, 9, 1)), jnp.ones((1, 9, 9, 3))),
        ValueError,
        "conv1: kernel has shape .* takes 1 channels",
    ),
    "params of another window": (
        lambda: Scan(GOOD, 8).apply(Scan(GOOD, 7).init(jax.random.key(0), (9, 9, 1)), jnp.ones((1, 9, 9, 1))),
        ValueError,
        "dense1: kernel has shape",
    ),
    "padding inside the window": (
        lambda: Scan(ending_in(fcnn.Conv(2, 3, padding="SAME")), 8).out_shape((9, 9, 1)),
        ValueError,
        r"conv2: .*pads the window of \(6, 6\): its border is part.*method=\"patches\"",
    ),
    "a window of pooling past the end": (
        lambda: Scan(ending_in(fcnn.MaxPool(4, ceil_mode=True)), 8).out_shape((9, 9, 1)),
        ValueError,
        "max_pool1: .*pads the window",
    ),
    "instance norm": (
        lambda: Scan(ending_in(fcnn.InstanceNorm()), 8).out_shape((9, 9, 1)),
        ValueError,
        "instance_norm1: .*statistics over all positions",
    ),
    "group norm": (
        lambda: Scan(ending_in(fcnn.GroupNorm(1)), 8).out_shape((9, 9, 1)),
        ValueError,
        "group_norm1: .*statistics over all positions",
    ),
    "layer norm of the flattened window": (
        lambda: Scan(fcnn.serial(fcnn.Flatten(), fcnn.LayerNorm(), fcnn.Dense(2)), 8).out_shape((9, 9, 1)),
        ValueError,
        "layer_norm1: .*follows Flatten",
    ),
    "kernels of every place": (
        lambda: Scan(ending_in(fcnn.LocallyConnected(2, 2)), 8).out_shape((9, 9, 1)),
        ValueError,
        "kernel of its own for every position",
    ),
    "a transposed convolution": (
        lambda: Scan(ending_in(fcnn.ConvTranspose(2, 2)), 8).out_shape((9, 9, 1)),
        ValueError,
        "conv_transpose1: ",
    ),
    "a function of the whole window": (
        lambda: Scan(ending_in(lambda x: x - x.mean((1, 2), keepdims=True)), 8).out_shape((9, 9, 1)),
        ValueError,
        "mixes positions",
    ),
    "paths of different steps": (
        lambda: Scan(ending_in(fcnn.branches(fcnn.Conv(2, 2), fcnn.Conv(2, 1, stride=2))), 5).out_shape((9, 9, 1)),
        ValueError,
        r"branches1: .*joins values \(1, 1\) samples apart and, in conv2, values \(2, 2\) samples apart",
    ),
    "integer images": (
        lambda: Scan(GOOD, 8).apply(Scan(GOOD, 8).init(jax.random.key(0), (9, 9, 1)), jnp.ones((1, 9, 9, 1), "uint8")),
        TypeError,
        "floating point",
    ),
    "no state": (
        lambda: Scan(ending_in(fcnn.BatchNorm()), 8).apply(
            Scan(ending_in(fcnn.BatchNorm()), 8).init(jax.random.key(0), (9, 9, 1)), jnp.ones((1, 9, 9, 1))
        ),
        ValueError,
        "batch_norm1: needs its mean and variance",
    ),
    "a network that makes more than a vector, as convolutions": (
        lambda: fcnn.fully_convolutional(Scan(fcnn.MaxPool(2), 4), {}, (8, 8, 1)),
        ValueError,
        "more than one vector",
    ),
    "cells within one value": (
        lambda: Scan(fcnn.serial(fcnn.Conv(2, 4), fcnn.AdaptiveAvgPool(3)), 4).out_shape((7, 8, 3)),
        ValueError,
        r"^adaptive_avg_pool1: .*lays several cells over one of the \(1, 1\) values",
    ),
    "a report of a window that is too large": (
        lambda: Scan(GOOD, 8).report((5, 9, 1)),
        ValueError,
        r"^scan: a window of \(8, 8\) does not fit an input of \(5, 9, 1\)",
    ),
    "no network, as convolutions": (
        lambda: fcnn.fully_convolutional("lenet", {}, (8, 8, 1)),
        TypeError,
        "^fully_convolutional: 'lenet' is neither a layer nor a function",
    ),
    "params that are lists, as convolutions": (
        lambda: fcnn.fully_convolutional(
            fcnn.serial(fcnn.Conv(1, 1, bias=False)), {"conv1": {"kernel": [1.0]}}, (4, 1)
        ),
        TypeError,
        "conv1: params entry 'kernel' must be an array, not a list",
    ),
    "params that are integers, as convolutions": (
        lambda: fcnn.fully_convolutional(
            fcnn.serial(fcnn.Conv(1, 1, bias=False)), {"conv1": {"kernel": jnp.ones((1, 1, 1), int)}}, (4, 1)
        ),
        TypeError,
        "conv1: params entry 'kernel' has dtype int",
    ),
    "a transposed layout, as convolutions": (
        lambda: fcnn.fully_convolutional(fcnn.serial(lambda x: x.swapaxes(1, 2), fcnn.Flatten()), {}, (8, 8, 1)),
        ValueError,
        "function1: .*mixes positions.*; it is not a convolution; leave it out",
    ),
    "no space to convolve over": (
        lambda: fcnn.fully_convolutional(fcnn.Dense(2), {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, (3,)),
        ValueError,
        "no space",
    ),
}


LARGE_SPACE = {
    "another function on large spaces": lambda x: 2 * x if x.shape[1] < 20 else x,
    "fewer axes": lambda x: x.max(-1),
    "more axes": lambda x: x[..., None],
}


@pytest.mark.parametrize("function", LARGE_SPACE.values(), ids=LARGE_SPACE)
def test_functions_that_would_be_another_on_the_whole_image_are_refused(function):
    """Followed by something that looks along the last axis: it would look along another."""
    net = fcnn.serial(fcnn.MaxPool(2), function, jax.nn.softmax)
    with pytest.raises(ValueError, match=r"^function1: <lambda> (computes with|makes \(4, 4).*method=\"patches\""):
        Scan(net, 8).apply({}, jnp.ones((1, 40, 41, 3)))
    assert Scan(net, 8, method="patches").out_shape((40, 41, 3))[:2] == (33, 34)


def test_a_layer_that_mixes_positions_in_training_alone_is_refused_there():
    net = ending_in(Centred())
    scan = Scan(net, 8)
    params = scan.init(jax.random.key(0), (9, 9, 1))
    assert scan.apply(params, jnp.ones((1, 9, 9, 1))).shape == (1, 2, 2, 2)
    with pytest.raises(ValueError, match=r"centred1: Centred\(\) in training mixes positions"):
        scan.apply_train(params, jnp.ones((1, 9, 9, 1)))


@dataclass(frozen=True)
class Centred(fcnn.Layer):
    """Something that looks at all positions in training alone."""

    def forward_eval(self, params, state, x):
        return x

    def forward_train(self, params, state, key, x):
        return x - x.mean((1, 2), keepdims=True), state


@dataclass(frozen=True)
class Slope(fcnn.Layer):
    """A leaky rectifier with a slope that is learnt: a parameter of one number."""

    def parameters(self, shape):
        return {"slope": Parameter((), jax.nn.initializers.constant(0.25))}

    def forward(self, params, x):
        return jnp.where(x > 0, x, params["slope"] * x)


def test_what_is_looked_into_may_hold_traced_values(x64):
    scan = Scan(fcnn.serial(Slope(), fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(3)), 4)
    params = jax.jit(lambda key: scan.init(key, (9, 9, 2)))(jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, 9, 2)))
    expected = one_by_one(scan.net, params, x, (4, 4), (1, 1))
    np.testing.assert_allclose(jax.jit(scan.apply)(params, x), expected, rtol=1e-12, atol=1e-13)
    times = jax.grad(lambda a: Scan(fcnn.serial(lambda x: a * x, fcnn.MaxPool(2)), 4).apply({}, x[..., :1] ** 2).sum())
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(x[0, ..., 0]) ** 2, (2, 2)).max((2, 3))
    counts = np.array([1, 1, 2, 2, 2, 2, 1, 1])  # of the windows of 4 and their maxima of 2, a step of 2 apart
    np.testing.assert_allclose(times(2.0), (windows * np.outer(counts, counts)).sum(), rtol=1e-12)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told(name):
    make, kind, words = MISTAKES[name]
    with pytest.raises(kind, match=words):
        make()


def test_patches_compute_what_layers_refuse(x64):
    net = ending_in(fcnn.Conv(2, 3, padding="SAME"), fcnn.InstanceNorm())
    scan = Scan(net, 8, stride=2, method="patches")
    params, _ = filled(scan, (13, 12, 1))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 13, 12, 1)))
    np.testing.assert_allclose(
        scan.apply(params, x), one_by_one(net, params, x, (8, 8), (2, 2)), rtol=1e-12, atol=1e-13
    )


# Which functions look at every position by itself.

POSITIONWISE = {
    "relu": (relu, None),
    "gelu": (jax.nn.gelu, None),
    "softmax": (jax.nn.softmax, None),
    "some channels": (lambda x: x[..., :2], None),
    "unit length": (lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), None),
    "a product of matrices": (lambda x: x @ jnp.ones((3, 4)), None),
    "weights of the channels": (lambda x: x * jnp.arange(3.0), None),
    "one number of its own": (lambda x: x * jnp.full((1,), 2.0), None),
    "another axis": (lambda x: x[:, :2], "mixes positions"),
    "a mean": (lambda x: x.mean((1, 2)), "mixes positions"),
    "a running sum": (lambda x: jnp.cumsum(x, 1), "mixes positions"),
    "turned": (lambda x: x.swapaxes(1, 2), "mixes positions"),
    "laid out": (lambda x: x.reshape(x.shape[0], -1, 3), "mixes positions"),
    "weights of the positions": (lambda x: x * jnp.arange(8.0).reshape(8, 1, 1), "differ from position to position"),
    "divided by the size": (lambda x: x / x.shape[1], "computes with the size of the space"),
    "divided by the number of positions": (lambda x: x / jnp.ones(x.shape[1:3]).sum(), "computes with the size"),
    "divided by the sizes' product": (
        lambda x: x / jnp.asarray(x.shape[1:3], "float32").prod(),
        "computes with the size",
    ),
    "weights of the channels, by the size": (lambda x: x * (np.ones(3, "float32") / x.shape[1]), "computes with the"),
    "to the power of the size": (lambda x: x ** x.shape[1], "computes with the size of the space"),
    "so many channels": (lambda x: x[..., : 1 + x.shape[1] % 2], "computes with the size of the space"),
    "zeros of the space": (lambda x: x + jnp.zeros(x.shape), None),
    "a choice": (lambda x: jnp.where(x > 0, x, jnp.zeros_like(x)), None),
    "one size only": (lambda x: x + jnp.zeros((8, 8, 3)), "only"),
    "a constant": (lambda x: jnp.ones(x.shape), "does not depend"),
}


@pytest.mark.parametrize("name", POSITIONWISE)
def test_which_functions_are_positionwise(name):
    function, expected = POSITIONWISE[name]
    found = why_not_positionwise(function, (8, 8, 3))
    assert (found is None) if expected is None else (expected in found)
