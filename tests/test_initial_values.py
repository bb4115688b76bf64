"""Initial values keep the variance: that of outputs by fan_in, that of gradients by fan_out, for groups and strides."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn

KEY = jax.random.key(0)
#: what the variance of a weight is, times the fan, and which fan
NAMED = {
    "he_normal": (2, "fan_in"),
    "kaiming_uniform": (2, "fan_in"),
    "lecun_uniform": (1, "fan_in"),
    "glorot_normal": (1, "fan_avg"),
    "xavier_uniform": (1, "fan_avg"),
    ("variance_scaling", 3.0, "fan_out", "truncated_normal"): (3, "fan_out"),
}


def counted(layer, shape):
    """fan_in and fan_out by counting: who is in the sum of whom, in a padded space large enough to have a middle."""
    one = fcnn.ops.conv_transpose if isinstance(layer, fcnn.ConvTranspose) else fcnn.ops.conv
    sizes, depth, features = shape[:-2], shape[-2], shape[-1] // layer.groups
    with jax.enable_x64(True):
        kernel, space = jnp.ones((*sizes, 1, 1)), (24,) * len(sizes)
        forward = lambda x: one(x, kernel, stride=layer.stride)  # noqa: E731
        y, back = jax.vjp(forward, jnp.ones((1, *space, 1)))
        (x,) = back(jnp.ones_like(y))
    inner = (0, *(slice(6, 18) for _ in sizes), 0)  # whole periods of strides 1, 2 and 3
    return depth * float(np.asarray(y)[inner].mean()), features * float(np.asarray(x)[inner].mean())


@pytest.mark.parametrize("name", NAMED, ids=str)
def test_the_variance_of_kernels_is_that_of_the_counted_fans(name):
    """The closed formula, against counting and against drawn values, for both convolutions, all ranks and groups."""
    gain, mode = NAMED[name]
    for kind, rank, groups, stride in product((fcnn.Conv, fcnn.ConvTranspose), (1, 2, 3), (1, 4, 16), (1, 2)):
        if rank == 3 and (groups, stride) == (1, 1):
            continue  # as in two dimensions
        kernel = {1: 4, 2: (3, 4), 3: 2}[rank]
        layer = kind(32, kernel, groups=groups, stride=stride, kernel_init=name)
        drawn = layer.init(KEY, (12,) * rank + (16,))["kernel"]
        into, out_of = counted(layer, drawn.shape)
        fan = {"fan_in": into, "fan_out": out_of, "fan_avg": (into + out_of) / 2}[mode]
        far = 6 * (2 / drawn.size) ** 0.5  # six deviations of the variance of as many normal numbers
        assert float(jnp.var(drawn)) * fan / gain == pytest.approx(1, abs=far), layer


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (fcnn.Conv(64, 3, groups=64, kernel_init="glorot_uniform"), (40, 40, 64)),
        (fcnn.Conv(96, 4, stride=2, groups=4, kernel_init="glorot_normal"), (400, 64)),
        (fcnn.ConvTranspose(32, 4, stride=2), (16, 16, 32)),
        (fcnn.ConvTranspose(8, 3, stride=2, groups=2, kernel_init="lecun_normal"), (12, 12, 12, 8)),
        (fcnn.ConvTranspose(32, 2, stride=3), (90, 48)),
        (fcnn.LocallyConnected(16, 3, groups=8, kernel_init="glorot_normal"), (20, 20, 8)),
        (fcnn.Dense(100, kernel_init="glorot_uniform"), (400,)),
    ],
    ids=str,
)
def test_outputs_have_the_variance_that_the_initialiser_promises(layer, shape):
    """Of normal inputs; for fan_in the gain, for fan_avg the gain times fan_in over the mean of both fans."""
    x = np.random.default_rng(0).normal(size=(24, *shape)).astype("float32")
    params = layer.init(KEY, shape)
    y, back = jax.vjp(lambda x: layer.apply(params, x), x)
    (gradient,) = back(np.random.default_rng(1).normal(size=y.shape).astype("float32"))

    def middle(a):
        return np.asarray(a[(slice(None), *(slice(n // 4, n // 4 + n // 12 * 6) for n in a.shape[1:-1]))])

    if isinstance(layer, fcnn.Dense):
        into, out_of = 400, 100
    else:
        into, out_of = counted(layer, layer._kernel_shape(shape))
    gain, mode = NAMED.get(layer.kernel_init, (1, "fan_avg" if "glorot" in layer.kernel_init else "fan_in"))
    fan = into if mode == "fan_in" else (into + out_of) / 2
    assert middle(y).var() == pytest.approx(gain * into / fan, rel=0.1)
    assert middle(gradient).var() == pytest.approx(gain * out_of / fan, rel=0.1)


@pytest.mark.parametrize(
    "init", ["he_normal", "glorot_uniform", ("variance_scaling", 2.0, "fan_out", "normal")], ids=str
)
@pytest.mark.parametrize("kind", [fcnn.Conv, fcnn.ConvTranspose])
def test_kernels_without_groups_and_strides_are_those_of_jax(kind, init):
    """Bit for bit: nothing is known of such a kernel that its shape does not say."""
    name, *arguments = (init,) if isinstance(init, str) else init
    own = jax.random.fold_in(KEY, fcnn.initialization.number("kernel"))
    theirs = getattr(jax.nn.initializers, name)(*arguments)(own, (3, 2, 4, 6), jnp.float32)
    np.testing.assert_array_equal(kind(6, (3, 2), kernel_init=init).init(KEY, (8, 8, 4))["kernel"], theirs)


def test_he_normal_of_groups_is_as_it_was():
    own = jax.random.fold_in(KEY, fcnn.initialization.number("kernel"))
    theirs = jax.nn.initializers.he_normal()(own, (3, 3, 2, 6), jnp.float32)
    np.testing.assert_array_equal(fcnn.Conv(6, 3, groups=2).init(KEY, (8, 8, 4))["kernel"], theirs)


@pytest.mark.parametrize("name", ["orthogonal", "delta_orthogonal"])
def test_orthogonal_kernels_are_orthogonal_in_every_group(name):
    kernel = np.asarray(fcnn.Conv(24, 3, groups=4, kernel_init=name).init(KEY, (8, 8, 12))["kernel"])
    for group in np.split(kernel.reshape(-1, 24), 4, axis=1):  # 27 terms in the sums of 6 features
        columns = group[group.any(1)]
        gram = columns.T @ columns if name == "orthogonal" else columns @ columns.T
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


def test_a_function_and_explicit_axes_are_used_as_they_are():
    own = jax.random.fold_in(KEY, fcnn.initialization.number("kernel"))
    init = jax.nn.initializers.glorot_normal()
    found = fcnn.Conv(8, 3, groups=8, kernel_init=init).init(KEY, (8, 8, 8))["kernel"]
    np.testing.assert_array_equal(found, init(own, (3, 3, 1, 8), jnp.float32))
