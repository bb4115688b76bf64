"""Whatever happens to a run or its files (damage, a crash, a full disk), nothing good is lost."""

import errno
import os
import random
import signal
import subprocess
import time
import warnings

import jax
import numpy as np
import pytest
from stored import child, leaves, names, small

from fcnn.training import serialization
from fcnn.training.checkpoint import CheckpointDamagedWarning, CheckpointError, CheckpointFailedWarning
from fcnn.training.store import Store

pytest.importorskip("orbax.checkpoint", reason="checkpoints need orbax-checkpoint")


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def emptied(path):
    os.truncate(path, 0)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def missing(path):
    path.unlink()


def garbage(path):
    path.write_bytes(b'{"files": [')


def other_json(path):
    path.write_text("[1, 2]")


def the_data(folder):
    return max((p for p in (folder / "arrays").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


FILES = {
    "data": the_data,
    "structure": lambda folder: folder / "arrays" / "_METADATA",
    "about": lambda folder: folder / "about.json",
    "leaves": lambda folder: folder / "leaves.json",
    "manifest": lambda folder: folder / "manifest.json",
}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    with Store(folder) as store:
        for step in (1, 2, 3):
            store.save(step, small(step), {"step": step})
    return folder


def copied(three, to):
    subprocess.run(["cp", "-r", f"{three}/.", to], check=True)
    return to


@pytest.mark.parametrize("damage", [cut, emptied, flipped, missing, garbage, other_json], ids=lambda f: f.__name__)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_found_and_the_checkpoint_before_it_used(tmp_path, three, file, damage):
    path = FILES[file](copied(three, tmp_path) / "step_00000003")
    damage(path)
    with Store(tmp_path) as store:
        with pytest.warns(CheckpointDamagedWarning, match=r"step_00000003 is damaged: .* step 2, is used") as seen:
            step, tree, about = store.latest(small())
        assert path.name in str(seen[0].message)
        assert (step, about["step"]) == (2, 2)
        assert leaves(tree) == leaves(small(2))
        assert names(tmp_path) == ["step_00000001", "step_00000002", "step_00000003.damaged"]  # nothing is thrown away
        store.save(3, small(33), {})
        assert leaves(store.latest(small())[1]) == leaves(small(33))


def test_an_empty_folder_and_a_second_damage_to_the_same_step(tmp_path, three):
    copied(three, tmp_path)
    for expected in ("step_00000003.damaged", "step_00000003.damaged_2"):
        subprocess.run(["rm", "-r", tmp_path / "step_00000003"], check=True)
        (tmp_path / "step_00000003").mkdir()
        with Store(tmp_path) as store:
            with pytest.warns(CheckpointDamagedWarning, match=r"manifest.json is missing"):
                assert store.latest(small())[0] == 2
            assert expected in names(tmp_path)
            store.save(3, small(), {})


def test_no_run_begins_anew_because_everything_is_damaged(tmp_path, three):
    for path in copied(three, tmp_path).glob("step_*"):
        flipped(the_data(path))
    with Store(tmp_path) as store:
        for _ in range(2):
            with pytest.raises(CheckpointError, match=r"step_00000003 is damaged: .* so are the 2 before it"):
                store.latest(small())
        assert names(tmp_path) == ["step_00000001", "step_00000002", "step_00000003"]
        for path in tmp_path.glob("step_*"):
            path.rename(f"{path}.damaged")
        with pytest.raises(CheckpointError, match="damaged checkpoints only"):
            store.latest(small())


def test_reading_only_changes_nothing(tmp_path, three):
    flipped(the_data(copied(three, tmp_path) / "step_00000003"))
    (tmp_path / ".fcnn-writing-step_00000004").mkdir()
    before = names(tmp_path)
    with Store(tmp_path), Store(tmp_path, read_only=True) as reader:
        with pytest.warns(CheckpointDamagedWarning, match="step 2, is used"):
            assert reader.latest(small())[0] == 2
        with pytest.raises(CheckpointError, match="opened for reading"):
            reader.save(9, small(), {})
    assert names(tmp_path) == before[1:]  # the store that writes has cleaned up
    assert Store(tmp_path / "nowhere", read_only=True).latest(small()) is None
    assert not (tmp_path / "nowhere").exists()


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_and_the_run_goes_on(tmp_path, monkeypatch):
    with Store(tmp_path) as store:
        store.save(1, small(1), {})
        store.wait()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", no_space)
            store.save(2, small(2), {})
            while store._thread.is_alive():
                time.sleep(0.01)
            told = r"step 2 .*No space left.*is step_00000001\. The run goes on"
            with pytest.warns(CheckpointFailedWarning, match=told):
                assert store.poll()
            store.save(3, small(3), {})
            with pytest.raises(CheckpointError, match="step 3 could not be written"):
                store.wait()
        assert names(tmp_path) == ["step_00000001"]
        store.save(4, small(4), {})  # room again
        assert store.latest(small())[0] == 4


def test_closing_says_that_the_last_one_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", no_space)
    store = Store(tmp_path)
    store.save(2, small(2), {})
    with pytest.raises(CheckpointError, match=r"No space left on device; there is none yet"):
        store.close(final=True)
    store = Store(tmp_path)
    store.save(2, small(2), {})
    with pytest.warns(CheckpointFailedWarning, match="step 2"):
        store.close()


def test_no_room_for_the_arrays_themselves(tmp_path):
    """The system's own limit on the size of a file, which stops Orbax in the middle of its data."""
    code = """
store = Store(folder)
store.save(1, {"a": np.ones(10)}, {})
store.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store.save(2, tree(2), {})
try:
    store.wait()
except CheckpointError as error:
    print(error)
print(store.latest({"a": np.ones(10)})[0])
"""
    process = child(code, tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "the checkpoint of step 2 could not be written" in out
    assert "File too large" in out
    assert out.splitlines()[-1] == "1"
    assert err == ""
    assert names(tmp_path) == ["step_00000001"]


def test_too_little_room_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    class Tiny:
        free = 3000

    monkeypatch.setattr(serialization.shutil, "disk_usage", lambda folder: Tiny)
    with Store(tmp_path) as store:
        store.save(1, {"a": np.ones(100)}, {})
        store.wait()
        store.save(2, {"a": np.ones(1000)}, {})
        with pytest.raises(CheckpointError, match=r"No space left on device \(8,000 bytes needed, 3,000 free\)"):
            store.wait()
    assert names(tmp_path) == ["step_00000001"]


def test_a_run_may_be_killed_at_any_moment(tmp_path):
    code = """
store = Store(folder, keep=2)
found = store.latest(tree(0))
step = found[0] if found else 0
print("ready", step, flush=True)
while True:
    step += 1
    store.save(step, tree(step), {"step": step})
"""
    like = {str(i): np.zeros((40, 1000 + i), np.float32) for i in range(8)} | {"step": np.zeros((), np.int64)}
    moments, before = random.Random(0), -1
    for _ in range(5):
        process = child(code, tmp_path)
        assert process.stdout.readline().startswith("ready")
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("step_*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        assert process.communicate()[1] == ""
        with Store(tmp_path) as store, warnings.catch_warnings():
            warnings.simplefilter("error")  # a damaged checkpoint would be one
            step, tree, about = store.latest(like)
            assert len(names(tmp_path)) <= 3  # two kept, one not rotated out yet; no left-over
            assert all(name.startswith("step_") for name in names(tmp_path))
        assert about["step"] == step >= before
        assert all((leaf == step).all() for leaf in jax.tree.leaves(tree))
        before = step
    assert before > 1


def test_a_script_that_ends_without_closing_loses_no_earlier_checkpoint(tmp_path):
    process = child(
        "store = Store(folder)\nstore.save(1, tree(1), {})\nstore.wait()\nstore.save(2, tree(2), {})\n", tmp_path
    )
    process.communicate(timeout=120)
    like = {str(i): np.zeros((40, 1000 + i), np.float32) for i in range(8)} | {"step": np.zeros((), np.int64)}
    with Store(tmp_path) as store:
        assert store.latest(like)[0] in (1, 2)


def test_what_a_killed_run_leaves_is_cleaned_up_and_nothing_else(tmp_path):
    for name in (".fcnn-writing-step_00000009", ".fcnn-deleting-step_00000001_2", "mine", "step_1", ".cache"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / "notes.txt").write_text("mine")
    with Store(tmp_path) as store:
        assert store.latest(small()) is None
    assert names(tmp_path) == [".cache", "mine", "notes.txt", "step_1"]


def test_one_run_at_a_time(tmp_path):
    with (
        Store(tmp_path),
        pytest.raises(CheckpointError, match=rf"in use by another run \(process {os.getpid()} on .*\)"),
    ):
        Store(tmp_path)
    process = child(
        "store = Store(folder)\nprint('ready', flush=True)\nsys.stdin.read()", tmp_path, stdin=subprocess.PIPE
    )
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(CheckpointError, match=rf"in use by another run \(process {process.pid} on"):
        Store(tmp_path)
    process.kill()
    process.communicate()
    Store(tmp_path).close()
