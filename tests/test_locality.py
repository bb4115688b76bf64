"""One bad sample spoils the outputs that see it and no others: every algorithm, forward and both gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from test_algorithms import by_definition, drawn_problem, geometry, to_polyphase, with_gradients

import fcnn
from fcnn import ops
from fcnn.ops.convolution import ALGORITHMS, convolve, locality, use_algorithm, winograd

compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def all_three(x, kernel, g, how):
    """The result and both gradients by definition, in NumPy."""
    return (by_definition(x, kernel, how), *by_definition(x, kernel, how, g))


@functools.cache
def problem(algorithm, seed):
    """A drawn problem in float32: operands, what a program makes of them, its geometry, and the truth."""
    x, kernel, g, how = drawn_problem(algorithm, seed)
    x, kernel, g = (np.asarray(a, np.float32) for a in (x, kernel, g))
    run = compiled(with_gradients(lambda x, kernel: convolve(x, kernel, how, algorithm)))

    def own(x, kernel, g):
        return [np.asarray(a) for a in run(x, kernel, to_polyphase(jnp.asarray(g), how.phases))]

    return (x, kernel, g), own, how, all_three(x, kernel, g, how)


def with_sample(a, value, place=None):
    """A copy with another value in the middle, or at a place."""
    a = a.copy()
    a[tuple(n // 2 for n in a.shape) if place is None else place] = value
    return a


def places(shape):
    """The middle, and the corner where padding is seen as well."""
    return tuple(n // 2 for n in shape), (0,) * len(shape)


def seen(operands, which, place, how):
    """Where results depend on a sample: by definition, with ones for all that it meets."""
    ones = [np.ones(a.shape) for a in operands]
    mark = with_sample(np.zeros(operands[which].shape), 1.0, place)
    x, kernel, g = [mark if i == which else one for i, one in enumerate(ones)]
    y, dx, dkernel = all_three(x, kernel, g, how)
    if which == 0:
        return y > 0, None, dkernel > 0
    if which == 2:
        return None, dx > 0, dkernel > 0
    return y > 0, dx > 0, None


DRAWN = [(name, seed) for name in ALGORITHMS for seed in (range(3) if name != "direct" else range(5))]


@pytest.mark.parametrize(("algorithm", "seed"), DRAWN)
def test_what_is_not_finite_spoils_what_sees_it(algorithm, seed):
    operands, own, how, truth = problem(algorithm, seed)
    for which, value in ((0, np.nan), (0, np.inf), (2, np.nan), (2, -np.inf)):
        for place in places(operands[which].shape):
            given = [with_sample(a, value, place) if i == which else a for i, a in enumerate(operands)]
            found = own(*given)
            expected = seen(operands, which, place, how)
            for number, (y, spoilt, clean) in enumerate(zip(found, expected, truth, strict=True)):
                clean = to_polyphase(clean, how.phases) if number == 0 else clean
                spoilt = np.zeros(y.shape, bool) if spoilt is None else spoilt
                if number == 0 and spoilt.shape != y.shape:
                    spoilt = to_polyphase(spoilt, how.phases)
                bad = ~np.isfinite(y)
                assert bad[spoilt].all()
                if (which, number) == (2, 2):  # the zeros of the padding meet it as well: in all samples of its feature
                    spoilt[..., place[-1]] = True
                assert not bad[~spoilt].any()
                assert np.abs(y - clean)[~bad].max(initial=0) <= 1e-5 * np.abs(clean).max(initial=1)


@pytest.mark.parametrize(("algorithm", "seed"), DRAWN)
def test_an_outlier_does_not_reach_what_does_not_see_it(algorithm, seed):
    operands, own, how, truth = problem(algorithm, seed)
    for which in (0, 2):
        if np.prod(operands[which].shape[1:-1]) < 4:
            continue  # of so few positions none is the usual one
        for value in (65535.0, 1e30):
            for place in places(operands[which].shape):
                given = [with_sample(a, value, place) if i == which else a for i, a in enumerate(operands)]
                found, wanted = own(*given), all_three(*(a.astype(np.float64) for a in given), how)
                for number, (y, sees) in enumerate(zip(found, seen(operands, which, place, how), strict=True)):
                    clean, right = truth[number], wanted[number]
                    sees = np.zeros(right.shape, bool) if sees is None else sees
                    if number == 0:
                        clean, right, sees = (to_polyphase(a, how.phases) for a in (clean, right, sees))
                    scale = np.abs(clean).max(initial=1)
                    assert np.abs(y - right)[~sees].max(initial=0) <= 2e-5 * scale
                    assert np.abs(y - right)[sees].max(initial=0) <= 2e-5 * np.abs(right).max(initial=1)


@pytest.mark.parametrize("algorithm", ["blocks", "winograd", "fourier"])
def test_a_bad_weight_spoils_its_feature_and_its_channel(algorithm):
    operands, own, how, _ = problem(algorithm, 0)
    x, kernel, g = operands
    place = (*(n // 2 for n in kernel.shape[:-2]), 0, 0)
    sees = to_polyphase(seen(operands, 1, place, how)[0], how.phases)
    for value in (np.nan, np.inf):
        y, dx, dkernel = own(x, with_sample(kernel, value, place), g)
        bad = ~np.isfinite(y)
        assert bad[sees].all()
        assert not np.moveaxis(bad, 0 if how.polyphase else -1, 0)[1:].any()
        assert not np.moveaxis(~np.isfinite(dx), -1, 0)[1:].any()
        assert np.isfinite(dkernel).all()


# The programs that are chosen by themselves, at the sizes of which the README speaks.

CHOSEN = {
    "winograd 3x3": ((2, 16, 16, 64), (3, 3, 64, 64), "SAME"),
    "winograd 5x5": ((2, 12, 12, 16), (5, 5, 16, 16), "SAME"),
    "fourier": ((8, 40, 40, 2), (25, 25, 2, 2), "SAME"),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_codes_for_missing_data_leave_the_rest_as_exact_as_it_was(name):
    shape, kernel, padding = CHOSEN[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    kernel = (rng.normal(size=kernel) / np.sqrt(np.prod(kernel[:-1]))).astype(np.float32)
    asked = name.split()[0]
    y_of = jax.jit(lambda x: ops.conv(x, kernel, padding=padding, algorithm=asked))
    exact = jax.jit(lambda x: ops.conv(x, kernel, padding=padding, algorithm="direct"))
    usual = np.abs(y_of(x) - exact(x)).max()
    pixel, area, stripes = x.copy(), x.copy(), x.copy()
    pixel[0, 8, 8, :] = 65535
    area[0, :5] = -9999
    stripes[0, :, ::4] = 1e30
    for bad in (pixel, area, stripes, with_sample(x, 1e4), with_sample(x, 300.0)):
        spoilt = ops.conv(jnp.asarray(bad != x, "float32"), jnp.ones(kernel.shape), padding=padding) > 0.5
        error = np.abs(y_of(bad) - exact(bad))[~np.asarray(spoilt)].max()
        assert error <= max(16 * usual, 1e-5)


def test_the_bound_of_winograd_holds():
    """No error is larger than so many roundings of the sums of magnitudes that the transforms grow to."""
    rng = np.random.default_rng(0)
    for size in winograd.KERNELS:
        x = rng.choice([-1.0, 1.0], size=(2, 12, 12, 8)).astype(np.float32)
        x[0, 5, 5] = 1000
        kernel = rng.choice([-1.0, 1.0], size=(size, size, 8, 3)).astype(np.float32)
        how = geometry(pads=((1, 1),))
        run = jax.jit(lambda x, kernel, how=how: winograd.forward(x, kernel, how))  # without looking at the data
        error = np.abs(run(x, kernel) - by_definition(x, kernel, how))
        grown = winograd.growth(size) ** 2 * 1000 * 8
        assert error.max() <= 8 * float(jnp.finfo("float32").eps) * grown
        assert error.max() >= 1e-4 * float(jnp.finfo("float32").eps) * grown


# What data are level.


def level(x):
    return bool(jax.jit(lambda x: locality.level(x, -1, 1, 32))(jnp.asarray(x, "float32")[None]))


def test_which_data_are_level():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 200, 8))
    assert level(x)
    assert level(x * 1e-15)
    assert level(x * 1e15)
    assert level(np.zeros((3, 200, 8)))
    assert level(x * np.array([1e-12, 1, 1e12]).reshape(3, 1, 1))  # every example for itself
    assert level(np.where(rng.random(x.shape) < 0.02, x, 0))  # zeros do not count
    assert level(np.exp(1.2 * rng.normal(size=x.shape)))
    for size in (1e3, 1e8, 1e30, np.inf, np.nan):
        for many in (1, 60):
            spoilt = x.copy()
            spoilt[1, :many] = size
            assert not level(spoilt), (size, many)
    assert level(np.zeros((0, 4, 2))) in (True, False)


# Transformations, where the data are computed once more.


def test_the_second_computation_keeps_every_transformation(x64):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 6, 7, 3)), rng.normal(size=(3, 3, 3, 4))
    x[0, 1, 1, 0] = 1e6
    how = geometry(pads=((1, 0), (2, 1)))

    def everything(f):
        def slope(x, kernel):
            return jax.grad(lambda x, kernel: jnp.sum(jnp.sin(1e-6 * f(x, kernel))), (0, 1))(x, kernel)

        each = jax.vmap(jax.grad(lambda kernel, one: jnp.sum(f(one[None], kernel)), 0), (None, 0))
        ensemble = jax.vmap(slope)(jnp.stack([x, -x]), jnp.stack([kernel, 2 * kernel]))
        scanned = lax.scan(lambda c, k: (c + f(x, k).sum(), slope(x, k)), 0.0, jnp.stack([kernel, 2 * kernel]))
        remade = jax.grad(jax.checkpoint(lambda x: jnp.sum(f(x, kernel) ** 2)))(x)
        return jax.jvp(slope, (x, kernel), (x, kernel)), each(kernel, x), ensemble, scanned, remade

    wanted = compiled(lambda: everything(lambda x, k: convolve(x, k, how, "patches")))()
    for algorithm in ("blocks", "winograd", "fourier"):
        own = compiled(lambda algorithm=algorithm: everything(lambda x, k: convolve(x, k, how, algorithm)))()
        for a, b in zip(*map(jax.tree.leaves, (own, wanted)), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * np.abs(b).max())


def test_a_fused_run_of_a_network_is_local_too():
    net = fcnn.serial(
        fcnn.Conv(8, 3, padding="SAME"), jax.nn.relu, fcnn.MaxPool(2), fcnn.Conv(64, 3, padding="SAME"),
        jax.nn.relu, fcnn.Conv(64, 3, padding="SAME"),
    )  # fmt: skip
    params = net.init(jax.random.key(0), (24, 24, 1))
    x = np.random.default_rng(0).normal(size=(2, 24, 24, 1)).astype(np.float32)
    run = jax.jit(net.apply)
    with use_algorithm("direct"):
        exact = jax.jit(lambda params, x: net.apply(params, x))
        wanted = exact(params, x)
        for value in (np.nan, 65535.0):
            bad = with_sample(x, value, (0, 12, 12, 0))
            spoilt = np.asarray(exact(params, with_sample(x, 1e4, (0, 12, 12, 0))) != wanted).any(-1)
            assert 0 < spoilt.sum() < spoilt.size / 2
            with use_algorithm(None):
                y = np.asarray(run(params, bad))
            assert np.abs(y - wanted)[~spoilt].max() < 1e-5
            assert np.isnan(y).any() == np.isnan(value)
