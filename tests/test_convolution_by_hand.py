"""Convolution and its gradient: results known from working them out by hand."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.signal
from known import (
    BLUR,
    SOBEL_HORIZONTAL,
    SOBEL_VERTICAL,
    assert_same_gradients,
    close,
    declared,
    drawn,
    filtered,
    image,
    normal,
    parameter_count,
    plane,
    signal,
)

import fcnn


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
        apply = jax.jit(net.apply)
        before, after = (plane(apply({}, image(p))) for p in (pixels, np.roll(pixels, 1, axis=0)))
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
