"""Weights from Keras: fcnn's networks compute what Keras's compute, values and gradients, to rounding."""

import importlib
import json
import os
import shutil
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign import agree, library, loss, values

import fcnn
from fcnn import interop

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = library("keras", "keras==3.15.1 (with h5py, namex, optree, rich)")
if keras.backend.backend() != "jax":
    pytest.skip("Keras runs on another backend here: KERAS_BACKEND=jax", allow_module_level=True)
h5py = library("h5py", "h5py==3.16.0")
layers = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _as_keras_is():
    with jax.numpy_dtype_promotion("standard"):
        keras.utils.clear_session()
        yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def picture():
    """Two dimensions: strided, depthwise, separable, dilated, grouped, a residual block, norms, transposed, dense."""
    x = given = keras.Input((9, 7, 2))
    x = layers.Conv2D(6, 3, strides=2, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = y = layers.PReLU(shared_axes=[1, 2])(x)
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=False)(y)
    y = layers.GroupNormalization(3)(y)
    y = layers.Conv2D(6, (3, 2), padding="same", dilation_rate=(1, 2), groups=2, activation="tanh")(y)
    y = layers.SeparableConv2D(6, 3, padding="same", depth_multiplier=1, use_bias=False)(y)
    y = layers.BatchNormalization(epsilon=1e-5, scale=False)(y)
    x = layers.Add()([y, x])
    x = layers.Conv2DTranspose(4, (3, 4), strides=2, padding="same", activation="sigmoid")(x)
    x = keras.Sequential([layers.LayerNormalization(), layers.Conv2DTranspose(4, (3, 2)), layers.Dropout(0.5)])(x)
    x = layers.Dense(3)(layers.Flatten()(x))
    return keras.Model(given, x)


def our_picture():
    body = fcnn.serial(
        fcnn.Conv(12, 3, groups=6, bias=False, padding="SAME"), fcnn.GroupNorm(3, epsilon=1e-3),
        fcnn.Conv(6, (3, 2), dilation=(1, 2), groups=2, padding="SAME"), jnp.tanh,
        fcnn.Conv(6, 3, groups=6, bias=False, padding="SAME"), fcnn.Conv(6, 1, bias=False), fcnn.BatchNorm(scale=False),
    )  # fmt: skip
    return fcnn.serial(
        fcnn.Conv(6, 3, stride=2, padding="SAME"), fcnn.BatchNorm(epsilon=1e-3), fcnn.PReLU(per_channel=True),
        fcnn.residual(body), fcnn.ConvTranspose(4, (3, 4), stride=2, padding="SAME"), jax.nn.sigmoid,
        fcnn.LayerNorm(epsilon=1e-3), fcnn.ConvTranspose(4, (3, 2)), fcnn.Flatten(), fcnn.Dense(3),
    )  # fmt: skip


def line():
    return keras.Sequential(
        [
            keras.Input((17, 2)), layers.Conv1D(4, 5, strides=2, activation="tanh"),
            layers.Conv1DTranspose(3, 3, strides=2, padding="same"), layers.SeparableConv1D(4, 3, depth_multiplier=2),
            layers.Conv1D(4, 3, padding="causal", dilation_rate=2), layers.BatchNormalization(center=False),
            layers.Flatten(), layers.Dense(2),
        ]
    )  # fmt: skip


LINE = fcnn.serial(
    fcnn.Conv(4, 5, stride=2), jnp.tanh, fcnn.ConvTranspose(3, 3, stride=2, padding="SAME"),
    fcnn.Conv(6, 3, groups=3, bias=False), fcnn.Conv(4, 1), fcnn.Conv(4, 3, dilation=2, padding="CAUSAL"),
    fcnn.BatchNorm(epsilon=1e-3, bias=False), fcnn.Flatten(), fcnn.Dense(2),
)  # fmt: skip


def volume():
    return keras.Sequential(
        [
            keras.Input((3, 4, 5, 2)), layers.Conv3D(4, (2, 3, 1), groups=2, padding="same", activation="tanh"),
            layers.Conv3DTranspose(3, 2, strides=(2, 1, 2)), layers.LayerNormalization(axis=(1, 2, 3, 4)),
            layers.GlobalAveragePooling3D(), layers.Dense(2),
        ]
    )  # fmt: skip


VOLUME = fcnn.serial(
    fcnn.Conv(4, (2, 3, 1), groups=2, padding="SAME"), jnp.tanh, fcnn.ConvTranspose(3, 2, stride=(2, 1, 2)),
    fcnn.LayerNorm(axes=(1, 2, 3, 4), epsilon=1e-3), fcnn.GlobalAvgPool(), fcnn.Dense(2),
)  # fmt: skip

MODELS = {
    "a picture": (our_picture(), picture, (9, 7, 2)),
    "a line": (LINE, line, (17, 2)),
    "a volume": (VOLUME, volume, (3, 4, 5, 2)),
}


def randomised(make, seed=0):
    model, random = make(), np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(values(variable.shape, variable.name, random))
    return model


@pytest.mark.parametrize(
    "name", ["a picture", *(pytest.param(name, marks=pytest.mark.slow) for name in ("a line", "a volume"))]
)
def test_keras_computes_the_same(name, x64, monkeypatch):
    # on JAX Keras takes float64 for float32 where it promotes types, which would leave seven digits
    narrowed = importlib.import_module("keras.src.backend.common.dtypes").BIT64_TO_BIT32_DTYPE
    monkeypatch.setitem(narrowed, "float64", "float64")
    net, make, shape = MODELS[name]
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    model = randomised(make)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, *shape)))
    fixed = [v.value for v in model.non_trainable_variables]

    def theirs(weights, x):
        y, _ = model.stateless_call(weights, fixed, x, training=False)
        return loss(y), y

    weights = [v.value for v in model.trainable_variables]
    (_, y), (gradient, slope) = jax.jit(jax.value_and_grad(theirs, (0, 1), has_aux=True))(weights, x)
    params, state = interop.from_keras(net, model, shape=shape)
    for variable, value in zip(model.trainable_variables, gradient, strict=True):
        variable.assign(value)
    back, _ = interop.from_keras(net, model, shape=shape)
    agree(net, params, state, x, y, back, slope)


@pytest.mark.parametrize("kind", ["keras", "weights.h5", "h5", "arrays"])
def test_every_source_gives_the_same(kind, tmp_path):
    net, make, shape = MODELS["a picture"]
    model = randomised(make)
    wanted = interop.from_keras(net, model, shape=shape)
    path = tmp_path / f"model.{kind}"
    if kind == "arrays":
        flat = [one for layer in model.layers for one in getattr(layer, "layers", [layer])]
        source = [layer.get_weights() for layer in flat]
    else:
        model.compile("adam", "mse")
        (model.save_weights if kind == "weights.h5" else model.save)(path)
        source = str(path)
    found = interop.from_keras(net, source, shape=shape)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_many_layers_in_a_file_are_in_the_order_of_their_numbers(tmp_path):
    model = randomised(lambda: keras.Sequential([keras.Input((3,)), *[layers.Dense(3) for _ in range(12)]]))
    net = fcnn.serial(*[fcnn.Dense(3)] * 12)
    wanted = interop.from_keras(net, model, shape=(3,))
    model.save_weights(tmp_path / "a.weights.h5")
    found = interop.from_keras(net, tmp_path / "a.weights.h5", shape=(3,))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


class Own(keras.Model):
    """A model that says itself what is called, with layers under names of its own."""

    def __init__(self):
        super().__init__()
        self.entry = layers.Dense(3)
        self.blocks = [Inner(), Inner()]
        self.head = layers.Dense(3)

    def call(self, x):
        x = self.entry(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Inner(layers.Layer):
    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(3), layers.Dense(3)

    def call(self, x):
        return self.second(self.first(x))


def test_a_model_of_ones_own_is_read_in_its_order_and_its_file_by_names(tmp_path):
    model = Own()
    model(np.zeros((1, 3)))
    for variable in model.weights:
        variable.assign(values(variable.shape, variable.name, np.random.default_rng(len(variable.path))))
    for number, variable in enumerate(v for v in model.weights if v.name == "bias"):
        variable.assign(np.full(3, number))
    net = fcnn.serial(*[fcnn.Dense(3)] * 6)
    params, _ = interop.from_keras(net, model, shape=(3,))
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    np.testing.assert_allclose(net.apply(params, x), model(x), rtol=1e-5, atol=1e-5)
    model.save_weights(tmp_path / "own.weights.h5")
    with pytest.raises(ValueError, match=r"dense1 with .* may be .*entry or .* of one shape and in no order"):
        interop.from_keras(net, tmp_path / "own.weights.h5", shape=(3,))
    pair = fcnn.serial(first=fcnn.Dense(3), second=fcnn.Dense(3))
    named = fcnn.serial(entry=fcnn.Dense(3), blocks=fcnn.serial(inner=pair, inner_1=pair), head=fcnn.Dense(3))
    found, _ = interop.from_keras(named, tmp_path / "own.weights.h5", shape=(3,))
    np.testing.assert_array_equal(named.apply(found, x), net.apply(params, x))


SMALL = fcnn.serial(fcnn.Conv(2, 3), fcnn.BatchNorm(), fcnn.Flatten(), fcnn.Dense(3))


def small(*more, size=3, units=3):
    parts = [layers.Conv2D(2, size), layers.BatchNormalization(), layers.Flatten(), layers.Dense(units)]
    return keras.Sequential([keras.Input((4, 4, 1) if size == 3 else (9, 4, 1)), *parts, *more])


class Gain(layers.Layer):
    """A layer of one's own, with an array under a name of one's own."""

    def build(self, shape):
        self.factor = self.add_weight(name="factor", shape=shape[-1:], initializer="ones")

    def call(self, x):
        return self.factor * x


def test_an_array_of_ones_own_is_a_factor_for_each_channel():
    model = randomised(lambda: small(Gain()))
    net = fcnn.serial(fcnn.Conv(2, 3), fcnn.BatchNorm(), fcnn.Flatten(), fcnn.Dense(3), fcnn.ScaleChannels())
    params, _ = interop.from_keras(net, model, shape=(4, 4, 1))
    np.testing.assert_array_equal(params["scale_channels1"]["scale"], np.asarray(model.layers[-1].factor))


MISTAKES = {
    "no source": (lambda: 7, TypeError, "source is 7 of type int; give a Keras model, the path of a .keras"),
    "no file": (lambda: "nowhere.keras", ValueError, "there is no file .*nowhere.keras"),
    "all in one": (lambda: small().get_weights(), TypeError, r"source is a list; give a Keras model"),
    "empty": (list, ValueError, "3 of 0 entries do not fit:"),
    "missing": (lambda: keras.Sequential(small().layers[:2]), ValueError, r"dense1 with bias \(3,\), .* in the source"),
    "extra": (lambda: small(layers.Dense(5, name="aux")), ValueError, r"aux with \(3, 5\), \(5,\) has no counterpart"),
    "other arrays": (
        lambda: small(layers.Normalization(mean=[0.0] * 3, variance=[1.0] * 3), Gain()),
        ValueError,
        r"gain/factor with \(3,\) has no counterpart here",
    ),
    "misshapen": (
        lambda: small(size=(9, 1)), ValueError, r"conv2d/kernel has shape \(9, 1, 1, 2\), conv1/kernel has \(3, 3"
    ),
    "another size": (lambda: small(units=4), ValueError, r"dense with \(8, 4\), \(4,\) has no counterpart here, and"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_what_does_not_fit_is_named(name):
    make, kind, words = MISTAKES[name]
    with pytest.raises(kind, match=words):
        interop.from_keras(SMALL, make(), shape=(4, 4, 1))


def test_what_is_named_and_what_is_ignored_are_as_asked():
    model = randomised(lambda: small(layers.Dense(3, name="aux")))
    twins = fcnn.serial(a=fcnn.Dense(3), b=fcnn.Dense(3))
    source = [[np.full((3, 3), n), np.full(3, n)] for n in (1.0, 2.0)]
    params, _ = interop.from_keras(twins, source, shape=(3,), names={"a": "layer 1"})
    assert (float(params["a"]["bias"][0]), float(params["b"]["bias"][0])) == (2, 1)
    found, _ = interop.from_keras(SMALL, model, shape=(4, 4, 1), ignore=("aux",))
    np.testing.assert_array_equal(found["dense1"]["kernel"], np.asarray(model.layers[-2].kernel))


def test_a_file_is_read_as_arrays_and_nothing_in_it_is_run(tmp_path):
    model = randomised(lambda: small(layers.Lambda(lambda x: 1 / 0, output_shape=(3,))))
    path = tmp_path / "evil.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        assert b"__lambda__" in archive.read("config.json")
    found = interop.from_keras(SMALL, path, shape=(4, 4, 1))
    jax.tree.map(np.testing.assert_array_equal, found, interop.from_keras(SMALL, model, shape=(4, 4, 1)))


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "model.keras"
    randomised(small).save(path)
    data = path.read_bytes()
    for size in range(0, len(data), 2003):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"cannot be read as a file of Keras's weights .*; nothing in it was run"):
            interop.from_keras(SMALL, path, shape=(4, 4, 1))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"no item named 'model.weights.h5'"):
        interop.from_keras(SMALL, path, shape=(4, 4, 1))


def test_links_to_other_files_are_refused(tmp_path):
    path, other = tmp_path / "a.weights.h5", tmp_path / "b.h5"
    randomised(small).save_weights(path)
    shutil.copy(path, other)
    with h5py.File(path, "a") as file:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = h5py.ExternalLink(str(other), "layers/dense/vars/0")
    with pytest.raises(ValueError, match=r"/layers/dense/vars/0 is not in the file itself"):
        interop.from_keras(SMALL, path, shape=(4, 4, 1))
