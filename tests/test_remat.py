"""remat: what the layer gives without it, bit by bit or to rounding, from less memory."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn.analysis import to_reference

KEY = jax.random.key(0)
SHAPE = (6, 6, 4)
plain = lambda layer: layer  # noqa: E731


def block():
    return fcnn.serial(
        fcnn.Conv(4, 3, padding="SAME"), fcnn.BatchNorm(), jnp.tanh, fcnn.Dropout(0.3), fcnn.Conv(4, 1), jax.nn.gelu
    )


def twice(layer, x):
    return layer.block(layer.block(x)) @ layer.params["block"]["conv2"]["kernel"][0, 0]


def two_inputs(layer, x):
    return layer.join(layer.first(x), x)


def joined(layer, a, b):
    return {"sum": layer.mix(a) + b, "difference": layer.mix(a) - b}


#: the same network with a wrapper around some of its parts
NETWORKS = {
    "a layer": lambda wrap: wrap(fcnn.Conv(3, 3)),
    "a chain": lambda wrap: fcnn.serial(wrap(block()), wrap(fcnn.Conv(4, 3)), wrap(jnp.tanh), fcnn.MaxPool(2)),
    "a chain in a chain": lambda wrap: fcnn.serial(wrap(fcnn.serial(wrap(block()), jnp.tanh)), fcnn.Dropout(0.5)),
    "in a residual": lambda wrap: fcnn.residual(wrap(block()), wrap(fcnn.Conv(4, 1))),
    "around a residual": lambda wrap: wrap(fcnn.residual(block())),
    "in branches": lambda wrap: fcnn.branches(wrap(block()), fcnn.Conv(2, 1), more=wrap(fcnn.Conv(2, 1))),
    "in a repeat": lambda wrap: fcnn.repeat(wrap(block()), 3),
    "around a repeat": lambda wrap: wrap(fcnn.repeat(fcnn.residual(block()), 3)),
    "in a graph, used twice": lambda wrap: fcnn.graph(block=wrap(block()))(twice),
    "around a graph": lambda wrap: wrap(fcnn.graph(block=block())(twice)),
    "of several inputs and outputs": lambda wrap: fcnn.graph(
        first=wrap(fcnn.Dense(4)), join=wrap(fcnn.graph(mix=fcnn.Dense(4))(joined))
    )(two_inputs),
    "computed as one run": lambda wrap: fcnn.serial(
        wrap(fcnn.serial(fcnn.Conv(8, 3), jax.nn.relu, fcnn.MaxPool(2))), fcnn.Flatten(), wrap(fcnn.Dense(3))
    ),
}
# of module scope, so that all tests of one network come together and find its operations compiled
ALL = pytest.mark.parametrize("name", NETWORKS, scope="module")


def pair(name):
    """Without and with, and parameters, state and inputs for both."""
    without, with_remat = NETWORKS[name](plain), NETWORKS[name](fcnn.remat)
    x = jax.random.normal(jax.random.key(1), (5, *SHAPE))
    return without, with_remat, without.init(KEY, SHAPE), without.init_state(SHAPE), x


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda m, n: np.testing.assert_allclose(m, n, rtol=1e-12, atol=1e-12), a, b)


@ALL
def test_params_state_and_shapes_are_those_of_the_layer(name):
    without, with_remat, params, state, _ = pair(name)
    same(with_remat.init(KEY, SHAPE), params)  # the same draws under the same names
    same(with_remat.init_state(SHAPE), state)
    assert with_remat.out_shape(SHAPE) == without.out_shape(SHAPE)


@ALL
@pytest.mark.parametrize("jit", [pytest.param(False, marks=pytest.mark.slow), True], ids=["eager", "jit"])
def test_values_state_and_gradients_are_those_of_the_layer(name, jit, x64):
    without, with_remat, params, state, x = pair(name)

    def everything(net):
        def objective(params, x):
            y, new_state = net.apply_train(params, x, key=jax.random.key(5), state=state)
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(y)), (y, new_state)

        found = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
        run = jax.jit if jit else plain
        return run(found)(params, x), run(net.apply)(params, x, state=state)

    close(everything(with_remat), everything(without))


@pytest.mark.parametrize("name", ["a chain", "in a repeat", "in a graph, used twice"])
def test_forward_over_reverse_and_per_example_gradients(name, x64):
    without, with_remat, params, state, x = pair(name)

    def curvature(net):
        slope = jax.grad(lambda x: jnp.sin(net.apply(params, x, state=state)).sum())
        return jax.jit(lambda x: jax.jvp(slope, (x,), (jnp.cos(x),)))(x)

    def per_example(net):
        each = jax.vmap(jax.grad(lambda p, x: net.apply(p, x[None], state=state).sum()), (None, 0))
        return jax.jit(each)(params, x)

    close(curvature(with_remat), curvature(without))
    close(per_example(with_remat), per_example(without))


# Memory.


def deep(wrap, features=8, blocks=12):
    body = fcnn.serial(
        fcnn.Conv(features, 3, padding="SAME"), jnp.tanh, fcnn.Conv(features, 3, padding="SAME"), jnp.sin
    )
    return fcnn.serial(*[wrap(fcnn.residual(body))] * blocks)


def kept(net, params, x):
    """Numbers that wait for the backward pass, beside the parameters."""
    backward = jax.vjp(lambda p: net.apply(p, x), params)[1]
    own = {id(leaf) for leaf in jax.tree.leaves(params)}
    return sum(leaf.size for leaf in jax.tree.leaves(backward) if id(leaf) not in own and leaf.shape != ())


def test_the_input_of_every_block_is_all_that_is_kept():
    x = jnp.ones((4, 16, 16, 8))
    params = deep(plain).init(KEY, x.shape[1:])
    numbers = sum(leaf.size for leaf in jax.tree.leaves(params))
    with_remat, without = (kept(deep(wrap), params, x) for wrap in (fcnn.remat, plain))
    # JAX may hand on copies of the parameters; of the 12 blocks only the inputs are kept
    assert 12 * x.size <= with_remat <= 12 * x.size + numbers
    # without: the inputs of both convolutions, and what the derivatives of tanh and sin are made of
    assert without >= 4 * 12 * x.size


def test_the_compiled_gradient_of_a_repeat_takes_less_memory():
    x = jnp.ones((16, 16, 16, 8))
    body = fcnn.residual(fcnn.serial(fcnn.Conv(8, 3, padding="SAME"), jnp.tanh, fcnn.Conv(8, 1), jnp.sin))

    def bytes_of(net):
        params = net.init(KEY, x.shape[1:])
        compiled = jax.jit(jax.grad(lambda p: net.apply(p, x).sum())).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    with_remat, without = bytes_of(fcnn.repeat(fcnn.remat(body), 12)), bytes_of(fcnn.repeat(body, 12))
    # 12 inputs stay; the inner values of 12 blocks, three arrays each at least, become those of one
    assert without - with_remat >= 11 * 2 * x.nbytes
    assert with_remat < without / 2


def test_a_policy_says_what_is_kept_after_all():
    x = jnp.ones((4, 16, 16, 8))
    params = deep(plain).init(KEY, x.shape[1:])
    policies = jax.checkpoint_policies
    found = [
        kept(deep(lambda layer, policy=policy: fcnn.remat(layer, policy=policy)), params, x)
        for policy in (None, policies.nothing_saveable, policies.everything_saveable)
    ]
    assert found[0] == found[1] < found[2]


# What looks into a network.


@ALL
def test_capture_and_summary_see_the_parts_inside(name):
    without, with_remat, params, state, x = pair(name)
    seen, expected = (fcnn.capture(net, params, x, state=state) for net in (with_remat, without))
    assert list(seen) == list(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), seen, expected)
    rows, plain_rows = (fcnn.summary(net, SHAPE).rows for net in (with_remat, without))
    columns = [[(r.path, r.output, r.copies, r.parameters, r.shared) for r in own] for own in (rows, plain_rows)]
    assert columns[0] == columns[1]


@pytest.mark.parametrize("name", ["a chain in a chain", "in a repeat", "around a repeat"])
def test_nothing_leaks_out_of_the_checkpoint(name):
    _, with_remat, params, state, x = pair(name)

    def total(params, x):
        seen = fcnn.capture(with_remat, params, x, state=state)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(seen)), seen

    with jax.checking_leaks():
        gradient, seen = jax.jit(jax.grad(total, has_aux=True))(params, x)
    assert len(seen) >= 4
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", ["a layer", "a chain in a chain", "around a repeat", "in a graph, used twice"])
def test_the_table_of_algorithms_is_that_of_the_layer(name):
    without, with_remat, *_ = pair(name)
    assert fcnn.analysis.algorithms(with_remat, SHAPE).cells() == fcnn.analysis.algorithms(without, SHAPE).cells()


def test_neighbours_inside_are_still_computed_together():
    def steps(jaxpr):
        for equation in jaxpr.eqns:
            inner = [
                getattr(p, "jaxpr", p) for p in equation.params.values() if hasattr(getattr(p, "jaxpr", p), "eqns")
            ]
            if equation.primitive.name not in ("remat2", "checkpoint", "remat"):
                yield equation.primitive.name, tuple(v.aval.shape for v in equation.outvars)
            for own in (value for value in inner if hasattr(value, "eqns")):
                yield from steps(own)

    without, with_remat, params, _, x = pair("computed as one run")
    found, expected = (list(steps(jax.make_jaxpr(net.apply)(params, x).jaxpr)) for net in (with_remat, without))
    assert found == expected
    assert any(len(shape) and name == "fcnn_convolution_forward" for name, shape in found)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "of several inputs and outputs"])
def test_gradients_agree_with_backpropagation_by_hand(name):
    _, with_remat, params, state, x = pair(name)
    x = np.asarray(x[:2])
    y = np.random.default_rng(3).normal(size=with_remat.apply(params, x, state=state).shape)
    squares = lambda out, wanted: jnp.square(out - wanted)  # noqa: E731
    assert fcnn.check_gradients(with_remat, params, x, y, state=state, loss=squares).ok


def test_the_network_by_hand_takes_the_same_dropout_masks_and_statistics(x64):
    _, net, params, state, x = pair("in a graph, used twice")
    node, _ = to_reference(net, params, SHAPE, state=state, key=KEY, batch=5, train=True)
    y, new_state = net.apply_train(params, x, key=KEY, state=state)
    np.testing.assert_allclose(node.forward(np.asarray(x)), y, rtol=1e-10, atol=1e-12)
    close(jax.tree.map(np.asarray, node.state()), jax.tree.map(np.asarray, new_state))


# Values, names and mistakes.


def test_a_chain_names_it_as_the_layer():
    net = fcnn.serial(fcnn.Conv(2, 1), fcnn.remat(fcnn.Conv(3, 1)), fcnn.remat(jnp.tanh))
    assert list(net.init(KEY, (4, 4, 1))) == ["conv1", "conv2"]
    assert repr(net) == "fcnn.serial(fcnn.Conv(2, 1), fcnn.remat(fcnn.Conv(3, 1)), fcnn.remat(jax.nn.tanh))"


@pytest.mark.parametrize(
    "policy",
    [
        "dots_saveable",
        "dots_with_no_batch_dims_saveable",
        "nothing_saveable",
        "save_only_these_names('a', 'b')",
        "save_any_names_but_these('a', 'b')",
    ],
)
def test_policies_are_written_and_stored(policy):
    code = f"fcnn.remat(fcnn.Dense(3), policy=jax.checkpoint_policies.{policy})"
    net = eval(code)
    assert repr(net) == code
    assert pickle.loads(pickle.dumps(net)) == net == eval(repr(net))
    assert net != fcnn.remat(fcnn.Dense(3))
    assert hash(net) == hash(eval(code))
    params = net.init(KEY, (2,))
    x = jnp.ones((3, 2))
    np.testing.assert_array_equal(net.apply(params, x), fcnn.Dense(3).apply(params, x))


MISTAKES = {
    "an array of another shape": lambda net, p: net.apply({**p, "conv2": {"kernel": jnp.ones((9, 9))}}, images(4)),
    "no array": lambda net, p: net.apply({**p, "conv2": {"kernel": "kernel", "bias": 3}}, images(4)),
    "an extra entry": lambda net, p: net.apply({**p, "conv2": {**p["conv2"], "more": jnp.ones(3)}}, images(4)),
    "params that are no dict": lambda net, p: net.apply({**p, "conv2": [1]}, images(4)),
    "other channels": lambda net, p: net.apply(p, images(3)),
    "integers": lambda net, p: net.apply(p, images(4).astype("int32")),
    "no key": lambda net, p: net.apply_train(p, images(4)),
    "a small image": lambda net, p: net.out_shape((2, 2, 4)),
}


def images(channels):
    return np.zeros((2, 6, 6, channels), "float32")


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained_in_the_same_words(name):
    said = []
    for wrap in (plain, fcnn.remat):
        net = fcnn.serial(fcnn.Conv(4, 3, padding="SAME"), wrap(fcnn.Conv(4, 3)), wrap(fcnn.Dropout(0.5)))
        params = net.init(KEY, SHAPE)
        with pytest.raises((ValueError, TypeError)) as caught:
            MISTAKES[name](net, params)
        said.append((type(caught.value), str(caught.value)))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fcnn.remat(fcnn.Dense), "remat: Dense is a class"),
        (lambda: fcnn.remat(3), "remat: 3 is neither a layer nor a function"),
        (lambda: fcnn.remat(fcnn.Dense(3), policy="dots_saveable"), "remat: policy must be a function"),
        (lambda: fcnn.remat([fcnn.Dense(3)]), "remat: a list is not a layer"),
    ],
    ids=["a class", "a number", "the name of a policy", "a list"],
)
def test_what_is_no_layer_is_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()
