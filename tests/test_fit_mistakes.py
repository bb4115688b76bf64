"""What fit says of what it cannot work with, before it trains wherever it can; and the latest numbers of a history."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcnn
from fcnn.training import cross_entropy, label_smoothing

KEY = jax.random.key(0)
SGD = optax.sgd(0.05, momentum=0.9)
NET = fcnn.serial(fcnn.Conv(2, 3), jax.nn.relu, fcnn.Flatten(), fcnn.Dense(3))

X = np.random.default_rng(0).normal(size=(32, 6, 6, 1)).astype(np.float32)
Y = (np.arange(32) % 3).astype(np.int32)
ONE_HOT = np.eye(3, dtype=np.float32)[Y]


def fit(data=(X, Y), net=NET, **options):
    settings = {"optimizer": SGD, "epochs": 3, "key": KEY, "batch_size": 16, "progress": False, **options}
    return fcnn.fit(net, data, **settings)


MISTAKES = {
    "an iterator for several epochs": (
        lambda: fit(iter([(X, Y)])),
        ValueError,
        "^fit: data is a list_iterator, which can be used only once",
    ),
    "a batch as a dict": (lambda: fit(lambda epoch: [{"x": X, "y": Y}]), TypeError, "pair .*not a dict with 'x', 'y'"),
    "a batch of four": (
        lambda: fit(lambda epoch: [(X, Y, Y, Y)]),
        TypeError,
        r"^fit: data: batch must be a pair \(x, y\)",
    ),
    "labels of a later batch": (
        lambda: fit([(X, Y), (X, Y + 7)]),
        ValueError,
        "epoch 1, batch 2: batch: labels run from 7",
    ),
    "labels of a smoothed loss": (lambda: fit((X, Y + 7), loss=label_smoothing(0.1)), ValueError, "labels run from 7"),
    "one callback": (lambda: fit(callbacks=print), TypeError, "callbacks must be a list of functions"),
    "augmentations in a list": (
        lambda: fit(augment=[print]),
        TypeError,
        "combine several by data.augment.compose",
    ),
    "a loss by name": (lambda: fit(loss="mse"), TypeError, "loss must be a function, not 'mse'"),
    "params as a list": (lambda: fit(params=[1, 2]), TypeError, "params must be a dict"),
    "augment returns x": (lambda: fit(augment=lambda key, batch: batch[0][0]), TypeError, "it must return the batch"),
    "a generator without the epoch": (
        lambda: fit(lambda: [(X, Y)]),
        TypeError,
        "^fit: data is a function that does not take the epoch",
    ),
    "three arrays": (lambda: fit((X, Y, Y)), TypeError, "w, the third of .x, y, w., has dtype int32"),
    "four arrays": (lambda: fit((X, Y, Y, Y)), TypeError, "not a tuple of 4"),
    "words for labels": (lambda: fit((X, Y.astype(str))), TypeError, "y has dtype <U.*make numbers of it"),
    "no batches": (lambda: fit(lambda epoch: []), ValueError, "^fit: data: there are no batches"),
    "a function that gives none": (
        lambda: fit(lambda epoch: None),
        TypeError,
        r"^fit: data\(0\) returned a NoneType, it must return an iterable of batches",
    ),
    "a function that gives none later": (
        lambda: fit(lambda epoch: [(X, Y)] if epoch == 0 else None),
        TypeError,
        r"^fit: data\(1\) returned a NoneType",
    ),
    "no batches later": (
        lambda: fit(lambda epoch: [(X, Y)] if epoch == 0 else []),
        ValueError,
        "^fit: data: epoch 2 has no batches",
    ),
    "an unknown precision": (
        lambda: fit(precision="int8"),
        ValueError,
        "precision is 'int8', expected one of bfloat16",
    ),
    "an average of 1": (lambda: fit(average=1.0), ValueError, "average is 1.0, expected a decay"),
    "patience 0": (lambda: fit(patience=0), ValueError, "patience is 0"),
    "an unknown monitor": (lambda: fit(monitor="f1"), ValueError, "monitor is 'f1', expected one of loss, accuracy"),
    "a validation metric without data": (lambda: fit(monitor="validation_loss"), ValueError, "expected one of loss"),
    "a callback that is none": (lambda: fit(callbacks=[3]), TypeError, "callbacks must be functions"),
    "a metric with a taken name": (lambda: fit(metrics={"loss": len}), ValueError, "the name 'loss' is reserved"),
    "resume from nowhere": (lambda: fit(resume=True), ValueError, "say where they are"),
    "a mesh of numbers": (lambda: fit(mesh=8), TypeError, r"jax\.make_mesh"),
    "what to do with NaN": (lambda: fit(non_finite="ignore"), ValueError, "expected 'stop' or 'skip'"),
    "an ensemble of batches": (
        lambda: fcnn.fit(NET, [(X, Y)], members=2, optimizer=SGD, epochs=1, key=KEY),
        TypeError,
        "every member goes through them",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained(name):
    call, kind, message = MISTAKES[name]
    with pytest.raises(kind, match=message):
        call()


def test_an_error_of_the_users_own_in_a_function_of_batches_stays_as_it_is():
    def broken(epoch):
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        fit(broken)


class Watched:
    """A loss that notes when it is computed, which is after it was traced."""

    def __init__(self):
        self.computed = []

    def __call__(self, outputs, targets):
        jax.debug.callback(lambda: self.computed.append(1))
        return jnp.mean(outputs**2, axis=tuple(range(1, outputs.ndim)))


def mixed(key, batch):
    inputs, y = batch
    one_hot = jax.nn.one_hot(y, 3)
    return inputs, (one_hot + one_hot[::-1]) / 2


NO_ACCURACY = {
    "targets that are no labels": ({"data": (X, ONE_HOT), "monitor": "accuracy"}, "reports gradient_norm, loss; an"),
    "batches of such": ({"data": [(X, ONE_HOT)], "monitor": "accuracy"}, "reports gradient_norm, loss; an"),
    "labels that augmentation mixes": (
        {"augment": mixed, "validation": (X, Y), "monitor": "accuracy"},
        "reports gradient_norm, loss, validation_accuracy, validation_loss; an",
    ),
    "validation without labels": (
        {"validation": (X, ONE_HOT), "monitor": "validation_accuracy"},
        "reports accuracy, gradient_norm, loss, validation_loss; an",
    ),
    "a metric beside": (
        {"data": (X, ONE_HOT), "monitor": "accuracy", "metrics": {"width": lambda outputs, targets: outputs[:, 0]}},
        "reports gradient_norm, loss, width; an",
    ),
}


@pytest.mark.parametrize("wish", [{"patience": 2}, {"keep_best": True}], ids=["patience", "keep_best"])
@pytest.mark.parametrize("name", NO_ACCURACY)
def test_an_accuracy_that_there_will_not_be_is_said_before_training(tmp_path, name, wish):
    options, reports = NO_ACCURACY[name]
    loss = Watched()
    with pytest.raises(ValueError, match=f"^fit: monitor is '{options['monitor']}', but this run {reports}"):
        fit(**options, **wish, loss=loss, checkpoint=tmp_path / "run")
    jax.effects_barrier()
    assert not loss.computed
    assert not (tmp_path / "run").exists()


def test_the_loss_that_watches_is_computed_where_a_run_goes_on():
    loss = Watched()
    fit(loss=loss, monitor="accuracy", patience=9)
    jax.effects_barrier()
    assert loss.computed


def test_an_accuracy_that_ends_with_the_first_epoch_is_said_then():
    ends = lambda epoch: [(X, Y if epoch == 0 else ONE_HOT)]  # noqa: E731
    with pytest.raises(
        ValueError, match=r"^fit: monitor is 'accuracy', but this run reports gradient_norm, loss; an accuracy needs"
    ):
        fit(ends, loss=cross_entropy, monitor="accuracy", patience=5)


RUNS = {
    "arrays": {},
    "batches": {"data": [(X, Y), (X, Y)]},
    "parts": {"accumulate": 4},
    "float16": {"precision": "float16", "validation": (X, Y), "monitor": "validation_accuracy"},
    "an average": {"average": 0.9, "validation": (X, Y), "monitor": "validation_accuracy"},
    "dropout and norms": {"net": fcnn.serial(fcnn.BatchNorm(), fcnn.Flatten(), fcnn.Dropout(0.1), fcnn.Dense(3))},
    "mixed labels, plain ones in validation": {
        "augment": mixed,
        "validation": (X, Y),
        "monitor": "validation_accuracy",
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_reports_its_accuracy_goes_by_it(name):
    options = {"monitor": "accuracy", **RUNS[name]}
    run = fit(patience=9, keep_best=True, **options)
    values = run.history[options["monitor"]]
    assert len(values) == 3
    assert run.best_epoch == np.argmax(values) + 1
