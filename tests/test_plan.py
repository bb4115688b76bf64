"""Executing a plan gives what every layer gives as it stands; whoever looks sees the same, and changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, inputs_of

import fcnn
from fcnn.analysis import plan
from fcnn.context import Context, Observed

KEY = jax.random.key(0)


def conv(features, kernel=3, **options):
    return fcnn.Conv(features, kernel, padding="SAME", **options)


def block(features):
    body = fcnn.serial(conv(features), fcnn.BatchNorm(), jax.nn.relu, conv(features), fcnn.BatchNorm())
    return fcnn.serial(fcnn.residual(body), jax.nn.relu)


def own(x):
    """A function of single numbers that the library does not know."""
    return x * jax.nn.sigmoid(1.7 * x)


#: networks with runs, the shape of one example, and how many layers of each order of axes
NETWORKS = {
    "polyphase": (fcnn.serial(conv(6, 5), jax.nn.relu, fcnn.MaxPool(2)), (28, 28, 1), {"polyphase": 3}),
    "polyphase in chains of their own": (
        fcnn.serial(fcnn.serial(conv(6, 5), own), fcnn.serial(jnp.tanh, fcnn.MaxPool(2))),
        (28, 28, 1),
        {"polyphase": 4},
    ),
    "polyphase, then HWNC": (
        fcnn.serial(conv(32, 5), jax.nn.relu, fcnn.MaxPool(2), fcnn.Conv(33, 5), own, fcnn.AvgPool(2)),
        (20, 20, 1),
        {"polyphase": 3, "HWNC": 3},
    ),
    "through residual sums": (fcnn.serial(conv(64), block(64), block(64)), (12, 12, 64), {"HWNC": 13}),
    "through branches": (
        fcnn.serial(conv(64), fcnn.branches(conv(64), fcnn.serial(conv(64), jnp.tanh)), conv(64)),
        (12, 12, 64),
        {"HWNC": 5},
    ),
    "in a repeat": (fcnn.repeat(fcnn.serial(conv(64), jax.nn.relu, fcnn.BatchNorm()), 2), (12, 12, 64), {"HWNC": 3}),
    "of a part of a graph": (
        fcnn.graph(a=fcnn.serial(conv(64), jax.nn.relu), b=conv(64))(lambda layer, x: layer.b(layer.a(x)) + x),
        (12, 12, 64),
        {"HWNC": 3},
    ),
}


def given(net, shape, batch=8):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(batch, *shape)), jnp.float32)
    state = jax.tree.map(lambda a: a + 0.3, net.init_state(shape))
    return net.init(KEY, shape), state, x


def run(net, params, state, *inputs, planned, train=False, observer=None):
    """Output, new state and what was kept, by the plan or with every layer as it stands."""
    context = Context(train=train, plan=None if planned else False, observer=observer)
    y, new_state = net.start_walk(context, params, state, inputs)
    return y, new_state, {kept.path: kept.value for kept in context.kept}


def close(found, right, tolerance=3e-6):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(jnp.abs(b).max())))


def layouts(net, shape, batch=8):
    counts = {}
    steps = plan(net, shape, batch=batch).steps
    for step in steps:
        counts[step.layout] = counts.get(step.layout, 0) + 1
    return counts


#: runs in HWNC are those of Winograd's products, which oneDNN replaces where there is one
pytestmark = [
    pytest.mark.usefixtures("without_onednn"),
    pytest.mark.skipif(jax.default_backend() != "cpu", reason="these algorithms are those of the CPU"),
]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_run_gives_what_its_layers_give(name):
    net, shape, expected = NETWORKS[name]
    assert layouts(net, shape) == expected
    params, state, x = given(net, shape)
    for train in (False, True):
        found = run(net, params, state, x, planned=True, train=train)
        right = run(net, params, state, x, planned=False, train=train)
        # in training the statistics of up to four norms in a row are sums in another order
        close(found[:2], right[:2], 2e-5 if train else 3e-6)


@pytest.mark.parametrize("name", ["polyphase in chains of their own", "through residual sums", "through branches"])
def test_so_do_its_gradients(name):
    net, shape, _ = NETWORKS[name]
    params, state, x = given(net, shape)

    def loss(planned):
        return jax.grad(lambda p, x: jnp.square(run(net, p, state, x, planned=planned)[0]).mean(), (0, 1))(params, x)

    close(loss(True), loss(False), 2e-5)


@pytest.mark.parametrize("name", CASES)
def test_every_case_is_the_same_with_a_plan(name):
    case = CASES[name]
    if case.net.needs_key():
        pytest.skip("draws")
    params, state = case.net.init(KEY, *case.shapes), case.net.init_state(*case.shapes)
    inputs = inputs_of(case)
    close(
        run(case.net, params, state, *inputs, planned=True)[0], run(case.net, params, state, *inputs, planned=False)[0]
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_looking_changes_nothing_and_sees_what_the_layers_make(name):
    net, shape, _ = NETWORKS[name]
    params, state, x = given(net, shape)
    keep = lambda seen: Observed(kept=(seen.inputs, seen.output))  # noqa: E731
    found, _, seen = run(net, params, state, x, planned=True, observer=keep)
    _, _, right = run(net, params, state, x, planned=False, observer=keep)
    assert np.asarray(found).tobytes() == np.asarray(net.apply(params, x, state=state)).tobytes()
    assert seen.keys() == right.keys()
    for path, values in seen.items():
        close(values, right[path])


@pytest.mark.parametrize("name", NETWORKS)
def test_an_output_that_is_replaced_is_replaced_in_a_run_as_well(name):
    net, shape, _ = NETWORKS[name]
    params, state, x = given(net, shape)
    _, _, seen = run(net, params, state, x, planned=False, observer=lambda seen: Observed(kept=seen.output))
    for path in seen:

        def replace(one, path=path):
            return Observed(output=one.output + 0.5) if one.path == path else None

        found, right = (run(net, params, state, x, planned=p, observer=replace)[0] for p in (True, False))
        close(found, right)


def test_nothing_runs_together_where_somebody_elses_code_handles_the_arrays():
    net = fcnn.graph(a=conv(64), b=fcnn.MaxPool(2))(lambda layer, x: layer.b(layer.a(x)) / x.shape[1])
    found = plan(net, (12, 12, 64), batch=8)
    assert all(step.enter and step.leave for step in found.steps)
    params, state, x = given(net, (12, 12, 64))
    close(run(net, params, state, x, planned=True)[0], run(net, params, state, x, planned=False)[0])


def test_a_layer_of_ones_own_is_computed_as_it_stands():
    class Shifted(fcnn.Conv):
        def forward(self, params, x):
            return super().forward(params, x) + 1

    net = fcnn.serial(Shifted(6, 5, padding="SAME"), jax.nn.relu, fcnn.MaxPool(2))
    assert not plan(net, (28, 28, 1)).steps
    params, _, x = given(net, (28, 28, 1))
    right = fcnn.serial(conv(6, 5), lambda x: x + 1, jax.nn.relu, fcnn.MaxPool(2))
    close(net.apply(params, x), right.apply({"conv1": params["shifted1"]}, x))


def test_it_prints_every_layer_once():
    net, shape, _ = NETWORKS["polyphase, then HWNC"]
    text = str(plan(net, shape, batch=8))
    assert "8 examples of float32" in text
    paths = [path for segment in plan(net, shape, batch=8).segments for path in segment.paths]
    assert paths == [name for name, _ in net.parts]
    assert all(segment.reason for segment in plan(net, shape).segments)
