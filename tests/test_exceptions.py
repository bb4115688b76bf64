"""Errors reach another process whole: type, message, path, notes and attributes."""

import importlib
import multiprocessing
import pickle
import pkgutil
import warnings
from concurrent.futures import ProcessPoolExecutor

import jax
import numpy as np
import optax
import pytest
from mistakes import DEEP, SHAPE, blank, images

import fcnn
from fcnn.training.nonfinite import NonFiniteError


def classes():
    found = set()
    for module in pkgutil.walk_packages(fcnn.__path__, "fcnn."):
        if not module.name.endswith("__main__"):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, BaseException) and value.__module__.startswith("fcnn"):
                    found.add(value)
    return sorted(found, key=lambda kind: kind.__qualname__)


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_exception_of_the_library_survives_pickle(kind):
    error = kind("words", "run", "conv1") if kind is NonFiniteError else kind("words")
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def misfit():
    """An error from deep inside, on the same network in another process."""
    DEEP.apply(blank(DEEP, SHAPE), images(2, 12, 12, 3))


def function_fails():
    fcnn.serial(body=fcnn.serial(never)).out_shape((3,))


def never(x):
    raise KeyError("lost")


def diverges():
    """Training that stops at a loss that is not finite, in a process of its own."""
    x = np.full((8, 3), np.inf, "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fcnn.fit(
            fcnn.serial(fcnn.Dense(2)), (x, np.zeros(8, int)), optimizer=optax.sgd(0.1), epochs=1, batch_size=4,
            key=jax.random.key(0), progress=False,
        )  # fmt: skip


def caught(function):
    try:
        function()
    except Exception as error:
        return error
    return None


def test_errors_come_back_from_a_pool_of_processes():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for function in (misfit, function_fails, diverges):
            here = caught(function)
            there = caught(pool.submit(function).result)
            assert here is not None
            assert type(there) is type(here)
            assert str(there) == str(here)
            assert there.fcnn_path == here.fcnn_path if hasattr(here, "fcnn_path") else True
            assert getattr(there, "__notes__", []) == getattr(here, "__notes__", [])
        assert there.where == here.where
        np.testing.assert_array_equal(there.run.params["dense1"]["kernel"], here.run.params["dense1"]["kernel"])
