"""A value that is not finite is found where it arose, and costs the step it arose in and nothing else."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcnn
from fcnn.training import Checkpoints, NonFiniteError, make_step, order_of, start, store

pytest.importorskip("orbax.checkpoint", reason="checkpoints need orbax-checkpoint")

NET = fcnn.serial(fcnn.Dense(4), fcnn.BatchNorm(), jax.nn.relu, fcnn.Dropout(0.3), fcnn.Dense(3))
ADAM = optax.adam(optax.cosine_decay_schedule(1e-2, 40))
KEY = jax.random.key(3)
BAD = 17  # the example that has a NaN


def data(bad=True):
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(40, 6)).astype(np.float32), draw.integers(0, 3, 40).astype(np.int32)
    x[BAD, 2] = np.nan if bad else 0
    return x, y


def fitted(net=NET, given=None, **options):
    settings = {"optimizer": ADAM, "epochs": 2, "key": KEY, "batch_size": 5, "progress": False, **options}
    return fcnn.fit(net, data() if given is None else given, **settings)


def failed(*arguments, **options):
    """The error of a run, whose parameters and state must be finite."""
    with pytest.raises(NonFiniteError) as caught:
        fitted(*arguments, **options)
    for leaf in jax.tree.leaves((caught.value.run.params, caught.value.run.state)):
        assert np.isfinite(leaf).all()
    assert re.match(r"fit: (every )?step ", str(caught.value))
    return caught.value


def by_hand(steps=None, skip=False, batches=None):
    """The loop written out: train states and losses, without the steps that are to be skipped."""
    x, y = data()
    step = stepping()
    train, losses, taken = start(NET, ADAM, KEY, (6,)), [[], []], 0
    for epoch in range(2):
        order = np.asarray(order_of(KEY, epoch, 40)) if batches is None else None
        for i in range(8):
            if taken == steps:
                return train, losses
            chosen = order[5 * i : 5 * i + 5] if batches is None else batches(epoch)[i]
            taken += 1
            if BAD in chosen and skip:
                train = train._replace(step=train.step + 1)  # the next step has a key of its own
                continue
            train, metrics = step(train, (x[chosen], y[chosen]))
            losses[epoch].append(float(metrics["loss"]))
    return train, losses


@functools.cache
def stepping():
    return jax.jit(make_step(NET, ADAM))


def position(epoch=0):
    """The step of an epoch, from 0, that the bad example is in."""
    return int(np.flatnonzero(np.asarray(order_of(KEY, epoch, 40)) == BAD)[0]) // 5


def alike(train, other):
    """The same but for rounding: the step is compiled in a loop, and alone."""
    for one, two in zip(*map(jax.tree.leaves, (train._replace(key=()), other._replace(key=()))), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    assert train.key == other.key


def in_turn(epoch):
    """Places of the examples, batch by batch, for data that are handed in."""
    return np.random.default_rng(epoch).permutation(40).reshape(8, 5)


def handed_in(epoch):
    x, y = data()
    return [(x[chosen], y[chosen]) for chosen in in_turn(epoch)]


def test_the_run_stops_before_the_bad_step(tmp_path):
    error = failed(checkpoint=Checkpoints(tmp_path, every_seconds=None, every_steps=2))
    steps = position()
    assert 0 < steps < 7
    assert error.where == "the batch"
    newest = tmp_path / f"step_{steps:08d}"
    assert str(error) == (
        f"fit: step {steps + 1}, epoch 1, came out with values that are not finite: 1 NaN of 30 values in x of the "
        f"batch, example {BAD} of the data; the state before it is in this error's .run and in {newest}. To go on, "
        "look at the data, or leave such steps out: non_finite='skip'"
    )
    expected, _ = by_hand(steps)
    assert int(error.run.train.step) == steps
    alike(error.run.train, expected)
    stored = store.Store(tmp_path, read_only=True).latest({"train": error.run.train})
    assert stored is not None
    assert stored[0] == steps
    for one, two in zip(*map(jax.tree.leaves, (stored[1]["train"], error.run.train)), strict=True):
        assert jnp.array_equal(one, two)


def test_batches_that_are_handed_in():
    steps = int(np.flatnonzero((in_turn(0) == BAD).any(1))[0])
    assert steps > 0
    error = failed(given=handed_in)
    place = int(np.flatnonzero(in_turn(0)[steps] == BAD)[0])
    assert f"step {steps + 1}, epoch 1, came" in str(error)
    assert f"example {place} of the batch" in str(error)
    expected, _ = by_hand(steps, batches=in_turn)
    alike(error.run.train, expected)


@pytest.mark.parametrize("source", ["arrays", "batches"])
def test_a_step_that_is_left_out(source):
    given, batches = (data(), None) if source == "arrays" else (handed_in, in_turn)
    run = fitted(given=given, non_finite="skip")
    expected, losses = by_hand(skip=True, batches=batches)
    assert run.history["skipped"].tolist() == [1, 1]
    assert int(run.train.step) == 16
    assert [len(found) for found in losses] == [7, 7]
    alike(run.train, expected)
    np.testing.assert_allclose(run.history["loss"], [np.mean(found) for found in losses], rtol=1e-5)


def test_no_step_is_left_out_of_good_data():
    good, plain = (fitted(given=data(bad=False), non_finite=way) for way in ("skip", "stop"))
    assert good.history["skipped"].tolist() == [0, 0]
    assert "skipped" not in plain.history
    for one, two in zip(*map(jax.tree.leaves, (good.params, plain.params)), strict=True):
        assert jnp.array_equal(one, two)


def test_a_run_that_stopped_can_go_on_without_such_steps(tmp_path):
    kept = Checkpoints(tmp_path, every_seconds=None, every_steps=2)
    first = failed(checkpoint=kept)
    again = failed(checkpoint=kept, resume=True)  # the data are as they were
    assert str(again) == str(first)
    run = fitted(checkpoint=kept, resume=True, non_finite="skip")
    whole = fitted(non_finite="skip")
    assert run.history["skipped"].tolist() == [1, 1]
    for one, two in zip(*map(jax.tree.leaves, (run.train, whole.train)), strict=True):
        assert jnp.array_equal(one, two)


def test_an_epoch_without_a_step():
    x, y = data()
    error = failed(given=(np.full_like(x, np.inf), y), non_finite="skip")
    assert error.where == "every step"


def dense(*between):
    return fcnn.serial(fcnn.Dense(4), *between, fcnn.Dense(3))


def zeros_first(net):
    params = net.init(KEY, (6,))
    return {**params, "dense1": jax.tree.map(jnp.zeros_like, params["dense1"])}


def spoil(key, batch):
    (x,), y = batch
    return x.at[2, 1].set(jnp.inf), y


PLACES = {
    "a logarithm in the middle": (dense(jnp.log), {}, "log1", r"the first is the output of log1: \d+ NaN of 20 values"),
    "by a name of the user's": (
        fcnn.serial(a=fcnn.Dense(4), middle=jnp.log, b=fcnn.Dense(3)), {}, "middle", "output of middle",
    ),
    "inside": (fcnn.residual(fcnn.serial(fcnn.Dense(6), jnp.log)), {"loss": optax.losses.squared_error,
        "given": (np.ones((40, 6), np.float32) * np.arange(-3, 3, dtype=np.float32), np.ones((40, 6), np.float32))},
        "body/log1", "output of body/log1"),
    "a huge learning rate": (dense(jax.nn.relu), {"optimizer": optax.sgd(1e30)}, "dense2", "output of dense2"),
    "beyond float16": (
        dense(lambda a: a * jnp.asarray(6e4, a.dtype)), {"precision": "float16"}, "function1", "infinite of 20 values",
    ),
    "only the gradient": (
        dense(jnp.sqrt), {"params": zeros_first(dense(jnp.sqrt))}, "dense1/kernel",
        "the loss is finite, the gradient of dense1/kernel is not",
    ),
    "only the loss": (
        dense(jnp.tanh), {"loss": lambda out, y: jnp.log(-jnp.square(out).sum(-1))}, "loss",
        "the outputs are finite, the loss of them is not",
    ),
    "only the update": (
        dense(jnp.tanh), {"optimizer": optax.stateless(lambda g, p: jax.tree.map(lambda a: a / 0, g))}, "optimizer",
        "loss and gradients are finite, the optimizer's update is not",
    ),
    "augmentation": (dense(jnp.tanh), {"augment": spoil}, "the augmented batch", "1 infinite of 30 values in x"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_the_place_is_named(name):
    net, options, where, text = PLACES[name]
    error = failed(net, **{"given": data(bad=False), **options})
    assert error.where == where
    with pytest.raises(NonFiniteError, match=text):
        raise error


def test_parameters_that_are_not_finite_from_the_start():
    params = NET.init(KEY, (6,))
    params["dense2"]["bias"] = params["dense2"]["bias"].at[1].set(jnp.nan)
    with pytest.raises(NonFiniteError, match="1 NaN of 3 values in the parameter dense2/bias, before the step"):
        fitted(given=data(bad=False), params=params, state=NET.init_state((6,)))


def test_a_member_of_an_ensemble():
    """Its members go through the data in orders of their own; one bad batch stops all."""
    with pytest.raises(NonFiniteError, match=rf"in member \d 1 NaN of 30 values in x of the batch, example {BAD} of"):
        fcnn.fit(NET, data(), members=2, optimizer=ADAM, epochs=1, key=KEY, batch_size=5, progress=False)


def test_a_gradient_that_no_scale_of_the_loss_makes_finite():
    x = np.ones((64, 1), np.float32)

    def bent(outputs, targets):  # 0 with a gradient of 0 / 0
        return jnp.sqrt(0 * outputs[..., 0])

    options = {"loss": bent, "optimizer": optax.sgd(0.1), "epochs": 30, "key": jax.random.key(0), "progress": False}
    with pytest.raises(fcnn.training.NonFiniteError, match="the gradient of kernel is not"):
        fcnn.fit(fcnn.Dense(1, bias=False), (x, x), precision="float16", **options)
