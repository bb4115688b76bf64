"""What ``fit`` costs over the bare compiled step: the same steps, the same data, in turn in one process.

    python benchmarks/fit_overhead.py [--out benchmarks/results/fit_overhead.json] [--rounds 7]

The bare step is ``jax.jit(make_step(...), donate_argnums=0)`` in a Python loop over batches that are on the device
already: nothing is shuffled, nothing is read, nothing is guarded. ``fit`` draws its batches in random order, keeps the
last good parameters, notes every metric. Timed per epoch (its history's "seconds" after the first epoch), without
validation; with a bar, without, and with checkpoints every second.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fcnn
from fcnn.training import Checkpoints, cross_entropy, make_step, start

WIDE = fcnn.serial(
    fcnn.Conv(32, 5, padding="SAME"), jax.nn.relu, fcnn.MaxPool(2),
    fcnn.Conv(64, 5), jax.nn.relu, fcnn.MaxPool(2),
    fcnn.Flatten(), fcnn.Dense(120), jax.nn.relu, fcnn.Dense(84), jax.nn.relu, fcnn.Dense(10),
)  # fmt: skip
NETS = {"LeNet-5": (fcnn.models.lenet5(), 200), "LeNet 32/64": (WIDE, 60)}
BATCH = 128
OPTIMIZER = optax.sgd(0.01, momentum=0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    result = {
        "what": "milliseconds per step of fit and of the bare compiled step, float32, batch 128, SGD with momentum",
        "cases": {name: measure(net, steps, options.rounds) for name, (net, steps) in NETS.items()},
        "rounds": options.rounds,
        "versions": {"fcnn": fcnn.__version__, "jax": jax.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, JAX on {jax.devices()[0].device_kind}",
        "date": datetime.date.today().isoformat(),
    }
    text = json.dumps(result, indent=2) + "\n"
    if options.out:
        options.out.write_text(text)
    print(text)


def measure(net: fcnn.Layer, steps: int, rounds: int) -> dict[str, object]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(steps * BATCH, 28, 28, 1)).astype(np.float32)
    y = generator.integers(0, 10, steps * BATCH).astype(np.int32)
    batches = [((jnp.asarray(a),), jnp.asarray(b)) for a, b in zip(np.split(x, steps), np.split(y, steps), strict=True)]
    bare = jax.jit(make_step(net, OPTIMIZER, cross_entropy), donate_argnums=0)

    def by_hand() -> float:
        train = jax.tree.map(jnp.copy, start(net, OPTIMIZER, jax.random.key(0), (28, 28, 1)))
        train, metrics = bare(train, batches[0])
        jax.block_until_ready(train)
        begun = time.perf_counter()
        for batch in batches:
            train, metrics = bare(train, batch)
        jax.block_until_ready((train, metrics))
        return (time.perf_counter() - begun) / steps * 1e3

    def by_fit(data: object = (x, y), **more: object) -> float:
        settings = {"optimizer": OPTIMIZER, "key": jax.random.key(0), "batch_size": BATCH, "progress": False}
        run = fcnn.fit(net, data, epochs=2, **{**settings, **more})
        return float(run.history["seconds"][1]) / steps * 1e3

    def saving() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return by_fit(checkpoint=Checkpoints(folder, every_seconds=1.0))

    ways = {
        "bare step": by_hand,
        "fit": by_fit,
        "fit with a bar": lambda: by_fit(progress=True),
        "fit, batches handed in": lambda: by_fit(data=[(a[0], b) for a, b in batches]),
        "fit, a checkpoint every second": saving,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(way())
    figures = {
        name: {"fastest": round(min(t), 4), "median": round(statistics.median(t), 4)} for name, t in times.items()
    }
    for name, figure in figures.items():
        of_rounds = [a / b for a, b in zip(times[name], times["bare step"], strict=True)]
        figure["over_bare_fastest"] = round(min(times[name]) / min(times["bare step"]), 4)
        figure["over_bare_median_of_rounds"] = round(statistics.median(of_rounds), 4)
    return {"steps": steps, "ways": figures}


if __name__ == "__main__":
    main()
