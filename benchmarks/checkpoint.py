"""What saving costs a training loop: the time it stops, the time the write takes, the steps beside it.

    python benchmarks/checkpoint.py --out benchmarks/results/checkpoint.json

A compiled step of matrix products, about 50 ms, carries parameters and both moments of Adam along and updates them in
place (donated), as training does. Every few steps the store saves all three into --folder.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from machine import provenance

from fcnn.training.store import Store

SIZES = {"1 million parameters": 1_000_000, "10 million parameters": 10_000_000}
LAYERS = 8
SAVES = 25


def state(parameters):
    """Parameters and Adam's two moments, in layers of equal size."""
    wide = parameters // LAYERS // 1000
    layers = {f"dense{i}": {"kernel": jnp.full((1000, wide), 1e-3)} for i in range(LAYERS)}
    return {"params": layers, "mu": jax.tree.map(jnp.zeros_like, layers), "nu": jax.tree.map(jnp.zeros_like, layers)}


def compiled(products):
    def step(tree, x):
        def product(_, x):
            return jnp.tanh(x @ x)

        x = jax.lax.fori_loop(0, products, product, x)
        g = x[0, 0] * 1e-3
        mu = jax.tree.map(lambda m: 0.9 * m + 0.1 * g, tree["mu"])
        nu = jax.tree.map(lambda v: 0.999 * v + 0.001 * g * g, tree["nu"])
        params = jax.tree.map(lambda p, m, v: p - 1e-3 * m / (jnp.sqrt(v) + 1e-8), tree["params"], mu, nu)
        return {"params": params, "mu": mu, "nu": nu}, x

    return jax.jit(step, donate_argnums=0)


def milliseconds(begun):
    return 1000 * (time.perf_counter() - begun)


def summary(seen):
    return {"n": len(seen), "median": round(statistics.median(seen), 2), "worst": round(max(seen), 2)}


def measure(parameters, folder, prepare):
    tree, x = state(parameters), jnp.full((1024, 1024), 1e-3)
    products = 1
    for _ in range(3):  # as many products as make a step of about 50 ms
        step = compiled(products)
        tree, x = jax.block_until_ready(step(tree, x))
        seen = []
        for _ in range(5):
            begun = time.perf_counter()
            tree, x = jax.block_until_ready(step(tree, x))
            seen.append(milliseconds(begun))
        products = max(1, round(products * 50 / statistics.median(seen)))
    step = compiled(products)
    tree, x = jax.block_until_ready(step(tree, x))
    store = Store(folder, keep=2)
    if prepare:
        store.prepare(tree)
    number, blocked, writes, alone, beside = 0, [], [], [], []

    def take():
        nonlocal tree, x, number
        begun = time.perf_counter()
        tree, x = jax.block_until_ready(step(tree, x))
        number += 1
        return milliseconds(begun)

    for _ in range(20):
        take()  # among them those beside the import of Orbax
    for _ in range(SAVES):
        alone += [take() for _ in range(6)]
        begun = time.perf_counter()
        store.save(number, tree, {"step": number})
        blocked.append(milliseconds(begun))
        while store._thread.is_alive():
            taken = take()
            if store._thread.is_alive():  # the step lay wholly beside the write
                beside.append(taken)
        writes.append(milliseconds(begun))  # up to the end of the step in which it ended
        store.poll()
    begun = time.perf_counter()
    store.latest(tree)
    load = milliseconds(begun)
    written = sum(path.stat().st_size for path in store.wait().rglob("*") if path.is_file())
    store.close()
    return {
        "parameters": parameters,
        "megabytes": round(written / 1e6, 1),
        "prepared": prepare,
        "first_save_blocks_ms": round(blocked[0], 2),
        "save_blocks_ms": summary(blocked),
        "write_in_background_ms": summary(writes),
        "load_ms": round(load, 1),
        "step_alone_ms": summary(alone),
        "step_beside_a_write_ms": summary(beside) if beside else None,
        "slower_beside_a_write": round(statistics.median(beside) / statistics.median(alone), 3) if beside else None,
    }


def settings(folder):
    """What Orbax's formats take for 120 MB of normal numbers, by itself: without hashes, fsync and a loop beside it."""
    import numpy as np
    import orbax.checkpoint as ocp

    numbers = np.random.default_rng(0)
    tree = {f"a{i}": numbers.standard_normal((1000, 1250), np.float32) for i in range(24)}
    out = {}
    for ocdbt, zarr3, compression in itertools.product((True, False), repeat=3):
        wall, cpu = [], []
        for _ in range(3):
            handler = ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3, use_compression=compression)
            path = folder / "settings"
            with ocp.Checkpointer(handler) as checkpointer:
                begun, used = time.perf_counter(), time.process_time()
                checkpointer.save(path, args=ocp.args.PyTreeSave(tree))
                wall.append(milliseconds(begun))
                cpu.append(1000 * (time.process_time() - used))
            files = [p for p in path.rglob("*") if p.is_file()]
            size = sum(p.stat().st_size for p in files)
            shutil.rmtree(path)
        chosen = ("OCDBT" if ocdbt else "a folder an array", "zarr 3" if zarr3 else "zarr 2")
        out[", ".join((*chosen, "zstd" if compression else "no compression"))] = {
            "write_ms": summary(wall),
            "processor_ms": summary(cpu),
            "files": len(files),
            "megabytes": round(size / 1e6, 1),
        }
    return out


def first_import():
    """Seconds that the import of Orbax takes, which a store does in the background."""
    begun = time.perf_counter()
    import orbax.checkpoint  # noqa: F401

    return round(time.perf_counter() - begun, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="where the JSON goes; without it, only to the screen")
    parser.add_argument(
        "--folder", type=Path, help="where the checkpoints go; default: the system's for temporary files"
    )
    chosen = parser.parse_args()
    load = os.getloadavg()
    seconds = first_import()
    results = {}
    for name, parameters in SIZES.items():
        for prepare in (True, False) if parameters == max(SIZES.values()) else (True,):
            folder = Path(tempfile.mkdtemp(dir=chosen.folder))
            try:
                results[name + ("" if prepare else ", not prepared")] = measure(parameters, folder, prepare)
            finally:
                shutil.rmtree(folder)
    folder = Path(tempfile.mkdtemp(dir=chosen.folder))
    try:
        formats = settings(folder)
    finally:
        shutil.rmtree(folder)
    result = {
        "what": "milliseconds of saving float32 parameters and Adam's moments in a loop of steps of about 50 ms",
        "load_average_before_and_after": [round(average[0], 2) for average in (load, os.getloadavg())],
        "import_of_orbax_s": seconds,
        "results": results,
        "formats": formats,
        **provenance("orbax-checkpoint", "tensorstore", "numpy"),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if chosen.out:
        chosen.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
