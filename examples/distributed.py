"""Handwritten digits on all devices of one machine, or of several.

One machine, all its devices:

    python examples/distributed.py

Several machines, one command on each; the first one's address is the coordinator, any free port will do:

    python examples/distributed.py --processes 2 --process 0 --coordinator first.example.org:9876
    python examples/distributed.py --processes 2 --process 1 --coordinator first.example.org:9876

Under Slurm, which tells every process where the others are:

    srun --nodes=2 --ntasks-per-node=1 python examples/distributed.py

Every process reads its own part of the data. Each batch is shared by all devices, and the sums over it (gradients,
batch normalisation) are over the whole batch. The first process alone writes checkpoints.

When a machine dies, the others notice within half a minute, say so, and end. Give the same commands again, on the
same number of machines: the run goes on from its newest checkpoint, bit for bit. Ctrl-C or SIGTERM to any process
writes a checkpoint and ends all of them.
"""

import argparse
import os
import sys
import traceback
from pathlib import Path

import compiled
import jax
import numpy as np
import optax

import fcnn

# Two 3x3 convolutions with batch normalisation, and a head that sees the whole 2x2 space that is left.
NET = fcnn.serial(
    fcnn.Conv(32, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 8, 8, 32)
    fcnn.MaxPool(2),                                                              # (batch, 4, 4, 32)
    fcnn.Conv(64, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 4, 4, 64)
    fcnn.MaxPool(2),                                                              # (batch, 2, 2, 64)
    fcnn.Flatten(), fcnn.Dropout(0.5), fcnn.Dense(10),                            # (batch, 10)
)  # fmt: skip

# Seconds without a sign of life after which a process counts as dead, and that one waits for the others at its end.
PATIENCE = {"heartbeat_timeout_seconds": 30, "shutdown_timeout_seconds": 30}


def main() -> None:
    """Find the others, train together, evaluate."""
    options = read_options()
    # before anything else that JAX does: afterwards jax.devices() are the devices of all processes
    if options.processes is not None:
        jax.distributed.initialize(options.coordinator, options.processes, options.process, **PATIENCE)
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        jax.distributed.initialize(**PATIENCE)
    first = jax.process_index() == 0
    if first:
        print(f"{jax.device_count()} devices of {jax.process_count()} processes", flush=True)
    try:
        train(options, first)
    except RuntimeError:
        if jax.process_count() == 1:
            raise
        # at its usual end a process would wait for one that is gone
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def train(options: argparse.Namespace, first: bool) -> None:
    """Train on this process's part of the data, and evaluate on its part of the test set."""
    mesh = jax.make_mesh((jax.device_count(),), ("batch",))
    data = fcnn.data.digits()
    part, test = own(data.train), own(data.test)
    # 16 examples for each device, 64 at least, and a learning rate that grows with the root of the batch
    batch_size = max(16 * jax.device_count(), 64 // jax.device_count() * jax.device_count())
    rate = 4e-3 * (batch_size / 64) ** 0.5
    run = fcnn.fit(
        NET,
        part,
        optimizer=optax.adam(rate),
        epochs=options.epochs,
        key=jax.random.key(0),  # the same in every process
        batch_size=batch_size,
        validation=test,
        checkpoint=fcnn.training.Checkpoints(options.out, every_seconds=10),
        resume=True,
        mesh=mesh,
    )
    accuracy = fcnn.evaluate(NET, run.params, test, state=run.state, mesh=mesh)["accuracy"]
    if first:
        print(f"test accuracy {accuracy:.2%}; checkpoints are in {options.out}")


def own(arrays: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The part of this process: every n-th example of n; of many files, it would open some."""
    x, y = arrays
    mine = slice(jax.process_index(), None, jax.process_count())
    return x[mine], y[mine]


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="times through the data (default 20)")
    parser.add_argument("--out", type=Path, default=Path("runs/distributed"), help="folder for checkpoints")
    parser.add_argument("--processes", type=int, help="number of processes, all machines together")
    parser.add_argument("--process", type=int, help="number of this process, from 0")
    parser.add_argument("--coordinator", help="address:port of process 0")
    options = parser.parse_args()
    if options.epochs < 1:
        parser.error("--epochs must be at least 1")
    several = (options.processes, options.process, options.coordinator)
    if any(given is not None for given in several) and any(given is None for given in several):
        parser.error("--processes, --process and --coordinator belong together")
    return options


if __name__ == "__main__":
    compiled.keep()
    main()
