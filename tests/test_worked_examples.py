"""Facts with known results, from lectures on convolutional networks: each is computed by fcnn and compared with
the published number or with arithmetic written out in NumPy."""

import functools
import itertools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.signal

import fcnn
from fcnn.layer import Parameter

SOBEL_VERTICAL = np.array([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
SOBEL_HORIZONTAL = np.array([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
BLUR = np.full((3, 3), 1 / 9)


def close(actual, expected, tolerance=1e-12):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=tolerance, atol=tolerance)


def signal(values):
    """One example of one channel in one dimension."""
    return jnp.asarray(values, float).reshape(1, -1, 1)


def image(values):
    """One example of one channel in two dimensions."""
    values = np.asarray(values, float)
    return jnp.asarray(values).reshape(1, *values.shape, 1)


def plane(x):
    """The only channel of the only example."""
    assert x.shape[0] == x.shape[-1] == 1
    return np.asarray(x[0, ..., 0])


def filtered(pixels, kernel, padding="VALID"):
    """An image under one kernel, by fcnn."""
    kernel = jnp.asarray(np.asarray(kernel, float))
    net = fcnn.Conv(1, kernel.shape, padding=padding, bias=False)
    return plane(net.apply({"kernel": kernel[..., None, None]}, image(pixels)))


def declared(net, shape):
    """Shapes and dtypes of the parameters that ``init`` would make, without making them."""
    return jax.eval_shape(lambda key: net.init(key, shape), jax.random.key(0))


def drawn(net, *shape, scale=0.3):
    """Parameters from NumPy, biases too: where any values will do, no random numbers need to be compiled."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, scale, leaf.shape), leaf.dtype), declared(net, shape))


def normal(*shape, seed=1):
    """Normal numbers in the dtype that JAX computes in by default."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), float)


def parameter_count(net, shape):
    """Number of parameters, without making them."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(declared(net, shape)))


def sizes_after_each(layers, shape):
    """Output shape after the first layer, the first two, and so on."""
    return [fcnn.serial(*layers[:count]).out_shape(shape) for count in range(1, len(layers) + 1)]


def numerical_gradient(loss, params, step=1e-6):
    """Central differences, one parameter at a time."""
    leaves, tree = jax.tree.flatten(params)
    loss = jax.jit(loss)
    found = []
    for index, leaf in enumerate(leaves):
        slopes = np.zeros(leaf.shape)
        for entry in np.ndindex(leaf.shape):
            around = []
            for sign in (1, -1):
                moved = np.array(leaf)
                moved[entry] += sign * step
                around.append(float(loss(jax.tree.unflatten(tree, [*leaves[:index], moved, *leaves[index + 1 :]]))))
            slopes[entry] = (around[0] - around[1]) / (2 * step)
        found.append(slopes)
    return jax.tree.unflatten(tree, found)


def assert_same_gradients(actual, expected, tolerance=1e-7):
    jax.tree.map(lambda a, b: close(a, b, tolerance), actual, expected)


# Convolution and its gradient, by hand


def test_a_convolution_and_its_three_gradients_by_hand(x64):
    net = fcnn.Conv(1, 2)
    params = {"kernel": jnp.array([0.3, 0.5]).reshape(2, 1, 1), "bias": jnp.zeros(1)}
    y, backward = jax.vjp(net.apply, params, signal([1, 2, 3]))
    close(y.ravel(), [1.3, 2.1])

    by_params, by_input = backward(signal([-0.1, 0.2]))
    close(by_params["kernel"].ravel(), [0.3, 0.4])
    close(by_params["bias"], [0.1])
    close(by_input.ravel(), [-0.03, 0.01, 0.1])


def test_each_use_of_a_kernel_adds_its_own_share_to_the_gradient(x64):
    x, upstream = np.array([1.0, 2, 3]), np.array([-0.1, 0.2])
    shares = [upstream[use] * x[use : use + 2] for use in range(2)]
    close(shares, [[-0.1, -0.2], [0.4, 0.6]])

    kernel = jnp.array([0.3, 0.5]).reshape(2, 1, 1)
    gradient = jax.grad(lambda k: jnp.sum(fcnn.ops.conv(signal(x), k) * signal(upstream)))(kernel)
    close(gradient.ravel(), np.sum(shares, axis=0))


def test_four_shared_weights_do_the_work_of_sixteen_unshared_and_of_a_dense_layer_with_thirty_six():
    shape = (3, 3, 1)
    convolution = fcnn.Conv(1, 2, bias=False)
    unshared = fcnn.LocallyConnected(1, 2, bias=False)
    dense = fcnn.serial(fcnn.Flatten(), fcnn.Dense(4, bias=False))
    assert [math.prod(net.out_shape(shape)) for net in (convolution, unshared, dense)] == [4, 4, 4]
    assert [parameter_count(net, shape) for net in (convolution, unshared, dense)] == [4, 16, 36]


def test_unshared_and_dense_weights_can_be_set_to_compute_a_convolution(x64):
    convolution = fcnn.Conv(1, 2, bias=False)
    kernel = normal(2, 2, 1, 1)
    x = normal(5, 3, 3, 1)
    expected = convolution.apply({"kernel": kernel}, x)

    unshared = fcnn.LocallyConnected(1, 2, bias=False)
    close(unshared.apply({"kernel": jnp.tile(kernel, (2, 2, 1, 1, 1, 1))}, x), expected)

    matrix = np.zeros((3, 3, 2, 2))  # input pixel, output position
    for i, j, m, n in itertools.product(range(2), repeat=4):
        matrix[i + m, j + n, i, j] = kernel[m, n, 0, 0]
    dense = fcnn.serial(fcnn.Flatten(), fcnn.Dense(4, bias=False))
    close(dense.apply({"dense1": {"kernel": jnp.asarray(matrix.reshape(9, 4))}}, x), expected.reshape(5, 4))


def test_the_gradient_of_a_shared_kernel_is_the_sum_over_its_uses(x64):
    shared, unshared = fcnn.Conv(3, 2), fcnn.LocallyConnected(3, 2)
    params = drawn(shared, 5, 4, 2)
    copies = {
        "kernel": jnp.broadcast_to(params["kernel"], (4, 3, *params["kernel"].shape)),
        "bias": jnp.broadcast_to(params["bias"], (4, 3, 3)),
    }
    x, target = normal(6, 5, 4, 2), normal(6, 4, 3, 3, seed=2)

    def loss(net, params):
        return jnp.sum(jnp.square(net.apply(params, x) - target))

    of_one = jax.jit(jax.grad(functools.partial(loss, shared)))(params)
    of_each = jax.jit(jax.grad(functools.partial(loss, unshared)))(copies)
    assert of_each["kernel"].shape == (4, 3, 2, 2, 2, 3)  # one gradient for each of the twelve positions
    assert_same_gradients(of_one, jax.tree.map(lambda g: g.sum((0, 1)), of_each), 1e-10)


def test_the_gradient_of_a_layer_called_three_times_is_the_sum_over_the_calls(x64):
    @fcnn.graph(step=fcnn.Dense(4))
    def three_calls(layer, x):
        return layer.step(jnp.tanh(layer.step(jnp.tanh(layer.step(x)))))

    unrolled = fcnn.serial(fcnn.Dense(4), jnp.tanh, fcnn.Dense(4), jnp.tanh, fcnn.Dense(4))
    params = drawn(three_calls, 4)
    copies = {f"dense{use}": params["step"] for use in (1, 2, 3)}
    x = normal(3, 4)
    of_one = jax.jit(jax.grad(lambda p: three_calls.apply(p, x).sum()))(params)
    of_each = jax.jit(jax.grad(lambda p: unrolled.apply(p, x).sum()))(copies)
    assert_same_gradients(of_one["step"], jax.tree.map(lambda *uses: sum(uses), *of_each.values()), 1e-10)


def test_a_shared_weight_is_updated_once_and_every_use_follows(x64):
    @fcnn.graph(scale=fcnn.Dense(1, bias=False))
    def cubed(layer, x):
        return layer.scale(layer.scale(layer.scale(x)))

    params = {"scale": {"kernel": jnp.array([[2.0]])}}
    assert jax.tree.structure(params) == jax.tree.structure(declared(cubed, (1,)))
    x = jnp.array([[5.0]])
    gradient = jax.grad(lambda p: cubed.apply(p, x)[0, 0])(params)
    close(gradient["scale"]["kernel"], [[3 * 2.0**2 * 5.0]])  # w * w * w * x, and w^2 x from each use

    optimizer = optax.sgd(0.01)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    close(after["scale"]["kernel"], [[1.4]])
    close(cubed.apply(after, x), [[1.4**3 * 5.0]])


def test_libraries_correlate_and_convolution_turns_the_kernel_by_180_degrees(x64):
    rng = np.random.default_rng(0)
    pixels, kernel = rng.normal(size=(7, 6)), rng.normal(size=(3, 2))
    correlated = scipy.signal.correlate2d(pixels, kernel, mode="valid")
    convolved = scipy.signal.convolve2d(pixels, kernel, mode="valid")
    close(filtered(pixels, kernel), correlated)
    close(filtered(pixels, np.rot90(kernel, 2)), convolved)
    assert np.abs(correlated - convolved).max() > 0.1


def test_in_one_dimension_convolution_is_a_sparse_toeplitz_matrix(x64):
    size, theta = 7, 2
    rng = np.random.default_rng(0)
    weights = rng.normal(size=2 * theta + 1)  # w_d for d = -theta ... theta
    matrix = np.zeros((size, size))
    for i, m in itertools.product(range(size), repeat=2):
        if abs(i - m) <= theta:
            matrix[i, m] = weights[i - m + theta]
    for i in range(1, size):
        close(matrix[i, 1:], matrix[i - 1, :-1])  # each row is the row above, shifted by one
    assert np.count_nonzero(matrix) == size * (2 * theta + 1) - theta * (theta + 1)

    net = fcnn.Conv(1, 2 * theta + 1, padding="SAME", bias=False)
    params = {"kernel": jnp.asarray(weights[::-1].copy()).reshape(-1, 1, 1)}  # w_(i-m): turned around
    x, upstream = rng.normal(size=size), rng.normal(size=size)
    y, backward = jax.vjp(lambda x: net.apply(params, x), signal(x))
    close(y.ravel(), matrix @ x)
    close(backward(signal(upstream))[0].ravel(), matrix.T @ upstream)


def test_in_two_dimensions_convolution_is_a_doubly_block_toeplitz_matrix(x64):
    rows, columns, theta = 4, 5, 1
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 3))
    matrix = np.zeros((rows, columns, rows, columns))  # output pixel, input pixel
    for i, j, m, n in np.ndindex(matrix.shape):
        if abs(i - m) <= theta and abs(j - n) <= theta:
            matrix[i, j, m, n] = weights[i - m + theta, j - n + theta]

    net = fcnn.Conv(1, 3, padding="SAME", bias=False)
    params = {"kernel": jnp.asarray(np.rot90(weights, 2).copy()).reshape(3, 3, 1, 1)}
    jacobian = jax.jacobian(lambda pixels: net.apply(params, pixels[None, ..., None])[0, ..., 0])(
        jnp.zeros((rows, columns))
    )
    close(jacobian, matrix)
    blocks = np.asarray(jacobian).transpose(0, 2, 1, 3)  # block (i, m) holds the elements (j, n)
    for i, m in itertools.product(range(rows - 1), repeat=2):
        close(blocks[i + 1, m + 1], blocks[i, m])
    for j, n in itertools.product(range(columns - 1), repeat=2):
        close(blocks[:, :, j + 1, n + 1], blocks[:, :, j, n])

    upstream = rng.normal(size=(rows, columns))
    _, backward = jax.vjp(lambda x: net.apply(params, x), image(np.zeros((rows, columns))))
    flat = matrix.reshape(rows * columns, rows * columns)
    close(plane(backward(image(upstream))[0]).ravel(), flat.T @ upstream.ravel())


@pytest.mark.parametrize("shift", [(1, 0), (0, 2), (3, -4)])
def test_convolution_is_equivariant_to_shifts(shift, x64):
    rng = np.random.default_rng(0)
    pixels, kernel = rng.normal(size=(9, 8)), rng.normal(size=(3, 3))
    shifted_before = filtered(np.roll(pixels, shift, (0, 1)), kernel, padding="CIRCULAR")
    shifted_after = np.roll(filtered(pixels, kernel, padding="CIRCULAR"), shift, (0, 1))
    close(shifted_before, shifted_after)


def test_convolution_is_not_equivariant_to_rotation_unless_the_kernel_is(x64):
    rng = np.random.default_rng(0)
    pixels, kernel = rng.normal(size=(8, 8)), rng.normal(size=(3, 3))
    rotated_after = np.rot90(filtered(pixels, kernel))
    assert np.abs(filtered(np.rot90(pixels), kernel) - rotated_after).max() > 1
    close(filtered(np.rot90(pixels), np.rot90(kernel)), rotated_after)
    close(filtered(np.rot90(pixels), BLUR), np.rot90(filtered(pixels, BLUR)))


def test_convolution_is_not_equivariant_to_scale(x64):
    rng = np.random.default_rng(0)
    pixels, kernel = rng.normal(size=(8, 8)), rng.normal(size=(3, 3))

    def doubled(a):
        return a.repeat(2, 0).repeat(2, 1)

    scaled_before = filtered(doubled(pixels), kernel, padding="CIRCULAR")
    scaled_after = doubled(filtered(pixels, kernel, padding="CIRCULAR"))
    assert np.abs(scaled_before - scaled_after).max() > 1


def test_pooling_makes_a_small_shift_matter_less(x64):
    point = np.zeros((8, 8))
    point[2, 4] = 1
    moved = np.roll(point, 1, axis=0)  # to the lower half of the same window
    assert np.abs(point - moved).sum() == 2
    close(fcnn.MaxPool(2).apply({}, image(point)), fcnn.MaxPool(2).apply({}, image(moved)))

    def change(net, pixels):
        before, after = (plane(net.apply({}, image(p))) for p in (pixels, np.roll(pixels, 1, axis=0)))
        return np.linalg.norm(after - before) / np.linalg.norm(before)

    pixels = np.random.default_rng(0).uniform(size=(32, 32))
    changes = [change(fcnn.MaxPool(window), pixels) for window in (1, 2, 4, 8)]
    assert changes == sorted(changes, reverse=True)
    assert changes[-1] < changes[0] / 5


def test_maxout_over_rotated_kernels_makes_rotation_matter_less(x64):
    rng = np.random.default_rng(0)
    pixels, kernel = rng.normal(size=(8, 8)), rng.normal(size=(3, 3))
    rotated_copies = np.stack([np.rot90(kernel, quarter) for quarter in range(4)], -1)[:, :, None, :]
    net = fcnn.serial(fcnn.Conv(4, 3, bias=False), fcnn.Maxout(4))
    params = {"conv1": {"kernel": jnp.asarray(rotated_copies)}}
    upright, turned = (plane(net.apply(params, image(p))) for p in (pixels, np.rot90(pixels)))
    close(turned, np.rot90(upright))

    invariant = fcnn.serial(fcnn.Conv(4, 3, bias=False), fcnn.Maxout(4), fcnn.GlobalMaxPool())
    answers = [invariant.apply(params, image(np.rot90(pixels, quarter))).item() for quarter in range(4)]
    close(answers, [answers[0]] * 4)
    one_kernel = [filtered(np.rot90(pixels, quarter), kernel).max() for quarter in range(4)]
    assert max(one_kernel) - min(one_kernel) > 1


def test_sobel_kernels_answer_to_the_edges_of_their_direction_only(x64):
    bright_right = np.zeros((6, 8))
    bright_right[:, 4:] = 1
    at_the_edge = np.zeros((4, 6))
    at_the_edge[:, 2:4] = -4  # left minus right, in the two windows that straddle the edge
    close(filtered(bright_right, SOBEL_VERTICAL), at_the_edge)
    close(filtered(bright_right, SOBEL_HORIZONTAL), np.zeros((4, 6)))
    close(filtered(bright_right.T, SOBEL_HORIZONTAL), at_the_edge.T)
    close(filtered(bright_right.T, SOBEL_VERTICAL), np.zeros((6, 4)))
    close(filtered(1 - bright_right, SOBEL_VERTICAL), -at_the_edge)


def test_the_blur_kernel_spreads_a_point_and_softens_an_edge(x64):
    point = np.zeros((5, 5))
    point[2, 2] = 9
    close(filtered(point, BLUR), np.ones((3, 3)))
    edge = np.repeat([[0.0, 0, 0, 1, 1, 1]], 3, axis=0)
    close(filtered(edge, BLUR), [[0, 1 / 3, 2 / 3, 1]])
    close(filtered(np.full((4, 4), 7.0), BLUR), np.full((2, 2), 7.0))


# Sizes and counts


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


# Backpropagation


def test_a_sigmoid_neuron_and_its_gradients(x64):
    neuron = fcnn.serial(fcnn.Dense(1), jax.nn.sigmoid)
    params = {"dense1": {"kernel": jnp.array([[2.0], [-3.0]]), "bias": jnp.array([-3.0])}}
    x = jnp.array([[-1.0, -2.0]])
    output, (by_params, by_x) = jax.value_and_grad(lambda p, x: neuron.apply(p, x)[0, 0], (0, 1))(params, x)
    assert round(float(output), 2) == 0.73
    weights, bias = by_params["dense1"]["kernel"], by_params["dense1"]["bias"]
    close(np.round(weights.ravel(), 1), [-0.2, -0.4])
    close(np.round(bias, 1), [0.2])
    close(np.round(by_x.ravel(), 1), [0.4, -0.6])


def test_an_add_gate_hands_its_gradient_to_both_inputs(x64):
    @fcnn.graph(left=fcnn.Dense(1), right=fcnn.Dense(1))
    def add(layer, a, b):
        return layer.left(a) + layer.right(b)

    one = {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}
    _, backward = jax.vjp(lambda a, b: add.apply({"left": one, "right": one}, a, b), *jnp.array([[[3.0]], [[-4.0]]]))
    assert [g.item() for g in backward(jnp.array([[2.0]]))] == [2.0, 2.0]


def test_a_max_gate_routes_its_gradient_to_the_larger_input(x64):
    _, backward = jax.vjp(lambda x: fcnn.Maxout(2).apply({}, x), jnp.array([[3.0, -1.0], [-1.0, 3.0]]))
    assert backward(jnp.array([[2.0], [5.0]]))[0].tolist() == [[2.0, 0.0], [0.0, 5.0]]


def test_a_multiply_gate_swaps_its_inputs(x64):
    @fcnn.graph(keep=jnp.positive)
    def multiply(layer, a, b):
        return layer.keep(a) * b

    _, backward = jax.vjp(lambda a, b: multiply.apply({}, a, b), jnp.array([[3.0]]), jnp.array([[-4.0]]))
    assert [g.item() for g in backward(jnp.array([[2.0]]))] == [-8.0, 6.0]


def test_gradients_add_at_branches(x64):
    net = fcnn.branches(double, square, join="sum")
    close(jax.grad(lambda x: net.apply({}, x)[0, 0])(jnp.array([[3.0]])), [[2 + 2 * 3.0]])
    block = fcnn.residual(square)
    close(jax.grad(lambda x: block.apply({}, x)[0, 0])(jnp.array([[3.0]])), [[1 + 2 * 3.0]])


def double(x):
    return 2 * x


def square(x):
    return x * x


def small_classifier():
    return fcnn.serial(
        fcnn.Conv(2, 3), jnp.tanh, fcnn.AvgPool(2), fcnn.Flatten(), fcnn.Dense(4), fcnn.LayerNorm(), fcnn.Dense(3)
    )


def test_a_gradient_has_the_shape_of_its_variable():
    net, x = small_classifier(), normal(4, 6, 6, 1)
    params = drawn(net, 6, 6, 1)
    by_params, by_x = jax.jit(jax.grad(lambda p, x: net.apply(p, x).sum(), (0, 1)))(params, x)
    assert jax.tree.map(jnp.shape, by_params) == jax.tree.map(jnp.shape, params)
    assert by_x.shape == x.shape


def test_the_gradient_of_every_parameter_agrees_with_central_differences(x64):
    net = small_classifier()
    params = drawn(net, 6, 6, 1)
    x, labels = normal(4, 6, 6, 1), jnp.array([0, 2, 1, 2])

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(net.apply(params, x), labels).mean()

    gradient = jax.jit(jax.grad(loss))(params)
    assert min(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) > 1e-3
    assert_same_gradients(gradient, numerical_gradient(loss, params), 1e-7)


def test_the_deltas_of_backpropagation_written_out_by_hand(x64):
    net = fcnn.serial(fcnn.Dense(4), jax.nn.sigmoid, fcnn.Dense(3), jnp.tanh, fcnn.Dense(2), jax.nn.sigmoid)
    params = drawn(net, 5)
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=5), rng.uniform(size=2)

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    functions = [sigmoid, np.tanh, sigmoid]
    slopes = [lambda z: sigmoid(z) * (1 - sigmoid(z)), lambda z: 1 - np.tanh(z) ** 2]
    slopes.append(slopes[0])
    weights, biases = (
        [np.asarray(params[f"dense{layer}"][name]) for layer in (1, 2, 3)] for name in ("kernel", "bias")
    )
    activations, sums = [x], []
    for weight, bias, function in zip(weights, biases, functions, strict=True):
        sums.append(activations[-1] @ weight + bias)
        activations.append(function(sums[-1]))

    deltas = [2 * (activations[-1] - target) * slopes[-1](sums[-1])]
    for layer in (2, 1):
        deltas.insert(0, slopes[layer - 1](sums[layer - 1]) * (weights[layer] @ deltas[0]))

    def loss(params, x):
        return jnp.sum(jnp.square(net.apply(params, x) - target))

    by_params, by_x = jax.jit(jax.grad(loss, (0, 1)))(params, jnp.asarray(x)[None])
    for layer in (1, 2, 3):
        close(by_params[f"dense{layer}"]["kernel"], np.outer(activations[layer - 1], deltas[layer - 1]))
        close(by_params[f"dense{layer}"]["bias"], deltas[layer - 1])
    close(by_x[0], weights[0] @ deltas[0])


LOGITS = (2.0, 0.7, 0.2, -0.3, -0.6, -2.5)


def test_the_softmax_of_six_scores(x64):
    net = fcnn.serial(jax.nn.softmax)
    probabilities = np.asarray(net.apply({}, jnp.array([LOGITS]))[0])
    assert abs(probabilities.sum() - 1) < 1e-12
    # the fourth lies between 0.061 and 0.062, and both are in print
    close(np.delete(probabilities, 3), [0.616, 0.168, 0.102, 0.046, 0.007], 6e-4)
    assert 0.061 <= probabilities[3] <= 0.062


@pytest.mark.parametrize("label", range(6))
def test_the_gradient_of_the_cross_entropy_of_a_softmax_is_p_minus_y(label, x64):
    net = fcnn.Dense(6)
    params = {"kernel": jnp.zeros((2, 6)), "bias": jnp.array(LOGITS)}
    x = jnp.array([[0.5, -1.0]])

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(net.apply(params, x), jnp.array([label]))[0]

    p = np.exp(LOGITS) / np.sum(np.exp(LOGITS))
    y = np.eye(6)[label]
    gradient = jax.grad(loss)(params)
    close(gradient["bias"], p - y)
    close(gradient["kernel"], np.outer(x[0], p - y))


def test_the_derivative_of_relu_at_0_is_taken_as_0():
    net = fcnn.serial(jax.nn.relu)
    assert jax.grad(lambda x: net.apply({}, x).sum())(jnp.array([[-1.0, 0.0, 1.0]])).tolist() == [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    "net", [fcnn.MaxPool(2), fcnn.GlobalMaxPool(), fcnn.AdaptiveMaxPool(1), fcnn.MaxPool(2, stride=1)], ids=repr
)
def test_a_max_over_equal_values_sends_the_gradient_to_the_first_of_them(net):
    def gradient(pixels):
        return plane(jax.grad(lambda x: net.apply({}, x).sum())(image(pixels))).tolist()

    assert gradient([[7, 7], [7, 7]]) == [[1, 0], [0, 0]]
    assert gradient([[0, 7], [7, 7]]) == [[0, 1], [0, 0]]  # first in reading order
    assert gradient([[0, 0], [7, 7]]) == [[0, 0], [1, 0]]
    assert gradient([[0, 0], [0, 7]]) == [[0, 0], [0, 1]]


def test_maxout_over_equal_channels_sends_the_gradient_to_the_first_of_them():
    x = jnp.array([[7.0, 7.0, 7.0, 1.0, 2.0, 2.0]])
    assert jax.grad(lambda x: fcnn.Maxout(3).apply({}, x).sum())(x).tolist() == [[1, 0, 0, 0, 1, 0]]


def test_ties_in_overlapping_windows_each_send_their_gradient_to_their_own_first():
    gradient = jax.grad(lambda x: fcnn.MaxPool(2, stride=1).apply({}, x).sum())(signal([5, 5, 5]))
    assert gradient.ravel().tolist() == [1, 1, 0]


KEPT = 0.7  # p: the share of the units that training keeps
MASKS = [np.array(mask, float) for mask in itertools.product([0, 1], repeat=5)]
CHANCES = [KEPT ** mask.sum() * (1 - KEPT) ** (5 - mask.sum()) for mask in MASKS]
UNITS = np.array([0.5, -1.0, 2.0, 3.0, -0.25])


def test_before_a_linear_layer_weight_scaling_is_the_exact_mean_over_all_dropout_masks(x64):
    net = fcnn.serial(fcnn.Dropout(1 - KEPT), fcnn.Dense(3))
    params = drawn(net, 5)
    weights, bias = (np.asarray(params["dense1"][name]) for name in ("kernel", "bias"))
    assert abs(sum(CHANCES) - 1) < 1e-12

    scaled_in_training = sum(
        chance * (mask * UNITS / KEPT @ weights + bias) for chance, mask in zip(CHANCES, MASKS, strict=True)
    )
    close(net.apply(params, jnp.asarray(UNITS)[None])[0], scaled_in_training)

    scaled_at_test = {"dense1": {"kernel": KEPT * params["dense1"]["kernel"], "bias": params["dense1"]["bias"]}}
    left_as_they_are = sum(
        chance * (mask * UNITS @ weights + bias) for chance, mask in zip(CHANCES, MASKS, strict=True)
    )
    close(net.apply(scaled_at_test, jnp.asarray(UNITS)[None])[0], left_as_they_are)


def test_after_a_nonlinear_layer_the_mean_over_the_masks_is_another_one(x64):
    net = fcnn.serial(fcnn.Dropout(1 - KEPT), fcnn.Dense(3), jax.nn.relu)
    params = drawn(net, 5)
    kernel, bias = (np.asarray(params["dense1"][name]) for name in ("kernel", "bias"))
    mean = sum(
        chance * np.maximum(mask * UNITS / KEPT @ kernel + bias, 0) for chance, mask in zip(CHANCES, MASKS, strict=True)
    )
    assert np.abs(net.apply(params, jnp.asarray(UNITS)[None])[0] - mean).max() > 0.01


def test_in_training_each_unit_is_kept_with_its_probability_and_scaled(key, x64):
    draws = 20_000
    x = jnp.asarray(np.tile(UNITS, (draws, 1)))
    y, _ = fcnn.Dropout(1 - KEPT).apply_train({}, x, key=key)
    kept = np.asarray(y) != 0
    close(y, np.where(kept, UNITS / KEPT, 0))
    spread = math.sqrt(KEPT * (1 - KEPT) / draws)
    assert np.abs(kept.mean(0) - KEPT).max() < 5 * spread
    # units are dropped independently: all the masks appear, as often as their chances say
    found = (kept @ (2 ** np.arange(5)[::-1])).astype(int)
    often = np.bincount(found, minlength=32) / draws
    assert np.all(np.abs(often - CHANCES) < 5 * np.sqrt(np.array(CHANCES) / draws))


def test_at_test_time_nothing_is_dropped():
    x = jnp.asarray(UNITS)[None]
    assert np.array_equal(fcnn.Dropout(0.99).apply({}, x), x)


def hinge(scores, labels):
    """The multi-class hinge loss as a graph of add and max gates: sum over j != y of max(0, s_j - s_y + 1)."""
    true = jnp.take_along_axis(scores, labels[:, None], axis=1)
    margins = jnp.maximum(scores - true + 1, 0)
    others = 1 - jax.nn.one_hot(labels, scores.shape[1], dtype=scores.dtype)
    return jnp.sum(margins * others, axis=1)


def test_the_hinge_loss_of_a_worked_row_of_scores(x64):
    # max(0, 5.1 - 3.2 + 1) + max(0, -1.7 - 3.2 + 1)
    close(hinge(jnp.array([[3.2, 5.1, -1.7]]), jnp.array([0])), [2.9])


def test_the_subgradient_of_the_hinge_loss_on_linear_scores(x64):
    rng = np.random.default_rng(0)
    net = fcnn.Dense(4)
    params = {"kernel": jnp.asarray(rng.normal(size=(3, 4))), "bias": jnp.asarray(rng.normal(size=4))}
    x, labels = rng.normal(size=(6, 3)), np.array([0, 1, 2, 3, 0, 1])

    def loss(params):
        return hinge(net.apply(params, jnp.asarray(x)), jnp.asarray(labels)).sum()

    by_hand = {"kernel": np.zeros((3, 4)), "bias": np.zeros(4)}
    away_from_kinks = []
    for row, label in zip(x, labels, strict=True):
        scores = row @ np.asarray(params["kernel"]) + np.asarray(params["bias"])
        of_scores = np.zeros(4)
        for other in set(range(4)) - {label}:
            margin = scores[other] - scores[label] + 1
            away_from_kinks.append(abs(margin))
            if margin > 0:
                of_scores[other] += 1
                of_scores[label] -= 1
        by_hand["kernel"] += np.outer(row, of_scores)
        by_hand["bias"] += of_scores
    assert min(away_from_kinks) > 1e-3

    gradient = jax.grad(loss)(params)
    assert_same_gradients(gradient, by_hand, 1e-12)
    assert_same_gradients(gradient, numerical_gradient(loss, params), 1e-7)
