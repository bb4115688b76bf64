"""Backpropagation: results known from working them out by hand."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from known import assert_same_gradients, close, drawn, image, normal, numerical_gradient, plane, signal

import fcnn


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
