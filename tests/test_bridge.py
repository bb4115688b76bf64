"""Graphs written out by hand: shared layers in training, nested graphs, several outputs.

The truth is JAX's autodiff of the network itself, in float64; where one can be written down in a line, so it is.
"""

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn import reference
from fcnn.analysis import Unwritten, bridge, to_reference

KEY = jax.random.key(7)
IMAGE, VECTOR = (4, 4, 3), (5,)
BATCH = 4

Pair = namedtuple("Pair", "first second")


def block():
    """A network with parameters, statistics and random numbers."""
    return fcnn.serial(fcnn.Dense(5), fcnn.BatchNorm(momentum=0.7), jnp.tanh, fcnn.Dropout(0.4))


@fcnn.graph(norm=fcnn.BatchNorm(), dense=fcnn.Dense(3))
def norm_once(layer, x):
    return layer.dense(jnp.tanh(layer.norm(x)))


@fcnn.graph(norm=fcnn.BatchNorm(momentum=0.6), dense=fcnn.Dense(5))
def norm_twice(layer, x):
    return layer.norm(jnp.tanh(layer.dense(layer.norm(x)))) * x


@fcnn.graph(norm=fcnn.BatchNorm(scale=False), pool=fcnn.AvgPool(2), conv=fcnn.Conv(3, 3, padding="SAME"))
def norm_at_two_sizes(layer, x):
    fine = jnp.tanh(layer.norm(layer.conv(x)))
    coarse = layer.norm(layer.pool(fine))
    return fine.sum((1, 2)) + jnp.square(layer.norm(layer.conv(coarse))).sum((1, 2))


@fcnn.graph(drop=fcnn.Dropout(0.5), dense=fcnn.Dense(5))
def dropout_twice(layer, x):
    return layer.drop(jnp.tanh(layer.dense(layer.drop(x)))) + layer.dense(layer.drop(x))


@fcnn.graph(drop=fcnn.Dropout(0.5, whole_channels=True), pool=fcnn.MaxPool(2))
def dropout_at_two_sizes(layer, x):
    return layer.drop(layer.pool(layer.drop(x)))


@fcnn.graph(block=block())
def block_twice(layer, x):
    return layer.block(jnp.sin(layer.block(x))) - x


@fcnn.graph(block=fcnn.residual(block(), fcnn.BatchNorm()), head=fcnn.branches(block(), fcnn.Dense(2)))
def parallel_twice(layer, a, b):
    return layer.head(layer.block(a) * b) + layer.head(layer.block(layer.block(b)))


@fcnn.graph(block=block_twice, drop=fcnn.Dropout(0.3))
def nested(layer, x):
    return layer.block(layer.drop(x)) * layer.drop(jnp.cos(layer.block(x)))


@fcnn.graph(stack=fcnn.repeat(block_twice, 2))
def repeat_twice(layer, x):
    return layer.stack(layer.stack(x) * x)


@fcnn.graph(stack=fcnn.repeat(fcnn.serial(dense=fcnn.Dense(5, bias=False), norm=fcnn.BatchNorm()), 2))
def tied(layer, x):
    """The kernels of both copies are used by the layers, and read."""
    y = layer.stack(x)
    first, second = layer.params["stack"]["dense"]["kernel"]
    return jnp.tanh(layer.stack(y) @ first.T) @ second


@fcnn.graph(drop=fcnn.Dropout(0.5), norm=fcnn.BatchNorm(), dense=fcnn.Dense(3))
def siamese(layer, a, b):
    """Both inputs pass as one batch of twice the size."""
    both = layer.norm(layer.drop(layer.dense(layer.drop(jnp.concatenate([a, b])))))
    left, right = jnp.split(both, 2)
    return jnp.tanh(left) - right


@fcnn.graph(dense=fcnn.Dense(5), drop=fcnn.Dropout(0.5))
def compiled_inside(layer, x):
    """Functions that JAX traces once and calls twice."""
    step = jax.jit(lambda v: jnp.tanh(layer.dense(v)))
    return jax.checkpoint(lambda v: layer.drop(step(step(v))))(layer.drop(x))


@fcnn.graph(block=block(), head=fcnn.Dense(2))
def to_tuple(layer, x):
    hidden = layer.block(x)
    return hidden, layer.head(layer.block(hidden))


@fcnn.graph(block=block(), head=fcnn.Dense(2))
def to_dict(layer, x):
    hidden = layer.block(x)
    scores = layer.head(jnp.tanh(hidden))
    return {"scores": scores, "also": (hidden, {"x": x, "again": scores}), "one": jnp.ones((x.shape[0], 2), x.dtype)}


@fcnn.graph(f=to_tuple, g=to_dict, drop=fcnn.Dropout(0.2))
def of_several_outputs(layer, x):
    """Graphs of several outputs inside another."""
    hidden, scores = layer.f(x)
    found = layer.g(layer.drop(hidden))
    again, more = layer.f(found["also"][1]["x"])
    return Pair(layer.drop(again) * found["also"][0], [more + scores, found["scores"]])


CASES = {
    "batch norm once": (norm_once, (VECTOR,)),
    "batch norm twice": (norm_twice, (VECTOR,)),
    "batch norm three times, at two sizes": (norm_at_two_sizes, (IMAGE,)),
    "dropout three times": (dropout_twice, (VECTOR,)),
    "dropout of whole channels at two sizes": (dropout_at_two_sizes, (IMAGE,)),
    "a serial with both, twice": (block_twice, (VECTOR,)),
    "residual and branches, twice": (parallel_twice, (VECTOR, VECTOR)),
    "a graph in a graph": (nested, (VECTOR,)),
    "a graph in a serial": (fcnn.serial(fcnn.Dense(5), nested, fcnn.BatchNorm(), nested), (VECTOR,)),
    "a graph of two inputs first in a serial": (fcnn.serial(parallel_twice, fcnn.Dense(2)), (VECTOR, VECTOR)),
    "a graph in a repeat": (fcnn.repeat(nested, 2), (VECTOR,)),
    "a repeat in a graph": (repeat_twice, (VECTOR,)),
    "tied weights": (tied, (VECTOR,)),
    "two inputs as one batch": (siamese, (VECTOR, VECTOR)),
    "jit and checkpoint in the wiring": (compiled_inside, (VECTOR,)),
    "a tuple": (to_tuple, (VECTOR,)),
    "a dict": (to_dict, (VECTOR,)),
    "a graph of several outputs in a graph": (of_several_outputs, (VECTOR,)),
    "a graph of several outputs last in a serial": (fcnn.serial(block(), to_dict), (VECTOR,)),
}

# of module scope, so that all tests of one case come together and find its operations compiled
EACH = pytest.mark.parametrize("name", CASES, scope="module")


def given(net, shapes):
    """Params and state that are not those of the start, and inputs."""
    generator = np.random.default_rng(5)

    def moved(leaf, away):
        return leaf + away * jnp.asarray(generator.uniform(0.5, 1.5, leaf.shape), leaf.dtype)

    params = jax.tree.map(lambda leaf: moved(leaf, 0.3), net.init(jax.random.key(1), *shapes))
    state = jax.tree.map(lambda leaf: moved(leaf, 0.5), net.init_state(*shapes))
    return params, state, tuple(jnp.asarray(generator.normal(size=(BATCH, *shape))) for shape in shapes)


def by_autodiff(net, params, state, inputs, train, compiled):
    """The output, the new state, a gradient for the output, and the gradients it gives."""

    def run(params, inputs):
        if train:
            return net.apply_train(params, *inputs, key=KEY, state=state)
        return net.apply(params, *inputs, state=state), state

    def both(params, inputs):
        output, pull, new_state = jax.vjp(run, params, inputs, has_aux=True)
        slopes = jax.tree.map(lambda y: jnp.cos(jnp.arange(y.size, dtype=y.dtype) + y.ndim).reshape(y.shape), output)
        return output, new_state, slopes, pull(slopes)

    return jax.tree.map(np.asarray, (jax.jit(both) if compiled else both)(params, inputs))


def agree(found, expected, least=1e-300):
    """Raise unless two trees have one structure and differ by at most 1e-10 of the largest entry of each array."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, e), f in zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(found), strict=True):
        assert np.shape(f) == e.shape, jax.tree_util.keystr(path)
        worst = np.abs(f - e).max() / max(np.abs(e).max(), least)
        assert worst <= 1e-10, f"{jax.tree_util.keystr(path)}: relative error {worst:.1e}"


def compare(net, shapes, train=True, compiled=True):
    params, state, inputs = given(net, shapes)
    output, new_state, slopes, pulled = by_autodiff(net, params, state, inputs, train, compiled)
    node, gradients = to_reference(net, params, *shapes, state=state, key=KEY, batch=BATCH, train=train)
    agree(node.forward(*map(np.asarray, inputs)), output)
    agree(node.state(), new_state)
    shares = node.backward(slopes)
    # a gradient that is 0, such as that of a bias before batch norm, holds rounding errors alone
    least = 1e-4 * max(np.abs(leaf).max() for leaf in jax.tree.leaves(pulled))
    agree((gradients(), tuple(shares)), pulled, least)


@pytest.mark.parametrize("compiled", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["jit", "eager"])
@EACH
def test_training_by_hand_is_training_by_autodiff(name, compiled, x64):
    compare(*CASES[name], compiled=compiled)


@EACH
def test_use_by_hand_is_use_by_autodiff(name, x64):
    compare(*CASES[name], train=False)


def squares(outputs, targets):
    """A loss of whatever tree of outputs, with a target of its own for every array."""
    leaves = jax.tree.leaves(outputs)
    return sum(jnp.square(leaf - target).mean() for leaf, target in zip(leaves, targets, strict=False))


@EACH
def test_check_gradients_of_all_of_them(name):
    net, shapes = CASES[name]
    with jax.enable_x64(True):
        params, state, inputs = given(net, shapes)
        inputs = tuple(map(np.asarray, inputs))
    report = fcnn.check_gradients(
        net, params, inputs, np.linspace(-1, 1, 8), loss=squares, state=state, key=KEY, train=True, samples=3
    )
    assert report.unwritten is None
    assert report.ok, str(report)


# What each of the three needs, told apart.


def test_every_use_of_a_dropout_has_the_mask_that_fcnn_draws(x64):
    @fcnn.graph(drop=fcnn.Dropout(0.5))
    def three(layer, x):
        return layer.drop(x), layer.drop(x), layer.drop(x)

    x = np.ones((8, 16))
    node, _ = to_reference(three, {}, (16,), key=KEY, batch=8, train=True)
    by_hand = node.forward(x)
    for hand, drawn in zip(by_hand, three.apply_train({}, x, key=KEY)[0], strict=True):
        assert np.array_equal(hand, drawn)
    assert not any(np.array_equal(by_hand[i], by_hand[j]) for i, j in [(0, 1), (0, 2), (1, 2)])
    slopes = tuple(np.full((8, 16), value) for value in (1.0, 10.0, 100.0))
    (gradient,) = node.backward(slopes)
    assert np.array_equal(gradient, by_hand[0] + 10 * by_hand[1] + 100 * by_hand[2])


def test_statistics_pass_from_use_to_use_and_start_again_with_every_forward(x64):
    @fcnn.graph(norm=fcnn.BatchNorm(momentum=0.75))
    def twice(layer, a, b):
        return layer.norm(a) + layer.norm(b)

    a, b = np.random.default_rng(2).normal(size=(2, 6, 3))
    state = {"norm": {"mean": np.array([1.0, 2.0, 3.0]), "variance": np.array([4.0, 5.0, 6.0])}}
    params = {"norm": {"scale": np.ones(3), "bias": np.zeros(3)}}
    node, _ = to_reference(twice, params, (3,), (3,), state=state, batch=6, train=True)
    for _ in range(2):
        node.forward(a, b)
        mean = 0.75 * (0.75 * state["norm"]["mean"] + 0.25 * a.mean(0)) + 0.25 * b.mean(0)
        variance = 0.75 * (0.75 * state["norm"]["variance"] + 0.25 * a.var(0, ddof=1)) + 0.25 * b.var(0, ddof=1)
        np.testing.assert_allclose(node.state()["norm"]["mean"], mean, rtol=1e-14)
        np.testing.assert_allclose(node.state()["norm"]["variance"], variance, rtol=1e-14)
    assert state["norm"]["mean"].tolist() == [1.0, 2.0, 3.0]


def test_backward_takes_a_gradient_for_each_output(x64):
    params, state, (x,) = given(to_dict, (VECTOR,))
    node, gradients = to_reference(to_dict, params, VECTOR, state=state, key=KEY, batch=BATCH, train=True)
    outputs = node.forward(np.asarray(x))
    assert sorted(outputs) == ["also", "one", "scores"]
    with pytest.raises(ValueError, match="the gradient has shape"):
        node.backward(outputs["scores"])
    with pytest.raises(ValueError, match="the gradient has shape"):
        node.backward({**outputs, "scores": outputs["scores"].T})
    # only x itself: nothing reaches the parameters, and x gets what is given
    zeros = jax.tree.map(np.zeros_like, outputs)
    slope = np.full(x.shape, 3.0)
    (share,) = node.backward({**zeros, "also": (zeros["also"][0], {**zeros["also"][1], "x": slope})})
    assert np.array_equal(share, slope)
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradients()))


@pytest.mark.parametrize("name", ["a graph in a serial", "a graph in a repeat", "tied weights", "a dict"])
def test_gradients_add_up_until_they_are_cleared(name, x64):
    net, shapes = CASES[name]
    params, state, inputs = given(net, shapes)
    node, gradients = to_reference(net, params, *shapes, state=state, key=KEY, batch=BATCH, train=True)

    def once():
        outputs = node.forward(*map(np.asarray, inputs))
        node.backward(jax.tree.map(np.cos, outputs))
        return gradients()

    first = once()
    agree(once(), jax.tree.map(lambda g: 2 * g, first), 1e-4)
    node.clear()
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradients()))
    agree(once(), first, 1e-4)


def test_new_values_of_parameters_reach_all_uses_and_what_the_wiring_reads(x64):
    params, state, inputs = given(tied, (VECTOR,))
    node, _ = to_reference(tied, params, VECTOR, state=state, batch=BATCH, train=True)
    node.replace({name: value / 2 for name, value in node.params.items()})
    half, _ = tied.apply_train(jax.tree.map(lambda leaf: leaf / 2, params), *inputs, state=state)
    agree(node.forward(*map(np.asarray, inputs)), np.asarray(half))


def test_targets_and_a_loss_of_several_outputs():
    def loss(outputs, targets):
        scores, hidden = outputs["scores"], outputs["also"][0]
        entropy = -jnp.take_along_axis(jax.nn.log_softmax(scores), targets["label"][:, None], 1)[:, 0]
        return entropy + jnp.square(hidden - targets["hidden"]).sum(-1)

    params, state = to_dict.init(jax.random.key(0), VECTOR), to_dict.init_state(VECTOR)
    x = np.random.default_rng(3).normal(size=(3, *VECTOR))
    targets = {"label": [0, 1, 1], "hidden": np.ones((3, 5))}
    report = fcnn.check_gradients(to_dict, params, x, targets, loss=loss, state=state, key=KEY, train=True)
    assert report.ok, str(report)
    assert report.unwritten is None
    with pytest.raises(ValueError, match=r"several outputs.*give loss="):
        fcnn.check_gradients(to_dict, params, x, targets, state=state)


def test_outputs_and_parts_without_a_gradient():
    """Truth values as an output, as the output of a part, and on their way back to numbers."""

    @fcnn.graph(positive=lambda x: x > 0, dense=fcnn.Dense(4))
    def gated(layer, x):
        y = layer.dense(x)
        chosen = layer.positive(y)
        return jnp.where(chosen, y, -2 * y), chosen, -chosen.astype(y.dtype) * y, y.astype(jnp.int32).astype(y.dtype)

    params = gated.init(jax.random.key(0), VECTOR)
    x = 3 * np.random.default_rng(4).normal(size=(3, *VECTOR))
    report = fcnn.check_gradients(
        gated, params, x, 0, loss=lambda outputs, _: jnp.square(outputs[0] + outputs[2] * outputs[3]).mean()
    )
    assert report.unwritten is None
    assert report.ok, str(report)


def in_a_scan(layer, x):
    return jax.lax.scan(lambda carry, _: (layer.dense(carry), None), x, None, length=3)[0]


def in_a_loop(layer, x):
    return jax.lax.fori_loop(0, 3, lambda i, y: jnp.tanh(y), layer.dense(x))


def in_a_choice(layer, x):
    return jax.lax.cond(x.sum() > 0, lambda v: layer.dense(jnp.sin(v)), lambda v: layer.dense(v) * v, x)


def by_rows(layer, x):
    return jnp.stack([layer.dense(row[None])[0] for row in x]) + x[0] + sum(x)


def in_a_map(layer, x):
    return jax.vmap(layer.dense, 1, 1)(x[:, None])[:, 0]


@pytest.mark.parametrize("wiring", [in_a_scan, in_a_loop, in_a_choice, by_rows])
def test_loops_choices_and_rows_in_a_wiring(wiring, x64):
    compare(fcnn.graph(dense=fcnn.Dense(5))(wiring), (VECTOR,))


def test_what_remains_unwritten_is_named_and_checked_by_differences():
    net = fcnn.graph(dense=fcnn.Dense(5))(in_a_map)
    params = net.init(jax.random.key(0), VECTOR)
    with pytest.raises(Unwritten, match=r"in_a_map.*transforms its layers"):
        to_reference(net, params, VECTOR, batch=2)
    x = np.random.default_rng(6).normal(size=(2, *VECTOR))
    report = fcnn.check_gradients(net, params, x, np.array([0, 1]), samples=3)
    assert report.ok, str(report)
    assert "layer" in report.unwritten


# A layer is what it computes, whatever it is called.


class Renamed(fcnn.Conv):
    pass


class Settled(fcnn.BatchNorm):
    def extra(self):
        return "a method of its own"


class Scaled(fcnn.Dense):
    def forward(self, params, x):
        return 2 * super().forward(params, x)


class Sparing(fcnn.Dropout):
    pass


def test_a_subclass_that_changes_nothing_is_written_as_its_base(x64):
    net = fcnn.serial(Renamed(4, 3), Settled(), jnp.tanh, Sparing(0.4), fcnn.Flatten(), fcnn.Dense(2))
    compare(net, ((6, 6, 2),))
    compare(net, ((6, 6, 2),), train=False)


def test_a_subclass_that_computes_something_else_is_not():
    net = fcnn.serial(Scaled(3))
    with pytest.raises(Unwritten, match="Scaled"):
        to_reference(net, net.init(jax.random.key(0), (2,)), (2,))


@pytest.mark.parametrize(
    ("body", "written"),
    [
        (fcnn.serial(fcnn.Flatten(), dropout_head=fcnn.Dense(2)), True),
        (fcnn.serial(fcnn.Flatten(), head=fcnn.Dense(2), dropout=fcnn.Dropout(0.0)), True),
        (fcnn.serial(fcnn.Flatten(), head=fcnn.Dense(2), last=fcnn.Dropout(0.5)), False),
        (fcnn.serial(fcnn.residual(fcnn.serial(Sparing(0.5), fcnn.Conv(1, 1))), fcnn.Flatten(), fcnn.Dense(2)), False),
    ],
)
def test_a_scan_is_unwritten_in_training_where_a_layer_draws_and_not_where_a_name_says_so(body, written):
    net = fcnn.Scan(body, 4)
    params = net.init(jax.random.key(0), (6, 6, 1))
    if written:
        to_reference(net, params, (6, 6, 1), key=KEY, train=True)
    else:
        with pytest.raises(Unwritten, match=r"random numbers of .*(Dropout|Sparing)"):
            to_reference(net, params, (6, 6, 1), key=KEY, train=True)
    to_reference(net, params, (6, 6, 1), key=KEY)


# Faults that the comparison has to find.


def one_mask_for_all(monkeypatch):
    right = bridge._Trees.own

    def wrong(trees, path, copies, folds=()):
        return right(trees, path, copies, tuple(fold for fold in folds if fold is None or fold > 9))  # not the uses

    monkeypatch.setattr(bridge._Trees, "own", wrong)


def statistics_of_the_last_use_alone(monkeypatch):
    right = reference.BatchNorm.__init__
    monkeypatch.setattr(reference.BatchNorm, "__init__", lambda node, *, after, **rest: right(node, **rest))


def only_the_last_use_counts(monkeypatch):
    right = reference.Node.add_gradient

    def wrong(node, name, share):
        if name in node.gradients:
            node.gradients[name][...] = 0
        right(node, name, share)

    monkeypatch.setattr(reference.Node, "add_gradient", wrong)


def first_output_alone(monkeypatch):
    right = bridge._Network.backward

    def wrong(node, gradient):
        leaves, form = jax.tree.flatten(gradient)
        return right(node, jax.tree.unflatten(form, [leaves[0], *map(np.zeros_like, leaves[1:])]))

    monkeypatch.setattr(bridge._Network, "backward", wrong)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (one_mask_for_all, "dropout three times"),
        (one_mask_for_all, "a serial with both, twice"),
        (statistics_of_the_last_use_alone, "batch norm twice"),
        (statistics_of_the_last_use_alone, "a repeat in a graph"),
        (only_the_last_use_counts, "batch norm twice"),
        (only_the_last_use_counts, "a graph of several outputs in a graph"),
        (first_output_alone, "a tuple"),
        (first_output_alone, "a dict"),
    ],
)
def test_a_planted_fault_is_found(fault, name, monkeypatch, x64):
    fault(monkeypatch)
    with pytest.raises(AssertionError, match="relative error"):
        compare(*CASES[name])
