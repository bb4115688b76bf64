"""What a scan refuses, in which words, and which functions may be scanned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_scan import filled, one_by_one

import fcnn
from fcnn.scan import Scan
from fcnn.scan.positionwise import why_not_positionwise

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
        "instance_norm1: .*statistics over the whole window",
    ),
    "group norm": (
        lambda: Scan(ending_in(fcnn.GroupNorm(1)), 8).out_shape((9, 9, 1)),
        ValueError,
        "group_norm1: .*statistics over the whole window",
    ),
    "layer norm of the flattened window": (
        lambda: Scan(fcnn.serial(fcnn.Flatten(), fcnn.LayerNorm(), fcnn.Dense(2)), 8).out_shape((9, 9, 1)),
        ValueError,
        "layer_norm1: .*follows Flatten",
    ),
    "kernels of every place": (
        lambda: Scan(ending_in(fcnn.LocallyConnected(2, 2)), 8).out_shape((9, 9, 1)),
        ValueError,
        "kernel of its own for every place",
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
    "no space to convolve over": (
        lambda: fcnn.fully_convolutional(fcnn.Dense(2), {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, (3,)),
        ValueError,
        "no space",
    ),
}


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
    "one size alone": (lambda x: x + jnp.zeros((8, 8, 3)), "alone"),
    "a constant": (lambda x: jnp.ones(x.shape), "does not depend"),
}


@pytest.mark.parametrize("name", POSITIONWISE)
def test_which_functions_are_positionwise(name):
    function, expected = POSITIONWISE[name]
    found = why_not_positionwise(function, (8, 8, 3))
    assert (found is None) if expected is None else (expected in found)
