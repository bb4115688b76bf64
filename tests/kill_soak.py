"""Training is killed again and again, and ends as if it had never been.

    python tests/kill_soak.py --kills 50 --out benchmarks/results/kill_soak.json
    python tests/kill_soak.py --kills 3 --seed 7            # fewer, at other moments

A child process trains a small network (batch normalisation, dropout, augmentation, Adam with a schedule, an average of
the parameters, validation, the best epoch kept) and writes a checkpoint every EVERY steps. It is killed by SIGKILL at
a moment drawn uniformly: four times in five within WINDOW seconds of its first step, else within WINDOW seconds of its
start, while it imports, compiles or reads its checkpoint. It is started again with ``resume=True`` until it has
reached the end, and then the next run begins, with another key and another kind of data, until there were so many
kills. Every run has to end with the parameters, state, optimizer state and history of one that was never stopped, bit
for bit; only "seconds" may differ.

A kill may cost the steps since the last whole checkpoint. The next one is begun only when the one before is written, so
these are at most 2 x EVERY of those that were counted.
"""

import argparse
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import optax

import fcnn
from fcnn.data import augment
from fcnn.training import CheckpointDamagedWarning, Checkpoints, serialization
from fcnn.training.session import Session

KINDS = ("arrays", "batches", "ensemble")
EVERY = 5  # steps between checkpoints
EPOCHS = 20  # of 16 steps
WINDOW = 3.0  # seconds in which a kill falls
NET = fcnn.serial(
    fcnn.Conv(4, 3, padding="SAME"), fcnn.BatchNorm(), jax.nn.relu, fcnn.MaxPool(2),
    fcnn.Flatten(), fcnn.Dropout(0.3), fcnn.Dense(3),
)  # fmt: skip


def examples(seed, count=80):
    """Images of noise and labels that a line through them decides."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(count, 8, 8, 1)).astype(np.float32)
    return x, (np.digitize(x[:, 2:6, 2:6].sum((1, 2, 3)), (-2, 2))).astype(np.int32)


def train(kind, seed=0, *, epochs=EPOCHS, **options):
    """One run; whatever makes training depend on chance or on the past is in it."""
    x, y = examples(seed)
    settings = {
        "optimizer": optax.adam(optax.cosine_decay_schedule(1e-2, 400)),
        "epochs": epochs,
        "key": jax.random.key(seed),
        "validation": examples(seed + 1, 20),
        "augment": augment.compose(augment.Crop(1), augment.Flip()),
        "average": 0.9,
        "progress": False,
        **options,
    }
    if kind == "ensemble":
        return fcnn.fit(NET, (x, y), members=2, batch_size=5, **settings)
    settings = {"keep_best": True, "patience": epochs, **settings}
    if kind == "arrays":
        return fcnn.fit(NET, (x, y), batch_size=5, **settings)

    def batches(epoch):
        draw = np.random.default_rng((seed, epoch))
        for _ in range(16):
            chosen = draw.integers(0, len(y), 5)
            yield x[chosen], y[chosen]

    return fcnn.fit(NET, batches, **settings)


def bits(run):
    """All that a run is, as arrays by name, without the seconds it took."""
    kept = {"params": run.params, "state": run.state, "train": run.train._asdict()}
    out = {}
    for path, leaf in jax.tree.leaves_with_path(kept):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        out[jax.tree_util.keystr(path)] = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    out |= {f"history {name}": values for name, values in run.history.items() if name != "seconds"}
    return out | {"ended": np.array([str(run.stopped), str(run.best_epoch)])}


def differences(one, other):
    """Names of what differs in a single bit; from dicts, or files of NumPy."""
    names = sorted(set(one) | set(other))
    same = [
        name in one and name in other
        and (one[name].dtype, one[name].shape, one[name].tobytes())
        == (other[name].dtype, other[name].shape, other[name].tobytes())
        for name in names
    ]  # fmt: skip
    return [name for name, equal in zip(names, same, strict=True) if not equal]


def keep(path, run):
    """Write the bits of a run, all or nothing."""
    with open(f"{path}.part", "wb") as file:
        np.savez(file, **bits(run))
    os.replace(f"{path}.part", path)


def child(kind, seed, epochs, folder, every=EVERY):
    """Train in this process, beside a file with the steps that were counted, and one that says how it went on."""
    folder = Path(folder)
    handle = os.open(folder / "reached", os.O_CREAT | os.O_WRONLY)

    def counted(session, progress, chunk, between=Session.between):
        os.pwrite(handle, f"{progress.taken:>12}".encode(), 0)  # before a checkpoint of these steps is written
        return between(session, progress, chunk)

    def resumed_from(session, resume=Session.resume):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            resume(session)
        damaged = sum(issubclass(warning.category, CheckpointDamagedWarning) for warning in said)
        (folder / "resumed.part").write_text(json.dumps({"step": session.progress.taken, "damaged": damaged}))
        (folder / "resumed.part").replace(folder / "resumed")

    Session.resume, Session.between = resumed_from, counted
    store = Checkpoints(folder / "run", every_seconds=None, every_steps=every)
    keep(folder / "result.npz", train(kind, seed, epochs=epochs, checkpoint=store, resume=True))


# The parent.


def start(kind, seed, epochs, folder, log):
    """A child process that trains."""
    command = [sys.executable, __file__, "--child", kind, "--seed", str(seed), "--epochs", str(epochs), str(folder)]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def reached(folder):
    """The step that a child has counted; 0 before its first."""
    return int((folder / "reached").read_text() or 0)


def resumed(folder):
    """What a child has said about how it went on; None before."""
    path = folder / "resumed"
    return json.loads(path.read_text()) if path.exists() else None


def newest(folder):
    """The steps of the checkpoints, the newest last."""
    return sorted((int(path.name[5:]), path) for path in (folder / "run").glob("step_????????"))


def wait_for(process, happened):
    """Wait until something has happened or the process has ended; whether it lives."""
    while process.poll() is None and not happened():
        time.sleep(0.005)
    return process.poll() is None


def kill_once(kind, seed, epochs, folder, draw, log):
    """Start a child and kill it at a random moment, or never, without ``draw``.

    Returns:
        What is to be told of the kill; None where the child reached the end.
    """
    (folder / "resumed").unlink(missing_ok=True)
    (folder / "reached").write_text("")
    process = start(kind, seed, epochs, folder, log)
    early = draw is not None and draw.random() < 0.2
    if not early:
        wait_for(process, lambda: resumed(folder) and reached(folder) > resumed(folder)["step"])
    moment = float("inf") if draw is None else draw.uniform(0, WINDOW)
    until = time.monotonic() + moment
    if not wait_for(process, lambda: time.monotonic() >= until):
        if process.returncode:
            raise RuntimeError(f"the child ended with status {process.returncode}; see {log.name}")
        return None
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = newest(folder)
    for path in (folder / "run").glob("step_*"):
        serialization.verify(path)  # raises where one is damaged
    last = found[-1][0] if found else 0
    return {
        "since": "start" if early else "first step",
        "seconds": round(moment, 3),
        "reached": max(reached(folder), last if resumed(folder) is None else 0),
        "newest": last,
        "while_writing": any((folder / "run").glob(".fcnn-writing-*")),
    }


def soak(kills, seed, epochs=EPOCHS, report=print, save=lambda result: None):
    """Run after run until so many kills; returns what is to be told."""
    draw = random.Random(seed)
    result = {"kills": 0, "runs": [], "every_steps": EVERY, "worst_steps_lost": 0, "damaged": 0, "different_runs": 0}
    begun = time.time()
    while result["kills"] < kills:
        kind, number = KINDS[len(result["runs"]) % len(KINDS)], seed + len(result["runs"])
        folder = Path(tempfile.mkdtemp(prefix="fcnn-kill-soak-"))
        run = {"kind": kind, "seed": number, "steps": 16 * epochs, "kills": []}
        result["runs"].append(run)
        with open(folder / "log", "a") as log:
            while True:
                moments = draw if result["kills"] < kills else None
                kill = kill_once(kind, number, epochs, folder, moments, log)
                if (again := resumed(folder)) is not None:
                    settle(result, run["kills"], again)
                if kill is None:
                    break
                run["kills"].append(kill)
                result["kills"] += 1
                report(f"kill {result['kills']}, {kind}: {json.dumps(kill)}")
        whole = bits(train(kind, number, epochs=epochs))
        with np.load(folder / "result.npz") as ended:
            run["different"] = differences(whole, dict(ended))
        result["different_runs"] += bool(run["different"])
        result["minutes"] = round((time.time() - begun) / 60, 1)
        report(f"{kind}: {len(run['kills'])} kills in {run['steps']} steps, different: {run['different'] or 'nothing'}")
        save(result)
        if not run["different"]:
            shutil.rmtree(folder)
    return result


def settle(result, kills, again):
    """Note for the kills that no child has come after yet where training went on."""
    for kill in kills:
        if "resumed_from" not in kill:
            lost = kill["reached"] - again["step"]
            kill |= {"resumed_from": again["step"], "steps_lost": lost}
            result["worst_steps_lost"] = max(result["worst_steps_lost"], lost)
    result["damaged"] += again["damaged"]


def summary(result):
    """What is printed at the end."""
    kills = [kill for run in result["runs"] for kill in run["kills"]]
    writing = sum(kill["while_writing"] for kill in kills)
    mean = np.mean([kill["steps_lost"] for kill in kills])
    yield f"{len(kills)} kills in {len(result['runs'])} runs, {writing} of them while a checkpoint was written"
    yield f"steps lost: {mean:.1f} on average, at most {result['worst_steps_lost']} (checkpoints every {EVERY})"
    yield f"damaged checkpoints: {result['damaged']}; runs that ended differently: {result['different_runs']}"


def main(argv=None):
    parser = argparse.ArgumentParser(description="Training that is killed ends as if it had not been.")
    parser.add_argument("--kills", type=int, default=50, help="at least so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of a run")
    parser.add_argument("--out", type=Path, help="write the result here, also on the way")
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("folder", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    # what is compiled once is kept: a child that is killed soon would do nothing else
    cache = Path(tempfile.gettempdir()) / "fcnn-kill-soak-cache"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if options.child:
        child(options.child, options.seed, options.epochs, options.folder)
        return 0
    source = provenance()

    def save(result):
        if options.out:
            options.out.with_suffix(".part").write_text(json.dumps({**result, **source}, indent=2) + "\n")
            options.out.with_suffix(".part").replace(options.out)

    result = soak(options.kills, options.seed, options.epochs, report=lambda text: print(text, flush=True), save=save)
    print("\n".join(summary(result)))
    return int(bool(result["different_runs"] or result["damaged"]))


def provenance():
    """What benchmarks/machine.py says of versions, machine and source."""
    path = Path(__file__).parents[1] / "benchmarks" / "machine.py"
    spec = importlib.util.spec_from_file_location("machine", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.provenance("numpy", "orbax-checkpoint")


if __name__ == "__main__":
    sys.exit(main())
