"""JAX's switches and tools over the cases of the contract: the same values as without, and no error."""

import subprocess
import sys
from contextlib import ExitStack
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, IMAGE, inputs_of
from jax.experimental import jet

import fcnn
from fcnn import ops

SWITCHES = {
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "debug nans": lambda: jax.debug_nans(True),
    "debug infs": lambda: jax.debug_infs(True),
    "tracer leaks": jax.checking_leaks,
    "transfer guard": lambda: jax.transfer_guard_host_to_device("disallow"),
    "matmul precision": lambda: jax.default_matmul_precision("highest"),
}
#: networks that between them have every kind of layer; the other cases are slow
FEW = ("batch norm", "graph", "conv grouped", "lp pool", "max pool overlapping", "max unpool", "dropout")
SOME = [name if name in FEW else pytest.param(name, marks=(pytest.mark.slow, pytest.mark.exhaustive)) for name in CASES]


@cache
def made(name):
    case = CASES[name]
    params, state = case.net.init(jax.random.key(0), *case.shapes), case.net.init_state(*case.shapes)
    inputs, key = inputs_of(case, 2), jax.random.key(1)
    return case.net, params, state, inputs, key, outputs(case.net, params, state, inputs, key)


def outputs(net, params, state, inputs, key):
    return net.apply(params, *inputs, state=state), net.apply_train(params, *inputs, key=key, state=state)


def same(found, expected):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6), found, expected)


@pytest.mark.parametrize("name", SOME)
def test_all_switches_together_change_no_value(name):
    net, params, state, inputs, key, expected = made(name)
    with ExitStack() as stack:
        for switch in SWITCHES.values():
            stack.enter_context(switch())
        found = outputs(net, params, state, inputs, key)
    same(found, expected)


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("name", CASES)
def test_a_switch_changes_no_value(name, switch):
    net, params, state, inputs, key, expected = made(name)
    with SWITCHES[switch]():
        found = outputs(net, params, state, inputs, key)
    same(found, expected)


def test_a_transfer_guard_still_refuses_data_of_the_host():
    net, params, state, (x,), _, _ = made("conv")
    with jax.transfer_guard_host_to_device("disallow"), pytest.raises(Exception, match="host-to-device"):
        net.apply(params, np.asarray(x), state=state)


def kept(policy):
    """How many convolutions the gradient of a checkpoint computes forward."""
    net = fcnn.serial(fcnn.Conv(4, 3), jnp.tanh, fcnn.Conv(4, 3), jnp.tanh)
    params, x = net.init(jax.random.key(0), IMAGE), jnp.ones((2, *IMAGE))
    loss = jax.checkpoint(lambda params: jnp.sum(net.apply(params, x)), policy=policy)
    return str(jax.make_jaxpr(jax.grad(loss))(params)).count("fcnn_convolution_forward[")


def of_lax(prim, *_, **__):
    return prim is jax.lax.conv_general_dilated_p


def of_its_own(prim, *_, **__):
    return prim.name.startswith("fcnn_convolution")


@pytest.mark.parametrize(
    ("policy", "computed"),
    [
        (None, 4),
        (jax.checkpoint_policies.nothing_saveable, 4),
        (jax.checkpoint_policies.everything_saveable, 2),
        (jax.checkpoint_policies.dots_saveable, 2),
        (jax.checkpoint_policies.dots_with_no_batch_dims_saveable, 4),
        (of_lax, 2),
        (of_its_own, 2),
    ],
)
def test_the_policy_of_a_checkpoint_takes_a_convolution_for_one(policy, computed):
    assert kept(policy) == computed


#: kinds of layers whose Taylor coefficients JAX can compute: it has no rule for loops and checkpoints, nor does it let
#: functions with derivatives of their own (``jax.nn.relu``) through
@pytest.mark.parametrize(
    "name", ["conv", "conv transpose", "conv grouped", "layer norm", "graph sharing", "global max pool", "maxout"]
)
def test_taylor_mode_gives_the_derivatives_along_a_curve(name):
    net, params, state, (x,), _, _ = made(name)
    first, second = jnp.cos(3 * x), jnp.sin(2 * x)

    def of(x):
        return net.apply(params, x, state=state)

    def along(t):
        return of(x + t * first + t * t / 2 * second)

    value, terms = jet.jet(of, (x,), ((first, second),))
    zero, one = jnp.float32(0), jnp.float32(1)
    slope, bend = jax.jvp(lambda t: jax.jvp(along, (t,), (one,))[1], (zero,), (one,))
    for found, expected in zip((value, *terms), (of(x), slope, bend), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_shape_that_is_traced_is_to_be_closed_over():
    net = fcnn.Conv(3, 3)
    for call in (
        lambda: jax.eval_shape(net.init, jax.random.key(0), IMAGE),
        lambda: jax.jit(net.init)(jax.random.key(0), IMAGE),
        lambda: jax.jit(net.init_state)(IMAGE),
        lambda: jax.jit(net.out_shape)(IMAGE),
    ):
        with pytest.raises(TypeError, match=r"^conv: a size in the shape .* is traced .*: close over it, .*lambda key"):
            call()
    assert jax.eval_shape(lambda key: net.init(key, IMAGE), jax.random.key(0))["bias"].shape == (3,)


@pytest.mark.parametrize("name", ["conv", "batch norm", "max pool", "global max pool", "graph", "repeat", "serial"])
def test_an_empty_batch_gives_an_empty_result_and_gradients_of_zero(name):
    net, params, state, inputs, key, (used, (trained, _)) = made(name)
    empty = tuple(x[:0] for x in inputs)
    y, (z, new) = outputs(net, params, state, empty, key)
    assert (y.shape, z.shape) == ((0, *used.shape[1:]), (0, *trained.shape[1:]))
    jax.tree.map(np.testing.assert_array_equal, new, state)
    gradient = jax.grad(lambda p: jnp.sum(net.apply_train(p, *empty, key=key, state=state)[0]))(params)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("algorithm", [None, "direct", "patches", "winograd", "fourier", "blocks"])
def test_no_examples_channels_or_features(algorithm):
    for batch, channels, features in ((0, 2, 3), (2, 0, 3), (2, 2, 0)):
        x, kernel = jnp.ones((batch, 6, 6, channels)), jnp.ones((3, 3, channels, features))
        conv = partial(ops.conv, algorithm=algorithm)
        y, back = jax.vjp(conv, x, kernel)
        np.testing.assert_array_equal(y, np.zeros((batch, 4, 4, features)))
        jax.tree.map(np.testing.assert_array_equal, back(y), (x * 0, kernel * 0))
        none = jax.vmap(conv, (0, None))(jnp.ones((0, *x.shape)), kernel)
        assert none.shape == (0, *y.shape)
        assert jax.vmap(conv)(jnp.ones((0, *x.shape)), jnp.ones((0, *kernel.shape))).shape == (0, *y.shape)


def test_a_hyperparameter_that_is_traced_is_to_be_closed_over():
    x = jnp.ones((1, 4, 1))
    for name, call in {
        "padding": lambda n: ops.max_pool(x, 2, padding=((n, 0),)),
        "window": lambda n: ops.max_pool(x, n),
        "epsilon": lambda n: ops.layer_norm(x, epsilon=n),
        "rate": lambda n: fcnn.Dropout(n).apply({}, x),
        "momentum": lambda n: fcnn.BatchNorm(momentum=n).out_shape((4, 1)),
        "power": lambda n: ops.lp_pool(x, 2, power=n),
    }.items():
        for within in (jax.jit, jax.vmap):
            with pytest.raises(TypeError, match=f"{name} is traced .*: close over it"):
                within(call)(jnp.ones(3, int) if within is jax.vmap else 1)


STRANGE = {
    "other order of bytes": lambda x: x.astype(">f4"),
    "reversed": lambda x: x[::-1].copy()[::-1],
    "columns first": np.asfortranarray,
    "every second": lambda x: np.repeat(x, 2, 1)[:, ::2],
    "masked nowhere": np.ma.masked_array,
}


@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
def test_arrays_of_every_layout_mean_what_they_say(make):
    x = np.random.default_rng(0).normal(size=(4, *IMAGE)).astype("float32")
    net = fcnn.serial(fcnn.Conv(2, 3), jnp.tanh, fcnn.Flatten(), fcnn.Dense(3))
    params, y = net.init(jax.random.key(0), IMAGE), np.arange(4) % 3
    other = jax.tree.map(lambda a: make(np.asarray(a)) if a.ndim > 1 else a, params)
    same(net.apply(other, make(x)), net.apply(params, x))
    same(ops.conv(make(x), make(np.asarray(params["conv1"]["kernel"]))), ops.conv(x, params["conv1"]["kernel"]))
    same(ops.max_pool(make(x), 2), ops.max_pool(x, 2))
    same(ops.adaptive_max_pool(make(x), 2), ops.adaptive_max_pool(x, 2))
    same(ops.global_max_pool(make(x)), ops.global_max_pool(x))
    same(ops.maxout(make(x), 1), x)
    same(ops.normalize(make(x), make(x), make(x**2), epsilon=1e-3), ops.normalize(x, x, x**2, epsilon=1e-3))
    same(fcnn.capture(net, other, make(x)), fcnn.capture(net, params, x))
    labels = y.astype(">i8") if make is STRANGE["other order of bytes"] else y
    same(fcnn.predict(net, other, make(x)), fcnn.predict(net, params, x))
    same(fcnn.evaluate(net, other, (make(x), labels)), fcnn.evaluate(net, params, (x, y)))


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda x: np.ma.masked_less(x, 0), ValueError, r"masked array with \d+ masked values.*x.filled\(0\)"),
        (lambda x: x.astype(np.longdouble), TypeError, r"dtype float128.*x.astype\('float32'\)"),
        (lambda x: x.astype(object), TypeError, r"dtype object.*x.astype\('float32'\)"),
    ],
)
def test_arrays_that_nothing_can_be_computed_with_are_refused(make, kind, words):
    x = np.random.default_rng(0).normal(size=(4, *IMAGE)).astype("float32")
    net = fcnn.Conv(2, 3)
    params = net.init(jax.random.key(0), IMAGE)
    for call in (lambda: net.apply(params, make(x)), lambda: ops.conv(make(x), params["kernel"])):
        with pytest.raises(kind, match=words):
            call()


ONCE = """
import jax, numpy as np, jax.numpy as jnp, optax, fcnn
net = fcnn.serial(fcnn.Conv(2, 3), jax.nn.relu, fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(3))
x, y = np.ones((16, 8, 8, 1), "float32"), np.arange(16) % 3
traced = []
def loss(outputs, targets):
    traced.append(outputs.shape)
    return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets)
{work}
print(len(traced))
"""
WORK = {
    "fit": "from functools import partial\n"
    "fit = partial(fcnn.fit, net, (x, y), optimizer=optax.sgd(0.1), epochs=2, batch_size=8, loss=loss, "
    "key=jax.random.key(0), progress=False)\nfit(); first = len(traced); fit(); traced = traced[first:]",
    "jit": "step = jax.jit(lambda p: loss(net.apply(p, x), y)); p = net.init(jax.random.key(0), (8, 8, 1))\n"
    "step(p); step(p); traced = traced[1:]",
}


@pytest.mark.parametrize("work", WORK)
def test_the_first_program_of_a_process_is_traced_once(work):
    """What is made lazily and enters JAX's context would have the same program traced, and compiled, once more."""
    answer = subprocess.run(
        [sys.executable, "-c", ONCE.format(work=WORK[work])], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["0"], answer.stderr
