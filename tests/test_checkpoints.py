"""What is stored comes back bit for bit, and what cannot be stored is refused."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stored import child, leaves, names, small

from fcnn.training import serialization
from fcnn.training.checkpoint import CheckpointError, Checkpoints
from fcnn.training.store import Store

pytest.importorskip("orbax.checkpoint", reason="checkpoints need orbax-checkpoint")


class Pair(NamedTuple):
    first: object
    second: object


def params():
    return {
        "conv1": {"kernel": jnp.linspace(-1, 1, 24, dtype=jnp.float32).reshape(3, 2, 4), "bias": jnp.zeros(4)},
        "dense1": {"kernel": jnp.ones((5, 2), jnp.bfloat16)},
    }


def round_trip(folder, tree, like=None, about=None):
    with Store(folder) as store:
        store.save(7, tree, about or {})
        step, back, said = store.latest(tree if like is None else like)
    assert step == 7
    return back, said


NATURES = {
    "named tuples and dicts": lambda: Pair(params(), {"x": (np.arange(3), [np.float32(2).reshape(())])}),
    "none and empty": lambda: {"a": None, "b": (), "c": {}, "d": np.ones(2)},
    "adam": lambda: optax.adam(1e-3).init(params()),
    "chain": lambda: optax.chain(optax.clip(1.0), optax.trace(0.9), optax.scale(-1.0)).init(params()),
    "masked": lambda: optax.masked(optax.adam(1e-3), {"conv1": True, "dense1": False}).init(params()),
    "keys": lambda: {"one": jax.random.key(3), "many": jax.random.split(jax.random.key(4), (2, 3))},
    "keys of another kind": lambda: jax.random.split(jax.random.key(5, impl="rbg"), 2),
    "no keys": lambda: {"a": jax.random.split(jax.random.key(0), 2)[:0]},
    "numbers": lambda: {"yes": True, "three": 3, "tenth": 0.1, "infinity": float("inf")},
    "zero size": lambda: {"a": np.zeros((0, 3), np.float32), "b": np.zeros((2, 0), bool)},
    "nothing at all": lambda: {"a": {}},
    "a single array": lambda: np.arange(5),
    "names that look alike": lambda: {
        "a/b": np.zeros(2),
        "a": {"b": np.ones(2)},
        "a.b": np.full(2, 2.0),
    },
    "names from everywhere": lambda: {"../..": np.ones(1), "größe": np.ones(2), "": np.ones(3), "a b": np.ones(4)},
    "not contiguous": lambda: np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::2],
    "large": lambda: {"a": np.random.default_rng(0).standard_normal((700, 900)), "b": np.zeros(300_000, np.float32)},
}


@pytest.mark.parametrize("name", NATURES)
def test_trees_come_back_bit_for_bit(tmp_path, name):
    tree = NATURES[name]()
    back, _ = round_trip(tmp_path, tree)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert leaves(back) == leaves(tree)


TYPES = """
    bool int4 int8 int16 int32 int64 uint4 uint8 uint16 uint32 uint64
    float8_e4m3fn float8_e5m2 bfloat16 float16 float32 float64 complex64 complex128
"""


@pytest.mark.parametrize("dtype", TYPES.split())
def test_every_bit_pattern_of_every_type(tmp_path, dtype):
    """Signed zeros, NaNs with their payloads, subnormal numbers: whatever the bytes are."""
    dtype = jnp.dtype(dtype)
    raw = np.random.default_rng(1).integers(0, 256, 64 * 8 * dtype.itemsize, dtype=np.uint8)
    if dtype.kind == "b":
        raw &= 1
    elif dtype.name in ("int4", "uint4"):
        raw &= 7
    tree = {"any": raw.view(dtype).reshape(8, 64), "zeros": np.zeros((3, 3), dtype)}
    if dtype.kind in "fc":
        tree["minus zero"] = np.full(5, -0.0, dtype)
    back, _ = round_trip(tmp_path, tree)
    assert leaves(back) == leaves(tree)


def test_shapes_are_enough_to_load(tmp_path):
    tree = {"params": params(), "key": jax.random.key(9)}
    back, _ = round_trip(tmp_path, tree, like=jax.eval_shape(lambda: tree))
    assert leaves(back) == leaves(tree)


def test_what_is_said_about_it_comes_back(tmp_path):
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, *np.random.default_rng(0).standard_normal(500)]
    about = {
        "loss": numbers,
        "odd": [float("inf"), -float("inf"), float("nan")],
        "epoch": 3,
        "name": "größe",
        "no": None,
    }
    about |= {"numpy": np.float32(0.1), "array": np.arange(3)}
    _, said = round_trip(tmp_path, small(), about=about)
    assert np.asarray(said["loss"]).tobytes() == np.asarray(numbers).tobytes()
    assert said["odd"][:2] == [float("inf"), -float("inf")]
    assert np.isnan(said["odd"][2])
    assert (said["epoch"], said["name"], said["no"]) == (3, "größe", None)
    assert np.float32(said["numpy"]) == np.float32(0.1)
    assert said["array"] == [0, 1, 2]


def test_a_tree_may_change_as_soon_as_save_returns(tmp_path):
    change = jax.jit(lambda tree: jax.tree.map(lambda a: a + 1, tree), donate_argnums=0)
    tree = {"jax": {str(i): jnp.zeros((300, 300)) for i in range(6)}}
    mine = np.zeros((500, 500))
    with Store(tmp_path, keep=4) as store:
        store.prepare({**tree, "numpy": mine})
        for step in range(4):
            store.save(step, {**tree, "numpy": mine}, {})
            tree = change(tree)
            mine += 1
        store.wait()
        for step in range(4):
            back, _ = serialization.read(tmp_path / f"step_{step:08d}", {**tree, "numpy": mine})
            assert all((leaf == step).all() for leaf in jax.tree.leaves(back))


def test_what_prepare_and_save_were_given_may_be_gone_at_once(tmp_path, monkeypatch):
    """The memory is made ready after the arrays have gone, as the first step of a run takes them over."""
    gone, run, held = threading.Event(), threading.Thread.run, []

    def late(thread):
        if thread.name == "fcnn-prepare":
            held.append(gone.wait(60))
        run(thread)

    monkeypatch.setattr(threading.Thread, "run", late)
    made = np.random.default_rng(0).standard_normal((2, 400, 300)).astype(np.float32)
    shown = {"jax": jnp.zeros((400, 300)), "numpy": np.zeros((400, 300), np.float32), "key": jax.random.key(0)}
    given = {"jax": jnp.array(made[0]), "numpy": made[1].copy(), "key": jax.random.key(7)}
    expected = leaves(given)
    with Store(tmp_path) as store:
        store.prepare(shown)
        shown["jax"].delete()
        shown["numpy"].fill(5)
        gone.set()
        for step in range(2):
            store.save(step, given, {})
            given["jax"].delete()
            given["numpy"].fill(step)
            given = {"jax": jnp.array(made[0]), "numpy": made[1].copy(), "key": jax.random.key(7)}
        store.wait()
        assert held == [True]
        assert (shown["numpy"] == 5).all()  # the memory that was made ready is the store's own
        for step in range(2):
            assert leaves(serialization.read(tmp_path / f"step_{step:08d}", given)[0]) == expected


def test_what_prepare_was_shown_is_saved_as_it_is_at_the_save(tmp_path):
    mine = np.zeros((400, 300))
    with Store(tmp_path) as store:
        store.prepare({"a": mine})
        mine.fill(1)
        store.save(1, {"a": mine}, {})
        mine.fill(2)
        _, tree, _ = store.latest({"a": mine})
    assert (tree["a"] == 1).all()
    assert (mine == 2).all()


def test_a_tree_of_another_form_than_was_prepared_is_saved(tmp_path):
    shown = {"a": np.zeros((400, 300)), "b": np.zeros(7), "gone": np.zeros(3)}
    given = {"a": np.ones((300, 400), np.float32), "b": np.full(7, 2.0), "new": np.full(5, 3)}
    with Store(tmp_path) as store:
        store.prepare(shown)
        store.save(1, given, {})
        _, tree, _ = store.latest(given)
    assert leaves(tree) == leaves(given)


def test_a_person_can_look_into_it_with_orbax_alone(tmp_path):
    round_trip(tmp_path, {"params": params(), "rest": Pair(np.arange(3), None)})
    arrays = str(tmp_path / "step_00000007" / "arrays")
    code = f"import orbax.checkpoint as ocp; print(sorted(ocp.PyTreeCheckpointer().restore({arrays!r})))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert eval(out) == ["params.conv1.bias", "params.conv1.kernel", "params.dense1.kernel", "rest.first"]


def test_the_newest_are_kept(tmp_path):
    with Store(tmp_path, keep=2) as store:
        assert store.latest(small()) is None
        for step in (1, 10, 20, 20):
            store.save(step, small(step), {"step": step})
        assert store.wait() == tmp_path / "step_00000020_2"
        assert names(tmp_path) == ["step_00000020", "step_00000020_2"]
        store.save(100_000_000, small(3), {})
        assert store.latest(small())[0] == 100_000_000
        assert names(tmp_path) == ["step_00000020_2", "step_100000000"]


def test_another_runs_later_checkpoints_are_not_pushed_out(tmp_path):
    with Store(tmp_path) as store:
        store.save(50, small(), {})
        store.wait()
        with pytest.raises(CheckpointError, match=r"has a checkpoint of step 50, later than step 3"):
            store.save(3, small(), {})
        assert store.newest() == 50


MISFITS = {
    "a shape": ({"w": np.zeros((3, 2), np.float32)}, r"w is \(3, 3\) float32 in it and \(3, 2\) float32 here"),
    "a type": ({"w": np.zeros((3, 3), np.float16)}, r"w is \(3, 3\) float32 in it and \(3, 3\) float16 here"),
    "one more": ({"w": np.zeros((3, 3), np.float32), "v": np.ones(2)}, r"v \(2,\) float64 is not in it"),
    "one fewer": ({}, r"w \(3, 3\) float32 is in it, but not here"),
    "another place": ({"net": {"w": np.zeros((3, 3), np.float32)}}, r"net/w .* is not in it; w .* but not here"),
    "a key": ({"w": jax.random.key(0)}, r"w is \(3, 3\) float32 in it and \(\) key<fry> here"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_another_networks_checkpoint_is_refused(tmp_path, name):
    like, message = MISFITS[name]
    with Store(tmp_path) as store:
        store.save(1, {"w": np.zeros((3, 3), np.float32)}, {})
        with pytest.raises(CheckpointError, match=message) as caught:
            store.latest(like)
    assert str(tmp_path / "step_00000001") in str(caught.value)
    assert "another folder" in str(caught.value)
    assert names(tmp_path) == ["step_00000001"]


@pytest.mark.parametrize(
    ("tree", "about", "message"),
    [
        ({"a": {"b": "text"}}, {}, "a/b is a str"),
        ({"a": np.array(["x"])}, {}, "a is a ndarray"),
        ({"a": np.ones(2)}, {"x": {1, 2}}, "holds a set"),
    ],
    ids=["text", "array of text", "set"],
)
def test_what_cannot_be_stored_is_refused_at_once(tmp_path, tree, about, message):
    with Store(tmp_path) as store, pytest.raises(TypeError, match=message):
        store.save(1, tree, about)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="give another folder"):
        Store(tmp_path / "file")


def test_the_users_log_stays_as_it_is(tmp_path):
    """Orbax's messages stay inside; what the user says through absl, and the root logger's handlers, do not change."""
    code = """
import logging
store = Store(folder)
store.save(1, tree(1), {})
store.latest(tree(1))
store.close()
assert "orbax.checkpoint" in sys.modules
assert logging.root.handlers == [], logging.root.handlers
assert logging.root.level == logging.WARNING
assert logging.getLogger("absl").filters == []
logging.getLogger("absl").warning("mine")
"""
    process = child(code, tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, "", "mine\n")
    assert logging.getLogger("absl").filters == []


TWO = """
import os, sys
import jax, jax.numpy as jnp, numpy as np
folder, port, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=index)
from fcnn.training.checkpoint import CheckpointError
from fcnn.training.store import Store
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
def placed(x, *axes):
    return jax.make_array_from_callback(x.shape, jax.NamedSharding(mesh, jax.P(*axes)), lambda i: x[i])
tree = {"same": placed(np.arange(6.0, dtype=np.float32)), "count": np.arange(3)}
if index == 0:
    with Store(folder) as store:
        store.save(4, tree, {"processes": jax.process_count()})
        step, back, about = store.latest(tree)
        assert (back["same"] == np.arange(6)).all()
        try:
            store.save(5, {"spread": placed(np.arange(2.0, dtype=np.float32), "data")}, {})
        except CheckpointError as error:
            print(error)
    print("saved", step, about["processes"])
jax.experimental.multihost_utils.sync_global_devices("end")
back = Store(folder, read_only=True).latest(tree)
print("loaded", back[0], back[1]["same"].tolist())
"""


def test_one_process_of_two_saves_and_waits_for_nobody(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-c", "import jax.experimental.multihost_utils\n" + TWO, str(tmp_path), str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, str(index)], env=environment, **pipes) for index in range(2)]
    try:
        first, second = [process.communicate(timeout=120) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], (first, second)
    assert "spread is divided over several processes" in first[0]
    assert "saved 4 2" in first[0]
    assert "loaded 4 [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]" in first[0]
    assert "loaded 4 [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]" in second[0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"folder": 3}, TypeError, "folder must be a path"),
        ({"every_seconds": 0}, ValueError, "every_seconds is (0|nan), it must be above 0"),
        ({"every_seconds": float("nan")}, ValueError, "every_seconds is (0|nan), it must be above 0"),
        ({"every_seconds": True}, TypeError, "number of seconds"),
        ({"every_steps": 0}, ValueError, "every_steps is 0"),
        ({"every_steps": 2.5}, TypeError, "every_steps must be a whole number"),
        ({"keep": 0}, ValueError, "keep is 0"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_settings_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        Checkpoints(**{"folder": "runs", **arguments})


def test_a_folder_by_path_and_the_defaults():
    assert Checkpoints(Path("runs")) == Checkpoints(Path("runs"), every_seconds=60.0, every_steps=None, keep=3)


def test_files_say_what_they_are(tmp_path):
    """What a person reads: which leaf has which name among the arrays."""
    round_trip(tmp_path, {"params": params()})
    listed = json.loads((tmp_path / "step_00000007" / "leaves.json").read_text())
    assert [leaf["shown"] for leaf in listed] == ["params/conv1/bias", "params/conv1/kernel", "params/dense1/kernel"]
    assert [leaf["dtype"] for leaf in listed] == ["float32", "float32", "bfloat16"]
    assert listed[1]["shape"] == [3, 2, 4]
