"""fit, evaluate and the step: held to loops written out here, and to what they refuse."""

import dataclasses
import re
import sys

import jax
import numpy as np
import optax
import pytest

import fcnn
from fcnn.training import make_step, start
from fcnn.training.progress_bar import EpochBar

KEY = jax.random.key(0)
NET = fcnn.serial(fcnn.Conv(4, 3), fcnn.BatchNorm(), jax.nn.relu, fcnn.Flatten(), fcnn.Dropout(0.2), fcnn.Dense(3))
SGD = optax.sgd(0.05, momentum=0.9)


def labelled(count=50, seed=0):
    """Images whose class is the third in which they are brightest: learnable in a few steps."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, count)
    x = generator.normal(0, 0.3, (count, 6, 6, 1)).astype(np.float32)
    for i, label in enumerate(y):
        x[i, 2 * label : 2 * label + 2] += 1
    return x, y.astype(np.int32)


def fit(data=None, net=NET, **options):
    settings = {"optimizer": SGD, "epochs": 3, "key": KEY, "batch_size": 16, "progress": False, **options}
    return fcnn.fit(net, labelled() if data is None else data, **settings)


def test_fit_learns_and_reports_every_epoch():
    run = fit(epochs=8, validation=labelled(seed=1))
    assert set(run.history) == {
        "loss",
        "accuracy",
        "validation_loss",
        "validation_accuracy",
        "learning_rate",
        "gradient_norm",
        "seconds",
    }
    assert all(values.shape == (8,) for values in run.history.values())
    assert run.history["loss"][-1] < 0.3 * run.history["loss"][0]
    assert run.history["validation_accuracy"][-1] > 0.95
    assert "8 epochs" in repr(run)


def test_the_same_key_gives_the_same_run_and_another_another():
    first, again, other = fit(), fit(), fit(key=jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    jax.tree.map(np.testing.assert_array_equal, first.state, again.state)
    np.testing.assert_array_equal(first.history["loss"], again.history["loss"])
    assert not np.array_equal(first.params["conv1"]["kernel"], other.params["conv1"]["kernel"])


def test_the_step_is_the_gradient_of_the_mean_loss_taken_by_the_optimizer(x64):
    net = fcnn.serial(fcnn.Flatten(), fcnn.Dense(3))
    x, y = labelled(7)
    x = x.astype(np.float64)
    before = start(net, SGD, KEY, (6, 6, 1))
    after, metrics = make_step(net, SGD, optax.losses.softmax_cross_entropy_with_integer_labels)(before, ((x,), y))
    # softmax and its gradient p - y by hand, in NumPy
    w, b = (np.asarray(before.params["dense1"][name]) for name in ("kernel", "bias"))
    scores = x.reshape(7, -1) @ w + b
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    one_hot = np.eye(3)[y]
    delta = (p - one_hot) / 7
    np.testing.assert_allclose(after.params["dense1"]["kernel"], w - 0.05 * x.reshape(7, -1).T @ delta, rtol=1e-10)
    np.testing.assert_allclose(after.params["dense1"]["bias"], b - 0.05 * delta.sum(0), rtol=1e-10)
    np.testing.assert_allclose(metrics["loss"], -np.log(p[np.arange(7), y]).mean(), rtol=1e-12)
    np.testing.assert_allclose(metrics["accuracy"], (scores.argmax(1) == y).mean())
    assert int(after.step) == 1


def test_fit_is_a_loop_over_the_step_in_a_shuffled_order():
    data = labelled(50)
    seen = []

    def spy(key, batch):
        jax.debug.callback(lambda y: seen.append(np.asarray(y)), batch[1], ordered=False)
        return batch

    fit((data[0], np.arange(50, dtype=np.int32) % 3), epochs=2, augment=spy)
    assert len(seen) == 2 * (50 // 16)
    assert all(len(labels) == 16 for labels in seen)
    assert not np.array_equal(np.concatenate(seen[:3]), np.concatenate(seen[3:]))


def test_every_example_takes_part_in_an_epoch_at_most_once():
    x = np.arange(40, dtype=np.float32).reshape(40, 1)
    used = []

    def spy(key, batch):
        jax.debug.callback(lambda a: used.append(np.asarray(a).ravel()), batch[0][0])
        return batch

    fit((x, np.zeros(40, np.int32)), net=fcnn.Dense(2), epochs=1, augment=spy)
    flat = np.concatenate(used)
    assert len(flat) == 32
    assert len(set(flat.tolist())) == 32


def test_a_second_run_compiles_nothing():
    traces = []

    @dataclasses.dataclass(frozen=True)
    class Counting(fcnn.Layer):
        def forward(self, params, x):
            traces.append(1)
            return x

    net = fcnn.serial(Counting(), fcnn.Flatten(), fcnn.Dense(3))
    fit(net=net, epochs=1)
    first = len(traces)
    fit(net=net, epochs=4, key=jax.random.key(5))
    assert len(traces) == first


def test_fit_continues_from_given_parameters_and_leaves_them_whole():
    run = fit()
    before = jax.tree.map(np.array, (run.params, run.state))
    longer = fit(params=run.params, state=run.state, epochs=1)
    jax.tree.map(np.testing.assert_array_equal, before, (run.params, run.state))  # not given away by donation
    assert longer.history["loss"][0] < run.history["loss"][0]


def test_fewer_examples_than_a_batch_are_one_batch():
    run = fit(labelled(5), epochs=2)
    assert run.history["loss"].shape == (2,)


def test_another_loss_and_targets_that_are_not_labels():
    x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(64, 1)
    run = fit((x, 3 * x + 1), net=fcnn.Dense(1), loss=optax.losses.squared_error, epochs=60, optimizer=optax.adam(0.1))
    np.testing.assert_allclose(run.params["kernel"], [[3.0]], atol=0.05)
    assert "accuracy" not in run.history
    assert set(fcnn.evaluate(fcnn.Dense(1), run.params, (x, 3 * x + 1), loss=optax.losses.squared_error)) == {"loss"}


def test_a_label_for_every_position():
    x = np.random.default_rng(0).normal(size=(20, 5, 5, 1)).astype(np.float32)
    y = (x[..., 0] > 0).astype(np.int32)
    run = fit((x, y), net=fcnn.serial(fcnn.Conv(2, 1)), epochs=40, optimizer=optax.adam(0.1))
    assert run.history["accuracy"][-1] > 0.95


def test_several_inputs():
    @fcnn.graph(a=fcnn.Dense(2), b=fcnn.Dense(2))
    def meet(layer, x, y):
        return layer.a(x) + layer.b(y)

    x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    labels = (x[:, 0] > 0).astype(np.int32)
    run = fit(((x, -x), labels), net=meet, epochs=20)
    assert fcnn.evaluate(meet, run.params, ((x, -x), labels))["accuracy"] > 0.9


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_evaluate_counts_every_example_once(batch_size):
    x, y = labelled(50)
    net = fcnn.serial(fcnn.Flatten(), fcnn.Dense(3))
    params = net.init(KEY, (6, 6, 1))
    scores = np.asarray(net.apply(params, x), np.float64)
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    found = fcnn.evaluate(net, params, (x, y), batch_size=batch_size)
    np.testing.assert_allclose(found["loss"], -log_p[np.arange(50), y].mean(), rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"], (scores.argmax(1) == y).mean(), rtol=1e-6)


def test_evaluate_uses_running_statistics_and_no_dropout():
    run = fit(epochs=5)
    x, y = labelled(30, seed=2)
    once = fcnn.evaluate(NET, run.params, (x, y), state=run.state)
    assert once == fcnn.evaluate(NET, run.params, (x, y), state=run.state)
    by_hand = (np.asarray(NET.apply(run.params, x, state=run.state)).argmax(1) == y).mean()
    np.testing.assert_allclose(once["accuracy"], by_hand, rtol=1e-6)
    with pytest.raises(
        ValueError, match=r"evaluate/batch_norm1: needs its mean and variance|batch_norm1: needs its mean"
    ):
        fcnn.evaluate(NET, run.params, (x, y))


def test_progress_goes_to_the_terminal_only_when_asked(capsys):
    fit(epochs=2)
    assert capsys.readouterr() == ("", "")
    fit(epochs=2, progress=True)
    shown = capsys.readouterr().err
    assert "epoch 1/2" in shown
    assert "epoch 2/2" in shown
    assert "loss" in shown
    assert "accuracy" in shown


def test_without_tqdm_there_is_a_line_for_each_epoch(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit(epochs=2, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(":")[0] for line in err.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert "loss" in err


def test_a_log_has_lines_seconds_apart_and_a_terminal_bars(capsys, monkeypatch):
    fit(epochs=2, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    monkeypatch.setattr(EpochBar, "LINES", 0.0)
    fit(epochs=1, progress=True)
    shown = capsys.readouterr().err
    assert "\r" not in shown
    *between, last = shown.splitlines()
    assert re.fullmatch(r"epoch 1/1, step \d+/\d+: loss \d.*, accuracy .*examples/s, \d+\.\d s", between[0])
    assert re.match(r"epoch 1/1: loss \d.*, accuracy ", last)
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit(epochs=1, progress=True)
    assert "\r" in capsys.readouterr().err


X, Y = labelled(20)
MISTAKES = {
    "not a pair": (lambda: fit(data=X), TypeError, r"fit: data must be a pair \(x, y\)"),
    "a list for x": (lambda: fit(data=([X.tolist()], Y)), TypeError, "x must be an array"),
    "different numbers": (lambda: fit(data=(X, Y[:5])), ValueError, "20 in x, 5 in y"),
    "no examples": (lambda: fit(data=(X[:0], Y[:0])), ValueError, "no examples"),
    "one-hot labels": (lambda: fit(data=(X, np.eye(3, dtype=np.float32)[Y])), TypeError, r"y\.argmax\(-1\)"),
    "labels from 1": (lambda: fit(data=(X, Y + 1)), ValueError, "labels run from 1 to 3.*classes 0 to 2"),
    "negative labels": (lambda: fit(data=(X, Y - 1)), ValueError, "labels run from -1"),
    "flatten forgotten": (lambda: fit(net=fcnn.Dense(3)), ValueError, r"Flatten or global pooling"),
    "images too small": (lambda: fit(data=(X[:, :2, :2], Y)), ValueError, r"conv1: kernel \(3, 3\) does not fit"),
    "no optimizer": (lambda: fit(optimizer=0.1), TypeError, r"optax\.adam"),
    "key a number": (lambda: fit(key=0), TypeError, r"jax\.random\.key\(0\)"),
    "epochs 0": (lambda: fit(epochs=0), ValueError, "epochs is 0"),
    "batch size 1.5": (lambda: fit(batch_size=1.5), TypeError, "batch_size must be a whole number"),
    "validation labels": (lambda: fit(validation=(X, Y + 5)), ValueError, "validation: labels run from 5"),
    "bytes": (lambda: fit(data=((X * 255).astype(np.uint8), Y)), TypeError, "uint8.*255"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained(name):
    call, kind, message = MISTAKES[name]
    with pytest.raises(kind, match=message):
        call()
