"""Stochastic depth: a whole example is dropped or kept, as often as it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_against_torch import normal

import fcnn
from fcnn import ops

SPACES = [(), (5,), (3, 4), (2, 3, 2)]


def torchvisions(x, rate, generator):
    """Its function in the mode "row" in training, by NumPy: the noise of an example is Bernoulli(1 - p) / (1 - p)."""
    size = [x.shape[0], *[1] * (x.ndim - 1)]
    return x * generator.binomial(1, 1 - rate, size) / (1 - rate)


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_an_example_is_dropped_as_a_whole_or_scaled(space, rate):
    x = normal(0, 64, *space, 3).astype(np.float32)
    y = np.asarray(ops.stochastic_depth(jax.random.key(1), x, rate))
    kept = y.reshape(64, -1).any(1)
    np.testing.assert_allclose(y[kept], x[kept] / np.float32(1 - rate), rtol=1e-6)
    assert not y[~kept].any()
    assert 0 < kept.sum() < 64


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.8])
def test_the_distribution_is_torchvisions(rate):
    n = 20_000
    ours = np.asarray(ops.stochastic_depth(jax.random.key(0), jnp.ones((n, 1)), rate)).ravel()
    theirs = torchvisions(np.ones((n, 1)), rate, np.random.default_rng(0)).ravel()
    np.testing.assert_allclose(np.unique(ours), np.unique(theirs), rtol=1e-6)
    deviation = (rate * (1 - rate) / n) ** 0.5
    for values in (ours, theirs):
        assert abs((values > 0).mean() - (1 - rate)) < 4 * deviation
        assert abs(values.mean() - 1) < 4 * deviation / (1 - rate)
    # one example says nothing of the next
    kept = ours > 0
    assert abs((kept[1:] & kept[:-1]).mean() - (1 - rate) ** 2) < 6 * deviation


def test_the_layer_drops_in_training_alone():
    layer, x = fcnn.StochasticDepth(0.5), jnp.ones((100, 2, 3))
    np.testing.assert_array_equal(layer.apply({}, x), x)
    y, state = layer.apply_train({}, x, key=jax.random.key(0))
    assert state == {}
    assert set(np.unique(y)) == {0.0, 2.0}
    again, _ = layer.apply_train({}, x, key=jax.random.key(0))
    np.testing.assert_array_equal(y, again)
    np.testing.assert_array_equal(fcnn.StochasticDepth(0).apply_train({}, x)[0], x)


def test_a_dropped_branch_leaves_the_shortcut_and_has_no_gradient():
    net = fcnn.residual(fcnn.serial(fcnn.Dense(3), fcnn.StochasticDepth(0.5)))
    params, x = net.init(jax.random.key(0), (3,)), normal(0, 50, 3).astype(np.float32)

    def of_example(kernel, key):
        body = {"dense1": {**params["body"]["dense1"], "kernel": kernel}}
        return net.apply_train({"body": body}, x, key=key)[0]

    y = of_example(params["body"]["dense1"]["kernel"], jax.random.key(2))
    branch = x @ np.asarray(params["body"]["dense1"]["kernel"])
    dropped = np.isclose(y, x).all(1)
    assert 10 < dropped.sum() < 40
    np.testing.assert_allclose(np.asarray(y)[~dropped], (x + 2 * branch)[~dropped], rtol=1e-4, atol=1e-5)
    jacobian = jax.jacobian(of_example)(params["body"]["dense1"]["kernel"], jax.random.key(2))
    np.testing.assert_array_equal(np.asarray(jacobian).reshape(50, -1).any(1), ~dropped)


def test_branches_are_dropped_one_by_one():
    block = fcnn.residual(fcnn.serial(jnp.ones_like, fcnn.StochasticDepth(0.5)))
    net = fcnn.serial(block, block)
    y, _ = net.apply_train({}, jnp.zeros((400, 1)), key=jax.random.key(0))
    values, counts = np.unique(np.asarray(y), return_counts=True)
    assert values.tolist() == [0.0, 2.0, 4.0]
    assert all(60 < n < 260 for n in counts)


def test_empty_batches_dtypes_and_vmap_over_keys():
    for dtype in ("float16", "bfloat16", "float32"):
        y = ops.stochastic_depth(jax.random.key(0), jnp.ones((0, 4, 2), dtype), 0.5)
        assert (y.shape, y.dtype) == ((0, 4, 2), dtype)
    keys, x = jax.random.split(jax.random.key(0), 5), jnp.ones((8, 2))
    together = jax.vmap(lambda key: ops.stochastic_depth(key, x, 0.5))(keys)
    np.testing.assert_array_equal(together, jnp.stack([ops.stochastic_depth(key, x, 0.5) for key in keys]))


@pytest.mark.parametrize("method", ["layers", "patches"])
def test_a_scan_in_training(method):
    net = fcnn.serial(fcnn.Conv(3, 2), fcnn.StochasticDepth(0.5), fcnn.Flatten(), fcnn.Dense(2, bias=False))
    scan = fcnn.Scan(net, 3, method=method)
    params, x = scan.init(jax.random.key(0), (5, 6, 1)), normal(0, 40, 5, 6, 1).astype(np.float32)
    y = np.asarray(scan.apply_train(params, x, key=jax.random.key(1))[0])
    zero = ~y.any(-1)
    assert 0.2 < zero.mean() < 0.8
    if method == "layers":  # what is shared by all windows is dropped for all of them
        assert (zero.reshape(40, -1).all(1) | ~zero.reshape(40, -1).any(1)).all()
    used = fcnn.Scan(net, 3, method="patches").apply(params, x)
    np.testing.assert_allclose(scan.apply(params, x), used, rtol=1e-5, atol=1e-6)
    assert fcnn.analysis.receptive_field(fcnn.serial(fcnn.Conv(1, 3), fcnn.StochasticDepth(0.1)), (5, 5, 1)).size == (
        3,
        3,
    )


@pytest.mark.parametrize("rate", [1.0, -0.1, float("nan")])
def test_mistakes(rate):
    with pytest.raises(ValueError, match=r"^stochastic_depth: rate is .*it must be in \[0, 1\)"):
        ops.stochastic_depth(jax.random.key(0), jnp.ones((2, 2)), rate)
    with pytest.raises(ValueError, match=r"^stochastic_depth: draws random numbers"):
        fcnn.StochasticDepth(0.5).apply_train({}, jnp.ones((2, 2)))
