"""Every setting of ``fit`` is checked where the configuration is made, and named in the error."""

import dataclasses
import inspect

import jax
import numpy as np
import optax
import pytest

import fcnn
from fcnn.training.config import FitConfig

NET = fcnn.Dense(3)
X, Y = np.zeros((8, 4), np.float32), np.zeros(8, np.int32)
GOOD = {"net": NET, "optimizer": optax.sgd(0.1), "epochs": 2, "key": jax.random.key(0)}

#: for every field a value that it cannot have
BAD = {
    "net": jax.nn.relu,
    "optimizer": 0.1,
    "epochs": 0,
    "key": 3,
    "batch_size": 2.5,
    "loss": "mse",
    "loss_weights": {"box": 0.1},
    "validation": X,
    "augment": [print],
    "checkpoint": 3,
    "resume": "yes",
    "progress": 1,
    "mesh": 8,
    "params": [1],
    "state": [1],
    "metrics": [len],
    "ignore_label": 0.5,
    "callbacks": print,
    "monitor": "f1",
    "mode": "highest",
    "patience": 0,
    "keep_best": None,
    "average": 1.0,
    "accumulate": 0,
    "precision": "int8",
    "non_finite": "ignore",
    "trainable": 3,
    "steps": 0,
    "members": 0,
}


def fields():
    return [field.name for field in dataclasses.fields(FitConfig) if field.init]


def test_the_fields_are_the_arguments_of_fit():
    arguments = inspect.signature(fcnn.fit).parameters
    assert set(fields()) == set(arguments) - {"data"}
    for field in dataclasses.fields(FitConfig):
        if field.init and field.default is not dataclasses.MISSING:
            assert arguments[field.name].default == field.default, field.name


def test_every_field_has_a_bad_value():
    assert set(BAD) == set(fields())


@pytest.mark.parametrize("name", BAD)
def test_an_error_begins_with_the_field(name):
    with pytest.raises((ValueError, TypeError), match=rf"^{name}\b"):
        FitConfig(**{**GOOD, name: BAD[name]})
    with pytest.raises((ValueError, TypeError), match=rf"^fit: {name}\b"):
        fcnn.fit(**{**GOOD, "data": (X, Y), name: BAD[name]})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mesh", jax.make_mesh((1,), ("batch",))),
        ("params", NET.init(jax.random.key(0), (4,))),
        ("state", {}),
        ("monitor", "loss"),
        ("mode", "min"),
        ("patience", 2),
        ("keep_best", True),
    ],
)
def test_what_an_ensemble_cannot_have_is_said(name, value):
    with pytest.raises(ValueError, match=rf"^{name} is for a single network, but members is 2; leave one of them out$"):
        FitConfig(**{**GOOD, "members": 2, name: value})


def test_a_configuration_cannot_change():
    config = FitConfig(**GOOD)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 3


def test_equal_settings_give_the_same_step_so_that_nothing_is_compiled_again():
    assert FitConfig(**GOOD).step is FitConfig(**GOOD).step
    averaged = [FitConfig(**GOOD, average=0.9, precision="float16").step for _ in range(2)]
    assert averaged[0] is averaged[1]
    assert averaged[0] is not FitConfig(**GOOD).step
