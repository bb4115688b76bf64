"""Pooling of dtypes without infinity, of windows without a largest number, and of arrays with an axis too many."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn import ops

FLOATS = (
    "float16", "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz",
    "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn",
)  # fmt: skip
INTEGERS = ("int8", "uint8", "int4", "uint4", "int32", "bool")


def windows_of(x, window, stride, padding):
    """What each window of x (rows, columns) sees of the data, in reading order."""
    (lo, hi), out = padding, []
    for starts in itertools.product(*(range(-lo, n + hi - window + 1, stride) for n in x.shape)):
        inside = [range(max(s, 0), min(s + window, n)) for s, n in zip(starts, x.shape, strict=True)]
        out.append(list(itertools.product(*inside)))
    return out


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_padding_never_wins(dtype):
    """All numbers are positive, or all negative where there are any: below them lies padding alone."""
    numbers = np.array([1, 2, 4, 1, 0.5, 2, 4, 1, 2, 0.5, 1, 1, 4, 0.5, 2, 1], np.float32).reshape(4, 4)
    signed = dtype not in ("uint8", "uint4", "bool", "float8_e8m0fnu")
    for sign in (1, -1)[: 1 + signed]:
        x = np.asarray(jnp.asarray(sign * numbers).astype(dtype))
        wide = x.astype(np.float32)
        expected = [max(wide[place] for place in places) for places in windows_of(wide, 3, 2, (1, 1))]
        for function in (ops.max_pool, lambda *args, **options: ops.max_pool_with_indices(*args, **options)[0]):
            y = function(jnp.asarray(x)[None, :, :, None], 3, stride=2, padding=1)
            assert y.dtype == x.dtype
            np.testing.assert_array_equal(np.asarray(y).astype(np.float32).ravel(), expected)


@pytest.mark.parametrize("dtype", [name for name in FLOATS if name != "float8_e8m0fnu"])  # which has no zero
def test_every_pooling_and_its_gradient_in_every_float(dtype):
    x = jnp.asarray(np.array([1, 2, 4, 1, 2, 1, 4, 1], np.float32).reshape(1, 8, 1)).astype(dtype)

    def value_and_gradient(function):
        y, back = jax.vjp(function, x)
        return [np.asarray(a).astype(np.float32).ravel().tolist() for a in (y, back(jnp.ones_like(y))[0])]

    first = [0, 0, 1, 0, 0, 0, 0, 0]
    assert value_and_gradient(lambda x: ops.max_pool(x, 4)) == [[4, 4], [0, 0, 1, 0, 0, 0, 1, 0]]
    assert value_and_gradient(ops.global_max_pool) == [[4], first]
    assert value_and_gradient(lambda x: ops.adaptive_max_pool(x, 1)) == [[4], first]
    assert value_and_gradient(lambda x: ops.maxout(x.reshape(1, 8), 8)) == [[4], first]
    assert value_and_gradient(lambda x: ops.avg_pool(x, 4))[0] == [2, 2]
    assert value_and_gradient(ops.global_avg_pool)[0] == [2]


@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((2, 0), (2, 0)), ((0, 2), (0, 2))])
@pytest.mark.parametrize("value", [-np.inf, -np.finfo(np.float32).max])
def test_the_gradient_of_a_window_of_least_values_goes_to_its_first_sample(padding, value):
    """Torch does the same; a sample that is padding can have none."""
    x = np.full((1, 4, 4, 1), value, np.float32)
    expected = np.zeros((4, 4))
    for places in windows_of(x[0, ..., 0], 3, 2, padding[0]):
        expected[places[0]] += 1
    pooled, back = jax.vjp(lambda x: ops.max_pool(x, 3, stride=2, padding=padding), x)
    np.testing.assert_array_equal(pooled, np.full(pooled.shape, value))
    np.testing.assert_array_equal(back(jnp.ones_like(pooled))[0][0, ..., 0], expected)
    _, moved = jax.jvp(lambda x: ops.max_pool(x, 3, stride=2, padding=padding), (x,), (np.ones_like(x),))
    np.testing.assert_array_equal(moved, np.ones(pooled.shape))


def test_dilated_windows_and_ceilings_that_begin_in_the_padding():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for size, options in ((6, {"dilation": 2}), (5, {"ceil_mode": True}), (7, {"dilation": 3, "ceil_mode": True})):
        x = np.full((1, size, 1), -np.inf, np.float32)
        theirs = torch.tensor(x[..., 0][None], requires_grad=True)
        y = torch.nn.functional.max_pool1d(theirs, 3, 2, 1, **options)
        y.backward(torch.ones_like(y))
        slope = jax.vjp(lambda x, o=options: ops.max_pool(x, 3, stride=2, padding=1, **o), x)
        np.testing.assert_array_equal(slope[1](np.ones(slope[0].shape, np.float32))[0].ravel(), theirs.grad.ravel())


def test_complex_numbers_have_no_largest():
    with pytest.raises(TypeError, match="max_pool: x has dtype complex64, and complex numbers have no order"):
        ops.max_pool(np.ones((1, 4, 1), np.complex64), 2)


def test_an_axis_too_many_is_found_where_the_rank_is_known():
    video = np.ones((2, 3, 4, 4, 1), np.float32)  # (time, batch, rows, columns, channels)
    assert fcnn.MaxPool(2).apply({}, video).shape == (2, 1, 2, 2, 1)  # three dimensions of space, as documented
    with pytest.raises(ValueError, match=r"max_pool: window \(2, 2\) is for 2 space axes, the input has 3"):
        fcnn.MaxPool((2, 2)).apply({}, video)
    net = fcnn.serial(fcnn.MaxPool(2), fcnn.Conv(2, 1))
    with pytest.raises(ValueError, match="conv1: kernel has shape"):
        net.apply(net.init(jax.random.key(0), (4, 4, 1)), video)
    for pool in (ops.max_pool, ops.avg_pool, ops.lp_pool, ops.max_pool_with_indices):
        with pytest.raises(ValueError, match=r"window 2 would pool over all 4 axes of the space \(1, 4, 4, 4\)"):
            pool(np.ones((2, 1, 4, 4, 4, 1), np.float32), 2)
    assert ops.max_pool(np.ones((2, 2, 2, 2, 2, 1), np.float32), (1, 2, 2, 2)).shape == (2, 2, 1, 1, 1, 1)


@pytest.mark.parametrize("pool", [ops.max_pool, ops.avg_pool, ops.lp_pool, ops.max_pool_with_indices])
def test_one_example_without_a_batch_axis(pool):
    with pytest.raises(ValueError, match=r"window \(2, 2\) is for 2 space axes, the input has 1"):
        pool(np.ones((4, 4, 3), np.float32), (2, 2))
    with pytest.raises(ValueError, match=r"pooling needs \(batch, \*space, channels\)"):
        pool(np.ones((4, 3), np.float32), 2)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: fcnn.AvgPool(2, divisor=0), "divisor is 0, it must be at least 1"),
        (lambda: fcnn.AdaptiveAvgPool((0, None)), "out is 0, it must be at least 1"),
        (lambda: fcnn.AdaptiveMaxPool((2, None)).out_shape((5, 1)), "out .* is for 2 space axes"),
        (lambda: fcnn.Flatten(first=0).out_shape((4, 4, 1)), "first is 0, but .* axes 1 to 3, .* axis 0 is the batch"),
        (lambda: fcnn.Flatten(first=-1, last=1).out_shape((4, 4, 1)), "first -1 comes after last 1"),
    ],
)
def test_mistakes(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: fcnn.AvgPool(2, divisor=2.5), "divisor must be a whole number"),
        (lambda: fcnn.AdaptiveAvgPool(None), "None, which keeps one axis unchanged"),
        (lambda: fcnn.Flatten(first=True), "first must be a whole number"),
    ],
)
def test_wrong_kinds(call, says):
    with pytest.raises(TypeError, match=says):
        call()


def test_flatten_of_some_axes_is_a_reshape_and_has_no_place_in_a_scan():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(fcnn.Flatten(first=2).apply({}, x), x.reshape(2, 3, 20))
    np.testing.assert_array_equal(fcnn.Flatten(last=-2).apply({}, x), x.reshape(2, 12, 5))
    net = fcnn.serial(fcnn.Conv(2, 3), fcnn.Flatten(last=2), fcnn.Dense(3), fcnn.Flatten())
    with pytest.raises(ValueError, match="flatten1"):
        fcnn.Scan(net, 4).out_shape((8, 8, 1))
    by_patches = fcnn.Scan(net, 4, method="patches")
    assert by_patches.out_shape((8, 8, 1)) == (5, 5, 12)


def test_an_adaptive_pool_of_one_axis_in_a_scan():
    net = fcnn.serial(fcnn.Conv(2, 3), fcnn.AdaptiveMaxPool((None, 2)), fcnn.Flatten(), fcnn.Dense(3))
    x = np.random.default_rng(0).normal(size=(2, 9, 9, 1)).astype(np.float32)
    params = net.init(jax.random.key(0), (6, 6, 1))
    by_layers, by_patches = (fcnn.Scan(net, 6, method=m).apply(params, x) for m in ("layers", "patches"))
    np.testing.assert_allclose(by_layers, by_patches, rtol=0, atol=1e-5)
