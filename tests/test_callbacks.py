"""Callbacks by steps, and the learning rate in the history."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcnn
from fcnn.training import every
from fcnn.training.rates import learning_rate

NET = fcnn.Dense(2)
X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
DATA = X, (X[:, 0] > 0).astype("int32")


def fit(data=DATA, epochs=2, **more):
    more = {"optimizer": optax.sgd(0.1), "key": jax.random.key(0), "batch_size": 4, **more}
    return fcnn.fit(NET, data, epochs=epochs, progress=False, **more)


def batches(epoch):
    order = np.random.default_rng(epoch).permutation(40)
    return [(X[chosen], DATA[1][chosen]) for chosen in np.split(order, 10)]


@pytest.mark.parametrize("data", [DATA, batches], ids=["arrays", "batches"])
def test_they_are_told_the_state_after_their_step(data):
    by_steps, ended = [], []
    told = lambda info: by_steps.append((info.epoch, info.step, np.asarray(info.params["kernel"])))  # noqa: E731
    losses = []
    run = fit(
        data,
        callbacks=[
            every(3, told),
            every(1, lambda info: losses.append(info.metrics["loss"])),
            lambda info: ended.append((info.epoch, info.step)),
        ],
    )
    assert [at[:2] for at in by_steps] == [(1, 3), (1, 6), (1, 9), (2, 12), (2, 15), (2, 18)]
    assert ended == [(1, 10), (2, 20)]
    np.testing.assert_allclose([np.mean(losses[:10]), np.mean(losses[10:])], run.history["loss"], rtol=1e-6)
    plain = fit(data)
    assert plain.params["kernel"].tobytes() == run.params["kernel"].tobytes()
    # one that stops training at its step leaves the parameters of that step
    short = fit(data, callbacks=[every(12, lambda info: True)])
    np.testing.assert_array_equal(short.params["kernel"], by_steps[3][2])
    assert "callback" in short.stopped
    assert len(short.history["loss"]) == 1


def test_what_a_callback_stopped_within_an_epoch_goes_on(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    whole = fit(batches)
    stopped = fit(batches, checkpoint=tmp_path, callbacks=[every(7, lambda info: True)])
    assert int(stopped.train.step) == 7
    assert (tmp_path / "step_00000007").is_dir()
    resumed = fit(batches, checkpoint=tmp_path, resume=True)
    assert resumed.params["kernel"].tobytes() == whole.params["kernel"].tobytes()
    assert resumed.history["loss"].tolist() == whole.history["loss"].tolist()


def test_mistakes_are_explained():
    with pytest.raises(TypeError, match="must be a function of an EpochInfo"):
        every(3, "write")
    with pytest.raises(ValueError, match="steps"):
        every(0, print)


SCHEDULE = optax.cosine_decay_schedule(0.3, 40)


@pytest.mark.parametrize(
    ("optimizer", "wanted"),
    [
        (optax.sgd(0.25), lambda step: 0.25),
        (optax.adamw(SCHEDULE, weight_decay=0.1), SCHEDULE),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.lion(SCHEDULE)), SCHEDULE),
        (optax.inject_hyperparams(optax.adam)(SCHEDULE), SCHEDULE),
        (optax.chain(optax.scale(7.0), optax.scale_by_adam(), optax.scale_by_schedule(SCHEDULE), optax.scale(-0.5)),
         lambda step: 0.5 * SCHEDULE(step)),
        (optax.apply_if_finite(optax.sgd(SCHEDULE, momentum=0.9), 3), SCHEDULE),
    ],
    ids=["sgd", "adamw", "chain", "inject", "by hand", "wrapped"],
)  # fmt: skip
@pytest.mark.parametrize("more", [{}, {"average": 0.9, "trainable": "kernel"}], ids=["", "average"])
def test_the_rate_is_that_of_the_last_step_of_each_epoch(optimizer, wanted, more):
    run = fit(optimizer=optimizer, **more)
    np.testing.assert_allclose(run.history["learning_rate"], [wanted(9), wanted(19)], rtol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.multi_transform({"a": optax.sgd(0.1), "b": optax.sgd(0.2)}, {"kernel": "a", "bias": "b"}),
        optax.GradientTransformation(lambda p: (), lambda g, s, p=None: (jax.tree.map(lambda a: -a, g), s)),
        optax.polyak_sgd(1.0),
    ],
    ids=["several", "own", "polyak"],
)
def test_a_rate_that_cannot_be_known_is_left_out(optimizer):
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    assert learning_rate(optimizer, optimizer.init(params)) is None


def test_the_rate_of_an_ensemble():
    run = fcnn.fit(
        NET, DATA, members=2, epochs=2, optimizer=optax.adam(SCHEDULE), key=jax.random.key(0), batch_size=4,
        progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(run.history["learning_rate"], [SCHEDULE(9), SCHEDULE(19)], rtol=1e-6)


@pytest.mark.parametrize("more", [{}, {"accumulate": 2}, {"precision": "float16"}], ids=lambda m: next(iter(m), ""))
def test_the_norm_of_the_gradient_is_the_mean_of_those_of_the_steps(more):
    params = NET.init(jax.random.key(1), (3,))
    run = fit(epochs=1, params=params, optimizer=optax.sgd(0.0), **more)
    order = np.asarray(fcnn.training.order_of(jax.random.key(0), 0, 40)).reshape(10, 4)
    norms = []
    for chosen in order:  # by hand: softmax minus one-hot
        x, y = X[chosen].astype("float64"), DATA[1][chosen]
        scores = x @ np.asarray(params["kernel"], "float64") + np.asarray(params["bias"], "float64")
        shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        wrong = (shares - np.eye(2)[y]) / len(x)
        norms.append(np.sqrt((wrong.sum(0) ** 2).sum() + ((x.T @ wrong) ** 2).sum()))
    np.testing.assert_allclose(
        run.history["gradient_norm"], [np.mean(norms)], rtol=1e-2 if "precision" in more else 1e-5
    )
