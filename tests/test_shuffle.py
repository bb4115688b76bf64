"""Shuffles of pixels and channels, against PyTorch and against their definition."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_against_torch import normal
from torch_oracle import F, assert_agrees, channels_first, channels_last

import fcnn
from fcnn import ops


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("space", [(6, 12), (1, 6)], ids=str)
def test_pixel_shuffles_are_torchs(factor, space):
    x = normal(0, 2, *space, 2 * factor**2)

    def theirs(x):
        return channels_last(F.pixel_shuffle(channels_first(x), factor))

    assert_agrees(lambda x: ops.pixel_shuffle(x, factor), theirs, x)
    assert_agrees(lambda x: fcnn.PixelShuffle(factor).apply({}, x), theirs, x)
    x = normal(1, 2, *(factor * n for n in space), 3)

    def back(x):
        return channels_last(F.pixel_unshuffle(channels_first(x), factor))

    assert_agrees(lambda x: ops.pixel_unshuffle(x, factor), back, x)
    assert_agrees(lambda x: fcnn.PixelUnshuffle(factor).apply({}, x), back, x)


@pytest.mark.parametrize("factors", [(3,), (1,), (2, 3), (3, 1), (2, 1, 3), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("order", ["CRD", "DCR"])
def test_every_number_is_where_the_definition_says(factors, order):
    space, features = (2, 3, 1)[: len(factors)], 2
    x = np.arange(2 * math.prod(space) * features * math.prod(factors), dtype="f4")
    x = x.reshape(2, *space, features * math.prod(factors))
    y = np.asarray(ops.pixel_shuffle(x, factors, order=order))
    assert y.shape == (2, *(n * r for n, r in zip(space, factors, strict=True)), features)
    for place in itertools.product(*map(range, y.shape[1:-1])):
        coarse = tuple(p // r for p, r in zip(place, factors, strict=True))
        within = np.ravel_multi_index([p % r for p, r in zip(place, factors, strict=True)], factors)
        for c in range(features):
            channel = math.prod(factors) * c + within if order == "CRD" else features * within + c
            assert (y[(slice(None), *place, c)] == x[(slice(None), *coarse, channel)]).all()
    np.testing.assert_array_equal(ops.pixel_unshuffle(y, factors, order=order), x)


@pytest.mark.parametrize("space", [(), (5,), (3, 4), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_channel_shuffles_are_torchs(space, groups):
    x = normal(0, 2, *space, 6)

    def theirs(x):
        first = channels_first(x)
        return channels_last(F.channel_shuffle(first if space else first[..., None], groups).reshape(first.shape))

    assert_agrees(lambda x: ops.channel_shuffle(x, groups), theirs, x)
    assert_agrees(lambda x: fcnn.ChannelShuffle(groups).apply({}, x), theirs, x)


def test_groups_shuffled_twice_the_other_way_round_are_as_before():
    x = normal(0, 3, 4, 12).astype(np.float32)
    np.testing.assert_array_equal(ops.channel_shuffle(ops.channel_shuffle(x, 3), 4), x)


@pytest.mark.parametrize("layer", [fcnn.PixelShuffle(2), fcnn.PixelUnshuffle(2), fcnn.ChannelShuffle(2)], ids=str)
def test_an_empty_batch_and_dtypes(layer):
    for dtype in ("float16", "bfloat16", "float32"):
        y = layer.apply({}, jnp.ones((0, 4, 6, 4), dtype))
        assert (y.shape, y.dtype) == ((0, *layer.out_shape((4, 6, 4))), dtype)
    if not isinstance(layer, fcnn.ChannelShuffle):
        assert ops.pixel_shuffle(jnp.arange(4).reshape(1, 1, 4), 2).dtype == jnp.int32


def test_receptive_fields():
    finer = fcnn.serial(fcnn.Conv(4, 3, padding="SAME"), fcnn.PixelShuffle(2), fcnn.Conv(1, 3, padding="SAME"))
    seen = fcnn.analysis.receptive_field(finer, (12, 13, 1))
    assert seen.step == (Fraction(1, 2),) * 2
    # an output sees four samples, every second one half a step further on: a field that holds both has five
    assert (seen.size, seen.first) == ((5, 5), (-2, -2))
    coarser = fcnn.analysis.receptive_field(fcnn.serial(fcnn.PixelUnshuffle((2, 3)), fcnn.Conv(1, 2)), (12, 12, 1))
    assert (coarser.step, coarser.size, coarser.first) == ((2, 3), (4, 6), (0, 0))
    shuffled = fcnn.analysis.receptive_field(
        fcnn.serial(fcnn.Conv(4, 3), fcnn.ChannelShuffle(2), fcnn.Conv(1, 3)), (12, 12, 1)
    )
    assert (shuffled.size, shuffled.step) == ((5, 5), (1, 1))


def test_a_scan_shares_a_channel_shuffle_and_refuses_pixel_shuffles():
    net = fcnn.serial(fcnn.Conv(4, 3, groups=2), fcnn.ChannelShuffle(2), fcnn.Conv(4, 2, groups=2), fcnn.Flatten())
    shared, alone = (fcnn.Scan(net, 5, method=method) for method in ("layers", "patches"))
    params, x = shared.init(jax.random.key(0), (7, 8, 2)), normal(0, 2, 7, 8, 2).astype(np.float32)
    np.testing.assert_allclose(shared.apply(params, x), alone.apply(params, x), rtol=1e-5, atol=1e-6)
    for layer, says in (
        (fcnn.PixelShuffle(2), "makes values between the samples"),
        (fcnn.PixelUnshuffle(2), "gathers blocks that begin at the window's first sample"),
    ):
        net = fcnn.serial(layer, fcnn.Flatten(), fcnn.Dense(2))
        with pytest.raises(ValueError, match=f"{layer.label}1: .*{says}, so positions cannot share"):
            fcnn.Scan(net, 4).out_shape((8, 8, 4))
        by_patches = fcnn.Scan(net, 4, method="patches")
        params, x = by_patches.init(jax.random.key(0), (5, 6, 4)), normal(0, 1, 5, 6, 4).astype(np.float32)
        window = fcnn.serial(layer, fcnn.Flatten(), fcnn.Dense(2)).apply(params, x[:, 1:5, 2:6])
        np.testing.assert_allclose(by_patches.apply(params, x)[:, 1, 2], window, rtol=1e-5, atol=1e-6)
        whole, converted = fcnn.fully_convolutional(net, params, (4, 4, 4))
        single = x[:, :4, :4]
        np.testing.assert_allclose(whole.apply(converted, single)[:, 0, 0], net.apply(params, single), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: ops.pixel_shuffle(x, 3), r"^pixel_shuffle: factor 3 lays out 9 channels"),
        (lambda x: ops.pixel_unshuffle(x, 3), r"^pixel_unshuffle: factor 3 does not divide the space"),
        (lambda x: ops.pixel_shuffle(x, 2, order="rcd"), "^pixel_shuffle: order 'rcd' is unknown"),
        (lambda x: ops.pixel_shuffle(x[0, 0], 2), r"^pixel_shuffle: an input of \(4,\) has channels only"),
        (lambda x: ops.channel_shuffle(x, 3), "^channel_shuffle: groups 3 do not divide 4 channels"),
    ],
)
def test_mistakes(call, says):
    with pytest.raises(ValueError, match=says):
        call(np.ones((2, 4, 4, 4)))
