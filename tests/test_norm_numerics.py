"""Norms where numbers are large, small or all the same, and running statistics that one bad batch does not spoil."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn import ops

torch = pytest.importorskip("torch")
KEY = jax.random.key(0)
SHAPE = (5, 4, 6)
X = np.random.default_rng(0).normal(size=(4, *SHAPE))
NORMS = {
    "batch": fcnn.BatchNorm(),
    "batch alone": fcnn.BatchNorm(running=False),
    "layer": fcnn.LayerNorm(),
    "layer of all": fcnn.LayerNorm(axes=(1, 2, 3)),
    "group": fcnn.GroupNorm(2),
    "instance": fcnn.InstanceNorm(),
    "instance running": fcnn.InstanceNorm(running=True),
}
ALL = pytest.mark.parametrize("name", NORMS)


@jax.jit
def trained(net, params, state, x):
    """The output in training, the new state, and the gradient of x for a cotangent that depends on the place."""

    def output(x):
        return net.apply_train(params, x, state=state)

    y, back, new = jax.vjp(output, x, has_aux=True)
    return y, new, back(jnp.cos(jnp.arange(y.size)).reshape(y.shape).astype(y.dtype))[0]


def made(name, dtype="float32"):
    net = NORMS[name]
    params = jax.tree.map(lambda a: a.astype(dtype), net.init(KEY, SHAPE))
    return net, params, net.init_state(SHAPE)


def by_hand(x, net, epsilon=1e-5):
    """In extended precision, with the range that it has: the normalised x and its gradient, for the same cotangent."""
    x = np.asarray(x, np.longdouble)
    split, axes = x, (0, 1, 2)
    if isinstance(net, fcnn.LayerNorm):
        axes = (3,) if net.axes == -1 else (1, 2, 3)
    elif isinstance(net, fcnn.InstanceNorm):
        axes = (1, 2)
    elif isinstance(net, fcnn.GroupNorm):
        split, axes = x.reshape(*x.shape[:-1], net.groups, -1), (1, 2, 4)
    g = np.cos(np.arange(x.size, dtype=np.longdouble)).reshape(split.shape)
    centred = split - split.mean(axes, keepdims=True)
    root = np.sqrt((centred**2).mean(axes, keepdims=True) + np.longdouble(epsilon))
    y = centred / root
    gradient = (g - g.mean(axes, keepdims=True) - y * (g * y).mean(axes, keepdims=True)) / root
    return y.reshape(x.shape), gradient.reshape(x.shape)


@ALL
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_constants_give_zero(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        net, params, state = made(name, dtype)
        for value in (123456.7, -3.3e-7, 6.1e4, 0.0):
            x = jnp.full((3, *SHAPE), value if dtype != "float16" else value / 4, dtype)
            y, _, gradient = trained(net, params, state, x)
            np.testing.assert_array_equal(np.asarray(y, float), 0)
            assert np.isfinite(np.asarray(gradient, float)).all()


def test_constants_give_zero_however_many_they_are():
    """A plain sum of as many equal float32 is off by parts in a thousand."""
    x = jnp.full((32, 40, 40, 3), 123456.7)
    assert float(jnp.abs(ops.standardize(x, (0, 1, 2), epsilon=1e-5)[0]).max()) == 0
    mean, variance = ops.moments(x, (0, 1, 2))
    assert mean.ravel().tolist() == [float(x[0, 0, 0, 0])] * 3
    assert variance.ravel().tolist() == [0.0] * 3


@ALL
@pytest.mark.parametrize("factor", [1e20, 1e30, 1e-3, 1e-25])
def test_squares_neither_overflow_nor_vanish(name, factor):
    net, params, state = made(name)
    x = jnp.asarray(X * factor, "float32")
    y, _, gradient = trained(net, params, state, x)
    expected, slope = by_hand(x, net)
    for found, wanted in ((y, expected), (gradient, slope)):
        far = np.abs(np.asarray(found, np.longdouble) - wanted).max()
        assert far < 5e-6 * np.abs(wanted).max()


@ALL
def test_a_far_offset_costs_what_rounding_of_the_input_costs(name):
    net, params, state = made(name)
    x = jnp.asarray(X + 1000, "float32")
    y, _, gradient = trained(net, params, state, x)
    expected, slope = by_hand(x, net)
    np.testing.assert_allclose(y, expected.astype(float), atol=5e-6)
    np.testing.assert_allclose(gradient, slope.astype(float), atol=5e-6)


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 2, 1, 3), (3, 4, 3, 5)])
def test_an_outlier_takes_nothing_from_the_precision_of_the_rest(place):
    x = X.astype("float32")
    x[place] = 1e6
    found = np.asarray(ops.standardize(jnp.asarray(x), (0, 1, 2), epsilon=1e-5)[0], np.longdouble)[..., place[-1]]
    expected = by_hand(x, NORMS["batch"])[0][..., place[-1]]  # the others are about -0.11 there, none is near 0
    assert (np.abs(found - expected) < 1e-6 * np.abs(expected)).all()


@pytest.mark.parametrize("size", [1e10, 1e20, 1e25, 1e34])
def test_large_values_that_cancel_beside_zeros(size):
    """The mean is 0, and so are many values: no single value and no sum tells how large the squares are."""
    x = np.zeros((1, 101), "float32")
    x[0, [10, 20]] = size, -size
    y, back = jax.vjp(lambda x: ops.layer_norm(x), jnp.asarray(x))
    expected, slope = by_hand(x[:, None, None], NORMS["layer"])
    np.testing.assert_allclose(y, expected[:, 0, 0].astype(float), atol=1e-5)
    (gradient,) = back(jnp.cos(jnp.arange(101.0))[None])
    far = np.abs(np.asarray(gradient, np.longdouble) - slope[:, 0, 0]).max()
    assert far < 5e-6 * np.abs(slope).max()


def test_a_variance_beyond_float16_is_computed_in_float32():
    x = jnp.asarray(X * 1e4, "float16")  # the variance is 1e8, and 65,504 the largest float16
    for name in ("batch", "layer", "group", "instance"):
        net, params, state = made(name, "float16")
        y, new, _ = trained(net, params, state, x)
        assert y.dtype == "float16"
        np.testing.assert_allclose(np.asarray(y, float), by_hand(x, net)[0].astype(float), atol=4e-3)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new))


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_standardize_has_the_derivatives_of_its_formula(epsilon, x64):
    """The closed derivative, of all three results, against autodiff of the formula: forward, reverse and both."""

    def plainly(x):
        mean = x.mean((0, 2), keepdims=True)
        variance = jnp.square(x - mean).mean((0, 2), keepdims=True)
        return (x - mean) / jnp.sqrt(variance + epsilon), mean, variance

    def slope(function):
        return jax.grad(lambda x: sum(jnp.sum(jnp.sin(3 * y)) for y in function(x)))

    def everything(function):
        def run(x, t):
            forward = jax.jvp(function, (x,), (t,))[1]
            return forward, slope(function)(x), jax.jvp(slope(function), (x,), (t,)), jax.jacrev(slope(function))(x)

        return jax.jit(jax.vmap(run))(*np.random.default_rng(0).normal(size=(2, 2, 3, 2, 4)))

    found, wanted = everything(lambda x: ops.standardize(x, (0, 2), epsilon=epsilon)), everything(plainly)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, wanted)


def test_epsilon_zero_makes_constants_zero_with_a_gradient_of_zero():
    x = jnp.full((2, 3, 4), 7.0)
    calls = {
        "layer": lambda x: ops.layer_norm(x, epsilon=0.0),
        "group": lambda x: ops.group_norm(x, 2, epsilon=0.0),
        "instance": lambda x: ops.instance_norm(x, epsilon=0.0),
        "batch": lambda x: ops.batch_norm(x, jnp.full(4, 7.0), jnp.zeros(4), epsilon=0.0),
    }
    _, back = jax.vjp(lambda x: ops.standardize(x, (1,), epsilon=0.0), x)
    for cotangent in np.eye(3, dtype="float32"):
        given = [jnp.full(shape, c) for shape, c in zip(((2, 3, 4), (2, 1, 4), (2, 1, 4)), cotangent, strict=True)]
        np.testing.assert_allclose(back(tuple(given))[0], cotangent[1] / 3, rtol=1e-6)
    for call in calls.values():
        y, back = jax.vjp(call, x)
        np.testing.assert_array_equal(y, 0)
        np.testing.assert_array_equal(back(jnp.ones_like(y))[0], 0)
    found = ops.layer_norm(jnp.asarray(X * 1e-25, "float32"), epsilon=0.0)
    expected = by_hand(jnp.asarray(X * 1e-25, "float32"), fcnn.LayerNorm(), 0)[0]
    np.testing.assert_allclose(found, expected.astype(float), atol=5e-6)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 3.0, 40.0])
@pytest.mark.parametrize("factor", [1e30, 1.0, 1e-30])
def test_lp_pool_of_what_has_no_power_in_float32(power, factor):
    x = jnp.asarray(X * factor, "float32").at[0, 0, 0, 0].set(-3 * factor)
    windows = np.asarray(x, np.longdouble)[:, :4].reshape(4, 2, 2, 2, 2, 6)

    def norms(windows):
        return (np.abs(windows) ** np.longdouble(power)).sum((2, 4)) ** (1 / np.longdouble(power))

    y, back = jax.vjp(lambda x: ops.lp_pool(x, 2, power=power), x)
    expected = norms(windows)
    np.testing.assert_allclose(np.asarray(y, np.longdouble) / expected, 1, atol=2e-6)
    slope = np.sign(windows) * (np.abs(windows) / expected[:, :, None, :, None]) ** (np.longdouble(power) - 1)
    found = np.asarray(back(jnp.ones_like(y))[0])[:, :4].reshape(windows.shape)
    np.testing.assert_allclose(found, slope.astype(float), atol=2e-5)


def test_lp_pool_of_a_window_of_small_values_beside_a_large_one():
    x = jnp.array([1e30, 1e30, 3e-10, 4e-10, 0.0, 0.0]).reshape(1, 6, 1)
    found = ops.lp_pool(x, 2).ravel()
    np.testing.assert_allclose(found, [2**0.5 * 1e30, 5e-10, 0], rtol=1e-6)
    bad = jnp.array([jnp.inf, 1.0, jnp.nan, 1.0, 3.0, 4.0]).reshape(1, 6, 1)
    np.testing.assert_array_equal(ops.lp_pool(bad, 2).ravel(), [np.inf, np.nan, 5.0])


@pytest.mark.parametrize("factor", [1e10, 1e20, 1.0, 1e-25])
@pytest.mark.parametrize("beta", [0.75, 0.25, 1.5])
def test_local_response_norm_of_squares_beyond_float32(factor, beta):
    def by_hand(x):
        x = np.asarray(x, np.longdouble)
        n = sum(np.pad(x**2, [(0, 0)] * 3 + [(1, 1)])[..., j : j + 6] for j in range(3))
        return x * (2 + np.longdouble(1e-4) * n) ** -np.longdouble(beta)

    x = jnp.asarray(X * factor, "float32")
    y = ops.local_response_norm(x, size=3, beta=beta)
    expected = by_hand(x)
    ordinary = np.abs(expected) > 1e-37
    # three squares and their sum, a power of it and four products round once each; 5 units of 2^-24 were measured
    assert np.abs(np.asarray(y, np.longdouble) / expected - 1)[ordinary].max(initial=0) < 8 * 2.0**-24
    with jax.enable_x64(True):
        exact = jax.grad(lambda x: ops.local_response_norm(x, size=3, beta=beta).sum())(np.asarray(x, np.float64))
    slope = jax.grad(lambda x: ops.local_response_norm(x, size=3, beta=beta).sum())(x)
    np.testing.assert_allclose(slope, exact, rtol=0, atol=max(1e-6 * np.abs(exact).max(), 1e-37))  # float32 ends there


def test_local_response_norm_of_a_large_value_touches_its_neighbours_alone():
    x = np.ones((1, 2, 8), "float32")
    plain = ops.local_response_norm(jnp.asarray(x), size=3)
    for large in (1e30, np.inf, np.nan):
        x[0, 0, 2] = large
        y = np.asarray(ops.local_response_norm(jnp.asarray(x), size=3))
        assert not np.allclose(y[0, 0, 1:4], plain[0, 0, 1:4])
        np.testing.assert_array_equal(np.delete(y, [1, 2, 3], -1), np.delete(plain, [1, 2, 3], -1))
        np.testing.assert_array_equal(y[0, 1], plain[0, 1])


# Running statistics.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e21])
@pytest.mark.parametrize(
    "net",
    [fcnn.BatchNorm(), fcnn.BatchNorm(momentum=None), fcnn.BatchNorm(momentum=0.0), fcnn.InstanceNorm(running=True)],
    ids=repr,
)
def test_a_channel_without_finite_statistics_keeps_its_old_ones(net, bad):
    x = X.astype("float32")
    broken = x.copy()
    broken[1, 2, 3, 4] = bad  # the variance that 1e21 among 80 values makes, 1e40, is beyond float32
    params, first = net.init(KEY, SHAPE), net.init_state(SHAPE)
    _, before, _ = trained(net, params, first, x)
    _, after, _ = trained(net, params, before, broken)
    _, expected, _ = trained(net, params, before, x)
    others = [0, 1, 2, 3, 5]
    for entry in before:
        assert float(after[entry][4]) == float(before[entry][4])
        np.testing.assert_array_equal(after[entry][np.array(others)], expected[entry][np.array(others)])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("net", [fcnn.BatchNorm(), fcnn.InstanceNorm(running=True)], ids=repr)
def test_a_state_in_half_precision_is_refused_in_training_and_taken_in_use(net, dtype):
    state = jax.tree.map(lambda a: a.astype(dtype), net.init_state(SHAPE))
    params, x = net.init(KEY, SHAPE), jnp.asarray(X, "float32")
    with pytest.raises(ValueError, match=f"norm: the state's mean has dtype {dtype}, .*stalls.*float32"):
        net.apply_train(params, x, state=state)
    np.testing.assert_allclose(
        net.apply(params, x, state=state), net.apply(params, x, state=net.init_state(SHAPE)), rtol=1e-6
    )


def test_gradients_accumulated_in_bfloat16_are_summed_in_float32():
    """512 shares of 1/512 each: in bfloat16 the sum stands still at half of it."""
    import optax

    net, optimizer = fcnn.Dense(1, bias=False), optax.sgd(1.0)
    params = {"kernel": jnp.zeros((1, 1), "bfloat16")}
    step = fcnn.training.make_step(net, optimizer, lambda y, t: (y * t.astype(y.dtype)).sum(-1), accumulate=512)
    before = fcnn.training.start(net, optimizer, KEY, (1,), params=params)
    x = jnp.ones((512, 1), "bfloat16")
    after, _ = jax.jit(step)(before, (x, x))
    assert float(after.params["kernel"][0, 0]) == -1


@pytest.mark.parametrize(
    ("net", "module"),
    [
        (fcnn.BatchNorm(momentum=None), lambda: torch.nn.BatchNorm2d(6, momentum=None)),
        (fcnn.BatchNorm(momentum=0.7), lambda: torch.nn.BatchNorm2d(6, momentum=0.3)),
        (fcnn.BatchNorm(running=False), lambda: torch.nn.BatchNorm2d(6, track_running_stats=False)),
        (
            fcnn.InstanceNorm(running=True, scale=False, bias=False, momentum=0.7),
            lambda: torch.nn.InstanceNorm2d(6, momentum=0.3, track_running_stats=True),
        ),
        (fcnn.InstanceNorm(), lambda: torch.nn.InstanceNorm2d(6, affine=True)),
    ],
    ids=lambda value: repr(value) if isinstance(value, fcnn.Layer) else "",
)
def test_several_steps_and_use_are_those_of_torch(net, module, x64):
    """Values, gradients of x, scale and bias, and the running statistics, three batches in training and one in use."""
    theirs = module().double()
    params = {name: np.random.default_rng(i).normal(size=6) for i, name in enumerate(net.init(KEY, SHAPE))}
    for ours, name in (("scale", "weight"), ("bias", "bias")):
        if ours in params:
            with torch.no_grad():
                getattr(theirs, name).copy_(torch.tensor(params[ours]))
    state = net.init_state(SHAPE)

    def output(params, x, state, train):
        return net.apply_train(params, x, state=state) if train else (net.apply(params, x, state=state), state)

    for step in range(4):
        train = step < 3
        theirs.train(train)
        x = 3 + 2 * np.random.default_rng(10 + step).normal(size=(4, *SHAPE))
        g = np.random.default_rng(20 + step).normal(size=x.shape)
        y, back, state = jax.vjp(lambda p, x: output(p, x, state, train), params, x, has_aux=True)  # noqa: B023
        d_params, d_x = back(g)
        their_x = torch.tensor(x).movedim(-1, 1).requires_grad_()
        their_y = theirs(their_x)
        theirs.zero_grad()
        their_y.backward(torch.tensor(g).movedim(-1, 1))
        pairs = [(y, their_y.detach().movedim(1, -1)), (d_x, their_x.grad.movedim(1, -1))]
        pairs += [
            (d_params[n], getattr(theirs, t).grad) for n, t in (("scale", "weight"), ("bias", "bias")) if n in params
        ]
        if state:
            pairs += [(state["mean"], theirs.running_mean), (state["variance"], theirs.running_var)]
        for found, expected in pairs:
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-10, atol=1e-10)
    if "count" in state:
        assert state["count"].tolist() == [3] * 6 == [int(theirs.num_batches_tracked)] * 6


def test_the_running_variance_is_biased_where_asked(x64):
    for net, axes in ((fcnn.BatchNorm(momentum=0.0, unbiased=False), (0, 1, 2)), (None, (1, 2))):
        net = net or fcnn.InstanceNorm(running=True, momentum=0.0, unbiased=False)
        _, state = net.apply_train(net.init(KEY, SHAPE), X, state=net.init_state(SHAPE))
        np.testing.assert_allclose(state["variance"], X.var(axes).reshape(-1, 6).mean(0), rtol=1e-12)


@pytest.mark.parametrize("axes", [(-3, -2, -1), (-2, -1), (1, 2), 2, (1, 3)], ids=str)
def test_layer_norm_over_axes_is_torchs_normalized_shape(axes, x64):
    net = fcnn.LayerNorm(axes=axes)
    places = sorted(axis % 4 for axis in (axes if isinstance(axes, tuple) else (axes,)))
    sizes = [X.shape[axis] for axis in places]
    assert {name: list(a.shape) for name, a in net.init(KEY, SHAPE).items()} == {"scale": sizes, "bias": sizes}
    params = {name: np.random.default_rng(i).normal(size=sizes) for i, name in enumerate(("scale", "bias"))}
    others = [axis for axis in range(4) if axis not in places]

    def theirs(x, scale, bias):  # the axes at the end, where torch has them
        y = torch.nn.functional.layer_norm(x.permute(*others, *places), sizes, scale, bias, 1e-5)
        return y.permute(*np.argsort([*others, *places]))

    given = [torch.tensor(a, requires_grad=True) for a in (X, params["scale"], params["bias"])]
    y, back = jax.vjp(lambda x, s, b: net.apply({"scale": s, "bias": b}, x), X, params["scale"], params["bias"])
    g = np.random.default_rng(5).normal(size=X.shape)
    expected = theirs(*given)
    expected.backward(torch.tensor(g))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-10, atol=1e-10)
    for found, tensor in zip(back(g), given, strict=True):
        np.testing.assert_allclose(found, tensor.grad.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "net",
    [fcnn.BatchNorm(momentum=None), fcnn.BatchNorm(unbiased=False), fcnn.InstanceNorm(running=True)],
    ids=repr,
)
def test_recomputed_statistics_are_the_mean_of_the_batches(net, x64):
    params, state = net.init(KEY, SHAPE), net.init_state(SHAPE)
    for _ in range(3):  # what was gathered before does not matter
        _, state = net.apply_train(params, X + 5, state=state)
    broken = np.concatenate([X, np.full((2, *SHAPE), np.nan)])  # batches of two examples: the last one does not count
    found = fcnn.training.recompute_statistics(net, params, state, broken, batch_size=2)
    axes = (1, 2) if isinstance(net, fcnn.InstanceNorm) else (0, 1, 2)
    halves = [X[:2], X[2:]]
    means = np.mean([half.mean(axes).reshape(-1, 6).mean(0) for half in halves], 0)
    ddof = int(net.unbiased)
    variances = np.mean([half.var(axes, ddof=ddof).reshape(-1, 6).mean(0) for half in halves], 0)
    np.testing.assert_allclose(found["mean"], means, rtol=1e-9)
    np.testing.assert_allclose(found["variance"], variances, rtol=1e-9)


def test_an_ensemble_and_a_sharded_batch_have_the_statistics_of_one():
    net = fcnn.BatchNorm(momentum=None)
    x = jnp.asarray(np.stack([X, 1e20 * X]), "float32")
    params = jax.vmap(lambda key: net.init(key, SHAPE))(jax.random.split(KEY, 2))
    state = jax.tree.map(lambda a: jnp.stack([a, a]), net.init_state(SHAPE))
    y, new = jax.vmap(lambda p, x, s: net.apply_train(p, x, state=s))(params, x, state)
    for one, given in zip(y, x, strict=True):
        np.testing.assert_allclose(one, by_hand(given, net)[0].astype(float), atol=5e-6)
    assert new["count"].tolist() == [[1.0] * 6, [0.0] * 6]
    mesh = jax.make_mesh((jax.device_count(),), ("batch",))
    if 4 % jax.device_count() == 0:
        spread = jax.device_put(x[0], jax.NamedSharding(mesh, jax.P("batch")))
        one = jax.tree.map(lambda a: a[0], (params, state))
        for found, expected in zip(trained(net, *one, spread), trained(net, *one, x[0]), strict=True):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


# Where work cannot be shared between positions.


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (fcnn.LayerNorm(axes=(1, 2, 3)), "takes its statistics over all positions"),
        (fcnn.LayerNorm(axes=-2), "takes its statistics over all positions"),
        (fcnn.InstanceNorm(), "takes its statistics over all positions"),
    ],
    ids=repr,
)
def test_norms_over_the_space_are_refused_in_a_scan(norm, reason):
    detector = fcnn.serial(fcnn.Conv(4, 3), norm, fcnn.Flatten(), fcnn.Dense(2))
    with pytest.raises(ValueError, match=reason):
        fcnn.Scan(detector, 6).out_shape((9, 9, 3))
    with pytest.raises(ValueError, match="takes its statistics over all positions"):
        fcnn.analysis.receptive_field(fcnn.serial(fcnn.Conv(4, 3), norm), (9, 9, 3))


@pytest.mark.parametrize(
    "norm",
    [fcnn.LayerNorm(axes=3), fcnn.BatchNorm(running=False), fcnn.BatchNorm(momentum=None), fcnn.LayerNorm(axes=-1)],
    ids=repr,
)
@pytest.mark.parametrize("train", [False, True])
def test_a_scan_computes_norms_over_channels_and_batches_by_layers(norm, train, x64):
    detector = fcnn.serial(fcnn.Conv(4, 3), norm, jnp.tanh, fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(2))
    x = np.random.default_rng(3).normal(size=(2, 9, 8, 3))
    params, state = detector.init(KEY, (6, 6, 3)), detector.init_state((6, 6, 3))
    found = []
    for method in ("layers", "patches"):
        net = fcnn.Scan(detector, 6, method=method)
        run = net.apply_train if train else lambda *a, net=net, **k: (net.apply(*a, **k), state)
        found.append(run(params, x, state=state))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), *found)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: ops.batch_norm(x[0], x[0], x[0]), r"^batch_norm: x has shape \(4,\), expected \(batch.*x\[None\]"),
        (lambda x: ops.group_norm(x[0], 2), r"^group_norm: x has shape \(4,\), expected \(batch.*x\[None\]"),
        (lambda x: ops.instance_norm(x[0]), r"^instance_norm: x has shape \(4,\), expected \(batch.*x\[None\]"),
        (lambda x: ops.group_norm(x, 3), "groups 3 do not divide 4 channels"),
        (lambda x: ops.layer_norm(x, epsilon=-1e-5), "layer_norm: epsilon is -1e-05, .*not negative"),
        (lambda x: ops.group_norm(x, 2, epsilon=np.nan), "group_norm: epsilon is nan"),
        (lambda x: ops.instance_norm(x[None], epsilon=np.inf), "instance_norm: epsilon is inf"),
        (lambda x: ops.batch_norm(x, x[0], x[0], epsilon=-1.0), "batch_norm: epsilon is -1"),
        (lambda x: ops.normalize(x, x, x, epsilon=-1.0), "normalize: epsilon is -1"),
        (lambda x: ops.standardize(x, (0,), epsilon=-1.0), "standardize: epsilon is -1"),
        (lambda x: ops.layer_norm(x, axes=(0, 1)), r"layer_norm: axes \(0, 1\) .*axis 0 is the batch"),
        (
            lambda x: ops.layer_norm(x[None], x, axes=(-2, -1), bias=x[0]),
            r"layer_norm: bias has shape \(4,\).*\(3, 4\)",
        ),
    ],
)
def test_what_the_operations_refuse(call, says):
    with pytest.raises(ValueError, match=says):
        call(jnp.ones((3, 4)))


def test_a_batch_norm_of_one_value_is_refused_as_in_torch():
    for net in (fcnn.BatchNorm(), fcnn.BatchNorm(momentum=None), fcnn.BatchNorm(running=False)):
        params, state = net.init(KEY, (1, 1, 3)), net.init_state((1, 1, 3))
        with pytest.raises(ValueError, match="one value for each channel has no variance"):
            net.apply_train(params, jnp.ones((1, 1, 1, 3)), state=state)
    with pytest.raises(ValueError, match="one value for each channel has no variance"):
        net.apply(params, jnp.ones((1, 1, 1, 3)))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        torch.nn.BatchNorm2d(3)(torch.ones(1, 3, 1, 1))


def test_a_norm_as_a_function_is_written_by_hand_and_scanned(x64):
    net = fcnn.serial(fcnn.Conv(4, 3), ops.layer_norm, fcnn.Flatten(), fcnn.Dense(2))
    params, x = net.init(KEY, (5, 5, 2)), np.random.default_rng(0).normal(size=(2, 5, 5, 2))
    report = fcnn.check_gradients(net, params, x, np.array([0, 1]))
    assert report.ok, str(report)
    assert not report.unwritten
    image = np.random.default_rng(1).normal(size=(1, 8, 7, 2))
    by_layers, by_patches = (fcnn.Scan(net, 5, method=m).apply(params, image) for m in ("layers", "patches"))
    np.testing.assert_allclose(by_layers, by_patches, rtol=1e-10, atol=1e-10)
