"""Warnings for shapes that look like another library's, and for none that is ordinary."""

import warnings

import jax
import numpy as np
import optax
import pytest
from mistakes import images, refused

import fcnn

SAME = fcnn.serial(fcnn.Conv(2, 3, padding="SAME"), jax.nn.relu, fcnn.GlobalAvgPool(), fcnn.Dense(2))
NESTED = {
    "conv": fcnn.Conv(2, 3, padding="SAME"),
    "serial": SAME,
    "after a norm": fcnn.serial(fcnn.LayerNorm(), jax.nn.relu, fcnn.residual(fcnn.serial(fcnn.MaxPool(1)))),
    "branches": fcnn.branches(jax.nn.relu, fcnn.Conv(2, 1)),
    "remat": fcnn.remat(SAME),
    "repeat": fcnn.repeat(fcnn.residual(fcnn.LpPool(1)), 2),
    "graph": fcnn.graph(a=fcnn.Conv(2, 1))(lambda layer, x: layer.a(x)),
}
FIRST = [(3, 224, 224), (1, 28, 28), (3, 32, 32), (4, 128, 128), (3, 480, 640), (1, 72, 128)]
FORGOTTEN = [(28, 28), (224, 224), (100, 100)]
#: sound, series, spectra, features, feature maps, images and volumes
ORDINARY = [
    (16000, 1), (16000, 2), (100, 64), (128, 128), (64, 64), (32, 32), (512, 512), (128, 80), (8, 8), (16, 16), (3, 3),
    (28, 28, 1), (224, 224, 3), (32, 32, 3), (128, 128, 1), (101, 40, 1), (480, 640, 3), (512, 512, 4), (64, 64, 64),
    (1, 1, 512), (3, 3, 512), (4, 4, 512), (1, 1000, 64), (3, 1000, 128), (1, 16000, 1), (4, 16, 16), (3, 7, 7),
    (2, 64, 64), (1, 1, 2048), (14, 14, 512), (3, 3, 3), (3, 100, 3), (4, 4, 4, 64), (1, 128, 128, 3), (28, 28, 28, 1),
]  # fmt: skip


@pytest.mark.parametrize("shape", FIRST, ids=str)
def test_channels_first(shape):
    last = (*shape[1:], shape[0])
    with pytest.warns(fcnn.LayoutWarning, match=rf"channels came first.*\({', '.join(map(str, last))}\)") as caught:
        fcnn.Conv(2, 3, padding="SAME").init(jax.random.key(0), shape)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("shape", FORGOTTEN, ids=str)
def test_a_forgotten_axis_of_channels(shape):
    with pytest.warns(fcnn.LayoutWarning, match=r"grey image without its axis of channels.*x\[\.\.\., None\]"):
        SAME.init(jax.random.key(0), shape)


@pytest.mark.parametrize("name", NESTED)
def test_wherever_windows_slide_over_the_inputs(name):
    net = NESTED[name]
    with pytest.warns(fcnn.LayoutWarning):
        params = net.init(jax.random.key(0), (3, 32, 32))
    with pytest.warns(fcnn.LayoutWarning):
        net.apply(params, images(1, 3, 32, 32))


@pytest.mark.parametrize("shape", ORDINARY, ids=str)
def test_ordinary_shapes_say_nothing(shape):
    fcnn.Conv(2, 1).init(jax.random.key(0), shape)
    assert fcnn.layout.suspicion(shape) is None


def test_networks_that_slide_no_window_say_nothing():
    for net in (
        fcnn.Dense(3),
        fcnn.serial(fcnn.Flatten(), fcnn.Dense(3)),
        fcnn.serial(lambda x: x.transpose(0, 2, 3, 1), fcnn.Conv(2, 3)),
        fcnn.graph(a=fcnn.Conv(2, 3))(lambda layer, x: layer.a(x.transpose(0, 2, 3, 1))),
    ):
        net.init(jax.random.key(0), (3, 32, 32))


def test_training_warns_once_by_pythons_default_and_can_be_silenced():
    x, y = np.zeros((4, 28, 28), "float32"), np.arange(4) % 2
    options = {"optimizer": optax.sgd(0.1), "epochs": 2, "key": jax.random.key(0), "batch_size": 2, "progress": False}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        fcnn.fit(SAME, (x, y), **options)
    caught = [w for w in caught if "compilation cache" not in str(w.message)]  # which the workers of the tests share
    assert [w.category for w in caught] == [fcnn.LayoutWarning]
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fcnn.LayoutWarning)
        fcnn.fit(SAME, (x, y), **options)


def test_the_batch_in_the_shape_is_asked_for():
    net = fcnn.serial(fcnn.Conv(2, 3, padding="SAME"), fcnn.GlobalAvgPool())
    params = net.init(jax.random.key(0), (8, 12, 12, 1))
    with refused(ValueError, "conv1", "was the batch in the shape given to init?", "init(key, (12, 12, 1))"):
        net.apply(params, images(8, 12, 12, 1))
    flat = fcnn.serial(fcnn.Flatten(), fcnn.Dense(3))
    params = flat.init(jax.random.key(0), (8, 12, 12, 1))
    with refused(ValueError, "dense1", "for 8 times as many numbers: was the batch in the shape given to init?"):
        flat.apply(params, images(8, 12, 12, 1))
    with pytest.raises(ValueError) as caught:
        flat.apply(flat.init(jax.random.key(0), (5, 5, 1)), images(8, 4, 4, 1))
    assert "batch in the shape" not in str(caught.value)
