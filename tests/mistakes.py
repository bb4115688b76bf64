"""Mistakes that users make, in a form that tests can go through, and the networks that they are made with."""

import copy
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import relu

import fcnn

NAN = float("nan")


@contextmanager
def refused(kind, where, *says):
    """Expect an error of exactly this kind, with this path in front and all of these fragments in its message."""
    with pytest.raises(Exception) as caught:
        yield
    error = caught.value
    assert type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}: {error}"
    message = str(error)
    assert message.startswith(f"{where}: "), f"the path is not {where!r} in: {message}"
    for fragment in says:
        assert fragment in message, f"nothing says {fragment!r} in: {message}"
    assert "Tracer" not in message, f"the message shows how JAX works inside: {message}"


class Mistake(NamedTuple):
    name: str
    call: object
    kind: type
    where: str
    says: tuple


def mistake(name, call, kind, where, *says):
    return Mistake(name, call, kind, where, says)


def blank(net, *shapes):
    """Parameters of zeros, made by NumPy: no device has computed them."""
    declared = jax.eval_shape(lambda key: net.init(key, *shapes), jax.random.key(0))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), declared)


def images(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


def any_key():
    return jax.random.key(0)


def raw_keys(*shape):
    return np.zeros(shape, "uint32")


SHAPE = (12, 12, 1)
NET = fcnn.serial(
    fcnn.Conv(6, 5, padding="SAME"), relu, fcnn.MaxPool(2), fcnn.Conv(16, 5), fcnn.Flatten(), fcnn.Dense(10)
)
PARAMS = blank(NET, SHAPE)
IMAGES = images(2, *SHAPE)

DEEP = fcnn.serial(
    fcnn.Conv(4, 3, padding="SAME"),
    fcnn.residual(fcnn.serial(fcnn.Conv(4, 3, padding="SAME"), relu, fcnn.Conv(4, 3, padding="SAME"))),
)
NORMED = fcnn.serial(fcnn.Conv(4, 3), fcnn.BatchNorm(), relu)
NORMED_STATE = {"batch_norm1": {"mean": images(4), "variance": images(4)}}
DROPPED = fcnn.serial(fcnn.Dense(4), fcnn.Dropout(0.5))


def changed(path, value):
    """PARAMS with one entry replaced, or removed where the value is None."""
    params = copy.deepcopy(PARAMS)
    *outer, last = path.split("/")
    entry = params
    for name in outer:
        entry = entry[name]
    if value is None:
        del entry[last]
    else:
        entry[last] = value
    return params


def wired(wiring, **layers):
    return fcnn.graph(**(layers or {"dense": fcnn.Dense(3)}))(wiring)


def sum_of_two(layer, a, b):
    return layer.dense(a) + layer.dense(b)


def returns_nothing(layer, x):
    layer.dense(x)


def filled(value):
    return lambda key, shape, dtype: jnp.full(shape, value, dtype)


def drawn_nan(key, shape, dtype):
    return jax.random.normal(key, shape, dtype) * NAN


def turned_around(key, shape, dtype):
    return jnp.zeros(shape[::-1], dtype)


def integers(key, shape, dtype):
    return jnp.zeros(shape, "int32")


def kernel_init(init):
    return fcnn.serial(fcnn.Dense(3, kernel_init=init)).init(any_key(), (4,))


def loses_the_batch(x):
    return x.mean()


def averages_over_the_batch(x):
    return x.mean(0)


def pair(x):
    return x, x
