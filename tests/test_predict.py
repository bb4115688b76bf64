"""Outputs for any number of examples are those of the network, and little is held at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn

KEY = jax.random.key(0)
NET = fcnn.serial(fcnn.Conv(3, 3), fcnn.BatchNorm(), fcnn.Flatten(), fcnn.Dropout(0.5), fcnn.Dense(2))
X = np.random.default_rng(0).normal(size=(23, 6, 6, 1)).astype("f")
PARAMS = NET.init(KEY, (6, 6, 1))
STATE = jax.tree.map(lambda a: a + 0.5, NET.init_state((6, 6, 1)))
WHOLE = np.asarray(NET.apply(PARAMS, X, state=STATE))


def close(found, expected=WHOLE, atol=1e-5):
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("size", [5, 23, 512])
def test_any_batch_size(size):
    close(fcnn.predict(NET, PARAMS, X, state=STATE, batch_size=size))


def test_batches_in_any_form():
    parts = [X[:10], X[10:20], X[20:]]
    labelled = [(part, np.zeros(len(part), "int32")) for part in parts]
    for given in (parts, iter(parts), (part for part in parts), labelled, [[part] for part in parts]):
        close(fcnn.predict(NET, PARAMS, given, state=STATE))


def test_a_loader_of_torch():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.zeros(23))
    close(fcnn.predict(NET, PARAMS, torch.utils.data.DataLoader(data, batch_size=7), state=STATE))


def test_a_memory_map_is_read_slice_by_slice(tmp_path):
    np.save(tmp_path / "x.npy", X)
    close(fcnn.predict(NET, PARAMS, np.load(tmp_path / "x.npy", mmap_mode="r"), state=STATE, batch_size=4))


def test_several_inputs_and_outputs():
    @fcnn.graph(a=fcnn.Dense(2), b=fcnn.Dense(3))
    def net(layer, x, y):
        return {"sum": layer.a(x) + layer.a(y), "far": (layer.b(x), jnp.argmax(layer.b(y), -1))}

    x, y = (np.random.default_rng(i).normal(size=(9, 4)).astype("f") for i in (1, 2))
    params = net.init(KEY, (4,), (4,))
    whole = jax.tree.map(np.asarray, net.apply(params, x, y))
    for given in ((x, y), [((x[:4], y[:4]), None), ((x[4:], y[4:]), None)]):
        found = fcnn.predict(net, params, given, batch_size=4)
        assert jax.tree.structure(found) == jax.tree.structure(whole)
        jax.tree.map(close, found, whole)
        assert found["far"][1].dtype == whole["far"][1].dtype


def test_a_mesh_and_half_precision():
    mesh = jax.make_mesh((len(jax.devices()),), ("batch",))
    close(fcnn.predict(NET, PARAMS, X, state=STATE, batch_size=8, mesh=mesh))
    half = fcnn.predict(NET, PARAMS, X, state=STATE, precision="bfloat16")
    assert half.dtype == np.float32
    close(half, atol=0.05)
    assert not np.array_equal(half, WHOLE)


MISTAKES = {
    "images too small": (lambda: fcnn.predict(NET, PARAMS, X[:, :2], state=STATE), ValueError, "kernel"),
    "no examples": (lambda: fcnn.predict(NET, PARAMS, X[:0], state=STATE), ValueError, "there are no examples"),
    "no batches": (lambda: fcnn.predict(NET, PARAMS, [], state=STATE), ValueError, "there are no batches"),
    "a number": (lambda: fcnn.predict(NET, PARAMS, 3, state=STATE), TypeError, "x must be an array"),
    "a dict": (lambda: fcnn.predict(NET, PARAMS, {"x": X}, state=STATE), TypeError, "several inputs are a tuple"),
    "a batch of four": (lambda: fcnn.predict(NET, PARAMS, [(X, X, X, X)], state=STATE), TypeError, "predict: batch 1"),
    "batch size 0": (lambda: fcnn.predict(NET, PARAMS, X, batch_size=0), ValueError, "batch_size is 0"),
    "no state": (lambda: fcnn.predict(NET, PARAMS, X), ValueError, "needs its mean and variance"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained(name):
    call, kind, message = MISTAKES[name]
    with pytest.raises(kind, match=message):
        call()
