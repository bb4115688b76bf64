"""What fit offers beyond the plain loop, held to loops written out here and to single runs."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcnn
from fcnn.training import (
    EpochInfo,
    decay_mask,
    evaluate_ensemble,
    label_smoothing,
    make_step,
    order_of,
    start,
)

KEY = jax.random.key(0)
SGD = optax.sgd(0.05, momentum=0.9)
NET = fcnn.serial(
    fcnn.Conv(4, 3, bias=False), fcnn.BatchNorm(), jax.nn.relu, fcnn.Flatten(), fcnn.Dropout(0.2), fcnn.Dense(3)
)
PLAIN = fcnn.serial(fcnn.Conv(4, 3), jax.nn.relu, fcnn.Flatten(), fcnn.Dense(3))


def labelled(count=50, seed=0, dtype=np.float32):
    """Images whose class is the third in which they are brightest."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, count)
    x = generator.normal(0, 0.3, (count, 6, 6, 1))
    for i, label in enumerate(y):
        x[i, 2 * label : 2 * label + 2] += 1
    return x.astype(dtype), y.astype(np.int32)


def fit(data=None, net=NET, **options):
    settings = {"optimizer": SGD, "epochs": 3, "key": KEY, "batch_size": 16, "progress": False, **options}
    return fcnn.fit(net, labelled() if data is None else data, **settings)


def by_hand(data, net=NET, epochs=3, batch_size=16, optimizer=SGD, key=KEY, **options):
    """The loop of fit, written out."""
    x, y = data
    step = jax.jit(make_step(net, optimizer, **options))
    train = start(net, optimizer, key, x.shape[1:])
    losses = []
    for epoch in range(epochs):
        order = np.asarray(order_of(key, epoch, len(y)))
        for i in range(len(y) // batch_size):
            chosen = order[i * batch_size : (i + 1) * batch_size]
            train, metrics = step(train, (x[chosen], y[chosen]))
            losses.append(float(metrics["loss"]))
    return train, np.reshape(losses, (epochs, -1)).mean(1)


def assert_close(left, right, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol), left, right)


class Counting(fcnn.Layer):
    """Counts how often Python walks through it: once for each compilation."""

    traces = 0

    def forward(self, params, x):
        Counting.traces += 1
        return x


Counting = dataclasses.dataclass(frozen=True)(Counting)


def test_fit_is_the_loop_written_out(x64):
    data = labelled(dtype=np.float64)
    train, losses = by_hand(data)
    run = fit(data)
    assert_close((run.params, run.state), (train.params, train.state))
    np.testing.assert_allclose(run.history["loss"], losses, rtol=1e-12)
    assert int(run.train.step) == int(train.step) == 9


def test_batches_that_are_handed_in_give_what_arrays_give(x64):
    data = labelled(dtype=np.float64)

    def batches(epoch):
        order = np.asarray(order_of(KEY, epoch, 50))
        for i in range(3):
            chosen = order[16 * i : 16 * i + 16]
            yield data[0][chosen], data[1][chosen]

    run, other = fit(data), fit(batches)
    assert_close((run.params, run.state), (other.params, other.state))
    assert_close(run.history["loss"], other.history["loss"])


def test_any_number_of_steps_and_epochs_is_one_compilation():
    net = fcnn.serial(Counting(), fcnn.Flatten(), fcnn.Dense(3))
    Counting.traces = 0
    fit(labelled(500), net=net, epochs=5, batch_size=7)
    shapes_alone = Counting.traces
    assert shapes_alone == 1
    fit(labelled(300), net=net, epochs=2, batch_size=7, key=jax.random.key(1))
    assert Counting.traces == 2  # other data, of another size: one more
    Counting.traces = 0
    x, y = labelled(70)
    fit([(x[i : i + 7], y[i : i + 7]) for i in range(0, 70, 7)], net=net, epochs=4)
    assert Counting.traces == 1


def test_a_step_takes_over_the_memory_of_the_state_before():
    step = make_step(PLAIN, SGD)
    from fcnn.training import compiled_loop
    from fcnn.training.sharding import Sharding

    x, y = map(jnp.asarray, labelled(32))
    train = start(PLAIN, SGD, KEY, (6, 6, 1))
    train = jax.tree.map(jnp.copy, train)
    compiled_loop.resident(step, 16, Sharding(), False, False)(
        train, (x,), y, jnp.arange(32, dtype="int32"), np.int32(0), np.int32(0), np.int32(2)
    )
    assert train.params["conv1"]["kernel"].is_deleted()


def test_a_loader_of_pytorch():
    torch = pytest.importorskip("torch")
    x, y = labelled(64)
    data = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    run = fit(loader, epochs=2)
    other = fit([(x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16)], epochs=2)
    jax.tree.map(np.testing.assert_array_equal, run.params, other.params)


def test_a_last_smaller_batch_counts():
    x, y = labelled(40)
    run = fit([(x[:16], y[:16]), (x[16:32], y[16:32]), (x[32:], y[32:])], epochs=2)
    assert int(run.train.step) == 6


def test_a_loader_may_use_its_memory_again():
    x, y = labelled(64)
    memory = np.empty((16, 6, 6, 1), np.float32)

    def reusing(epoch):
        for i in range(0, 64, 16):
            memory[:] = x[i : i + 16]
            yield memory, y[i : i + 16]

    # a batch that is made ready while another computes must not change it
    run = fit(reusing)
    other = fit([(x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16)])
    jax.tree.map(np.testing.assert_array_equal, run.params, other.params)


def test_an_iterator_is_gone_through_once_and_from_its_first_batch():
    x, y = labelled(64)
    seen = []

    def batches():
        for i in range(0, 64, 16):
            seen.append(i)
            yield x[i : i + 16], y[i : i + 16]

    run = fit(batches(), epochs=1)
    assert seen == [0, 16, 32, 48]
    assert int(run.train.step) == 4


def test_an_error_in_a_loader_arrives_and_its_thread_ends():
    x, y = labelled(32)

    def breaking(epoch):
        yield x[:16], y[:16]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        fit(breaking)
    assert not [thread for thread in threading.enumerate() if thread.name == "fcnn batches" and thread.is_alive()]


def test_gradients_of_parts_are_those_of_the_whole_batch(x64):
    data = labelled(dtype=np.float64)
    assert_close(fit(data, net=PLAIN).params, fit(data, net=PLAIN, accumulate=4).params, rtol=1e-10)
    # and batch norm sees the parts: the statistics go through them one after another
    run = fit((data[0][:16], data[1][:16]), epochs=1, accumulate=2)
    order = np.asarray(order_of(KEY, 0, 16))
    params, state = start(NET, SGD, KEY, (6, 6, 1))[:2]
    for part in (order[::2], order[1::2]):
        _, state = NET.apply_train(params, data[0][part], key=KEY, state=state)
    assert_close(run.state, state)


def test_accumulation_that_does_not_divide_the_batch_is_explained():
    with pytest.raises(ValueError, match="accumulate is 3, which does not divide a batch of 16"):
        fit(accumulate=3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_computes_in_it_and_keeps_its_own_in_float32(precision):
    seen = []

    def spy(x):
        seen.append(str(x.dtype))
        return x

    net = fcnn.serial(fcnn.Conv(4, 3, bias=False), fcnn.BatchNorm(), jax.nn.relu, spy, fcnn.Flatten(), fcnn.Dense(3))
    data = labelled(200)
    run = fit(data, net=net, precision=precision, epochs=8)
    assert precision in seen
    assert {leaf.dtype for leaf in jax.tree.leaves((run.params, run.state))} == {np.dtype("float32")}
    full = fit(data, net=net, epochs=8)
    np.testing.assert_allclose(run.history["loss"][0], full.history["loss"][0], rtol=0.03)
    assert run.history["accuracy"][-1] > 0.97


def test_evaluation_in_half_precision_is_that_of_halves():
    x, y = labelled(64)
    params, seen = PLAIN.init(KEY, (6, 6, 1)), []

    def error(outputs, targets):
        seen.append(outputs.dtype)
        return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets)

    found = fcnn.evaluate(PLAIN, params, (x, y), loss=error, precision="bfloat16")["loss"]
    low = jax.tree.map(lambda a: a.astype("bfloat16"), (params, x))
    np.testing.assert_allclose(found, np.mean(error(PLAIN.apply(*low).astype("float32"), y)), rtol=1e-6)
    assert found != fcnn.evaluate(PLAIN, params, (x, y), loss=error)["loss"]
    assert {np.dtype(d) for d in seen} == {np.dtype("float32")}


def test_a_gradient_too_small_for_float16_is_kept_by_scaling_the_loss():
    # the gradient of 1e-8 * w is 1e-8, and float16 ends at 6e-8
    x = np.ones((64, 1), np.float32)
    tiny = lambda outputs, targets: 1e-8 * outputs[..., 0]  # noqa: E731
    options = {"net": fcnn.Dense(1, bias=False), "loss": tiny, "optimizer": optax.sgd(1e5), "epochs": 1}
    full = fit((x, x), **options)
    half = fit((x, x), precision="float16", **options)
    before = start(fcnn.Dense(1, bias=False), SGD, KEY, (1,)).params["kernel"]
    assert float(before[0, 0] - full.params["kernel"][0, 0]) == pytest.approx(4e-3, rel=1e-3)
    assert float(before[0, 0] - half.params["kernel"][0, 0]) == pytest.approx(4e-3, rel=1e-2)


def test_the_average_is_validated_and_given_back(x64):
    data = labelled(dtype=np.float64)
    run = fit(data, net=PLAIN, average=0.9, validation=data)
    x, y = data
    step, train = jax.jit(make_step(PLAIN, SGD)), start(PLAIN, SGD, KEY, (6, 6, 1))
    mean, taken = train.params, 0
    for epoch in range(3):
        order = np.asarray(order_of(KEY, epoch, 50))
        for i in range(3):
            chosen = order[i * 16 : (i + 1) * 16]
            train, _ = step(train, (x[chosen], y[chosen]))
            # as TensorFlow's ExponentialMovingAverage warms up; the share is a number in float32
            share = float(1 - np.minimum(np.float32(0.9), np.float32(1 + taken) / np.float32(10 + taken)))
            mean, taken = jax.tree.map(lambda m, p, s=share: m + s * (p - m), mean, train.params), taken + 1
    assert_close(run.train.params, train.params)
    assert_close(run.params, mean, rtol=1e-10)
    assert run.history["validation_loss"][-1] == pytest.approx(fcnn.evaluate(PLAIN, run.params, data)["loss"])


def test_patience_and_the_best_epoch():
    # the validation labels are wrong, so the validation loss rises as the network learns
    x, y = labelled(seed=1)
    wrong = (x, (y + 1) % 3)
    run = fit(epochs=30, validation=wrong, patience=4, keep_best=True)
    best = int(np.argmin(run.history["validation_loss"]))
    assert len(run.history["loss"]) == best + 1 + 4
    assert run.best_epoch == best + 1
    assert f"validation_loss was best in epoch {best + 1}" in run.stopped
    assert fcnn.evaluate(NET, run.params, wrong, state=run.state)["loss"] == pytest.approx(
        run.history["validation_loss"][best], rel=1e-6
    )
    assert not np.array_equal(run.params["dense1"]["bias"], run.train.params["dense1"]["bias"])


def test_a_resumed_run_may_report_more_and_its_history_stays_in_step(tmp_path):
    data = labelled(32)
    options = {"checkpoint": tmp_path, "net": PLAIN}
    fit(data, epochs=3, **options)
    run = fit(data, epochs=6, validation=data, patience=5, resume=True, **options)
    assert {len(values) for values in run.history.values()} == {6}
    assert np.isnan(run.history["validation_loss"][:3]).all()
    assert run.best_epoch == 1 + int(np.nanargmin(run.history["validation_loss"])) > 3


def test_arrays_of_other_libraries():
    torch = pytest.importorskip("torch")
    x, y = labelled(32)
    run = fit((torch.from_numpy(x), torch.from_numpy(y)), validation=(torch.from_numpy(x), torch.from_numpy(y)))
    other = fit((x, y), validation=(x, y))
    jax.tree.map(np.testing.assert_array_equal, run.params, other.params)
    np.testing.assert_array_equal(run.history["validation_loss"], other.history["validation_loss"])


class Table:
    """Data that are no array and know how to become one, as tables do."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


@pytest.mark.parametrize("kind", [Table, jnp.asarray], ids=["tables", "JAX"])
def test_what_becomes_an_array_is_taken_whole_and_in_batches(kind):
    x, y = labelled(32)
    expected = fit((x, y)), fit([(x[:16], y[:16]), (x[16:], y[16:])])
    found = fit((kind(x), kind(y))), fit([(kind(x[:16]), kind(y[:16])), (kind(x[16:]), kind(y[16:]))])
    for run, other in zip(found, expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, run.params, other.params)


def test_accuracy_is_best_where_it_is_highest():
    run = fit(epochs=6, validation=labelled(seed=1), monitor="validation_accuracy", keep_best=True)
    assert run.best_epoch == int(np.argmax(run.history["validation_accuracy"])) + 1


def test_callbacks_are_told_and_can_stop():
    told = []

    def note(info: EpochInfo):
        told.append((info.epoch, info.epochs, info.metrics["loss"], len(info.history["loss"])))
        return np.bool_(info.epoch == 2)

    run = fit(epochs=5, callbacks=[note])
    assert [t[:2] for t in told] == [(1, 5), (2, 5)]
    assert [t[2] for t in told] == run.history["loss"].tolist()
    assert [t[3] for t in told] == [1, 2]
    assert "note" in run.stopped


def test_further_metrics_are_reported_in_training_and_validation():
    def second(outputs, targets):
        """Whether the label is among the two highest scores."""
        return (jnp.argsort(outputs, -1)[:, -2:] == targets[:, None]).any(-1)

    data = labelled(48)
    run = fit(data, epochs=2, validation=data, metrics={"second": second}, batch_size=48)
    assert {"second", "validation_second"} <= set(run.history)
    scores = np.asarray(NET.apply(run.params, data[0], state=run.state))
    right = (np.argsort(scores, -1)[:, -2:] == data[1][:, None]).any(-1).mean()
    np.testing.assert_allclose(run.history["validation_second"][-1], right, rtol=1e-6)
    found = fcnn.evaluate(NET, run.params, data, state=run.state, metrics={"second": second}, batch_size=7)
    np.testing.assert_allclose(found["second"], right, rtol=1e-6)


def test_augmentation_is_told_which_examples_and_which_epoch():
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Told:
        by_example = True

        def __call__(self, key, batch, *, examples, epoch):
            jax.debug.callback(lambda *a: seen.append([np.asarray(v) for v in a]), examples, epoch, batch[1])
            return batch

    x, y = labelled(50)
    fit((x, y), epochs=2, augment=Told())
    assert sorted({int(epoch) for _, epoch, _ in seen}) == [0, 1]
    for examples, _, labels in seen:
        np.testing.assert_array_equal(y[examples], labels)


def test_labels_that_augmentation_mixes_are_distributions():
    def halves(key, batch):
        (x,), y = batch
        one_hot = jax.nn.one_hot(y, 3)
        return ((x + x[::-1]) / 2,), (one_hot + one_hot[::-1]) / 2

    run = fit(labelled(96), epochs=12, augment=halves, validation=labelled(seed=1))
    assert "accuracy" not in run.history
    assert run.history["validation_accuracy"][-1] > 0.95


def test_schedules_clipping_decay_and_smoothing_are_arguments(x64):
    data = labelled(dtype=np.float64)
    schedule = optax.schedules.warmup_cosine_decay_schedule(0.0, 0.01, 2, 9)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(schedule, weight_decay=0.1, mask=decay_mask))
    run = fit(data, net=PLAIN, optimizer=optimizer, loss=label_smoothing(0.1))
    train, losses = by_hand(data, net=PLAIN, optimizer=optimizer, loss=label_smoothing(0.1))
    assert_close(run.params, train.params)
    np.testing.assert_allclose(run.history["loss"], losses, rtol=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"accumulate": 2}, {"steps": 2, "average": 0.9}], ids=["plain", "parts", "steps"]
)
def test_each_member_of_an_ensemble_is_a_run_of_its_own(options, x64):
    data = labelled(dtype=np.float64)
    run = fit(data, members=3, validation=data, **options)
    for i, key in enumerate(jax.random.split(KEY, 3)):
        alone = fit(data, key=key, validation=data, **options)
        assert_close(jax.tree.map(lambda a, i=i: a[i], (run.params, run.state)), (alone.params, alone.state), rtol=1e-9)
        for name in ("loss", "accuracy", "validation_loss", "validation_accuracy"):
            np.testing.assert_allclose(run.history[name][:, i], alone.history[name], rtol=1e-6)


def test_the_vote_of_an_ensemble_gains_on_its_members():
    data, test = labelled(60), labelled(300, seed=1)
    noisy = (data[0] + np.random.default_rng(2).normal(0, 0.8, data[0].shape).astype(np.float32), data[1])
    hard = (test[0] + np.random.default_rng(3).normal(0, 0.8, test[0].shape).astype(np.float32), test[1])
    run = fcnn.fit(NET, noisy, members=5, optimizer=SGD, epochs=10, key=KEY, batch_size=16, progress=False)
    found = evaluate_ensemble(NET, run.params, hard, state=run.state)
    probabilities = np.mean(
        [
            jax.nn.softmax(
                NET.apply(
                    *[jax.tree.map(lambda a, i=i: a[i], run.params)],
                    hard[0],
                    state=jax.tree.map(lambda a, i=i: a[i], run.state),
                )
            )
            for i in range(5)
        ],
        axis=0,
    )
    vote = (probabilities.argmax(-1) == hard[1]).mean()
    np.testing.assert_allclose(found["vote_accuracy"], vote, rtol=1e-6)
    np.testing.assert_allclose(found["gain"], vote - found["accuracy"].mean(), atol=1e-6)


def test_data_that_do_not_fit_the_device_come_from_the_host(monkeypatch, x64):
    data = labelled(dtype=np.float64)
    run = fit(data)
    monkeypatch.setattr("fcnn.training.arrays.on_device", lambda *given: False)
    assert_close(run.params, fit(data).params)


def test_the_bar_shows_examples_per_second(capsys):
    fit(epochs=1, progress=True)
    assert "examples/s" in capsys.readouterr().err
