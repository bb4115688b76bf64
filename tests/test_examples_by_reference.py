"""Convolution, sizes and counts by the reference: the worked examples 1 to 13, many side by side with fcnn."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.signal
from known import BLUR, SOBEL_HORIZONTAL, SOBEL_VERTICAL, drawn
from reference_oracle import assert_close, draw, normal

import fcnn
from fcnn import reference as ref
from fcnn.analysis import to_reference


def side_by_side(net, params, x, upstream):
    """The value, its pull-back to x and to the parameters, all by the reference and all equal to fcnn's."""
    node, gradients = to_reference(net, params, x.shape[1:], batch=len(x))
    value = node.forward(x)
    (dx,) = node.backward(upstream)
    theirs, pullback = jax.vjp(jax.jit(net.apply), params, x)
    assert_close(theirs, value)
    of_params, of_x = pullback(upstream)
    assert_close(of_x, dx, "the gradient of x")
    jax.tree.map(lambda a, b: assert_close(a, b, "the gradient of a parameter"), of_params, gradients())
    return value, dx, gradients()


def filtered(pixels, *kernels, padding="VALID"):
    """An image under some kernels, one plane for each, by the reference and by fcnn."""
    kernel = np.stack(kernels, -1).reshape(*kernels[0].shape, 1, len(kernels))
    net = fcnn.Conv(len(kernels), kernels[0].shape, padding=padding, bias=False)
    x = np.array(pixels, float)[None, ..., None]
    upstream = normal(3, 1, *net.out_shape(x.shape[1:]))
    value, _, _ = side_by_side(net, {"kernel": kernel}, x, upstream)
    return np.moveaxis(value[0], -1, 0) if len(kernels) > 1 else value[0, ..., 0]


def test_example_1_convolution_by_hand():
    x, kernel, g = np.array([1.0, 2, 3]).reshape(1, 3, 1), np.array([0.3, 0.5]).reshape(2, 1, 1), np.array([-0.1, 0.2])
    node = ref.Conv(kernel=kernel, bias=np.zeros(1))
    by_hand = {"kernel": [0.3, 0.4], "bias": [0.1], "x": [-0.03, 0.01, 0.1], "y": [1.3, 2.1]}
    assert_close(node.forward(x).ravel(), by_hand["y"])
    assert_close(ref.conv_by_definition(x, kernel).ravel(), by_hand["y"])
    (dx,) = node.backward(g.reshape(1, 2, 1))
    assert_close(dx.ravel(), by_hand["x"])
    assert_close(node.gradients["kernel"].ravel(), by_hand["kernel"])
    assert_close(node.gradients["bias"], by_hand["bias"])
    for name, actual in zip(
        ("x", "kernel", "bias"), ref.conv_gradients_by_definition(x, kernel, g.reshape(1, 2, 1)), strict=True
    ):
        assert_close(actual.ravel(), by_hand[name])


def test_example_2_shared_unshared_dense():
    assert ref.count_weights(ref.scanning_sets((3, 3), 2)) == (4, 16, 36)
    assert ref.LocallyConnected(kernel=draw(2, 2, 2, 2, 1, 1)).params["kernel"].size == 16
    assert np.unique(ref.scanning_sets((3, 3), 2), return_counts=True)[1].tolist() == [20, 4, 4, 4, 4]  # 20 absent


def test_example_3_a_shared_parameter_gets_the_sum_over_its_edges():
    node = ref.SharedLinear(values=np.array([0.5]), sets=np.array([[0, 0], [-1, 0]]))
    node.forward(np.array([[1.0, 10.0]]))
    node.backward(np.array([[2.0, 3.0]]))
    assert node.gradients["values"].tolist() == [1 * 2 + 1 * 3 + 10 * 3]


@pytest.mark.parametrize(("space", "kernel"), [((9,), (4,)), ((7, 6), (3, 2)), ((4, 5, 3), (2, 3, 2))])
def test_example_4_a_correlation_is_a_convolution_with_the_turned_kernel(space, kernel, x64):
    pixels, weights = draw(*space), draw(*kernel)
    correlated = scipy.signal.correlate(pixels, weights, mode="valid", method="direct")
    convolved = scipy.signal.convolve(pixels, weights, mode="valid", method="direct")
    assert np.abs(correlated - convolved).max() > 0.1
    assert_close(filtered(pixels, weights), correlated)
    assert_close(filtered(pixels, np.flip(weights)), convolved)
    by_loops = ref.conv_by_definition(pixels[None, ..., None], np.flip(weights)[..., None, None])
    assert_close(by_loops[0, ..., 0], convolved)


def test_example_4_the_gradients_are_a_full_convolution_and_a_correlation(x64):
    pixels, weights, upstream = draw(7, 6), draw(3, 2), draw(5, 5)
    net = fcnn.Conv(1, (3, 2), bias=False)
    arrays = ({"kernel": weights[..., None, None]}, pixels[None, ..., None], upstream[None, ..., None])
    _, dx, of_params = side_by_side(net, *arrays)
    assert_close(dx[0, ..., 0], scipy.signal.convolve2d(upstream, weights, mode="full"))
    assert_close(of_params["kernel"][..., 0, 0], scipy.signal.correlate2d(pixels, upstream, mode="valid"))


def test_example_5_in_one_dimension_a_sparse_toeplitz_matrix(x64):
    size, theta = 7, 2
    w = dict(zip(range(1 - size, size), normal(0, 2 * size - 1), strict=True))  # one for each difference i - m
    matrix = np.array([[w[i - m] * (abs(i - m) <= theta) for m in range(size)] for i in range(size)])
    column, row = matrix[:, 0], matrix[0]
    assert np.array_equal(matrix, scipy.linalg.toeplitz(column, row))  # each row the row above, shifted by one
    assert np.count_nonzero(matrix) == size * (2 * theta + 1) - theta * (theta + 1)

    kernel = np.array([w[d] for d in range(theta, -theta - 1, -1)])  # sample j of the window lies at m = i + j - theta
    x, upstream = draw(1, size, 1), normal(1, 1, size, 1)
    net = fcnn.Conv(1, 2 * theta + 1, padding="SAME", bias=False)
    h, dx, _ = side_by_side(net, {"kernel": kernel[:, None, None]}, x, upstream)
    assert_close(h.ravel(), matrix @ x.ravel())
    assert_close(dx.ravel(), matrix.T @ upstream.ravel())
    as_sets = ref.SharedLinear(kernel, ref.scanning_sets((size,), 2 * theta + 1, padding="SAME"))
    assert np.array_equal(as_sets.matrix(), matrix.T)  # inputs come first there


def test_example_5_in_two_dimensions_a_doubly_block_toeplitz_matrix(x64):
    rows, columns, theta = 4, 5, 1
    pixels, w = rows * columns, normal(0, 3, 3)  # w at the differences -1, 0, 1 of rows and of columns
    matrix = np.zeros((rows, columns, rows, columns))  # output pixel (i, j), input pixel (m, n)
    for i, j, m, n in np.ndindex(matrix.shape):
        if abs(i - m) <= theta and abs(j - n) <= theta:
            matrix[i, j, m, n] = w[i - m + theta, j - n + theta]
    flat = matrix.reshape(pixels, pixels)

    net, params = fcnn.Conv(1, 3, padding="SAME", bias=False), {"kernel": np.flip(w)[..., None, None]}
    x, upstream = draw(2, rows, columns, 1), normal(1, 2, rows, columns, 1)
    h, dx, _ = side_by_side(net, params, x, upstream)
    assert_close(h.reshape(2, pixels), x.reshape(2, pixels) @ flat.T)
    assert_close(dx.reshape(2, pixels), upstream.reshape(2, pixels) @ flat)  # multiplication by the transpose

    units = np.eye(pixels).reshape(pixels, rows, columns, 1)
    found = ref.Conv(**params, padding="SAME").forward(units).reshape(pixels, pixels).T  # one column for each unit
    assert_close(found, flat)
    blocks = found.reshape(rows, columns, rows, columns).transpose(0, 2, 1, 3)  # [i, m] is a block over (j, n)
    for i, m in itertools.product(range(rows), repeat=2):
        assert np.array_equal(blocks[i, m], scipy.linalg.toeplitz(blocks[i, m, :, 0], blocks[i, m, 0]))
        assert np.array_equal(blocks[i, m], blocks[i - min(i, m), m - min(i, m)])  # blocks repeat along diagonals
    assert np.array_equal(
        ref.SharedLinear(np.flip(w).ravel(), ref.scanning_sets((4, 5), 3, padding=1)).matrix(), flat.T
    )


@pytest.mark.parametrize("shift", [(1, 0), (0, 2), (3, -4)])
def test_example_6_convolution_is_equivariant_to_shifts(shift, x64):
    pixels, kernel = normal(0, 9, 8), draw(3, 3)
    before = filtered(np.roll(pixels, shift, (0, 1)), kernel, padding="CIRCULAR")
    assert_close(before, np.roll(filtered(pixels, kernel, padding="CIRCULAR"), shift, (0, 1)))


def test_example_6_but_neither_to_rotation_nor_to_scale(x64):
    pixels, kernel = normal(0, 8, 8), draw(3, 3)
    turned = np.rot90(filtered(pixels, kernel))
    assert np.abs(filtered(np.rot90(pixels), kernel) - turned).max() > 1
    assert_close(filtered(np.rot90(pixels), np.rot90(kernel)), turned)  # unless the kernel turns with the image

    def doubled(image):
        return np.kron(image, np.ones((2, 2)))

    scaled = doubled(filtered(pixels, kernel, padding="CIRCULAR"))
    assert np.abs(filtered(doubled(pixels), kernel, padding="CIRCULAR") - scaled).max() > 1


def test_example_6_the_largest_answer_of_rotated_kernels_does_not_depend_on_the_rotation(x64):
    pixels, kernel = normal(0, 8, 8), draw(3, 3)
    copies = np.stack([np.rot90(kernel, quarter) for quarter in range(4)], -1)[:, :, None]
    net = fcnn.serial(fcnn.Conv(4, 3, bias=False), fcnn.Maxout(4), fcnn.GlobalMaxPool())

    x = np.stack([np.rot90(pixels, quarter) for quarter in range(4)])[..., None]
    answers, _, _ = side_by_side(net, {"conv1": {"kernel": copies}}, x, normal(1, 4, 1))
    by_scipy = max(scipy.signal.correlate2d(pixels, copies[..., 0, i], mode="valid").max() for i in range(4))
    assert_close(answers, np.full((4, 1), by_scipy))
    alone = [filtered(np.rot90(pixels, quarter), kernel).max() for quarter in range(4)]
    assert max(alone) - min(alone) > 1


def test_example_6_pooling_makes_a_small_shift_matter_less(x64):
    point = np.zeros((1, 8, 8, 1))
    point[0, 2, 4, 0] = 1
    assert np.array_equal(*(ref.MaxPool(2).forward(x) for x in (point, np.roll(point, 1, 1))))  # within its window

    pixels = np.random.default_rng(0).uniform(size=(32, 32))
    shifted = np.stack([pixels, np.roll(pixels, 1, 0)])[..., None]

    def change(window):
        out = 32 // window
        before, after = side_by_side(fcnn.MaxPool(window), {}, shifted, normal(1, 2, out, out, 1))[0][..., 0]
        assert_close(before, pixels.reshape(out, window, out, window).max((1, 3)))
        return np.linalg.norm(after - before) / np.linalg.norm(before)

    changes = [change(window) for window in (1, 2, 4, 8)]
    assert changes == sorted(changes, reverse=True)
    assert changes[-1] < changes[0] / 5


def test_example_7_sobel_and_blur(x64):
    bright_right = np.repeat([[0.0, 0, 0, 0, 1, 1, 1, 1]], 6, axis=0)
    edge = np.repeat([[0.0, 0, -4, -4, 0, 0]], 4, axis=0)  # left minus right, in the two windows that straddle it
    nothing = np.zeros((4, 6))
    vertical, horizontal = filtered(bright_right, SOBEL_VERTICAL, SOBEL_HORIZONTAL)
    assert_close(vertical, edge)
    assert np.abs(horizontal - nothing).max() < 1e-12
    vertical, horizontal = filtered(bright_right.T, SOBEL_VERTICAL, SOBEL_HORIZONTAL)
    assert_close(horizontal, edge.T)
    assert np.abs(vertical - nothing.T).max() < 1e-12
    point = np.pad([[9.0]], 2)
    assert_close(filtered(point, BLUR), np.ones((3, 3)))
    assert_close(filtered(np.repeat([[0.0, 0, 0, 1, 1, 1]], 3, axis=0), BLUR), [[0, 1 / 3, 2 / 3, 1]])


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_example_8_the_output_size(padding, stride):
    d, s = padding, stride
    for (m, n), (p, q) in itertools.product([(9, 7), (12, 31), (6, 6)], [(1, 1), (3, 2), (5, 7), (6, 4)]):
        x, kernel = draw(1, m, n, 2), draw(p, q, 2, 3)
        node, net = ref.Conv(kernel=kernel, padding=d, stride=s), fcnn.Conv(3, (p, q), padding=d, stride=s)
        if p > m + 2 * d or q > n + 2 * d:  # no position at all
            for call in (lambda node=node, x=x: node.forward(x), lambda net=net, x=x: net.out_shape(x.shape[1:])):
                with pytest.raises(ValueError, match="fit"):
                    call()
            continue
        formula = ((m - p + 2 * d) // s + 1, (n - q + 2 * d) // s + 1)
        y = node.forward(x)
        assert y.shape == (1, *formula, 3) == (1, *net.out_shape((m, n, 2)))
        last = tuple(slice(s * (out - 1), s * (out - 1) + size) for out, size in zip(formula, (p, q), strict=True))
        window = np.pad(x[0], ((d, d), (d, d), (0, 0)))[last]  # of the last output: the one the formula is about
        assert_close(y[0, -1, -1], np.einsum("pqc,pqcf->f", window, kernel))


def test_example_9_a_photograph_under_a_dense_layer_and_under_a_convolution():
    # what a dense layer would take is counted on small images; the photograph's matrix would need 38 GB
    for size in (3, 6):
        sets = ref.scanning_sets((size, size), 5, channels=3, features=2, padding=4)
        units = (size + 4) ** 2 * 2
        assert ref.count_weights(sets)[::2] == (5 * 5 * 3 * 2, size * size * 3 * units)
    assert 200 * 200 * 3 * 40_000 == 4_800_000_000

    photograph, node = draw(1, 200, 200, 3), ref.Conv(kernel=normal(0, 5, 5, 3, 20), padding=4)
    assert sum(value.size for value in node.params.values()) == 1_500
    y = node.forward(photograph)
    assert (y.shape, y.size) == ((1, 204, 204, 20), 832_320)
    kernel = node.params["kernel"]
    full = sum(scipy.signal.correlate2d(photograph[0, ..., c], kernel[..., c, 7], mode="full") for c in range(3))
    assert_close(y[0, ..., 7], full)  # padding 4: every overlap of kernel and image


@pytest.mark.parametrize(("kernel", "stride", "window", "size"), [(5, 1, 4, 23), (3, 3, 8, 4)])
def test_example_10_convolution_and_pooling_of_a_96_by_96_image(kernel, stride, window, size, x64):
    net = fcnn.serial(fcnn.Conv(2, kernel, stride=stride, bias=False), fcnn.MaxPool(window))
    weights, x = draw(kernel, kernel, 3, 2), normal(0, 1, 96, 96, 3)
    y, _, _ = side_by_side(net, {"conv1": {"kernel": weights}}, x, normal(1, 1, size, size, 2))
    assert y.shape == (1, size, size, 2)
    for feature in range(2):
        maps = sum(scipy.signal.correlate2d(x[0, ..., c], weights[..., c, feature], mode="valid") for c in range(3))
        maps = maps[::stride, ::stride][: size * window, : size * window]
        assert_close(y[0, ..., feature], maps.reshape(size, window, size, window).max((1, 3)))


def shapes_through(chain, x):
    """The shape of one example after each node whose output has another shape than its input."""
    shapes = []
    for node in chain.nodes:
        x = node.forward(x)
        shapes += [x.shape[1:]] if [x.shape[1:]] != shapes[-1:] else []
    return shapes, x


def count(*nodes):
    return sum(value.size for node in nodes for value in node.params.values())


def test_example_11_alexnet(x64):
    relu, norm = jax.nn.relu, fcnn.LocalResponseNorm()
    convolutions = fcnn.serial(
        fcnn.Conv(96, 11, stride=4), relu, norm, fcnn.MaxPool(3, stride=2),
        fcnn.Conv(256, 5, padding=2), relu, norm, fcnn.MaxPool(3, stride=2),
        fcnn.Conv(384, 3, padding=1), relu,
        fcnn.Conv(384, 3, padding=1, groups=2), relu,
        fcnn.Conv(256, 3, padding=1, groups=2), relu, fcnn.MaxPool(3, stride=2),
    )  # fmt: skip
    image, params = draw(1, 227, 227, 3), drawn(convolutions, 227, 227, 3, scale=0.02)
    by_hand = ref.Chain(
        [
            *(ref.Conv(**params["conv1"], stride=4), ref.ReLU(), ref.LocalResponseNorm(), ref.MaxPool(3, 2)),
            *(ref.Conv(**params["conv2"], padding=2), ref.ReLU(), ref.LocalResponseNorm(), ref.MaxPool(3, 2)),
            *(ref.Conv(**params["conv3"], padding=1), ref.ReLU()),
            *(ref.Conv(**params["conv4"], padding=1, groups=2), ref.ReLU()),
            *(ref.Conv(**params["conv5"], padding=1, groups=2), ref.ReLU(), ref.MaxPool(3, 2)),
        ]
    )
    shapes, features = shapes_through(by_hand, image)
    assert shapes == [
        *((55, 55, 96), (27, 27, 96), (27, 27, 256), (13, 13, 256)),
        *((13, 13, 384), (13, 13, 256), (6, 6, 256)),
    ]
    assert_close(jax.jit(convolutions.apply)(params, image), features, "fcnn's value", 1e-10)

    def mean_of(inputs, units):  # a dense layer whose answer is known: every unit is the mean of its inputs
        weight = np.broadcast_to(np.float32(1 / inputs), (inputs, units))
        return ref.Dense(kernel=weight, bias=np.zeros(units, np.float32))

    masks = [(np.arange(4096) % n > 0).astype(np.float32)[None] for n in (2, 3)]
    dense = ref.Chain(
        [
            *(ref.Flatten(), mean_of(9216, 4096), ref.ReLU(), ref.Dropout(masks[0], 0.5)),
            *(mean_of(4096, 4096), ref.ReLU(), ref.Dropout(masks[1], 0.5), mean_of(4096, 1000)),
        ]
    )
    shapes, scores = shapes_through(dense, features.astype(np.float32))
    assert shapes == [(9216,), (4096,), (1000,)]
    kept = np.prod([mask.mean() / 0.5 for mask in masks])
    assert_close(scores, np.full((1, 1000), features.mean() * kept), "the scores", 1e-5)

    # one group sees 192 channels; as published, the second convolution had two groups as well
    kernels = [11 * 11 * 3 * 96, 5 * 5 * 96 * 256, 3 * 3 * 256 * 384, 3 * 3 * 192 * 384, 3 * 3 * 192 * 256]
    matrices = [9216 * 4096, 4096 * 4096, 4096 * 1000]
    biases = 96 + 256 + 384 + 384 + 256 + 4096 + 4096 + 1000
    assert count(by_hand, dense) == sum(kernels) + sum(matrices) + biases == 60_965_224 + 5 * 5 * 48 * 256


def test_example_11_each_of_two_groups_sees_its_own_192_channels():
    node = ref.Conv(kernel=normal(0, 3, 3, 192, 384), groups=2)
    x = normal(1, 1, 3, 3, 384)
    other = x.copy()
    other[..., 192:] += 1
    before, after = node.forward(x), node.forward(other)
    assert np.array_equal(before[..., :192], after[..., :192])
    assert np.all(before[..., 192:] != after[..., 192:])


def test_example_12_a_network_for_connectomics_at_every_pixel(x64):
    relu = jax.nn.relu
    net = fcnn.serial(
        fcnn.Conv(64, 3), relu, fcnn.Conv(48, 3), relu, fcnn.MaxPool(2),
        fcnn.Conv(48, 3), relu, fcnn.Conv(48, 3), relu, fcnn.MaxPool(2),
        fcnn.Flatten(), fcnn.Dense(32), relu, fcnn.Dense(2),
    )  # fmt: skip
    pixels, border = draw(1, 3, 4), 75 // 2
    padded = np.pad(pixels, ((border, border), (border, border), (0, 0)))
    patches = np.stack([padded[i : i + 75, j : j + 75] for i, j in np.ndindex(1, 3)])
    assert np.array_equal(patches[:, border, border], pixels[0])  # a patch for each pixel, which is its centre
    params = drawn(net, 75, 75, 4, scale=0.05)
    by_hand = ref.Chain(
        [
            *(ref.Conv(**params["conv1"]), ref.ReLU(), ref.Conv(**params["conv2"]), ref.ReLU(), ref.MaxPool(2)),
            *(ref.Conv(**params["conv3"]), ref.ReLU(), ref.Conv(**params["conv4"]), ref.ReLU(), ref.MaxPool(2)),
            *(ref.Flatten(), ref.Dense(**params["dense1"]), ref.ReLU(), ref.Dense(**params["dense2"])),
        ]
    )
    shapes, classes = shapes_through(by_hand, patches)
    assert shapes == [
        *((73, 73, 64), (71, 71, 48), (35, 35, 48), (33, 33, 48), (31, 31, 48), (15, 15, 48)),
        *((10_800,), (32,), (2,)),
    ]
    assert_close(jax.jit(net.apply)(params, patches), classes, "fcnn's value", 1e-10)
    assert len(np.unique(classes[:, 0])) == 3  # each pixel has an answer of its own


def test_example_13_lenet_in_its_modern_dense_form(x64):
    tanh = jnp.tanh
    net = fcnn.serial(
        fcnn.Conv(6, 5), tanh, fcnn.AvgPool(2),
        fcnn.Conv(16, 5), tanh, fcnn.AvgPool(2),
        fcnn.Conv(120, 5), tanh, fcnn.Flatten(),
        fcnn.Dense(84), tanh, fcnn.Dense(10),
    )  # fmt: skip
    params, x = drawn(net, 32, 32, 1), draw(2, 32, 32, 1)
    by_hand = ref.Chain(
        [
            *(ref.Conv(**params["conv1"]), ref.Tanh(), ref.AvgPool(2)),
            *(ref.Conv(**params["conv2"]), ref.Tanh(), ref.AvgPool(2)),
            *(ref.Conv(**params["conv3"]), ref.Tanh(), ref.Flatten()),
            *(ref.Dense(**params["dense1"]), ref.Tanh(), ref.Dense(**params["dense2"])),
        ]
    )
    assert count(by_hand) == 61_706
    shapes, scores = shapes_through(by_hand, x)
    assert shapes == [
        *((28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (1, 1, 120)),
        *((120,), (84,), (10,)),
    ]
    assert_close(side_by_side(net, params, x, normal(1, 2, 10))[0], scores)


#: the maps of S2 that each map of C3 sees, LeCun et al. 1998, table I: six times three neighbours and six times
#: four, in a ring; three times two pairs; all
TABLE = [[i % 6 for i in range(first, first + n)] for n in (3, 4) for first in range(6)]
TABLE += [[i, i + 1, (i + 3) % 6, (i + 4) % 6] for i in range(3)] + [list(range(6))]
SEEN = np.array([[m in maps for maps in TABLE] for m in range(6)], float)  # (6 maps below, 16 maps)


def chosen(x, maps):
    return x @ np.eye(6)[:, list(maps)]


def test_example_13_each_map_of_1998_sees_chosen_maps(x64):
    """Sixteen small convolutions, one with a masked kernel, and sets of edges are the same layer of 1,516 weights."""
    table = fcnn.branches(
        *(fcnn.serial(functools.partial(chosen, maps=tuple(maps)), fcnn.Conv(1, 5)) for maps in TABLE)
    )
    params, x, upstream = drawn(table, 6, 6, 6), draw(2, 6, 6, 6), normal(1, 2, 2, 2, 16)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1_516
    y, dx, of_params = side_by_side(table, params, x, upstream)

    kernel, of_kernel, bias = *np.zeros((2, 5, 5, 6, 16)), np.zeros(16)
    for feature, maps in enumerate(TABLE):
        own, of_own = (tree[f"serial{feature + 1}"]["conv1"] for tree in (params, of_params))
        kernel[..., maps, feature], of_kernel[..., maps, feature] = own["kernel"][..., 0], of_own["kernel"][..., 0]
        bias[feature] = own["bias"][0]
    masked = ref.Conv(kernel=kernel, bias=bias)
    assert_close(masked.forward(x), y)
    assert_close(masked.backward(upstream)[0], dx)
    assert_close(masked.gradients["kernel"] * SEEN, of_kernel)
    assert_close(ref.conv_by_definition(x, kernel, bias), y)

    labels = np.where(np.broadcast_to(SEEN, kernel.shape) > 0, 0, -1).ravel()
    labels[labels == 0] = np.arange((labels == 0).sum())  # a set for each weight of the table, none elsewhere
    sets = ref.scanning_sets((6, 6), 5, channels=6, features=16)
    sets = np.where(sets < 0, -1, labels[sets])
    assert ref.count_weights(sets).shared == 1_500
    shared = ref.SharedLinear(kernel.ravel()[labels >= 0], sets)
    assert_close(shared.forward(x.reshape(2, -1)).reshape(y.shape) + bias, y)
    assert_close(shared.backward(upstream.reshape(2, -1))[0].reshape(x.shape), dx)
    assert_close(shared.gradients["values"], of_kernel.ravel()[labels >= 0])


def test_example_13_lenet_of_1998_has_60000_trainable_parameters():
    """The published form on a tape: trainable subsampling, the table, scaled tanh, distances to fixed codes."""
    codes = np.where(normal(5, 10, 84) > 0, 1.0, -1.0)  # for the drawn digits of 1998; fixed, so no parameters
    trained = {
        "C1": {"kernel": 0.2 * normal(1, 5, 5, 1, 6), "bias": draw(6)},
        "S2": {"coefficient": normal(2, 6), "bias": draw(6)},
        "C3": {"kernel": 0.1 * normal(3, 5, 5, 6, 16) * SEEN, "bias": draw(16)},
        "S4": {"coefficient": normal(4, 16), "bias": draw(16)},
        "C5": {"kernel": 0.05 * normal(5, 5, 5, 16, 120), "bias": draw(120)},
        "F6": {"kernel": 0.1 * normal(6, 120, 84), "bias": draw(84)},
    }
    conv = {name: ref.Conv(**trained[name]) for name in ("C1", "C3", "C5")}
    full = ref.Dense(**trained["F6"])
    x, target = draw(1, 32, 32, 1), 3
    shapes = {}

    def run():
        """The distance to the code of the target, and the values on the tape that are trained."""
        tape = ref.Tape()
        on_tape = {name: {k: tape.value(v) for k, v in trained[name].items()} for name in ("S2", "S4")}

        def subsampled(name, value):  # the sum of four, times one coefficient and plus one bias for each map
            total = 4.0 * ref.apply(ref.AvgPool(2), value)
            return ref.apply(ref.Sigmoid(), total * on_tape[name]["coefficient"] + on_tape[name]["bias"])

        def squashed(value):
            return 1.7159 * ref.apply(ref.Tanh(), 2 / 3 * value)

        value = tape.value(x)
        for name in trained:
            if name == "F6":
                value = squashed(ref.apply(full, ref.apply(ref.Flatten(), squashed(value))))
            else:
                value = subsampled(name, value) if name in on_tape else ref.apply(conv[name], value)
            shapes[name] = value.array.shape[1:]
        squares = ref.apply(ref.Square(), value) @ np.ones((84, 10))
        distances = squares - 2.0 * (value @ codes.T) + (codes**2).sum(1)
        assert_close(distances.array, ((value.array[:, None] - codes) ** 2).sum(-1))
        return distances, on_tape

    distances, on_tape = run()
    assert shapes == {
        **{"C1": (28, 28, 6), "S2": (14, 14, 6), "C3": (10, 10, 16), "S4": (5, 5, 16)},
        **{"C5": (1, 1, 120), "F6": (84,)},
    }
    ref.backward(distances, np.eye(10)[[target]])
    gradients = {name: node.gradients for name, node in {**conv, "F6": full}.items()}
    gradients |= {name: {k: v.gradient for k, v in values.items()} for name, values in on_tape.items()}
    gradients["C3"]["kernel"] *= SEEN  # what the table leaves out is not trained
    numbers = {name: sum(int((g != 0).sum()) for g in gradients[name].values()) for name in trained}
    assert numbers == {"C1": 156, "S2": 12, "C3": 1_516, "S4": 32, "C5": 48_120, "F6": 10_164}
    assert sum(numbers.values()) == 60_000

    arrays = {name: node.params for name, node in {**conv, "F6": full}.items()} | {n: trained[n] for n in on_tape}
    for name, entry in arrays.items():
        for key, array in entry.items():
            at = np.unravel_index(np.abs(gradients[name][key]).argmax(), array.shape)
            kept, around = array[at], []
            for moved in (kept + 1e-5, kept - 1e-5):
                array[at] = moved
                around.append(run()[0].array[0, target])
            array[at] = kept
            slope = (around[0] - around[1]) / 2e-5
            assert_close(gradients[name][key][at], slope, f"the gradient of {name} {key}", 1e-6)
