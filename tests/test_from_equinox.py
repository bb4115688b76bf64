"""Weights from Equinox: fcnn's networks compute what Equinox's compute, values and gradients, to rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign import agree, library, loss, values

import fcnn
from fcnn import interop

eqx = library("equinox", "equinox==0.13.8 (with jaxtyping, wadler-lindig)")
nn = eqx.nn
pytestmark = pytest.mark.filterwarnings("ignore")


class Picture(eqx.Module):
    """Two dimensions: strided, depthwise, dilated, grouped, a residual block, norms, transposed, dense."""

    stem: nn.Conv2d
    norm: nn.BatchNorm
    act: nn.PReLU
    body: list
    last: nn.BatchNorm
    up: nn.ConvTranspose2d
    wide: nn.ConvTranspose2d
    layer: nn.LayerNorm
    head: nn.MLP
    gamma: jax.Array

    def __init__(self, key):
        self.stem = nn.Conv2d(2, 6, 3, stride=2, padding=1, key=key)
        self.norm = nn.BatchNorm(6, "batch", eps=1e-3, mode="ema")
        self.act = nn.PReLU()
        self.body = [
            nn.Conv2d(6, 6, 3, padding=1, groups=6, use_bias=False, key=key),
            nn.GroupNorm(2, 6),
            nn.Conv2d(6, 6, (3, 2), padding=((1, 1), (1, 1)), dilation=(1, 2), groups=2, key=key),
            nn.Lambda(jnp.tanh),
        ]
        self.last = nn.BatchNorm(6, "batch", mode="batch", momentum=0.9)
        self.up = nn.ConvTranspose2d(6, 4, (3, 4), stride=2, padding=1, output_padding=1, groups=2, key=key)
        self.wide = nn.ConvTranspose2d(4, 3, (2, 3), dilation=2, use_bias=False, key=key)
        self.layer = nn.LayerNorm((3, 12, 15))
        self.head = nn.MLP(3 * 12 * 15, 4, 5, 1, activation=jnp.tanh, key=key)
        self.gamma = jnp.ones((6, 1, 1))

    def __call__(self, x, state):
        x, state = self.norm(self.stem(x), state, inference=True)
        x = y = self.act(x)
        for layer in self.body:
            y = layer(y)
        y, state = self.last(y, state, inference=True)
        x = x + self.gamma * y
        x = self.layer(self.wide(jnp.tanh(self.up(x))))
        return self.head(x.ravel()), state


def picture():
    body = fcnn.serial(
        fcnn.Conv(6, 3, groups=6, bias=False, padding=1), fcnn.GroupNorm(2),
        fcnn.Conv(6, (3, 2), dilation=(1, 2), groups=2, padding=1), jnp.tanh, fcnn.BatchNorm(), fcnn.ScaleChannels(),
    )  # fmt: skip
    return fcnn.serial(
        fcnn.Conv(6, 3, stride=2, padding=1), fcnn.BatchNorm(epsilon=1e-3), fcnn.PReLU(), fcnn.residual(body),
        fcnn.ConvTranspose(4, (3, 4), stride=2, padding=1, output_padding=1, groups=2), jnp.tanh,
        fcnn.ConvTranspose(3, (2, 3), dilation=2, bias=False), fcnn.LayerNorm(axes=(1, 2, 3)), fcnn.Flatten(),
        fcnn.Dense(5), jnp.tanh, fcnn.Dense(4),
    )  # fmt: skip


class Plain(eqx.Module):
    """Layers one after another, without a state."""

    layers: list

    def __call__(self, x, state):
        for layer in self.layers:
            x = layer(x)
        return x, state


def line(key):
    return Plain(
        [
            nn.Conv1d(2, 4, 5, stride=2, key=key), nn.Lambda(jnp.tanh),
            nn.Conv1d(4, 4, 3, dilation=2, padding="SAME", padding_mode="CIRCULAR", key=key),
            nn.ConvTranspose1d(4, 4, 3, stride=2, padding="SAME", key=key), nn.Lambda(jnp.ravel),
            nn.Linear(56, 56, key=key), nn.Lambda(jnp.tanh), nn.Linear(56, 3, key=key),
        ]
    )  # fmt: skip


LINE = fcnn.serial(
    fcnn.Conv(4, 5, stride=2), jnp.tanh, fcnn.Conv(4, 3, dilation=2, padding="CIRCULAR"),
    fcnn.ConvTranspose(4, 3, stride=2, padding="SAME"), fcnn.Flatten(),
    fcnn.Dense(56), jnp.tanh, fcnn.Dense(3),
)  # fmt: skip


def volume(key):
    return Plain(
        [
            nn.Conv3d(2, 4, (2, 3, 1), groups=2, key=key), nn.Lambda(jnp.tanh),
            nn.ConvTranspose3d(4, 3, 2, stride=(2, 1, 2), key=key), nn.Lambda(lambda x: x.mean((1, 2, 3))),
            nn.LayerNorm(3), nn.Linear(3, 2, key=key),
        ]
    )  # fmt: skip


VOLUME = fcnn.serial(
    fcnn.Conv(4, (2, 3, 1), groups=2), jnp.tanh, fcnn.ConvTranspose(3, 2, stride=(2, 1, 2)),
    fcnn.GlobalAvgPool(), fcnn.LayerNorm(), fcnn.Dense(2),
)  # fmt: skip

NETWORKS = {
    "a picture": (picture(), Picture, (9, 9, 2)),
    "a line": (LINE, line, (17, 2)),
    "a volume": (VOLUME, volume, (3, 4, 5, 2)),
}


def randomised(module, state, seed=0):
    """Random weights, and statistics after some batches."""
    random = np.random.default_rng(seed)

    def redrawn(path, leaf):
        if not eqx.is_inexact_array(leaf):
            return leaf
        norm = leaf.ndim == 1 and path[-1].name == "weight"
        return jnp.asarray(values(leaf.shape, "scale" if norm else path[-1].name, random))

    module = jax.tree_util.tree_map_with_path(redrawn, module)
    for norm in jax.tree.leaves(module, is_leaf=lambda part: isinstance(part, nn.BatchNorm)):
        if isinstance(norm, nn.BatchNorm):
            index = norm.ema_state_index if norm.mode == "ema" else norm.batch_state_index
            drawn = tuple(jnp.asarray(values((norm.input_size,), name, random)) for name in ("mean", "var"))
            state = state.set(index, drawn)
            if norm.batch_counter is not None:
                state = state.set(norm.batch_counter, jnp.array(7))
    return module, state


@pytest.mark.parametrize(
    "name", ["a picture", *(pytest.param(name, marks=pytest.mark.slow) for name in ("a line", "a volume"))]
)  # fmt: skip
def test_equinox_computes_the_same(name, x64):
    net, make, shape = NETWORKS[name]
    x = np.random.default_rng(1).normal(size=(2, *shape))
    with jax.numpy_dtype_promotion("standard"):
        module, state = randomised(*nn.make_with_state(make)(jax.random.key(0)))

        def theirs(module, x):
            run = jax.vmap(module, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
            y, _ = run(jnp.moveaxis(x, -1, 1), state)
            return loss(y), y

        def both(arrays, x):
            return theirs(eqx.combine(arrays, rest), x)

        arrays, rest = eqx.partition(module, eqx.is_inexact_array)
        (_, y), (gradient, slope) = jax.jit(jax.value_and_grad(both, (0, 1), has_aux=True))(arrays, x)
    params, mine = interop.from_equinox(net, (module, state), shape=shape)
    back, _ = interop.from_equinox(net, (eqx.combine(gradient, rest), state), shape=shape)
    agree(net, params, mine, x, y, back, slope)


SMALL = fcnn.serial(fcnn.Conv(2, 3), fcnn.BatchNorm(), fcnn.Flatten(), fcnn.Dense(3))


class Small(eqx.Module):
    conv: nn.Conv2d | None
    norm: nn.BatchNorm
    more: dict

    def __init__(self, key, size=3, **more):
        self.conv = nn.Conv2d(1, 2, size, key=key)
        self.norm = nn.BatchNorm(2, "batch", mode="ema")
        self.more = {"head": nn.Linear(8, 3, key=key), **more}


def small(size=3, **more):
    return nn.make_with_state(Small)(jax.random.key(0), size, **more)


def test_an_array_that_is_shared_is_there_once():
    key = jax.random.key(0)
    both = nn.Sequential([nn.Linear(3, 3, key=key), nn.Linear(3, 3, key=key)])
    shared = nn.Shared(both, lambda pair: pair[1].weight, lambda pair: pair[0].weight)

    net = fcnn.serial(fcnn.Dense(3), fcnn.Dense(3))
    with pytest.raises(ValueError, match=r"pytree.layers.1 with \(3,\) has no counterpart here, and dense2 with"):
        interop.from_equinox(net, shared, shape=(3,))
    params, _ = interop.from_equinox(net, both, shape=(3,))
    np.testing.assert_array_equal(params["dense2"]["kernel"], both[1].weight.T)


def test_what_is_named_and_what_is_ignored_are_as_asked():
    key = jax.random.key(1)
    module, state = small(other=nn.Linear(8, 3, key=key), aux={"fc": nn.Linear(2, 2, key=key)})
    options = {"shape": (4, 4, 1), "ignore": ("more.aux", "more.head")}
    params, _ = interop.from_equinox(SMALL, (module, state), **options)
    named, _ = interop.from_equinox(
        SMALL, (module, state), shape=(4, 4, 1), ignore=("more.aux.*", "more.head"), names={"dense1": "more.other"}
    )
    np.testing.assert_array_equal(params["dense1"]["bias"], module.more["other"].bias)
    np.testing.assert_array_equal(named["dense1"]["bias"], module.more["other"].bias)


class Bare(eqx.Module):
    conv: nn.Conv2d


def mistakes():
    key = jax.random.key(0)
    module, _ = small()
    extra = small(aux=nn.Linear(5, 6, key=key))
    return {
        "no module": (7, TypeError, "source is 7 of type int; give an equinox.Module, or the pair"),
        "a dict": ({"conv": module.conv}, TypeError, "source is a dict; give an equinox.Module"),
        "no state": (module, ValueError, r"norm stores its statistics in an equinox.nn.State; give the pair"),
        "another state": ((module, {}), TypeError, r"the second of source is a dict; give the equinox.nn.State"),
        "missing": (Bare(module.conv), ValueError, r"2 of 1 entries do not fit:\n  batch_norm1 with .*\n  dense1 with"),
        "empty": (nn.Lambda(jnp.tanh), ValueError, "3 of 0 entries do not fit"),
        "extra": (extra, ValueError, r"more.aux with \(6, 5\), \(6,\) has no counterpart here"),
        "misshapen": (small(size=(9, 1)), ValueError, r"conv.weight has shape \(2, 1, 9, 1\), conv1/kernel has \(3, 3"),
        "spectral": (
            nn.make_with_state(lambda: nn.SpectralNorm(nn.Linear(8, 3, key=key), "weight", key=key))(),
            ValueError,
            r"uv_index.0 with \(3,\) has no counterpart here",
        ),
    }


@pytest.mark.parametrize("name", mistakes())
def test_what_does_not_fit_is_named(name):
    source, kind, words = mistakes()[name]
    with pytest.raises(kind, match=words):
        interop.from_equinox(SMALL, source, shape=(4, 4, 1))
