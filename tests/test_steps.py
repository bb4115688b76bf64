"""Epochs of a given number of steps."""

import itertools
import sys

import jax
import numpy as np
import optax
import pytest

import fcnn

NET = fcnn.Dense(2)
X = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
PARTS = [(X[i : i + 4], Y[i : i + 4]) for i in range(0, 60, 4)]  # 15 batches


def fit(data, epochs=3, **more):
    more = {"optimizer": optax.adam(0.1), "key": jax.random.key(0), "batch_size": 4, **more}
    return fcnn.fit(NET, data, epochs=epochs, progress=False, **more)


class Loader:
    """Something to be gone through again and again, or one that never ends, as Grain's repeat() is."""

    def __init__(self, endless):
        self.endless, self.started = endless, 0

    def __len__(self):
        return sys.maxsize if self.endless else len(PARTS)

    def __iter__(self):
        self.started += 1
        return iter(itertools.cycle(PARTS) if self.endless else PARTS)


@pytest.mark.parametrize("kind", ["list", "loader", "endless", "iterator"])
def test_the_next_epoch_goes_on_where_one_ended(kind):
    data = {
        "list": lambda: PARTS,
        "loader": lambda: Loader(endless=False),
        "endless": lambda: Loader(endless=True),
        "iterator": lambda: itertools.cycle(PARTS),
    }[kind]()
    run = fit(data, steps=7)
    assert int(run.train.step) == 21
    # 21 steps in a row are the first epoch of as many
    stream = list(itertools.islice(itertools.cycle(PARTS), 21))
    assert fit(stream, epochs=1).params["kernel"].tobytes() == run.params["kernel"].tobytes()
    assert run.history["loss"].shape == (3,)
    if kind == "endless":
        assert data.started == 1
        with pytest.raises(ValueError, match="data never ends; set the number of batches in an epoch: steps=1000"):
            fit(data)


def test_a_function_gives_the_batches_of_each_epoch():
    asked = []

    def batches(epoch):
        asked.append(epoch)
        return itertools.cycle(PARTS[epoch:])

    run = fit(batches, steps=4)
    stream = [PARTS[i] for i in (0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5)]
    assert fit(stream, epochs=1).params["kernel"].tobytes() == run.params["kernel"].tobytes()
    with pytest.raises(ValueError, match="epoch 2 has only 14 batches, but steps is 15"):
        fit(lambda epoch: PARTS[epoch:], steps=15)


@pytest.mark.parametrize("kind", ["list", "endless", "function", "arrays"])
def test_a_run_goes_on_bit_for_bit(tmp_path, kind):
    pytest.importorskip("orbax.checkpoint")
    data = {
        "list": lambda: PARTS,
        "endless": lambda: itertools.cycle(PARTS),
        "function": lambda: lambda epoch: itertools.cycle(PARTS[epoch:]),
        "arrays": lambda: (X, Y),
    }[kind]
    whole = fit(data(), steps=7)
    fit(data(), steps=7, checkpoint=tmp_path, callbacks=[fcnn.training.every(10, lambda moment: True)])
    with pytest.raises(fcnn.training.CheckpointError, match="another number of steps in an epoch"):
        fit(data(), steps=6, checkpoint=tmp_path, resume=True)
    resumed = fit(data(), steps=7, checkpoint=tmp_path, resume=True)
    assert resumed.params["kernel"].tobytes() == whole.params["kernel"].tobytes()
    assert resumed.history["loss"].tolist() == whole.history["loss"].tolist()


def test_arrays_and_mistakes():
    run = fit((X, Y), steps=7)
    assert int(run.train.step) == 21
    for steps, data, message in (
        (16, (X, Y), "steps is 16, but the data have only 15 batches"),
        (10, iter(PARTS), "ended after 15 batches, but every epoch takes 10"),
        (0, PARTS, "steps"),
        (3, [], "data"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            fit(data, steps=steps)
