"""A training that is interrupted, in whatever way, loses nothing: it ends bit for bit as if it had never stopped."""

import errno
import functools
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import kill_soak
import numpy as np
import optax
import pytest
from kill_soak import bits, differences

import fcnn
from fcnn.training import (
    CheckpointDamagedWarning,
    CheckpointError,
    CheckpointFailedWarning,
    Checkpoints,
    NonFiniteError,
    processes,
    serialization,
    store,
)

pytestmark = pytest.mark.slow

pytest.importorskip("orbax.checkpoint", reason="checkpoints need orbax-checkpoint")

EPOCHS, EVERY = 6, 3  # of the runs in children, which have 16 steps an epoch


# Runs in processes of their own.


def test_one_bit_is_a_difference():
    one = {"a": np.zeros(3, np.float32), "b": np.ones(2)}
    assert differences(one, {**one}) == []
    assert differences(one, {**one, "a": -one["a"]}) == ["a"]
    assert differences(one, {**one, "b": one["b"].astype(np.float32)}) == ["b"]
    assert differences(one, {"a": one["a"]}) == ["b"]


def in_child(cache, log, function, arguments):
    handle = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    # compiled fast, and once for all children, so that each begins to train soon
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    function(*arguments)


class Children:
    """Starts processes that have imported JAX already, by fork from one that did so once and computed nothing."""

    def __init__(self, cache, log):
        self.cache, self.log = cache, log
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["jax", "optax", "fcnn", "orbax.checkpoint", "kill_soak"])
        self.started, self.whole = [], {}

    def start(self, function, *arguments):
        process = self.context.Process(target=in_child, args=(self.cache, self.log, function, arguments))
        process.start()
        self.started.append(process)
        return process

    def said(self):
        return Path(self.log).read_text()

    def unstopped(self, kind, folder):
        """What a run is that nobody stops and that writes no checkpoint on the way."""
        if kind not in self.whole:
            (folder / "whole").mkdir()
            self.whole[kind] = finish(self, kind, folder / "whole", every=10**6)
        return self.whole[kind]


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("processes are forked")
    folder = tmp_path_factory.mktemp("children")
    found = Children(str(folder / "compiled"), str(folder / "log"))
    yield found
    for process in found.started:
        process.kill()
        process.join()


def until(process, happened, said):
    """Wait for something that a living process does."""
    while not happened():
        assert process.is_alive(), said()
        time.sleep(0.002)


def begin(children, kind, folder, written):
    """A child that goes on with a run, when it has counted a step and written some checkpoints."""
    (folder / "resumed").unlink(missing_ok=True)
    (folder / "reached").write_text("")
    process = children.start(kill_soak.child, kind, 0, EPOCHS, str(folder), EVERY)
    until(process, lambda: kill_soak.resumed(folder), children.said)
    step = kill_soak.resumed(folder)["step"]
    until(process, lambda: kill_soak.reached(folder) > step, children.said)
    until(process, lambda: not written or kill_soak.newest(folder)[-1:] >= [(step + written * EVERY,)], children.said)
    return process


def finish(children, kind, folder, every=EVERY):
    process = children.start(kill_soak.child, kind, 0, EPOCHS, str(folder), every)
    process.join()
    assert process.exitcode == 0, children.said()
    with np.load(folder / "result.npz") as result:
        return dict(result)


@pytest.mark.parametrize(("kind", "kills"), [("arrays", 5), ("batches", 3), ("ensemble", 3)])
def test_kills_at_random_moments_change_nothing(kind, kills, children, tmp_path):
    """Batch norm, dropout, augmentation, a schedule, an average, validation and the best epoch, all of them go on."""
    whole = children.unstopped(kind, tmp_path)
    draw, resumed = random.Random(kind), []
    for number in range(kills):
        process = begin(children, kind, tmp_path, written=number % 3)
        time.sleep(draw.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        resumed.append(kill_soak.resumed(tmp_path))
    assert differences(finish(children, kind, tmp_path), whole) == []
    assert resumed[0]["step"] == 0
    assert len({found["step"] for found in resumed}) > 1
    assert not any(found["damaged"] for found in resumed)


def test_signals_write_a_checkpoint_and_end_the_program(children, tmp_path):
    whole = children.unstopped("arrays", tmp_path)
    for number, name, status in ((signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "Ctrl-C", 130)):
        process = begin(children, "arrays", tmp_path, written=2)
        with pytest.raises(CheckpointError, match=rf"in use by another run \(process {process.pid} on .*\); wait"):
            kill_soak.train("arrays", epochs=1, checkpoint=tmp_path / "run", resume=True)
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode == status, children.said()
        line = children.said().strip().splitlines()[-1]
        found = re.fullmatch(
            rf"{name}: stopped after step (\d+), in epoch (\d) of {EPOCHS}\. Everything is in (\S+); "
            r"the same call with resume=True goes on from there\.",
            line,
        )
        assert found, children.said()
        step = int(found[1])
        assert (int(found[2]) - 1) * 16 <= step <= int(found[2]) * 16
        assert serialization.verify(Path(found[3])) == step
        assert kill_soak.newest(tmp_path)[-1][0] == step
    assert differences(finish(children, "arrays", tmp_path), whole) == []


SCRIPT = """
import sys, time, jax, numpy as np, optax, fcnn
def batches(epoch):
    for i in range(8):
        if epoch == 1 and i == 5 and sys.argv[2] == "slow":
            print("waiting", flush=True)
            time.sleep(600)
        yield np.full((4, 3), epoch + i, np.float32), np.arange(4, dtype=np.int32) % 2
run = fcnn.fit(fcnn.Dense(2), batches, optimizer=optax.adam(0.1), epochs=3, key=jax.random.key(0), progress=False,
               checkpoint=fcnn.training.Checkpoints(sys.argv[1], every_seconds=None, every_steps=2), resume=True)
print(np.asarray(run.params["kernel"]).tobytes().hex(), np.asarray(run.history["loss"]).tobytes().hex())
"""


def test_a_second_ctrl_c_ends_a_script_at_once(tmp_path):
    """A batch takes ten minutes to come; a patient user presses once, this one twice."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "run")]
    process = subprocess.Popen([*command, "slow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGINT
    assert said.strip().endswith("KeyboardInterrupt")
    again = subprocess.run([*command, "fast"], capture_output=True, text=True, check=True)
    whole = subprocess.run([*command[:-1], str(tmp_path / "other"), "fast"], capture_output=True, text=True, check=True)
    assert again.stdout == whole.stdout
    assert len(again.stdout.split()) == 2


# Runs in this process: 8 steps an epoch, a checkpoint every 3.

NET = fcnn.serial(fcnn.Dense(4), fcnn.BatchNorm(), jax.nn.relu, fcnn.Dropout(0.3), fcnn.Dense(3))
ADAM = optax.adam(optax.cosine_decay_schedule(1e-2, 40))


def data(count=40):
    draw = np.random.default_rng(0)
    return draw.normal(size=(count, 6)).astype(np.float32), draw.integers(0, 3, count).astype(np.int32)


def fitted(folder=None, *, net=NET, given=None, **options):
    settings = {"optimizer": ADAM, "epochs": 4, "key": jax.random.key(3), "batch_size": 5, "progress": False, **options}
    if folder is not None:
        settings["checkpoint"] = Checkpoints(folder, every_seconds=None, every_steps=3)
    return fcnn.fit(net, data() if given is None else given, **settings)


@functools.cache
def whole(epochs=4):
    return bits(fitted(epochs=epochs))


def stop_in(epoch, number=signal.SIGTERM):
    def stop(info):
        if info.epoch == epoch:
            signal.raise_signal(number)

    return stop


def stopped(folder, epoch=2, **options):
    """Leave a folder as a run leaves it that is told to stop."""
    with pytest.raises(SystemExit) as ended:
        fitted(folder, callbacks=[stop_in(epoch)], **options)
    assert ended.value.code == 143
    return sorted(folder.glob("step_*"))


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_checkpoints_and_signals_change_nothing(tmp_path):
    assert [path.name for path in stopped(tmp_path)] == ["step_00000012", "step_00000015", "step_00000016"]
    assert differences(bits(fitted(tmp_path, resume=True)), whole()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_a_folder_that_is_still_empty_is_begun(tmp_path):
    assert differences(bits(fitted(tmp_path / "new" / "run", resume=True)), whole()) == []


@pytest.mark.parametrize("epochs", [2, 3])  # 3 x 8 steps are a multiple of 3, so the last checkpoint is in the epoch
def test_more_epochs_go_on_where_a_run_ended(tmp_path, epochs):
    assert differences(bits(fitted(tmp_path, epochs=epochs)), whole(epochs)) == []
    assert differences(bits(fitted(tmp_path, resume=True)), whole()) == []


@pytest.mark.parametrize("options", [{}, {"patience": 1, "monitor": "accuracy"}], ids=["all epochs", "patience"])
def test_a_run_that_has_ended_is_given_back_at_once(tmp_path, options):
    options = {"keep_best": True, **options}
    first = fitted(tmp_path, **options)
    assert (first.stopped is None) == ("patience" not in options)
    before = files(tmp_path)
    again = fitted(tmp_path, resume=True, **options)
    assert differences(bits(again), bits(first)) == []
    assert again.compile_seconds == 0
    assert set(files(tmp_path)) == set(before)


def test_the_average_and_the_best_of_parameters_in_half_precision_are_found_again(tmp_path):
    half = jax.tree.map(lambda a: a.astype("bfloat16"), NET.init(jax.random.key(0), (6,)))
    options = {"params": half, "state": NET.init_state((6,)), "average": 0.9, "keep_best": True, "validation": data(10)}
    stopped(tmp_path, **options)
    assert differences(bits(fitted(tmp_path, resume=True, **options)), bits(fitted(**options))) == []


OTHERS = {
    "key": ({"key": jax.random.key(4)}, r"of a run with another key \(\[0, 3\], now \[0, 4\]\)"),
    "batch size": ({"batch_size": 8}, r"of a run with another batch size \(5, now 8\)"),
    "examples": ({"given": data(35)}, r"of a run with another number of examples \(40, now 35\)"),
    "activation": (
        {"net": fcnn.serial(fcnn.Dense(4), fcnn.BatchNorm(), jnp.tanh, fcnn.Dropout(0.3), fcnn.Dense(3))},
        r"of a run with another network \(.*jax.nn.relu.*, now .*jax.nn.tanh",
    ),
    "width": (
        {"net": fcnn.serial(fcnn.Dense(7), fcnn.BatchNorm(), jax.nn.relu, fcnn.Dropout(0.3), fcnn.Dense(3))},
        r"does not fit: train/params/batch_norm1/bias is \(4,\) float32 in it and \(7,\) float32 here",
    ),
    "optimizer": ({"optimizer": optax.sgd(0.1)}, r"does not fit: .*mu.* in it, but not here.*optimizer that it was"),
    "nothing": ({"resume": False}, r"holds checkpoints of an earlier run, up to step 16; go on with resume=True, or"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_checkpoints_of_another_run_are_refused_and_stay(tmp_path, name):
    options, message = OTHERS[name]
    stopped(tmp_path)
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        fitted(tmp_path, **{"resume": True, **options})
    assert set(files(tmp_path)) == set(before)
    assert differences(bits(fitted(tmp_path, resume=True)), whole()) == []


def test_two_runs_in_one_folder_are_one_too_many(tmp_path):
    with store.Store(tmp_path), pytest.raises(CheckpointError, match="in use by another run"):
        fitted(tmp_path)


def test_resume_needs_a_folder():
    with pytest.raises(ValueError, match="fit: resume=True goes on from a checkpoint; say where they are"):
        fitted(resume=True)


def test_a_signal_while_the_last_checkpoint_is_written_ends_the_program_too(tmp_path, monkeypatch, capsys):
    wait, waited = store.Store.wait, []

    def interrupted(store):
        if not waited:
            waited.append(signal.raise_signal(signal.SIGTERM))
        return wait(store)

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "wait", interrupted)
        with pytest.raises(SystemExit) as ended:
            fitted(tmp_path)
    assert ended.value.code == 143
    assert "in epoch 4 of 4" in capsys.readouterr().err
    assert differences(bits(fitted(tmp_path, resume=True)), whole()) == []


def test_what_one_process_reads_reaches_the_others():
    for raw in (b"", b"a", b"abcd", bytes(range(256)) * 3 + b"."):
        assert processes.broadcast(raw) == raw


# Damage.


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(folder):
    os.truncate(largest(folder), largest(folder).stat().st_size // 2)


def flip_a_bit(folder):
    raw = bytearray(largest(folder).read_bytes())
    raw[len(raw) // 3] ^= 1
    largest(folder).write_bytes(raw)


def flip_a_bit_of_the_history(folder):
    raw = bytearray((folder / "about.json").read_bytes())
    raw[-9] ^= 1
    (folder / "about.json").write_bytes(raw)


DAMAGES = {
    "truncated": (truncate, r"has \d+ bytes of \d+"),
    "one bit of the arrays": (flip_a_bit, "does not have its SHA-256"),
    "one bit of the history": (flip_a_bit_of_the_history, "about.json does not have its SHA-256"),
    "a file is missing": (lambda folder: largest(folder).unlink(), "is missing"),
    "the manifest is missing": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(tmp_path, name):
    damage, reason = DAMAGES[name]
    *_, newest = stopped(tmp_path)
    damage(newest)
    message = rf"checkpoint {newest} is damaged: .*{reason} \(kept as .*\); the one before it, step 15, is used"
    with pytest.warns(CheckpointDamagedWarning, match=message):
        run = fitted(tmp_path, resume=True)
    assert differences(bits(run), whole()) == []


def test_nothing_is_deleted_or_begun_anew_where_all_is_damaged(tmp_path):
    for folder in stopped(tmp_path):
        flip_a_bit(folder)
    before = files(tmp_path)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"is damaged: .*, and so are the 2 before it; the run cannot go on"):
            fitted(tmp_path, resume=True)
        after = files(tmp_path)
        assert {path: after[path] for path in before if "lock" not in path.name} == {
            path: raw for path, raw in before.items() if "lock" not in path.name
        }


# A full disk.


def full_after(monkeypatch, writes):
    """Let the disk have room for so many checkpoints more."""
    write, left = store.write, iter(range(writes))

    def filling(folder, *arguments):
        if next(left, None) is None:
            folder.mkdir()
            (folder / "half").write_bytes(b"of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(folder, *arguments)

    monkeypatch.setattr(store, "write", filling)


def test_a_full_disk_costs_no_training(tmp_path, monkeypatch):
    """Warned of on the way and at the end, for the run that comes back is worth more than its last checkpoint."""
    with monkeypatch.context() as patch:
        full_after(patch, writes=4)
        with pytest.warns(CheckpointFailedWarning) as said:
            run = fitted(tmp_path)
    assert differences(bits(run), whole()) == []
    texts = [str(warning.message) for warning in said]
    room = f"could not be written to {tmp_path}: No space left on device; the newest there is step_00000012"
    assert texts[0] == f"the checkpoint of step 15 {room}. The run goes on"
    assert texts[-1].startswith(f"fit: the checkpoint of step 32 {room}. What was trained is in the run that fit")
    assert len(texts) == len({*texts}) == 7  # steps 15, 18, ..., 30 and 32
    assert [path.name for path in sorted(tmp_path.glob("step_*"))] == [f"step_000000{n:02}" for n in (6, 9, 12)]
    assert differences(bits(fitted(tmp_path, resume=True)), whole()) == []


def test_a_signal_on_a_full_disk_ends_the_program_and_says_what_is_there(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        full_after(patch, writes=1)
        with pytest.warns(CheckpointFailedWarning) as said:
            stopped(tmp_path, epoch=1)
    end = "newest there is step_00000003. The same call with resume=True goes on from that one"
    assert str(said[-1].message).endswith(end)
    assert differences(bits(fitted(tmp_path, resume=True)), whole()) == []


def test_values_that_are_not_finite_are_told_of_on_a_full_disk_too(tmp_path, monkeypatch):
    x, y = data()
    x[17] = np.nan
    full_after(monkeypatch, writes=0)
    text = re.escape("example 17 of the data; the state before it is in this error's .run. To go on, look at the data")
    with pytest.warns(CheckpointFailedWarning) as said, pytest.raises(NonFiniteError, match=text) as error:
        fitted(tmp_path, given=(x, y))
    assert str(said[-1].message).endswith("there is none yet. What was trained is in the error's .run")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(error.value.run.params))
