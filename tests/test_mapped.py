"""Data that lie in files are read batch by batch, and never whole."""

import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

import fcnn
from fcnn.training import mapped

NET = fcnn.serial(fcnn.Flatten(), fcnn.Dense(3))
X = np.random.default_rng(0).normal(size=(50, 4, 2)).astype("float32")
Y = (np.arange(50) % 3).astype("int32")


class Stored:
    """An array as h5py has it: it reads when it is indexed, by slices or by places in increasing order."""

    def __init__(self, array):
        self._array, self.read = array, 0
        self.shape, self.dtype, self.ndim, self.nbytes = array.shape, array.dtype, array.ndim, array.nbytes

    def __len__(self):
        return len(self._array)

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("it was read whole")

    def __getitem__(self, chosen):
        if not isinstance(chosen, slice):
            assert (np.diff(chosen) > 0).all()
        found = self._array[chosen].copy()
        self.read = max(self.read, len(found))
        return found


def fit(data, **more):
    more = {"optimizer": optax.sgd(0.1), "epochs": 2, "key": jax.random.key(0), "batch_size": 8, **more}
    return fcnn.fit(NET, data, progress=False, **more)


def on_disk(folder, array, name, mode="r"):
    np.save(folder / f"{name}.npy", array)
    return np.load(folder / f"{name}.npy", mmap_mode=mode)


@pytest.mark.parametrize("kind", ["r", "r+", "c", "view", "stored"])
def test_they_give_what_arrays_in_memory_give(tmp_path, kind):
    wanted = fit((X, Y), validation=(X, Y), keep_best=True, patience=5)
    if kind == "stored":
        x, y = Stored(X), Stored(Y)
    else:
        x, y = (on_disk(tmp_path, a, name, "r" if kind == "view" else kind) for a, name in ((X, "x"), (Y, "y")))
    if kind == "view":
        x, y = np.asarray(x), y[:]
    assert mapped.in_file(x)
    if kind == "c":
        x[0] += 1  # a change that the file does not see
        x[0] -= 1
        changed = x[0].copy()
    run = fit((x, y), validation=(x, y), keep_best=True, patience=5)
    np.testing.assert_allclose(run.params["dense1"]["kernel"], wanted.params["dense1"]["kernel"], rtol=1e-5)
    np.testing.assert_allclose(run.history["validation_loss"], wanted.history["validation_loss"], rtol=1e-5)
    assert fcnn.evaluate(NET, run.params, (x, y), batch_size=7) == pytest.approx(
        fcnn.evaluate(NET, run.params, (X, Y), batch_size=7)
    )
    if kind == "c":
        np.testing.assert_array_equal(x[0], changed)
    if kind == "stored":
        assert x.read <= 50
    if kind == "r+":
        x[1] = 5  # still there after its pages were let go
        mapped.release(x)
        assert (x[1] == 5).all()


def test_augmentation_is_told_the_places_in_the_file(tmp_path):
    def mark(key, batch, examples, epoch):
        (x,), y = batch
        return (x * 0 + examples[:, None, None].astype(x.dtype),), y

    mark.by_example = True
    settings = {"augment": mark, "epochs": 1, "optimizer": optax.sgd(0.01)}
    wanted, run = fit((X, Y), **settings), fit((on_disk(tmp_path, X, "x"), Y), **settings)
    np.testing.assert_allclose(run.params["dense1"]["kernel"], wanted.params["dense1"]["kernel"], rtol=1e-5)


def test_what_lies_in_memory_is_no_file():
    pandas = type("Series", (), {"shape": (3,), "dtype": np.dtype("f4"), "iloc": 0, "__getitem__": lambda s, i: i})
    for array in (X, X[::2], jax.numpy.ones(3), np.float32(1), pandas(), memoryview(b"abc")):
        assert not mapped.in_file(array)


def test_rows_in_any_order_and_twice(tmp_path):
    chosen = np.array([7, 3, 3, 49, 0])
    for array in (on_disk(tmp_path, X, "x"), Stored(X)):
        np.testing.assert_array_equal(mapped.read(array, chosen), X[chosen])
        np.testing.assert_array_equal(np.concatenate(list(mapped.pieces(array))), X)


CHILD = """
import re, sys
import jax, numpy as np, optax, fcnn
def memory(name):
    return int(re.search(name + r":\\s*(\\d+) kB", open("/proc/self/status").read()).group(1)) / 1024
x = np.load(sys.argv[1], mmap_mode="r")
y = np.arange(len(x), dtype="int32") % 3
net = fcnn.serial(lambda x: x[:, ::64], fcnn.Dense(3))
def run(x, y):
    params = fcnn.fit(net, (x, y), optimizer=optax.sgd(1e-3), epochs=1, key=jax.random.key(0), batch_size=16,
                      progress=False, validation=(x, y)).params
    fcnn.evaluate(net, params, (x, y), batch_size=16)
run(np.zeros((128, x.shape[1]), "float32"), y[:128])
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
run(x, y)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_map_is_never_in_memory_whole(tmp_path):
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "float32", (4096, 12288)).flush()  # 192 MiB
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "x.npy"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 96  # half of it; a batch is 0.75 MiB
