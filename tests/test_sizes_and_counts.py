"""Sizes and counts of networks: results known from formulas and published tables."""

import functools
import itertools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import declared, drawn, normal, parameter_count, sizes_after_each

import fcnn
from fcnn import Parameter


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 2), (5, 7)])
@pytest.mark.parametrize("space", [(9, 7), (12, 31)])
def test_the_output_size_is_the_formula_and_the_number_of_window_positions(space, kernel, padding, stride):
    (m, n), (p, q), d, s = space, kernel, padding, stride
    formula = ((m - p + 2 * d) // s + 1, (n - q + 2 * d) // s + 1)
    counted = tuple(
        sum(start + window <= size + 2 * d for start in range(0, size + 2 * d, s))
        for size, window in zip(space, kernel, strict=True)
    )
    net = fcnn.Conv(6, kernel, stride=stride, padding=padding)
    assert formula == counted
    assert net.out_shape((*space, 3)) == (*formula, 6)
    x = jax.ShapeDtypeStruct((2, *space, 3), "float32")
    assert jax.eval_shape(net.apply, declared(net, (*space, 3)), x).shape == (2, *formula, 6)


def test_a_dense_layer_on_a_photograph_has_billions_of_weights_where_a_convolution_has_1500():
    photograph = (200, 200, 3)
    dense = fcnn.serial(fcnn.Flatten(), fcnn.Dense(40_000, bias=False))
    assert parameter_count(dense, photograph) == 4_800_000_000

    convolution = fcnn.Conv(20, 5, stride=1, padding=4, bias=False)  # every overlap of kernel and image
    assert parameter_count(convolution, photograph) == 1_500
    assert convolution.out_shape(photograph) == (204, 204, 20)
    assert math.prod(convolution.out_shape(photograph)) == 832_320


def test_convolution_and_pooling_of_a_96_by_96_image():
    assert fcnn.serial(fcnn.Conv(7, 5), fcnn.MaxPool(4)).out_shape((96, 96, 3)) == (23, 23, 7)
    assert fcnn.serial(fcnn.Conv(7, 3, stride=3), fcnn.MaxPool(8)).out_shape((96, 96, 3)) == (4, 4, 7)


def alexnet(groups_of_conv2):
    return [
        fcnn.Conv(96, 11, stride=4),
        jax.nn.relu,
        fcnn.LocalResponseNorm(),
        fcnn.MaxPool(3, stride=2),
        fcnn.Conv(256, 5, padding=2, groups=groups_of_conv2),
        jax.nn.relu,
        fcnn.LocalResponseNorm(),
        fcnn.MaxPool(3, stride=2),
        fcnn.Conv(384, 3, padding=1),
        jax.nn.relu,
        fcnn.Conv(384, 3, padding=1, groups=2),
        jax.nn.relu,
        fcnn.Conv(256, 3, padding=1, groups=2),
        jax.nn.relu,
        fcnn.MaxPool(3, stride=2),
        fcnn.Flatten(),
        fcnn.Dense(4096),
        jax.nn.relu,
        fcnn.Dropout(0.5),
        fcnn.Dense(4096),
        jax.nn.relu,
        fcnn.Dropout(0.5),
        fcnn.Dense(1000),
    ]


def test_alexnet_layer_by_layer():
    layers, shape = alexnet(1), (227, 227, 3)
    changes = [size for size, _ in itertools.groupby(sizes_after_each(layers, shape))]
    assert changes == [
        (55, 55, 96),
        (27, 27, 96),
        (27, 27, 256),
        (13, 13, 256),
        (13, 13, 384),
        (13, 13, 256),
        (6, 6, 256),
        (9216,),
        (4096,),
        (1000,),
    ]
    kernels = {name: entry["kernel"].shape for name, entry in declared(fcnn.serial(*layers), shape).items()}
    assert kernels == {
        "conv1": (11, 11, 3, 96),
        "conv2": (5, 5, 96, 256),
        "conv3": (3, 3, 256, 384),
        "conv4": (3, 3, 192, 384),
        "conv5": (3, 3, 192, 256),
        "dense1": (9216, 4096),
        "dense2": (4096, 4096),
        "dense3": (4096, 1000),
    }


def test_alexnet_has_the_published_number_of_parameters():
    # as published, on two devices, the second convolution had two groups as well
    assert parameter_count(fcnn.serial(*alexnet(2)), (227, 227, 3)) == 60_965_224


def test_each_of_two_groups_sees_its_own_192_channels():
    net = fcnn.Conv(384, 3, groups=2)
    x = normal(1, 3, 3, 384)
    params = drawn(net, 3, 3, 384)
    before = net.apply(params, x)
    after = net.apply(params, x.at[..., 192:].add(1.0))
    assert np.array_equal(before[..., :192], after[..., :192])
    assert np.all(before[..., 192:] != after[..., 192:])


def connectomics_layers():
    return [
        fcnn.Conv(64, 3),
        jax.nn.relu,
        fcnn.Conv(48, 3),
        jax.nn.relu,
        fcnn.MaxPool(2),
        fcnn.Conv(48, 3),
        jax.nn.relu,
        fcnn.Conv(48, 3),
        jax.nn.relu,
        fcnn.MaxPool(2),
        fcnn.Flatten(),
        fcnn.Dense(32),
        jax.nn.relu,
        fcnn.Dense(2),
    ]


def test_the_sizes_of_a_network_for_connectomics():
    net, patch = fcnn.serial(*connectomics_layers()), (75, 75, 4)
    params = drawn(net, *patch, scale=0.05)
    sizes = [
        (73, 73, 64),
        (71, 71, 48),
        (35, 35, 48),
        (33, 33, 48),
        (31, 31, 48),
        (15, 15, 48),
        (15 * 15 * 48,),
        (32,),
        (2,),
    ]
    assert [size for size, _ in itertools.groupby(sizes_after_each(connectomics_layers(), patch))] == sizes
    seen = jax.jit(lambda params, x: fcnn.capture(net, params, x))(params, normal(2, *patch))
    paths = ["conv1", "conv2", "max_pool1", "conv3", "conv4", "max_pool2", "flatten1", "dense1", "dense2"]
    assert [seen[path].shape for path in paths] == [(2, *size) for size in sizes]
    assert np.isfinite(seen["dense2"]).all()


def test_every_pixel_of_a_large_image_is_the_centre_of_a_patch():
    net, patch = fcnn.serial(*connectomics_layers()), (75, 75, 4)
    border = 75 // 2
    pixels = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    padded = np.pad(pixels, ((border, border), (border, border), (0, 0)))
    patches = np.stack([padded[i : i + 75, j : j + 75] for i, j in np.ndindex(2, 3)])
    assert np.array_equal(patches[:, border, border].reshape(pixels.shape), pixels)
    classes = jax.jit(net.apply)(drawn(net, *patch, scale=0.05), patches).reshape(2, 3, 2)
    assert len(np.unique(classes[..., 0])) == 6  # each patch has an answer of its own


#: the maps of S2 that each of the sixteen maps of C3 sees, LeCun et al. 1998, table I
LENET_TABLE = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)
#: ten fixed codes of 84 values, standing in for the drawings of the digits of 1998
LENET_CODES = np.random.default_rng(0).choice([-1.0, 1.0], size=(10, 84)).astype("float32")


@dataclass(frozen=True)
class Subsample(fcnn.Layer):
    """The sum of each 2 x 2 window, times one trainable coefficient and plus one bias for each map."""

    def infer_shape(self, *shapes):
        return fcnn.AvgPool(2).out_shape(*shapes)

    def parameters(self, *shapes):
        channels = shapes[0][-1:]
        return {
            "coefficient": Parameter(channels, jax.nn.initializers.constant(0.25)),
            "bias": Parameter(channels, jax.nn.initializers.zeros),
        }

    def forward(self, params, *inputs):
        total = 4 * fcnn.ops.avg_pool(inputs[0], 2)
        return jax.nn.sigmoid(total * params["coefficient"] + params["bias"])


def chosen_maps(x, maps):
    return x[..., list(maps)]


def squash(x):
    return 1.7159 * jnp.tanh(2 / 3 * x)


def distance_to_codes(x):
    return jnp.square(x[:, None, :] - LENET_CODES).sum(-1)


def table_of_convolutions():
    return fcnn.branches(
        *(fcnn.serial(functools.partial(chosen_maps, maps=maps), fcnn.Conv(1, 5)) for maps in LENET_TABLE)
    )


def test_lenet_in_its_modern_dense_form_has_61706_parameters():
    layers = [
        fcnn.Conv(6, 5),
        jnp.tanh,
        fcnn.AvgPool(2),
        fcnn.Conv(16, 5),
        jnp.tanh,
        fcnn.AvgPool(2),
        fcnn.Conv(120, 5),
        jnp.tanh,
        fcnn.Flatten(),
        fcnn.Dense(84),
        jnp.tanh,
        fcnn.Dense(10),
    ]
    digit = (32, 32, 1)
    assert [size for size, _ in itertools.groupby(sizes_after_each(layers, digit))] == [
        (28, 28, 6),
        (14, 14, 6),
        (10, 10, 16),
        (5, 5, 16),
        (1, 1, 120),
        (120,),
        (84,),
        (10,),
    ]
    net = fcnn.serial(*layers)
    assert parameter_count(net, digit) == 61_706
    assert jax.jit(net.apply)(drawn(net, *digit), normal(2, *digit)).shape == (2, 10)


def test_lenet_as_published_has_60000_trainable_parameters():
    net = fcnn.serial(
        fcnn.Conv(6, 5),
        Subsample(),
        table_of_convolutions(),
        Subsample(),
        fcnn.Conv(120, 5),
        squash,
        fcnn.Flatten(),
        fcnn.Dense(84),
        squash,
        distance_to_codes,  # the codes are fixed, so they are no parameters
    )
    digit = (32, 32, 1)
    params = drawn(net, *digit)
    by_layer = {name: sum(leaf.size for leaf in jax.tree.leaves(entry)) for name, entry in params.items()}
    assert by_layer == {
        "conv1": 156,
        "subsample1": 12,
        "branches1": 1_516,
        "subsample2": 32,
        "conv2": 48_120,
        "dense1": 10_164,
    }
    assert parameter_count(net, digit) == sum(by_layer.values()) == 60_000
    distances = jax.jit(net.apply)(params, normal(2, *digit))
    assert distances.shape == (2, 10)
    assert (distances >= 0).all()


def test_each_map_of_lenets_second_convolution_sees_the_maps_of_the_published_table():
    net = table_of_convolutions()
    params = drawn(net, 5, 5, 6)
    jacobian = jax.jit(jax.jacobian(lambda x: net.apply(params, x[None])[0, 0, 0]))(jnp.zeros((5, 5, 6)))
    sees = np.any(np.asarray(jacobian) != 0, axis=(1, 2))  # (16 maps, 6 maps)
    assert [tuple(np.flatnonzero(row)) for row in sees] == list(LENET_TABLE)
    assert sees.sum(0).tolist() == [10] * 6
    assert sees.sum(1).tolist() == [3] * 6 + [4] * 9 + [6]
