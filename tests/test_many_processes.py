"""Processes that share every batch train as one does, and none of them is left waiting for another that is gone.

The processes are this machine's, on loopback; the collectives between them are those of CPUs (Gloo).
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import xla_flags

pytestmark = pytest.mark.slow

pytest.importorskip("orbax.checkpoint", reason="checkpoints need orbax-checkpoint")

#: seconds after which a job is taken to hang; it needs a fifth of them on two busy cores
LIMIT = 240

SET_UP = """
import json, os, signal, sys
import jax
job, processes, process, port, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
jax.distributed.initialize(f"127.0.0.1:{port}", processes, process, heartbeat_timeout_seconds=60)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp, numpy as np, optax, fcnn
from fcnn.training import CheckpointError, Checkpoints, order_of

numbers = np.random.default_rng(0)
x, y = numbers.normal(size=(32, 6, 6, 2)), numbers.integers(0, 3, 32).astype(np.int32)
net = fcnn.serial(
    fcnn.Conv(4, 3, bias=False), fcnn.BatchNorm(), jax.nn.relu, fcnn.MaxPool(2), fcnn.Dropout(0.2),
    fcnn.Flatten(), fcnn.Dense(3),
)
mesh = jax.make_mesh((jax.device_count(),), ("batch",))
optimizer, key, size = optax.sgd(0.1, momentum=0.9), jax.random.key(1), 16 // processes
begin = jax.tree.map(
    lambda a: np.asarray(a, np.float64), (net.init(jax.random.key(5), (6, 6, 2)), net.init_state((6, 6, 2)))
)

def fit(data, epochs=2, **more):
    params, state = jax.tree.map(lambda a: a.astype(more.pop("dtype", np.float64)), begin)
    given = {"mesh": mesh, "params": params, "state": state, "progress": False, **more}
    return fcnn.fit(net, data, optimizer=optimizer, epochs=epochs, key=key, batch_size=16, **given)

def parts(epoch, i=process):  # 4 batches, of which each process has its part
    order = np.random.default_rng(epoch).permutation(np.repeat(np.arange(32), 2))
    for batch in order.reshape(4, processes, size):
        yield x[batch[i]], y[batch[i]]

def whole(epoch):
    for both in zip(*(parts(epoch, i) for i in range(processes))):
        yield tuple(np.concatenate(arrays) for arrays in zip(*both))

def leaves(run):
    history = {name: values for name, values in run.history.items() if name != "seconds"}
    tree = run.params, run.state, run.train.optimizer_state, run.train.step, history
    return [np.asarray(a) for a in jax.tree.leaves(tree)]

def difference(one, other):  # over leaves, the largest, in parts of the largest value of the leaf
    pairs = zip(leaves(one), leaves(other), strict=True)
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(a))) for a, b in pairs)

def same(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(leaves(one), leaves(other), strict=True))

def error(call):
    try:
        call()
    except SystemExit as end:
        return f"SystemExit: {end.code}"
    except Exception as failure:
        return f"{type(failure).__name__}: {failure}"
    return "none"

said = {}
def say(**things):
    said.update(things)
"""

MANY = """
say(batches=difference(fit(whole, mesh=None), fit(parts)))
mine = slice(process * 32 // processes, (process + 1) * 32 // processes + (process == 0))
def drawn(epoch):  # what all processes together take from arrays: the fewest there are is 32 // processes
    count = 32 // processes
    order = np.asarray(order_of(key, epoch, count)).reshape(-1, size)
    for chosen in order:
        at = np.concatenate([i * 32 // processes + chosen for i in range(processes)])
        yield x[at], y[at]
one = fit(drawn, mesh=None, validation=(x, y))
own = slice(process * 32 // processes, (process + 1) * 32 // processes)
many = fit((x[mine], y[mine]), validation=(x[own], y[own]))
say(arrays=difference(one, many))
"""

TWO = """
# where fcnn.fit ends before the data do, or in one process alone
say(lengths=len(fit(lambda e: list(parts(e))[: 3 + process], epochs=1).history["loss"]))
say(first=error(lambda: fit(lambda e: ((a[: size - 2 * process], b[: size - 2 * process]) for a, b in parts(e)))))
def smaller(epoch):
    for n, (a, b) in enumerate(parts(epoch)):
        yield (a, b) if process == 0 or n < 2 else (a[:4], b[:4])
say(later=error(lambda: fit(smaller)))
def broken(epoch):
    for n, batch in enumerate(parts(epoch)):
        if process == 1 and n == 2:
            raise OSError("the disk is gone")
        yield batch
say(broken=error(lambda: fit(broken)))
say(divide=error(lambda: fcnn.fit(
    net, (x, y), optimizer=optimizer, epochs=1, key=key, batch_size=18, mesh=mesh, progress=False
)))
def nan(epoch):
    for n, (a, b) in enumerate(parts(epoch)):
        yield (a * np.nan if process == 1 and n == 1 else a), b
every = lambda name: Checkpoints(f"{folder}/{name}", every_seconds=None, every_steps=1)
say(nan=error(lambda: fit(nan, checkpoint=every("nan"))))
say(callback=(lambda run: (len(run.history["loss"]), run.stopped))(
    fit(parts, callbacks=[lambda info: process == 1])
))

# the first process alone sees the folder
uninterrupted = fit(parts, epochs=3)
seen = f"{folder}/kept" if process == 0 else "/nowhere/that/can/be/made"
at = lambda **more: {"checkpoint": Checkpoints(seen, every_seconds=None, every_steps=3), **more}
def told(epoch):
    for n, batch in enumerate(parts(epoch)):
        if process == 1 and (epoch, n) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)
        yield batch
say(term=error(lambda: fit(told, epochs=3, **at())))
say(other=error(lambda: fit(parts, epochs=3, **at())))
def late(epoch):  # the first epoch's batches are not computed again: their numbers would change the result
    return ((a if epoch else a + 1, b) for a, b in parts(epoch))
say(resumed=same(uninterrupted, fit(late, epochs=3, **at(resume=True))))
say(again=same(uninterrupted, fit(late, epochs=3, **at(resume=True))))
jax.config.update("jax_enable_x64", False)
say(single=difference(fit(whole, mesh=None, dtype=np.float32), fit(parts, dtype=np.float32)))
jax.config.update("jax_enable_x64", True)

# another job's run, whose second process was killed
killed = Checkpoints(f"{folder}/killed", every_seconds=None, every_steps=2)
say(after_a_kill=same(uninterrupted, fit(parts, epochs=3, checkpoint=killed, resume=True)))
"""

KILLED = """
def data(epoch):
    for n, batch in enumerate(parts(epoch)):
        if process == 1 and (epoch, n) == (2, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch
killed = Checkpoints(f"{folder}/killed", every_seconds=None, every_steps=2)
say(killed=error(lambda: fit(data, epochs=3, checkpoint=killed)))
print("said", json.dumps(said), flush=True)
os._exit(7)  # at the usual end JAX would wait for the other process
"""


def job(code, processes, devices, folder):
    """Run a job's processes; (exit status, what it said, its errors' text) of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags.known()} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    code = SET_UP + code + 'print("said", json.dumps(said), flush=True)\n'
    started, files = [], []
    try:
        for process in range(processes):
            out, err = folder / f"out.{process}", folder / f"err.{process}"
            files.append((out, err))
            command = [sys.executable, "-c", code, "job", *map(str, (processes, process, port, folder))]
            with out.open("w") as stdout, err.open("w") as stderr:
                started.append(subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment))
        end = time.monotonic() + LIMIT
        for child in started:
            child.wait(timeout=max(end - time.monotonic(), 0.1))
    finally:
        for child in started:
            child.kill()
            child.wait()
    answers = []
    for child, (out, err) in zip(started, files, strict=True):
        lines = [line[5:] for line in out.read_text().splitlines() if line.startswith("said ")]
        answers.append((child.returncode, json.loads(lines[-1]) if lines else {}, err.read_text()))
    return answers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("job")


@pytest.fixture(scope="module")
def killed(folder):
    return job(KILLED, 2, 2, folder)


@pytest.fixture(scope="module")
def two(folder, killed):
    answers = job(MANY + TWO, 2, 2, folder)
    assert [status for status, _, _ in answers] == [0, 0], answers[0][2][-3000:] + answers[1][2][-3000:]
    return [said for _, said, _ in answers]


@pytest.mark.parametrize("data", ["batches", "arrays"])
def test_two_processes_train_as_one(two, data):
    assert max(said[data] for said in two) < 1e-12


def test_two_processes_train_as_one_in_float32(two):
    assert max(said["single"] for said in two) < 1e-5


def test_four_processes_train_as_one(tmp_path):
    answers = job(MANY, 4, 1, tmp_path)
    assert [status for status, _, _ in answers] == [0] * 4, answers[0][2][-3000:]
    assert max(max(said["batches"], said["arrays"]) for _, said, _ in answers) < 1e-12


def test_an_epoch_is_as_long_as_the_shortest(two):
    assert [said["lengths"] for said in two] == [1, 1]


def test_batches_of_unlike_shapes_are_an_error_in_all(two):
    for said in two:
        assert (
            "float64(8, 6, 6, 2), int32(8,) in process 0 and float64(6, 6, 6, 2), int32(6,) in process 1"
            in (said["first"])
        )
    assert "batch 3: it is float64(4, 6, 6, 2), int32(4,), the first was float64(8" in two[1]["later"]
    assert two[0]["later"] == "RuntimeError: fit: process 1 of 2 stopped with an error in its data, which it shows"


def test_an_error_in_one_process_ends_all(two):
    assert two[1]["broken"] == "OSError: the disk is gone"
    assert two[0]["broken"] == "RuntimeError: fit: process 1 of 2 stopped with an error in its data, which it shows"
    assert all("a batch of 18 examples cannot be shared equally by the 4 devices" in said["divide"] for said in two)
    assert all("NonFiniteError: fit: step 2, epoch 1" in said["nan"] for said in two)
    assert [said["callback"] for said in two] == [[1, "process 1"], [1, "the callback <lambda>"]]


def test_a_signal_to_one_process_stops_all_with_one_checkpoint(two, folder):
    assert [said["term"] for said in two] == [f"SystemExit: {128 + signal.SIGTERM}"] * 2
    assert "CheckpointError: fit: " in two[0]["other"]
    assert "CheckpointError: process 0 of 2 stopped with CheckpointError: fit: " in two[1]["other"]
    # batches are fetched ahead, so the signal comes one of a few steps before the batch that sends it
    steps = {re.search(r"holds checkpoints of an earlier run, up to step (\d+);", said["other"])[1] for said in two}
    assert steps <= {"4", "5", "6"}
    assert len(steps) == 1


def test_a_run_goes_on_bit_for_bit_where_the_first_process_alone_sees_the_folder(two):
    assert [(said["resumed"], said["again"]) for said in two] == [(True, True)] * 2


def test_a_killed_process_ends_the_job_and_the_job_goes_on_bit_for_bit(killed, two, folder):
    (status, said, _), (other, _, _) = killed
    assert (status, other) == (7, -signal.SIGKILL)
    assert said["killed"].startswith(
        "RuntimeError: fit: process 0 of 2 noticed that another process ended or cannot be"
    )
    assert f"The newest checkpoint is {folder}/killed/step_00000008; the same command" in said["killed"]
    assert [said["after_a_kill"] for said in two] == [True, True]
