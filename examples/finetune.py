"""Fine-tuning: a trunk that has learned clothes, under a new head for digits, of which there are few pictures.

    python examples/finetune.py

A network learns Fashion-MNIST. Its trunk, which is all of it but the last layer, then serves MNIST's digits, of which
1, 3, 10 or 30 pictures each are given. The whole test set of MNIST is classified after each of three trainings:

- from nothing: the same network from random parameters;
- frozen: the trunk keeps its parameters and running statistics bit for bit, and a new head is trained;
- unfrozen: from there, all of it is trained at a smaller learning rate, and the statistics become those of digits.

Training from nothing takes as many steps as the other two together. There is one trunk; a seed draws the pictures, the
new parameters and the order of the pictures, the same for all three.

The measured result, with versions, machine, minutes and seeds, is benchmarks/results/finetune.json: the result.json
that this command writes. Beside it the command draws the accuracies, docs/finetune.png.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import compiled
import jax
import numpy as np
import optax
import report

import fcnn

SHAPE = (28, 28, 1)
BATCH = 30
EXAMPLES = 300  # in an epoch: fewer pictures are repeated, so that all trainings take the same steps in one program
HELD_OUT = 10_000  # training images of MNIST that no run is given, on which settings may be tried

# What learns clothes. Its last layer is the head.
CLOTHES = fcnn.serial(
    fcnn.Conv(16, 5, stride=2, bias=False), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 12, 12, 16)
    fcnn.Conv(32, 3, stride=2, bias=False), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 5, 5, 32)
    fcnn.Conv(96, 3, bias=False), fcnn.BatchNorm(), jax.nn.relu,            # (batch, 3, 3, 96)
    fcnn.Flatten(), fcnn.Dense(10),                                         # (batch, 10)
)  # fmt: skip
TRUNK = CLOTHES[:-1]
DIGITS = fcnn.serial(trunk=TRUNK, head=fcnn.Dense(10))

RATES = {"from nothing": 3e-3, "frozen": 3e-3, "unfrozen": 3e-4}
WAYS = {way: optax.adam(rate) for way, rate in RATES.items()}


def learn_clothes(data: fcnn.data.Dataset, options: argparse.Namespace) -> Any:
    """The first training, on all of Fashion-MNIST; returns its run."""
    steps = options.epochs * max(1, len(data.train[1]) // 128)
    return fcnn.fit(
        CLOTHES,
        data.train,
        optimizer=optax.adam(optax.schedules.cosine_decay_schedule(3e-3, steps)),
        epochs=options.epochs,
        key=jax.random.key(0),
        progress=False,
    )


def few(data: fcnn.data.Dataset, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """So many pictures of each class, drawn from the training set; 3 of a seed are its first one and two more."""
    x, y = (a[:-HELD_OUT] for a in data.train)
    random = np.random.default_rng(seed)
    drawn = [random.permutation(np.flatnonzero(y == label))[:count] for label in range(len(data.classes))]
    places = np.concatenate(drawn)
    return x[places], y[places]


def train(way: str, data: tuple[np.ndarray, np.ndarray], steps: int, seed: int, **begin: Any) -> Any:
    """Train on the few pictures; returns the run."""
    x, y = data
    again = np.resize(np.arange(len(y)), max(EXAMPLES, len(y)))
    settings = {"optimizer": WAYS[way], "epochs": max(1, steps * BATCH // len(again)), "batch_size": BATCH}
    return fcnn.fit(DIGITS, (x[again], y[again]), key=jax.random.key(seed), progress=False, **settings, **begin)


def three_ways(trunk: Any, data: tuple[np.ndarray, np.ndarray], steps: int, seed: int) -> dict[str, Any]:
    """Train from one seed, once from nothing and once on the trunk; returns the three runs by name."""
    params, state = DIGITS.init(jax.random.key(seed), SHAPE), DIGITS.init_state(SHAPE)
    runs = {"from nothing": train("from nothing", data, 2 * steps, seed, params=params, state=state)}

    # The new head is the one above; below it comes what has learned clothes.
    params, state = params | {"trunk": trunk["params"]}, state | {"trunk": trunk["state"]}
    only = fcnn.training.frozen("trunk")  # the same as fcnn.training.trainable("head/*")
    runs["frozen"] = head = train("frozen", data, steps, seed, params=params, state=state, trainable=only)
    runs["unfrozen"] = train("unfrozen", data, steps, seed, params=head.params, state=head.state)
    return runs


def changed(trunk: Any, run: Any) -> int:
    """How many arrays of the trunk, parameters and running statistics, are no longer the same bit for bit."""
    after = {"params": run.params["trunk"], "state": run.state["trunk"]}
    pairs = zip(jax.tree.leaves(trunk), jax.tree.leaves(after), strict=True)
    return sum(np.asarray(a).tobytes() != np.asarray(b).tobytes() for a, b in pairs)


def draw(accuracy: dict[str, dict[str, Any]], pictures: list[int], path: Path) -> None:
    """Draw the accuracies over the number of pictures, with their standard deviations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for i, (way, found) in enumerate(accuracy.items()):
        mean, deviation = (100 * np.array([found[str(count)][name] for count in pictures]) for name in ("mean", "std"))
        beside = np.array(pictures) * 1.05 ** (i - 1)  # so that the bars do not cover one another
        axes.errorbar(beside, mean, deviation, marker="o", capsize=4, linewidth=1.8, color=f"C{i}", label=way)
    seeds = len(next(iter(accuracy.values()))[str(pictures[0])]["seeds"])
    axes.set(xscale="log", xlabel="pictures of each digit", ylabel="test accuracy on MNIST, %")
    axes.set_title(f"A trunk that has learned clothes, for digits (mean and s.d. of {seeds} seeds)", fontsize=11)
    axes.set_xticks(pictures, [str(count) for count in pictures])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seeds", type=int, default=5, help="trainings of each kind, each from its own seed (default 5)"
    )
    parser.add_argument("--epochs", type=int, default=3, help="times through Fashion-MNIST (default 3)")
    parser.add_argument("--steps", type=int, default=120, help="steps frozen, and as many unfrozen (default 120)")
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 3, 10, 30], help="of each digit")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/finetune"), help="folder for result.json and the picture"
    )
    options = parser.parse_args()
    if min(options.seeds, options.epochs, options.steps, *options.pictures) < 1:
        parser.error("--seeds, --epochs, --steps and --pictures must be at least 1")
    return options


def main() -> int:
    """Learn clothes, then digits in three ways from every seed and number of pictures; measure and draw."""
    options = read_options()
    try:
        clothes, digits = fcnn.data.fashion_mnist(), fcnn.data.mnist()
    except (FileNotFoundError, ValueError) as error:
        print(f"cannot read the data: {error}", file=sys.stderr)
        return 1
    begun = time.perf_counter()
    first = learn_clothes(clothes, options)
    on_clothes = fcnn.evaluate(CLOTHES, first.params, clothes.test, state=first.state)["accuracy"]
    trunk = {"params": TRUNK.own(first.params), "state": TRUNK.own(first.state)}
    seconds = {"trunk": round(time.perf_counter() - begun, 1)}
    print(f"clothes: test accuracy {on_clothes:.2%}, {seconds['trunk'] / 60:.1f} minutes", flush=True)

    each: dict[str, dict[int, list[float]]] = {way: {count: [] for count in options.pictures} for way in WAYS}
    moved = dict.fromkeys(WAYS, 0)
    for count in options.pictures:
        for seed in range(options.seeds):
            runs = three_ways(trunk, few(digits, count, seed), options.steps, seed)
            for way, run in runs.items():
                each[way][count].append(fcnn.evaluate(DIGITS, run.params, digits.test, state=run.state)["accuracy"])
                moved[way] = max(moved[way], changed(trunk, run))
        said = (f"{way} {np.mean(each[way][count]):.2%} (s.d. {np.std(each[way][count]):.2%})" for way in WAYS)
        print(f"{count} of each digit: {', '.join(said)}", flush=True)
    seconds |= {"all": round(time.perf_counter() - begun, 1), "of_the_processors": round(time.process_time(), 1)}

    accuracy = {
        way: {
            str(count): {"mean": float(np.mean(a)), "std": float(np.std(a)), "n": len(a), "seeds": a}
            for count, a in found.items()
        }
        for way, found in each.items()
    }
    result = {
        "trunk_trained_on": "fashion_mnist",
        "its_test_accuracy": on_clothes,
        "data": "mnist",
        "test_images": len(digits.test[1]),
        "parameters": sum(a.size for a in jax.tree.leaves(first.params)),
        "pictures_of_each_class": options.pictures,
        "seeds": list(range(options.seeds)),
        "test_accuracy": accuracy,
        "arrays_of_the_trunk": len(jax.tree.leaves(trunk)),
        "of_these_changed": {way: moved[way] for way in ("frozen", "unfrozen")},
        "learning_rates": RATES,
        "steps": {"from nothing": 2 * options.steps, "frozen": options.steps, "unfrozen": options.steps},
        "batch_size": BATCH,
        "epochs": options.epochs,
        "seconds": seconds,
        **report.provenance(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "result.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    draw(accuracy, options.pictures, options.out / "finetune.png")
    print(
        f"of the trunk's {result['arrays_of_the_trunk']} arrays changed: frozen {moved['frozen']}, unfrozen "
        f"{moved['unfrozen']}; {seconds['all'] / 60:.1f} minutes in all\nwritten: {path.resolve()}"
    )
    return 0


if __name__ == "__main__":
    compiled.keep()
    sys.exit(main())
