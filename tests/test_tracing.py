"""``fcnn.trace``: the nodes of a trace compute what the network computes, and say where they stand in it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, inputs_of
from trace_interpreter import interpret, lookup

import fcnn
from fcnn.compose.parts import Composite
from fcnn.tracing.read import BATCH
from fcnn.tracing.structure import structure

KEY = jax.random.key(0)


def made(case):
    return case.net.init(KEY, *case.shapes), case.net.init_state(*case.shapes)


def same(a, b, tolerance=1e-5):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_computing_node_by_node_is_computing_the_network(name):
    case = CASES[name]
    params, state = made(case)
    inputs = inputs_of(case, BATCH)
    outputs, _ = interpret(fcnn.trace(case.net, *case.shapes), params, state, *inputs)
    expected = jax.tree.leaves(case.net.apply(params, *inputs, state=state))
    assert len(outputs) == len(expected)
    for found, y in zip(outputs, expected, strict=True):
        same(found, y)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "drop" not in repr(case.net).lower()])
def test_in_training_the_new_state_is_that_of_the_network(name):
    case = CASES[name]
    params, state = made(case)
    if not state:
        pytest.skip("no state")
    inputs = inputs_of(case, BATCH)
    outputs, new_state = interpret(fcnn.trace(case.net, *case.shapes, train=True), params, state, *inputs)
    y, expected = case.net.apply_train(params, *inputs, key=KEY, state=state)
    for found, leaf in zip(outputs, jax.tree.leaves(y), strict=True):
        same(found, leaf)
    assert len(new_state) == len(jax.tree.leaves(expected))
    for path, found in new_state.items():
        same(found, lookup(expected, path))


@pytest.mark.parametrize("name", CASES)
def test_shapes_and_params_are_those_of_the_network(name):
    case = CASES[name]
    params, state = structure(case.net, case.shapes)
    drawn = jax.eval_shape(lambda: made(case))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), (params, state)) == jax.tree.map(
        lambda a: (a.shape, a.dtype), drawn
    )
    trace = fcnn.trace(case.net, *case.shapes)
    assert [trace.shapes[n] for n in trace.inputs] == list(case.shapes)
    out = jax.tree.leaves(case.net.out_shape(*case.shapes), is_leaf=lambda s: isinstance(s, tuple))
    assert [trace.shapes[n] for n in trace.outputs] == out
    known = set()
    for node in trace.walk():
        if node.layer is None:
            continue
        assert not isinstance(node.layer, Composite)
        own = node.own(params)
        known |= {f"{node.home}/{name}".strip("/") for name, _ in node.params}
        for name, _ in node.params:
            assert lookup(own, name).shape[: len(node.copies)] == node.copies
    paths = {"/".join(key.key for key in keys) for keys, _ in jax.tree.leaves_with_path(params)}
    assert known >= paths


def test_every_value_is_made_before_it_is_used():
    case = CASES["lenet5"]
    trace = fcnn.trace(case.net, *case.shapes)
    made = {*trace.inputs, *dict(trace.params), *dict(trace.constants)}
    for node in trace:
        assert made >= set(node.inputs)
        made |= set(node.outputs)
    assert made >= set(trace.outputs)


def test_a_residual_a_shared_layer_and_a_loop():
    def wiring(layer, x):
        return layer.conv(layer.conv(x)) + 2 * x

    net = fcnn.serial(
        fcnn.graph(conv=fcnn.Conv(3, 3, padding="SAME"))(wiring),
        fcnn.repeat(fcnn.residual(fcnn.Conv(3, 1)), 4),
        head=fcnn.serial(fcnn.Flatten(), fcnn.Dense(2)),
    )
    trace = fcnn.trace(net, (8, 8, 3))
    assert [(node.path, node.primitive) for node in trace] == [
        ("graph1/conv", None), ("graph1/conv#2", None), ("graph1", "mul"), ("graph1", "add"), ("repeat1", "scan"),
        ("head/flatten1", None), ("head/dense1", None),
    ]  # fmt: skip
    first, second = trace["graph1/conv"], trace["graph1/conv#2"]
    assert first.params == second.params
    assert second.inputs == first.outputs
    assert second.home == "graph1/conv"
    body = trace["repeat1/body"]
    assert (body.copies, body.layer, body.shapes) == ((4,), fcnn.Conv(3, 1), ((8, 8, 3),))
    assert [trace.shapes[n] for n in trace.outputs] == [(2,)]


def test_a_scan_has_the_trace_of_one_window():
    window = fcnn.serial(fcnn.Conv(4, 3), jax.nn.relu, fcnn.Flatten(), fcnn.Dense(2))
    for method in ("layers", "patches"):
        trace = fcnn.trace(fcnn.serial(find=fcnn.Scan(window, 8, stride=2, method=method)), (32, 20, 1))
        (node,) = trace.nodes
        assert node.positions == (13, 7)
        assert node.shapes == ((13, 7, 2),)
        assert [(inner.path, inner.shapes) for inner in node.inside[0]] == [
            ("find/conv1", ((6, 6, 4),)), ("find/relu1", ((6, 6, 4),)), ("find/flatten1", ((144,),)),
            ("find/dense1", ((2,),)),
        ]  # fmt: skip
        assert trace["find/conv1"].layer == fcnn.Conv(4, 3)


def test_compositions_and_layers_of_ones_own_are_traced():
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Twice(fcnn.Layer):
        """Runs a part on x and on its own output, in a way that no composition of the library has."""

        body: fcnn.Layer

        def infer_shape(self, shape):
            return self.body.infer_shape(self.body.infer_shape(shape))

        def init_part(self, key, shapes):
            return {"body": self.body.init_part(key, shapes)}

        def run(self, context, params, state, inputs):
            y, _ = context.part("body", self.body, params, state, inputs)
            z, _ = context.part("body", self.body, params, state, (jnp.sin(y),), use=1)
            return z, {}

    @dataclasses.dataclass(frozen=True)
    class Gain(fcnn.Layer):
        def parameters(self, shape):
            return {"gain": fcnn.Parameter(shape[-1:], jax.nn.initializers.normal())}

        def forward(self, params, x):
            return x * params["gain"]

    net = fcnn.serial(Twice(fcnn.Conv(3, 1)), Gain())
    params = net.init(KEY, (4, 4, 3))
    trace = fcnn.trace(net, (4, 4, 3))
    assert [(node.path, node.what) for node in trace] == [
        ("twice1/body", "fcnn.Conv(3, 1)"), ("twice1", "sin"), ("twice1/body#2", "fcnn.Conv(3, 1)"),
        ("gain1", trace["gain1"].what),
    ]  # fmt: skip
    x = jax.random.normal(KEY, (BATCH, 4, 4, 3))
    same(interpret(trace, params, {}, x)[0][0], net.apply(params, x))


def test_a_function_has_its_operations_inside():
    trace = fcnn.trace(fcnn.serial(lambda x: jnp.tanh(x) * 2 + x), (5,))
    (node,) = trace.nodes
    (inside,) = node.inside
    assert [inner.primitive for inner in inside] == ["tanh", "mul", "add"]
    assert all(inner.layer is None for inner in inside)


def test_traces_compare_and_are_remembered():
    def net(features):
        return fcnn.serial(fcnn.Conv(features, 3), lambda_free, fcnn.residual(jax.nn.tanh))

    def lambda_free(x):
        return x + 1

    one, other = fcnn.trace(net(4), (8, 8, 1)), fcnn.trace(net(4), (8, 8, 1))
    assert one is other
    assert one != fcnn.trace(net(5), (8, 8, 1))
    assert one != fcnn.trace(net(4), (9, 8, 1))


def test_a_trace_of_152_layers_has_its_published_number_of_parameters():
    def block(width, stride, shortcut):
        def conv(features, kernel, stride=1):
            return fcnn.Conv(features, kernel, stride=stride, padding=kernel // 2, bias=False)

        body = fcnn.serial(
            conv(width, 1), fcnn.BatchNorm(), jax.nn.relu, conv(width, 3, stride), fcnn.BatchNorm(), jax.nn.relu,
            conv(4 * width, 1), fcnn.BatchNorm(),
        )  # fmt: skip
        side = fcnn.serial(conv(4 * width, 1, stride), fcnn.BatchNorm()) if shortcut else None
        return [fcnn.residual(body, side), jax.nn.relu]

    parts = [fcnn.Conv(64, 7, stride=2, padding=3, bias=False), fcnn.BatchNorm(), jax.nn.relu]
    parts.append(fcnn.MaxPool(3, stride=2, padding=1))
    for stage, (width, count) in enumerate(((64, 3), (128, 8), (256, 36), (512, 3))):
        for n in range(count):
            parts += block(width, 2 if stage and not n else 1, not n)
    net = fcnn.serial(*parts, fcnn.GlobalAvgPool(), fcnn.Dense(1000))
    trace = fcnn.trace(net, (224, 224, 3))
    sizes = {number: np.prod(trace.shapes[number], dtype=int) for number, _ in trace.params}
    assert sum(sizes.values()) == 60_192_808  # torchvision's resnet152
    assert sum(type(node.layer) is fcnn.Conv for node in trace) == 155
    assert trace[f"residual{1 + 3}/body/conv1"].shapes == ((56, 56, 128),)


def test_it_prints_as_a_table():
    text = str(fcnn.trace(fcnn.serial(fcnn.Conv(4, 3), fcnn.repeat(jax.nn.tanh, 2)), (8, 8, 1)))
    first, header, rule, *rows = text.splitlines()
    assert first.startswith("input ")
    assert header.split() == ["path", "what", "from", "output"]
    assert set(rule) == {"-"}
    assert ["conv1" in row for row in rows] == [True, False, False]
    assert "2 x (6, 6, 4)" in rows[-1]
    assert "<table>" in fcnn.trace(fcnn.Dense(3), (4,))._repr_html_()


def test_what_does_not_suit_is_refused_with_the_path():
    with pytest.raises(ValueError, match="conv2"):
        fcnn.trace(fcnn.serial(fcnn.Conv(4, 3), fcnn.Conv(4, 9)), (8, 8, 1))
    with pytest.raises(TypeError, match="is not a network"):
        fcnn.trace(optax.sgd(0.1), (8, 8, 1))
    with pytest.raises(TypeError, match="takes 1 input"):
        fcnn.trace(fcnn.Dense(3))
