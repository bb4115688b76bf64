"""Indices of max pooling and unpooling with them, against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_oracle as oracle
from hypothesis import given
from hypothesis import strategies as st
from test_against_torch import as_given, examples, geometries, normal, poolings, tied
from torch_oracle import F, assert_agrees, torch

import fcnn
from fcnn import ops


def torchs_indices(x, window, **options):
    """Values and indices of torch, channels last."""
    y, indices = getattr(F, f"max_pool{x.ndim - 2}d")(
        oracle.channels_first(torch.tensor(x)), window, return_indices=True, **options
    )
    return oracle.channels_last(y), oracle.channels_last(indices).numpy()


@examples(10)
@given(poolings(), st.booleans())
def test_values_gradients_and_indices_are_torchs(case, with_nan):
    space, window, options = case
    x = tied(0, 2, *(size + 2 for size in space), 3)
    if with_nan:
        x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    _, indices = torchs_indices(x, window, **options)

    def ours(x):
        return ops.max_pool_with_indices(x, window, **as_given(options))

    with jax.enable_x64(True):
        found = jax.jit(ours)(x)[1]
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, indices)
    if not with_nan:
        assert_agrees(lambda x: ours(x)[0], lambda x: oracle.pool("max_pool", x, window, **options), x)


@pytest.mark.parametrize("padding", ["SAME_LOWER", "CAUSAL", "CIRCULAR", "REFLECT", "EDGE"])
@examples(3)
@given(data=st.data())
def test_an_index_names_a_sample_of_the_data_that_holds_the_value(padding, data):
    space, window, options = data.draw(geometries(padding))
    x = normal(0, 2, *space, 3)
    try:
        y, indices = jax.jit(lambda x: ops.max_pool_with_indices(x, window, **as_given(options)))(x)
    except ValueError:  # a window sees nothing but padding
        return
    samples = x.reshape(2, -1, 3).astype(np.float32)
    picked = np.take_along_axis(samples, np.asarray(indices).reshape(2, -1, 3), 1)
    np.testing.assert_array_equal(picked.reshape(y.shape), y)


@examples(6)
@given(poolings())
def test_unpooling_lays_one_value_after_another(case):
    """Torch's own does that on the CPU, but its gradient is not the derivative of it where windows overlap."""
    space, window, options = case
    x = tied(0, 2, *(size + 2 for size in space), 3)
    _, indices = torchs_indices(x, window, **options)
    places = oracle.channels_first(torch.tensor(indices)).long().flatten(2)

    def theirs(values):
        values = oracle.channels_first(values).flatten(2)
        z = torch.zeros(2, 3, int(np.prod(x.shape[1:-1])), dtype=values.dtype)
        for place, value in zip(places.split(1, 2), values.split(1, 2), strict=True):
            z = z.scatter(2, place, value)
        return oracle.channels_last(z.unflatten(2, x.shape[1:-1]))

    assert_agrees(lambda y: ops.max_unpool(y, indices, x.shape[1:-1]), theirs, normal(1, *indices.shape))


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1), ((2, 3), (2, 3), (1, 0))])
def test_max_unpool_of_torch_itself(window, stride, padding):
    x = normal(0, 2, 6, 9, 3)
    y, indices = torchs_indices(x, window, stride=stride, padding=padding)
    expected = F.max_unpool2d(
        oracle.channels_first(y),
        oracle.channels_first(torch.tensor(indices)),
        window,
        stride,
        padding,
        output_size=x.shape[1:-1],
    )
    with jax.enable_x64(True):
        found = ops.max_unpool(y.numpy(), indices, x.shape[1:-1])
        pairs = padding if isinstance(padding, int) else tuple((p, p) for p in padding)
        layer = fcnn.MaxUnpool(window, stride=stride, padding=pairs)
        by_layer = layer.apply({}, y.numpy(), x)
    np.testing.assert_array_equal(found, oracle.channels_last(expected))
    np.testing.assert_array_equal(by_layer, oracle.channels_last(expected))


@pytest.mark.parametrize(
    ("space", "window", "stride"), [((5,), (3,), (1,)), ((4, 6), (2, 3), (2, 1)), ((5, 4, 4), (2, 1, 3), (3, 2, 1))]
)
def test_the_layer_is_the_two_operations(space, window, stride):
    x = normal(0, 2, *space, 3)
    options = {"stride": stride, "padding": "SAME"}
    layer = fcnn.MaxUnpool(window, **options)
    values = normal(1, 2, *fcnn.MaxPool(window, **options).out_shape((*space, 3))).astype(np.float32)

    @jax.jit
    def both(values, x):
        _, indices = ops.max_pool_with_indices(x, window, **options)
        return layer.apply({}, values, x), ops.max_unpool(values, indices, space)

    np.testing.assert_array_equal(*both(values, x))


def test_what_is_put_outside_the_space_is_nowhere():
    y = jnp.arange(1.0, 5.0).reshape(1, 4, 1)
    indices = jnp.array([-1, 0, 3, 2]).reshape(1, 4, 1)
    assert ops.max_unpool(y, indices, 3).ravel().tolist() == [2.0, 0.0, 4.0]


def test_unpooling_under_vmap_and_forward_over_reverse():
    x = normal(0, 3, 2, 5, 6, 2).astype(np.float32)

    def way_there_and_back(x):
        y, indices = ops.max_pool_with_indices(x, 2, stride=2, padding=1)
        return ops.max_unpool(y**2, indices, x.shape[1:-1])

    one_by_one = jnp.stack([way_there_and_back(part) for part in x])
    np.testing.assert_array_equal(jax.vmap(way_there_and_back)(x), one_by_one)
    # of x**2, at the samples that are maxima, twice the tangent comes through to the gradient of the sum
    tangent = np.ones_like(x[0])
    _, moved = jax.jvp(jax.grad(lambda x: way_there_and_back(x).sum()), (x[0],), (tangent,))
    np.testing.assert_array_equal(moved, np.where(way_there_and_back(x[0]) != 0, 2.0, 0.0))


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda y, i: ops.max_unpool(y, i[:, :1], (4,)), ValueError, r"indices have shape \(1, 1, 1\)"),
        (lambda y, i: ops.max_unpool(y, y, (4,)), TypeError, "must be integers"),
        (lambda y, i: ops.max_unpool(y, i, (4, 4)), ValueError, r"space \(4, 4\) is for 2 space axes"),
        (lambda y, i: ops.max_unpool(y[0], i[0], 4), ValueError, r"unpooling needs \(batch, \*out, channels\)"),
        (lambda y, i: fcnn.MaxUnpool(2).apply({}, y, np.ones((1, 6, 1), "f4")), ValueError, r"pooled to \(3, 1\)"),
        (lambda y, i: fcnn.MaxUnpool(2).apply({}, y), TypeError, "takes 2 inputs, 1 were given"),
    ],
)
def test_mistakes(call, kind, says):
    y = np.ones((1, 2, 1), "f4")
    with pytest.raises(kind, match=says):
        call(y, np.zeros((1, 2, 1), int))
