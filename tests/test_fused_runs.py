"""Convolution, activation and pooling computed together give what they give one by one."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn.ops import memory

#: runs in HWNC are those of Winograd's products, which oneDNN replaces where there is one
pytestmark = pytest.mark.usefixtures("without_onednn")

KEY = jax.random.key(0)


def chain(padding="SAME", function=jax.nn.relu, window=2, **options):
    return fcnn.serial(fcnn.Conv(6, 5, padding=padding), function, fcnn.MaxPool(window, **options))


def images(*shape, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def one_by_one(net, params, x):
    for name, part in net.named_parts():
        x = part.apply(params.get(name, {}), x)
    return x


def is_joined(net, x):
    return "phases=(2, 2)" in str(jax.make_jaxpr(net.apply)(net.init(KEY, x.shape[1:]), x))


def truth(net, params, x):
    """The gradient of the sum of cubes in float64, by SciPy's correlation and a loop over windows."""
    node, gradients = fcnn.analysis.to_reference(net, jax.tree.map(np.float64, params), x.shape[1:], batch=len(x))
    y = node.forward(np.asarray(x, np.float64))
    (along,) = node.backward(3 * y**2)
    return y, gradients(), along


@pytest.mark.parametrize(
    ("padding", "space"), [("SAME", (28, 28)), ("VALID", (13, 16)), ("CIRCULAR", (9, 9)), (1, (8, 7))]
)
@pytest.mark.parametrize("function", [jax.nn.relu, jnp.tanh])
def test_results_and_gradients_are_those_of_the_parts(padding, space, function):
    net, x = chain(padding, function), images(9, *space, 1)
    params = net.init(KEY, x.shape[1:])
    assert is_joined(net, x)
    right, right_params, right_x = truth(net, params, x)
    found, gradients = (
        jax.jit(net.apply)(params, x),
        jax.jit(jax.grad(lambda p, x: (net.apply(p, x) ** 3).sum(), (0, 1))),
    )
    close = {"rtol": 0, "atol": 3e-6 * np.abs(right).max()}
    np.testing.assert_allclose(found, right, **close)
    np.testing.assert_allclose(net.apply(params, x), one_by_one(net, params, x), **close)
    for found, right in zip(
        jax.tree.leaves(gradients(params, x)), jax.tree.leaves((right_params, right_x)), strict=True
    ):
        np.testing.assert_allclose(found, right, rtol=0, atol=2e-5 * np.abs(right).max())


def test_one_and_three_space_dimensions():
    for space in ((30,), (9, 8, 7)):
        net, x = fcnn.serial(fcnn.Conv(4, 3), jnp.tanh, fcnn.MaxPool(2)), images(8, *space, 2)
        params = net.init(KEY, x.shape[1:])
        assert "phases=(2, 2" in str(jax.make_jaxpr(net.apply)(params, x)) or "phases=(2,)" in str(
            jax.make_jaxpr(net.apply)(params, x)
        )
        np.testing.assert_allclose(net.apply(params, x), one_by_one(net, params, x), atol=3e-6)


def test_equal_values_send_the_gradient_to_the_first():
    net, x = fcnn.serial(fcnn.Conv(1, 3, padding="SAME", bias=False), fcnn.MaxPool(2)), jnp.ones((8, 4, 4, 1))
    assert is_joined(net, x)
    middle = {"conv1": {"kernel": jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)}}
    along = jax.grad(lambda x: net.apply(middle, x).sum())(x)
    np.testing.assert_array_equal(along[0, ..., 0], np.tile([[1, 0], [0, 0]], (2, 2)))


def test_nan_stays_nan():
    net, x = fcnn.serial(fcnn.Conv(1, 3, bias=False), fcnn.MaxPool(2)), jnp.ones((8, 10, 10, 1))
    assert is_joined(net, x)
    y = net.apply({"conv1": {"kernel": jnp.ones((3, 3, 1, 1))}}, x.at[0, 0, 0, 0].set(jnp.nan))
    assert np.isnan(y[0, 0, 0, 0])
    assert np.isfinite(y).sum() >= y.size - 4


@pytest.mark.parametrize(
    ("net", "batch"),
    [
        (chain(window=3), 16),
        (chain(stride=1), 16),
        (chain(padding="SAME", window=2, dilation=2), 16),
        (fcnn.serial(fcnn.Conv(6, 5), fcnn.Dropout(0.5), fcnn.MaxPool(2)), 16),
        (fcnn.serial(fcnn.Conv(6, 5), lambda x: x - x.mean(0), fcnn.MaxPool(2)), 16),
        (fcnn.serial(fcnn.Conv(6, 5), fcnn.AvgPool(2)), 16),
        (fcnn.serial(fcnn.Conv(6, 5, stride=2), fcnn.MaxPool(2)), 16),
    ],
    ids=["window of 3", "overlapping", "dilated", "dropout", "not elementwise", "mean", "stride"],
)
def test_what_does_not_suit_is_computed_one_by_one(net, batch):
    assert not is_joined(net, images(batch, 15, 15, 1))


# Space first.


def deep(*more, padding="SAME"):
    convolutions = [fcnn.Conv(64, 3, padding=padding), jax.nn.relu, fcnn.Conv(64, 3), jnp.tanh]
    return fcnn.serial(fcnn.Dense(64), *convolutions, *more, fcnn.Flatten(), fcnn.Dense(3))


def runs(net, x):
    """How many convolutions are computed with the space first, and how often x is turned for them."""
    program = str(jax.make_jaxpr(net.apply)(net.init(KEY, x.shape[1:]), x))
    return program.count("hwnc=True"), program.count("transpose[")


@pytest.mark.parametrize(
    "more",
    [
        (),
        (fcnn.MaxPool(2),),
        (fcnn.AvgPool(3, stride=2, padding="SAME"),),
        (fcnn.MaxPool((2, 1), ceil_mode=True), fcnn.Conv(65, 3, padding=((0, 2), (1, 0)), bias=False)),
    ],
    ids=["convolutions", "max", "mean", "pooled between"],
)
def test_runs_of_convolutions_stay_in_one_order(more):
    net, x = deep(*more), images(3, 9, 11, 2)
    params = net.init(KEY, x.shape[1:])
    assert runs(net, x) == (2 + any(isinstance(part, fcnn.Conv) for part in more), 2)
    right, right_params, right_x = truth(net, params, x)
    np.testing.assert_allclose(jax.jit(net.apply)(params, x), right, rtol=0, atol=2e-5 * np.abs(right).max())
    gradients = jax.jit(jax.grad(lambda p, x: (net.apply(p, x) ** 3).sum(), (0, 1)))(params, x)
    for found, right in zip(jax.tree.leaves(gradients), jax.tree.leaves((right_params, right_x)), strict=True):
        np.testing.assert_allclose(found, right, rtol=0, atol=5e-5 * np.abs(right).max())


def test_other_parts_end_a_run():
    x = images(3, 9, 9, 2)
    assert runs(deep(padding="CIRCULAR"), x) == (1, 2)
    assert runs(deep(fcnn.LayerNorm(), fcnn.Conv(64, 3)), x) == (3, 4)
    assert runs(fcnn.serial(fcnn.Dense(8), fcnn.Conv(64, 3), jax.nn.relu, fcnn.Conv(64, 7)), x) == (0, 0)


def test_examples_and_networks_one_by_one_in_one_order():
    net, x = deep(fcnn.MaxPool(2)), images(3, 8, 8, 2)
    many = jax.vmap(lambda key: net.init(key, (8, 8, 2)))(jax.random.split(KEY, 2))
    apart = jnp.stack([net.apply(jax.tree.map(lambda a, i=i: a[i], many), x) for i in range(2)])
    np.testing.assert_allclose(jax.vmap(net.apply, (0, None))(many, x), apart, atol=1e-4)
    params = jax.tree.map(lambda a: a[0], many)
    whole = jax.grad(lambda p: net.apply(p, x).sum())(params)
    each = jax.vmap(jax.grad(lambda p, x: net.apply(p, x).sum()), (None, 0))(params, x[:, None])
    for found, right in zip(jax.tree.leaves(each), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(found.sum(0), right, rtol=0, atol=3e-5 * float(jnp.abs(right).max()))


def test_an_error_in_a_run_names_its_part():
    net, x = deep(fcnn.MaxPool(2)), images(3, 8, 8, 2)
    params = net.init(KEY, (8, 8, 2))
    with pytest.raises(ValueError, match="conv2: "):
        net.apply({**params, "conv2": {"kernel": params["conv2"]["kernel"]}}, x)
    with pytest.raises(ValueError, match="max_pool1: "):
        deep(fcnn.MaxPool(7)).apply(params, x)


# Both.


def test_capture_sees_every_part():
    net, x = chain(), images(8, 8, 8, 1)
    params = net.init(KEY, (8, 8, 1))
    seen = fcnn.capture(net, params, x)
    assert {path: value.shape for path, value in seen.items()} == {
        "conv1": (8, 8, 8, 6),
        "relu1": (8, 8, 8, 6),
        "max_pool1": (8, 4, 4, 6),
    }


def test_errors_are_those_of_the_parts():
    net, x = chain(), images(8, 8, 8, 1)
    params = net.init(KEY, (8, 8, 1))
    with pytest.raises(ValueError, match="max_pool1"):
        net.apply({**params, "max_pool1": {"kernel": jnp.ones(1)}}, x)
    with pytest.raises(ValueError, match=r"conv1: .*the kernel takes 1 channels"):
        net.apply(params, images(8, 8, 8, 3))
    with pytest.raises(ValueError, match="max_pool1: window"):
        fcnn.serial(fcnn.Conv(6, 5), fcnn.MaxPool(9)).apply({"conv1": net.init(KEY, (8, 8, 1))["conv1"]}, x)


def test_ensembles_scans_and_examples_one_by_one():
    net, x = chain(), images(8, 8, 8, 1)
    many = jax.vmap(lambda key: net.init(key, (8, 8, 1)))(jax.random.split(KEY, 3))
    apart = jnp.stack([net.apply(jax.tree.map(lambda a, i=i: a[i], many), x) for i in range(3)])
    np.testing.assert_allclose(jax.vmap(net.apply, (0, None))(many, x), apart, atol=2e-6)
    params = jax.tree.map(lambda a: a[0], many)
    loss = lambda p, x: (net.apply(p, x) ** 2).sum()  # noqa: E731
    whole = jax.grad(loss)(params, x)
    each = jax.vmap(jax.grad(loss), (None, 0))(params, x[:, None])
    for found, right in zip(jax.tree.leaves(each), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(found.sum(0), right, rtol=0, atol=1e-5 * float(jnp.abs(right).max()))
    steps = jax.jit(lambda p: jax.lax.scan(lambda c, _: (c, jax.grad(loss)(c, x)), p, None, length=2)[1])(params)
    for found, right in zip(jax.tree.leaves(steps), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(found[1], right, rtol=0, atol=1e-5 * float(jnp.abs(right).max()))


# Both in a row.


@pytest.mark.parametrize("between", [(jax.nn.relu,), (jnp.tanh,), (jax.nn.relu, jnp.tanh), ()])
def test_polyphase_is_followed_by_hwnc_without_turning_back(between):
    net = fcnn.serial(fcnn.Conv(32, 5), *between, fcnn.MaxPool(2), fcnn.Conv(33, 5), jax.nn.relu, fcnn.MaxPool(2))
    x = images(8, 20, 20, 1)
    params = net.init(KEY, x.shape[1:])
    params["conv1"]["bias"] = images(32)
    assert is_joined(net, x)
    assert runs(net, x) == (1, 1)  # back, at the end
    right, right_params, right_x = truth(net, params, x)
    found = jax.jit(net.apply)(params, x)
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-5 * np.abs(right).max())
    gradients = jax.jit(jax.grad(lambda p, x: (net.apply(p, x) ** 3).sum(), (0, 1)))(params, x)
    pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves((right_params, right_x)), strict=True)
    for found, right in pairs:
        np.testing.assert_allclose(found, right, rtol=0, atol=5e-5 * np.abs(right).max())


# Memory.


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "FCNN_KEEP_MEMORY"])
def test_settings_of_the_user_win(monkeypatch, name):
    monkeypatch.setenv(name, "0")
    memory._kept.cache_clear()
    asked = []
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: asked.append(name))
    assert not memory.keep_memory()
    assert not asked
    memory._kept.cache_clear()


def test_another_c_library_is_left_alone(monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "FCNN_KEEP_MEMORY"):
        monkeypatch.delenv(name, raising=False)
    memory._kept.cache_clear()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.keep_memory()
    memory._kept.cache_clear()


class Library:
    """A C library that notes what it is asked for."""

    def __init__(self):
        self.trimmed, self.places, self.freed = 0, [], []

    def mallopt(self, name, value):
        return 1

    def malloc_trim(self, spare):
        self.trimmed += 1

    def taken(self, size):
        self.places.append(size)
        return len(self.places)


def test_the_compilers_memory_is_given_back_once_for_what_was_compiled(monkeypatch):
    class Function:
        """A function of the library, which takes notes of its types."""

        def __init__(self, function):
            self.function = function

        def __call__(self, *arguments):
            return self.function(*arguments)

    library, heard = Library(), []
    library.malloc, library.free = Function(library.taken), Function(library.freed.append)
    monkeypatch.setattr(memory, "_glibc", lambda: library)
    monkeypatch.setattr(jax.monitoring, "register_event_duration_secs_listener", heard.append)
    memory._kept.cache_clear()
    assert memory.keep_memory()
    (listener,) = heard
    for event in ("/jax/something/else", memory._COMPILED, memory._COMPILED):
        listener(event, 0.1)
    assert library.trimmed == 1  # no convolution since
    assert memory.keep_memory()
    listener(memory._COMPILED, 0.1)
    assert library.trimmed == 2
    # every other place is free, so that no two of them are one
    assert library.freed == list(range(1, len(library.places), 2))
    memory._kept.cache_clear()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc is set up")
@pytest.mark.parametrize("setting", [{}, {"FCNN_KEEP_MEMORY": "0"}, {"MALLOC_TRIM_THRESHOLD_": "1000000"}])
def test_jax_computes_where_it_is_called_unless_told_otherwise(setting):
    given = {name: value for name, value in os.environ.items() if name not in memory._THEIRS}
    given = {name: value for name, value in given.items() if name != "FCNN_KEEP_MEMORY"}
    code = "import fcnn, jax; print(jax.config.read('jax_cpu_enable_async_dispatch'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**given, **setting})
    assert done.stdout.strip() == str(bool(setting)), done.stderr
