"""Weights from Flax: fcnn's networks compute what Flax's compute, values and gradients, to rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign import agree, library, loss, values
from test_matching import SMALL, small

import fcnn
from fcnn import interop

PACKAGES = "flax==0.12.8 (with rich, msgpack, orbax-checkpoint, treescope)"
nn = library("flax.linen", PACKAGES)
nnx = library("flax.nnx", PACKAGES)
pytestmark = pytest.mark.filterwarnings("ignore")


class Picture(nn.Module):
    """Two dimensions: strided, depthwise, dilated, grouped, a residual block, norms, transposed, dense."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 3), strides=2, padding=1)(x)
        x = nn.BatchNorm(use_running_average=True, epsilon=1e-3)(x)
        x = nn.PReLU()(x)
        y = nn.Conv(6, (3, 3), feature_group_count=6, use_bias=False)(x)
        y = nn.GroupNorm(2)(y)
        y = nn.tanh(nn.Conv(6, (3, 2), kernel_dilation=(1, 2), feature_group_count=2)(y))
        x = x + nn.BatchNorm(use_running_average=True)(nn.Conv(6, (1, 1))(y))
        x = nn.ConvTranspose(4, (3, 4), strides=(2, 2))(x)
        x = nn.LayerNorm()(nn.sigmoid(x))
        x = nn.ConvTranspose(6, (3, 2), padding="VALID", transpose_kernel=True, use_bias=False)(x)
        x = nn.InstanceNorm()(x)
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def picture():
    body = fcnn.serial(
        fcnn.Conv(6, 3, groups=6, bias=False, padding="SAME"), fcnn.GroupNorm(2, epsilon=1e-6),
        fcnn.Conv(6, (3, 2), dilation=(1, 2), groups=2, padding="SAME"), jnp.tanh,
        fcnn.Conv(6, 1), fcnn.BatchNorm(),
    )  # fmt: skip
    return fcnn.serial(
        fcnn.Conv(6, 3, stride=2, padding=1), fcnn.BatchNorm(epsilon=1e-3), fcnn.PReLU(), fcnn.residual(body),
        fcnn.ConvTranspose(4, (3, 4), stride=2, padding="SAME"), jax.nn.sigmoid, fcnn.LayerNorm(epsilon=1e-6),
        fcnn.ConvTranspose(6, (3, 2), bias=False), fcnn.InstanceNorm(epsilon=1e-6, scale=True, bias=True),
        fcnn.Flatten(), fcnn.Dense(3),
    )  # fmt: skip


class Line(nn.Module):
    """One dimension; as many channels out of the transposed convolution as into it."""

    transpose_kernel: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(4, (5,), strides=(2,), padding="VALID")(x))
        x = nn.ConvTranspose(4, (3,), strides=(2,), transpose_kernel=self.transpose_kernel)(x)
        x = nn.Conv(4, (3,), kernel_dilation=2, padding="CIRCULAR")(x)
        x = nn.BatchNorm(use_running_average=True, use_scale=False, use_bias=False)(x)
        return nn.Dense(2)(x.reshape(x.shape[0], -1))


LINE = fcnn.serial(
    fcnn.Conv(4, 5, stride=2), jnp.tanh, fcnn.ConvTranspose(4, 3, stride=2, padding="SAME"),
    fcnn.Conv(4, 3, dilation=2, padding="CIRCULAR"), fcnn.BatchNorm(scale=False, bias=False),
    fcnn.Flatten(), fcnn.Dense(2),
)  # fmt: skip


class Volume(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(4, (2, 3, 1), feature_group_count=2)(x))
        x = nn.ConvTranspose(3, (2, 2, 2), strides=(2, 1, 2), padding="VALID")(x)
        x = nn.LayerNorm(reduction_axes=(-4, -3, -2, -1), feature_axes=(-4, -3, -2, -1))(x)
        return nn.Dense(2)(x.mean((1, 2, 3)))


VOLUME = fcnn.serial(
    fcnn.Conv(4, (2, 3, 1), groups=2, padding="SAME"), jnp.tanh,
    fcnn.ConvTranspose(3, 2, stride=(2, 1, 2)), fcnn.LayerNorm(axes=(-4, -3, -2, -1), epsilon=1e-6),
    fcnn.GlobalAvgPool(), fcnn.Dense(2),
)  # fmt: skip

LINEN = {
    "a picture": (picture(), Picture(), (9, 7, 3), {}),
    "a line": (LINE, Line(), (17, 2), {"transpose_kernel": False}),
    "a line, with transpose_kernel": (LINE, Line(transpose_kernel=True), (17, 2), {"transpose_kernel": True}),
    "a volume": (VOLUME, Volume(), (3, 4, 5, 2), {}),
}


def random_like(tree, seed=0):
    random = np.random.default_rng(seed)
    return jax.tree_util.tree_map_with_path(lambda path, a: jnp.asarray(values(a.shape, path[-1].key, random)), tree)


def examples(shape):
    return np.random.default_rng(1).normal(size=(2, *shape))


@pytest.mark.parametrize("name", ["a picture", *(pytest.param(n, marks=pytest.mark.slow) for n in list(LINEN)[1:])])
def test_linen_computes_the_same(name, x64):
    net, module, shape, options = LINEN[name]
    x = examples(shape)
    with jax.numpy_dtype_promotion("standard"):
        given = random_like(module.init(jax.random.key(0), x))  # sorted by name, as all that passes through JAX

        def theirs(variables, x):
            y = module.apply(variables, x)
            return loss(y), y

        (_, y), (gradient, slope) = jax.jit(jax.value_and_grad(theirs, (0, 1), has_aux=True))(given, x)
    params, state = interop.from_flax(net, given, shape=shape, **options)
    back, _ = interop.from_flax(net, gradient, shape=shape, **options)
    agree(net, params, state, x, y, back, slope)


class Parts(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(2, 4, (3, 3), strides=2, padding="VALID", rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.blocks = nnx.List(
            [nnx.Conv(4, 4, (3, 3), feature_group_count=4 if i == 3 else 1, rngs=rngs) for i in range(11)]
        )
        self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
        self.act = nnx.PReLU()
        self.again = self.stem  # the same layer under a second name
        self.down = nnx.ConvTranspose(4, 4, (3, 3), strides=2, transpose_kernel=True, rngs=rngs)
        self.up = nnx.ConvTranspose(4, 4, (3, 3), rngs=rngs)
        self.head = nnx.Sequential(nnx.LayerNorm(4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs))

    def __call__(self, x):
        x = self.norm(self.stem(x))
        for block in self.blocks:
            x = x + jnp.tanh(block(x))
        return self.head(self.up(self.down(self.act(self.drop(x)))).mean((1, 2)))


def parts():
    blocks = [
        fcnn.residual(fcnn.serial(fcnn.Conv(4, 3, groups=4 if i == 3 else 1, padding="SAME"), jnp.tanh))
        for i in range(11)
    ]
    return fcnn.serial(
        fcnn.Conv(4, 3, stride=2), fcnn.BatchNorm(), *blocks, fcnn.Dropout(0.5), fcnn.PReLU(),
        fcnn.ConvTranspose(4, 3, stride=2, padding="SAME"), fcnn.ConvTranspose(4, 3, padding="SAME"),
        fcnn.GlobalAvgPool(), fcnn.LayerNorm(epsilon=1e-6), fcnn.Dense(3),
    )  # fmt: skip


def test_nnx_computes_the_same(x64):
    net, shape = parts(), (7, 8, 2)
    x = examples(shape)
    with jax.numpy_dtype_promotion("standard"):
        module = Parts(nnx.Rngs(0))
        random = np.random.default_rng(0)
        for path, variable in nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat))):
            variable.set_value(jnp.asarray(values(variable.shape, path[-1], random)))
        definition, weights, rest = nnx.split(module, (nnx.Param, nnx.BatchStat), ...)
        nnx.update(module, weights)

        def theirs(weights, x):
            y = nnx.merge(definition, weights, rest)(x)
            return loss(y), y

        (_, y), (gradient, slope) = jax.jit(jax.value_and_grad(theirs, (0, 1), has_aux=True))(weights, x)
        params, state = interop.from_flax(net, module, shape=shape)
        nnx.update(module, gradient)
        back, _ = interop.from_flax(net, module, shape=shape)
    agree(net, params, state, x, y, back, slope)


def test_an_nnx_state_and_its_pure_dict_are_read_by_their_names():
    net = fcnn.serial(*[fcnn.Conv(2, 3, padding="SAME")] * 11, fcnn.BatchNorm())

    class Many(nnx.Module):
        def __init__(self, rngs):
            self.z = nnx.List([nnx.Conv(2, 2, (3, 3), rngs=rngs) for _ in range(11)])
            self.a = nnx.BatchNorm(2, rngs=rngs)

    with jax.numpy_dtype_promotion("standard"):
        module = Many(nnx.Rngs(0))
        wanted = interop.from_flax(net, module, shape=(4, 4, 2))
        for source in (nnx.state(module), nnx.to_pure_dict(nnx.state(module))):
            found = interop.from_flax(net, source, shape=(4, 4, 2))
            jax.tree.map(np.testing.assert_array_equal, found, wanted)


class Ambiguous(nn.Module):
    """A layer and a block of one shape: once the order is lost, either may be first."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(3)(x)
        for _ in range(2):
            x = Inner()(x)
        return nn.Dense(3)(x)


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x)


FOUR = fcnn.serial(*[fcnn.Dense(3)] * 4)


def test_the_order_of_computation_is_used_where_dicts_have_it():
    ordered = Ambiguous().init(jax.random.key(0), jnp.ones((1, 3)))
    assert list(ordered["params"]) == ["Dense_0", "Inner_0", "Inner_1", "Dense_1"]
    params, _ = interop.from_flax(FOUR, ordered, shape=(3,))
    there = ordered["params"]
    wanted = [there["Dense_0"], there["Inner_0"]["Dense_0"], there["Inner_1"]["Dense_0"], there["Dense_1"]]
    for i, one in enumerate(wanted, 1):
        np.testing.assert_array_equal(params[f"dense{i}"]["kernel"], one["kernel"])
    lost = jax.tree.map(lambda a: a, ordered)
    with pytest.raises(ValueError, match=r"dense1 with .* may be Dense_0 or Inner_0/Dense_0, of one shape and in no"):
        interop.from_flax(FOUR, lost, shape=(3,))
    again = interop.from_flax(FOUR, lost, shape=(3,), order=ordered)[0]
    jax.tree.map(np.testing.assert_array_equal, again, params)
    by_name = interop.from_flax(FOUR, lost, shape=(3,), names={"dense1": "Dense_0", "dense4": "Dense_1"})[0]
    jax.tree.map(np.testing.assert_array_equal, by_name, params)


def test_frozen_dicts_and_boxes_with_names_of_axes_are_read_as_dicts():
    wanted = interop.from_flax(SMALL, small(), shape=(4, 4, 1))
    core, meta = library("flax.core", PACKAGES), library("flax.core.meta", PACKAGES)
    boxed = jax.tree.map(lambda a: meta.Partitioned(a, (None,) * a.ndim), small())
    for source in (core.freeze(small()), boxed, core.freeze(boxed)):
        found = interop.from_flax(SMALL, source, shape=(4, 4, 1))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
