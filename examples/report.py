"""What the examples share around their trainings: the command, the seeds one after another, result.json."""

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import fcnn


def main(
    description: str | None,
    train: Callable[[fcnn.data.Dataset, int, argparse.Namespace], float],
    load: Callable[[], fcnn.data.Dataset],
    *,
    epochs: int,
    batch_size: int,
    out: str,
) -> int:
    """The command of an example: read the options and the data, train from every seed, report.

    Args:
        description: what the example is.
        train: data, seed and options to the test accuracy of one training, in [0, 1].
        load: reads the data; its name is theirs in the result.
        epochs: times through the data, where the command line does not say.
        batch_size: examples in a step, for the result.
        out: folder for the result, likewise.

    Returns:
        The status that the program ends with.
    """
    options = read_options(description, epochs=epochs, out=out)
    try:
        data = load()
    except (FileNotFoundError, ValueError) as error:
        print(f"cannot read the data: {error}", file=sys.stderr)
        return 1
    train_seeds(options, lambda seed: train(data, seed, options), data=load.__name__, batch_size=batch_size)
    return 0


def read_options(description: str | None, *, epochs: int, out: str) -> argparse.Namespace:
    """The command line: seeds, epochs, out and progress."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="trainings, each from its own seed (default 3)")
    parser.add_argument("--epochs", type=int, default=epochs, help=f"times through the data (default {epochs})")
    parser.add_argument("--out", type=Path, default=Path(out), help=f"folder for result.json (default {out})")
    bars = parser.add_mutually_exclusive_group()
    bars.add_argument("--progress", action="store_true", default=True, help="show a bar for each epoch (default)")
    bars.add_argument("--quiet", action="store_false", dest="progress", help="show a line for each seed only")
    options = parser.parse_args()
    if options.seeds < 1 or options.epochs < 1:
        parser.error("--seeds and --epochs must be at least 1")
    return options


def provenance() -> dict[str, Any]:
    """What a figure was measured with, on what, and when."""
    return {
        "versions": {
            "fcnn": fcnn.__version__,
            "jax": jax.__version__,
            "optax": optax.__version__,
            "python": platform.python_version(),
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, JAX on {jax.devices()[0].device_kind}",
        "date": datetime.date.today().isoformat(),
    }


def train_seeds(options: argparse.Namespace, train: Callable[[int], float], **facts: Any) -> dict[str, Any]:
    """Train once from every seed, write what came out to result.json, and say it.

    Args:
        options: the command line.
        train: a seed to the test accuracy of its training, in [0, 1].
        facts: what else belongs in the result, such as data and batch size.

    Returns:
        The result as written.
    """
    accuracies, seconds = [], []
    for seed in range(options.seeds):
        begun = time.perf_counter()
        accuracies.append(train(seed))
        seconds.append(time.perf_counter() - begun)
        print(f"seed {seed}: test accuracy {accuracies[-1]:.2%}, {seconds[-1] / 60:.1f} minutes", flush=True)
    mean, deviation = float(np.mean(accuracies)), float(np.std(accuracies))
    result = {
        **facts,
        "seeds": list(range(options.seeds)),
        "test_accuracy": {"mean": mean, "std": deviation, "n": len(accuracies), "seeds": accuracies},
        "seconds": {"each": [round(s, 1) for s in seconds], "all": round(sum(seconds), 1)},
        "epochs": options.epochs,
        **provenance(),
    }
    path = options.out / "result.json"
    options.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"test accuracy {mean:.2%} (mean of {len(accuracies)} seeds, s.d. {deviation:.2%}), "
        f"{sum(seconds) / 60:.1f} minutes in all\nwritten: {path.resolve()}"
    )
    return result
