"""What is done to channels at every position by itself, against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_against_torch import normal
from torch_oracle import F, assert_agrees, channels_first, channels_last, torch

import fcnn
from fcnn import ops

SPACES = [(), (5,), (4, 3), (2, 3, 2)]


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("per_channel", [False, True])
def test_prelu_is_torchs(space, per_channel):
    x = normal(0, 2, *space, 3)
    x.ravel()[:2] = 0.0  # where the derivative is a matter of convention
    slope = normal(1, 3) if per_channel else np.array(-0.3)

    def theirs(x, slope):
        return channels_last(F.prelu(channels_first(x), slope if per_channel else slope.reshape(1)))

    assert_agrees(ops.prelu, theirs, x, slope)
    layer = fcnn.PReLU(per_channel=per_channel)
    assert_agrees(lambda x, slope: layer.apply({"slope": slope}, x), theirs, x, slope)


def test_prelu_of_one_slope_in_an_array_of_one():
    x = normal(0, 2, 3)
    np.testing.assert_array_equal(ops.prelu(x, np.array([0.5])), ops.prelu(x, np.array(0.5)))


def test_prelu_begins_where_torch_does():
    x = normal(0, 4, 6).astype(np.float32)
    theirs = torch.nn.PReLU(6)(torch.tensor(x)).detach().numpy()
    net = fcnn.PReLU(per_channel=True)
    np.testing.assert_array_equal(net.apply(net.init(jax.random.key(0), (6,)), x), theirs)
    assert net.init(jax.random.key(0), (6,))["slope"].tolist() == torch.nn.PReLU(6).weight.tolist()


def test_numbers_that_are_not_finite():
    x = np.array([np.inf, -np.inf, np.nan, 2.0], np.float32)
    np.testing.assert_array_equal(ops.prelu(x, 0.5), F.prelu(torch.tensor(x), torch.tensor([0.5])).numpy())
    # an infinite number on the positive side has no share in the gradient of the slope
    x, slope = x[[0, 3]], torch.tensor([0.5], requires_grad=True)
    F.prelu(torch.tensor(x), slope).sum().backward()
    assert float(jax.grad(lambda slope: ops.prelu(x, slope).sum())(jnp.float32(0.5))) == float(slope.grad[0]) == 0.0


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_scaled_channels_are_those_of_a_product(space):
    x, scale = normal(0, 2, *space, 3), normal(1, 3)
    assert_agrees(ops.scale_channels, lambda x, scale: x * scale, x, scale)
    assert_agrees(ops.scale_channels, lambda x, scale, bias: x * scale + bias, x, scale, normal(2, 3))
    layer = fcnn.ScaleChannels(0.5)
    assert_agrees(lambda x, scale: layer.apply({"scale": scale}, x), lambda x, scale: x * scale, x, scale)
    assert layer.init(jax.random.key(0), x.shape[1:])["scale"].tolist() == [0.5] * 3


def test_convnexts_first_factor():
    assert fcnn.ScaleChannels().init(jax.random.key(0), (2,))["scale"].tolist() == pytest.approx([1e-6] * 2)


LAYERS = [
    fcnn.PReLU(), fcnn.PReLU(per_channel=True), fcnn.ScaleChannels(0.5), fcnn.ScaleChannels(0.5, bias=True),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_an_empty_batch(layer):
    params = layer.init(jax.random.key(0), (4, 3))
    x = jnp.ones((0, 4, 3))
    assert layer.apply(params, x).shape == (0, 4, 3)
    gradient = jax.grad(lambda params: layer.apply(params, x).sum())(params)
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_scan_takes_them_before_and_after_flatten(layer):
    """In a scan that shares work between windows, against every window computed by itself."""
    net = fcnn.serial(fcnn.Conv(3, 2), layer, fcnn.Flatten(), fcnn.Dense(4), layer, fcnn.Dense(2))
    shared, alone = (fcnn.Scan(net, 4, method=method) for method in ("layers", "patches"))
    params, x = shared.init(jax.random.key(0), (7, 8, 2)), normal(0, 2, 7, 8, 2).astype(np.float32)
    np.testing.assert_allclose(shared.apply(params, x), alone.apply(params, x), rtol=1e-5, atol=1e-6)
    assert fcnn.analysis.receptive_field(fcnn.serial(fcnn.Conv(3, 3), layer), (9, 9, 1)).size == (3, 3)


def test_scan_and_slopes_of_flattened_values():
    one, each = (fcnn.serial(fcnn.Flatten(), fcnn.PReLU(per_channel=p), fcnn.Dense(2)) for p in (False, True))
    shared, alone = (fcnn.Scan(one, 3, method=method) for method in ("layers", "patches"))
    params, x = shared.init(jax.random.key(0), (5, 6, 2)), normal(0, 2, 5, 6, 2).astype(np.float32)
    np.testing.assert_allclose(shared.apply(params, x), alone.apply(params, x), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"prelu1: fcnn.PReLU\(per_channel=True\) follows Flatten"):
        fcnn.Scan(each, 3).out_shape((5, 6, 2))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: ops.prelu(np.ones((2, 3)), np.ones(2)),
            r"^prelu: slope has shape \(2,\), x has shape \(2, 3\); give one",
        ),
        (lambda: ops.prelu(np.ones((2, 3)), np.ones((1, 3))), r"^prelu: slope has shape \(1, 3\)"),
        (lambda: ops.scale_channels(np.ones((2, 3)), np.ones(1)), r"^scale_channels: scale has shape \(1,\)"),
    ],
)
def test_mistakes(call, says):
    with pytest.raises(ValueError, match=says):
        call()
