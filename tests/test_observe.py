"""Observing a network: nothing that is computed changes, unless an observer replaces it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, inputs_of

import fcnn
from fcnn.analysis import Observed, observe

KEY = jax.random.key(0)


def keep(seen):
    return Observed(kept=seen.output)


def made(case):
    return case.net.init(KEY, *case.shapes), case.net.init_state(*case.shapes), inputs_of(case)


@pytest.mark.parametrize("name", CASES)
def test_looking_changes_no_bit(name):
    case = CASES[name]
    params, state, inputs = made(case)
    plain = case.net.apply(params, *inputs, state=state)
    for observer in (keep, lambda seen: None):
        found = observe(case.net, params, *inputs, observer=observer, state=state)
        for y, expected in zip(jax.tree.leaves(found.output), jax.tree.leaves(plain), strict=True):
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("name", ["dropout", "batch norm", "serial", "repeat", "remat", "graph sharing"])
def test_with_a_key_it_is_training(name):
    case = CASES[name]
    params, state, inputs = made(case)
    y, new_state = case.net.apply_train(params, *inputs, key=KEY, state=state)
    found = observe(case.net, params, *inputs, observer=keep, state=state, key=KEY)
    for a, b in zip(jax.tree.leaves((found.output, found.state)), jax.tree.leaves((y, new_state)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.kept


def test_what_is_kept_is_by_path_and_copies_come_first():
    net = fcnn.serial(fcnn.repeat(fcnn.serial(fcnn.Dense(3), jnp.tanh), 4), fcnn.Dense(2))
    params, x = net.init(KEY, (3,)), jnp.linspace(-1, 1, 6).reshape(2, 3)
    norms = observe(net, params, x, observer=lambda seen: Observed(kept=jnp.square(seen.output).sum())).kept
    assert {path: value.shape for path, value in norms.items()} == {
        "repeat1/dense1": (4,), "repeat1/tanh1": (4,), "repeat1": (), "dense1": (),
    }  # fmt: skip
    y = x
    for copy in range(4):
        own = jax.tree.map(lambda a, copy=copy: a[copy], params["repeat1"]["dense1"])
        y = jnp.tanh(y @ own["kernel"] + own["bias"])
        np.testing.assert_allclose(norms["repeat1/tanh1"][copy], jnp.square(y).sum(), rtol=1e-6)


def test_a_replacement_goes_on_and_has_a_gradient():
    net = fcnn.serial(fcnn.Dense(3), jnp.tanh, fcnn.Dense(2))
    params, x = net.init(KEY, (3,)), jnp.linspace(-1, 1, 6).reshape(2, 3)

    def moved(change):
        def observer(seen):
            return Observed(output=seen.output + change) if seen.path == "tanh1" else None

        return observe(net, params, x, observer=observer).output.sum()

    np.testing.assert_allclose(
        jax.grad(moved)(jnp.zeros((2, 3))), np.tile(np.asarray(params["dense2"]["kernel"]).sum(1), (2, 1)), rtol=1e-6
    )


MISTAKES = {
    "no function": ({"observer": 3}, TypeError, "observe: observer must be a function of one fcnn.context.LayerOutput"),
    "an array": ({"observer": lambda seen: seen.output}, TypeError, r"dense1.*must return fcnn.analysis.Observed"),
    "another shape": (
        {"observer": lambda seen: Observed(output=seen.output[:, :1])},
        ValueError,
        r"replaced the output of dense1 by \(2, 1\); the output is \(2, 3\)",
    ),
    "no key": ({"observer": keep, "key": 3}, TypeError, "key must be a random key"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained(name):
    options, error, message = MISTAKES[name]
    net = fcnn.serial(fcnn.Dense(3), jnp.tanh)
    with pytest.raises(error, match=message):
        observe(net, net.init(KEY, (3,)), jnp.ones((2, 3)), **options)
