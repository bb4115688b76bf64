"""Receptive fields read off the operations of functions and wirings, against which outputs change with which sample."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn.scan.receptive_field import receptive_field


def resized(numerator, denominator, method, **options):
    """A function that resizes the space by a fraction."""

    def resize(x):
        space = (n * numerator // denominator for n in x.shape[1:-1])
        return jax.image.resize(x, (x.shape[0], *space, x.shape[-1]), method, **options)

    return resize


#: function, step, size and beginning of a field (None: only that nothing outside is seen)
FUNCTIONS = {
    "nearest": (resized(2, 1, "nearest"), Fraction(1, 2), None),
    "linear": (resized(2, 1, "linear"), Fraction(1, 2), None),
    "cubic": (resized(3, 1, "cubic"), Fraction(1, 3), None),
    "lanczos": (resized(2, 1, "lanczos3"), Fraction(1, 2), None),
    "two thirds": (resized(2, 3, "linear"), Fraction(3, 2), None),
    "smaller": (resized(1, 2, "linear"), 2, (4, -1)),  # antialiased: a triangle over four samples
    "smaller, not smoothed": (resized(1, 2, "linear", antialias=False), 2, (2, 0)),
    "smaller, nearest": (resized(1, 3, "nearest"), 3, (1, 1)),
    "repeated": (lambda x: jnp.repeat(x, 3, axis=1), Fraction(1, 3), None),
    "every other": (lambda x: x[:, ::2], 2, (1, 0)),
    "taken": (lambda x: x[:, jnp.arange(x.shape[1] // 3) * 3 + 2], 3, (1, 2)),
    "padded": (lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 0)), constant_values=3), 1, (1, -2)),
    "spread": (lambda x: jax.lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1), (0, 0, 0))), Fraction(1, 2), None),
    "to channels": (lambda x: x.reshape(x.shape[0], x.shape[1] // 2, 2 * x.shape[2]), 2, (2, 0)),
    "from channels": (lambda x: x.reshape(x.shape[0], 2 * x.shape[1], -1), Fraction(1, 2), None),
    "regrouped": (lambda x: x.reshape(x.shape[0], 2 * x.shape[1] // 3, -1), Fraction(3, 2), None),
    "differences": (lambda x: x[:, 1:] - x[:, :-1], 1, (2, 0)),
    "pooled by hand": (lambda x: x.reshape(x.shape[0], -1, 4, x.shape[2]).max(2), 4, (4, 0)),
    "windows": (lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 1), (1, 2, 1), "VALID"), 2, (3, 0)),
    "convolved": (lambda x: fcnn.ops.conv(x, jnp.ones((3, 2, 2)), stride=2, dilation=2, padding=1), 2, (5, -1)),
    "convolved by JAX": (
        lambda x: jax.lax.conv_general_dilated(
            x, jnp.ones((4, 2, 2)), (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        ),
        1,
        (4, -1),
    ),
    "averaged over what is there": (lambda x: fcnn.ops.avg_pool(x, 3, stride=1, padding="SAME"), 1, (3, -1)),
    "largest": (lambda x: fcnn.ops.max_pool(x, 3, stride=2), 2, (3, 0)),
    "transposed convolution": (
        lambda x: fcnn.ops.conv_transpose(x, jnp.ones((4, 2, 2)), stride=2, padding=1),
        Fraction(1, 2),
        None,
    ),
}


def sees(function, size, channels=2):
    """Which sample moves which output, (outputs, samples), for several drawn inputs."""
    compiled, found = jax.jit(function), 0
    for seed in range(3):
        numbers = np.random.default_rng(seed)
        x = numbers.normal(size=(1, size, channels)).astype(np.float32)
        moved = np.repeat(x, size, 0)
        moved[np.arange(size), np.arange(size)] += 3 * numbers.normal(size=(size, channels))
        before, after = np.asarray(compiled(x)), np.asarray(compiled(moved))
        found = found | (np.abs(after - before) > 1e-6).any(-1)
    return found.T


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_sees_what_its_operations_say(name):
    function, step, exact = FUNCTIONS[name]
    size = 24
    seen, found = receptive_field(function, (size, 2)), sees(function, size)
    assert seen.step == (step,)
    assert exact is None or (seen.size[0], seen.first[0]) == exact
    inner = []
    for i, row in enumerate(found):
        first = seen.first[0] + seen.step[0] * i
        last = first + seen.size[0] - 1
        places = np.flatnonzero(row)
        assert not len(places) or (first <= places[0] and places[-1] <= last)
        if first >= 0 and last < size and len(places):
            inner.append(places[-1] - places[0] + 1)
    assert max(inner) >= seen.size[0] - 1  # the field is no larger than it has to be


def convolutions(features):
    return fcnn.serial(fcnn.Conv(features, 3, padding="SAME"), jax.nn.relu)


@fcnn.graph(
    first=convolutions(3),
    down=fcnn.MaxPool(2),
    low=convolutions(4),
    lowest=fcnn.serial(fcnn.MaxPool(2), convolutions(4), resized(2, 1, "linear")),
    last=convolutions(3),
    out=fcnn.Dense(2),
)
def unet(layer, x):
    """Two levels with skips, one resized by a layer, one in the wiring."""
    a = layer.first(x)
    b = layer.low(layer.down(a))
    c = jnp.concatenate([b, layer.lowest(b)], -1)
    return layer.out(layer.last(jnp.concatenate([a, resized(2, 1, "nearest")(c)], -1)))


@fcnn.graph(body=fcnn.Conv(4, 3), up=fcnn.ConvTranspose(2, 2, stride=2), down=fcnn.Conv(3, 3, stride=2, padding="SAME"))
def cropped(layer, x):
    """A skip that is cut to size, as in the first U-Net; the body is used twice."""
    deep, skip = layer.up(layer.down(x)), layer.body(layer.body(x))
    return jnp.concatenate([deep[:, 2:-2, 2:-2], skip], -1)


TILED = {
    "unet": (unet, (64, 48, 2), 36),
    "cropped": (cropped, (50, 46, 4), 20),
    "in a chain": (fcnn.serial(fcnn.Conv(2, 3, stride=2, padding="SAME"), unet, fcnn.MaxPool(2)), (96, 64, 1), 64),
    "resized between": (
        fcnn.serial(fcnn.Conv(2, 3), resized(3, 2, "cubic"), fcnn.Conv(2, 5, padding="SAME")),
        (62, 50, 2),
        28,
    ),
    "cut and padded": (
        fcnn.serial(
            lambda x: x[:, 1:-2, 3:],
            fcnn.Conv(2, 3, padding="SAME"),
            lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 3), (0, 0))),
        ),
        (40, 37, 2),
        16,
    ),
}


@pytest.mark.parametrize("name", TILED)
def test_graphs_and_resizing_go_by_tiles(name, x64):
    net, shape, tile = TILED[name]
    params = net.init(jax.random.key(0), shape)
    image = np.random.default_rng(1).normal(size=shape)
    whole = np.asarray(jax.jit(net.apply)(params, image[None]))[0]
    parts = fcnn.scan_tiles(net, params, image, tile=tile, progress=False)
    np.testing.assert_allclose(parts, whole, atol=1e-12)


def test_the_field_of_a_unet_by_hand():
    """Samples to the left and right of an output: 1 at the full, 2 at the half, 4 at the quarter resolution."""
    seen = receptive_field(unet, (64, 64, 1))
    assert seen.step == (1, 1)
    assert seen.period == (4, 4)
    # last conv 1, nearest from half, linear from quarter (2 of them), conv at quarter, pool to half, conv, pool, conv
    reached = []
    for output in range(32, 36):
        half = [(output - 1) // 2, (output + 1) // 2]
        quarter = [int(np.floor((half[0] - 0.5) / 2)), int(np.floor((half[1] - 0.5) / 2)) + 1]
        fine = [2 * (quarter[0] - 1) - 1, 2 * (quarter[1] + 1) + 1 + 1]
        full = [2 * fine[0] - 1, 2 * fine[1] + 1 + 1]
        reached.append((full[0] - output, full[1] - output))
    low, high = min(a for a, _ in reached), max(b for _, b in reached)
    assert seen.first[0] <= low
    assert seen.first[0] + seen.size[0] - 1 >= high
    assert seen.size[0] <= high - low + 1 + 4  # rounded to whole samples at every level


def test_a_small_image_is_enough_to_see_how_resizing_goes_on():
    small, large = receptive_field(unet, (8, 8, 1)), receptive_field(unet, (64, 64, 1))
    assert small == large


@pytest.mark.parametrize("size", [10, 11, 12, 13, 14])
def test_a_small_image_has_its_own_padding_where_strides_do_not_divide_it(size):
    @fcnn.graph(conv=fcnn.Conv(2, 4, stride=5, padding="SAME"))
    def net(layer, x):
        return resized(2, 1, "linear")(layer.conv(x))

    small, large = receptive_field(net, (size, 1)), receptive_field(net, (size + 5 * 60, 1))
    assert small == large
