"""Train a small CNN on handwritten digits, three times from three seeds, and show what it learned.

    make train                # scikit-learn's digits: 1,797 images of 8 x 8, which come with it
    make train DATA=mnist     # MNIST: 70,000 images of 28 x 28, LeNet-5

The measured results, with versions, machine and seeds, are benchmarks/results/train_digits.json and
train_mnist.json: the result.json that this command writes.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import compiled
import jax
import numpy as np
import optax
import report

import fcnn

# Two 3x3 convolutions with batch normalisation, and a head that sees the whole 2x2 space that is left.
DIGITS = fcnn.serial(
    fcnn.Conv(32, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 8, 8, 32)
    fcnn.MaxPool(2),                                                              # (batch, 4, 4, 32)
    fcnn.Conv(64, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 4, 4, 64)
    fcnn.MaxPool(2),                                                              # (batch, 2, 2, 64)
    fcnn.Flatten(), fcnn.Dropout(0.5), fcnn.Dense(10),                            # (batch, 10)
)  # fmt: skip

TASKS = {
    "digits": {"data": fcnn.data.digits, "net": DIGITS, "epochs": 60, "batch_size": 64, "rate": 4e-3},
    "mnist": {"data": fcnn.data.mnist, "net": fcnn.models.lenet5(), "epochs": 4, "batch_size": 128, "rate": 3e-3},
}


def main() -> int:
    """Train, evaluate, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=TASKS, default="digits")
    parser.add_argument("--seeds", type=int, default=3, help="trainings, each from its own seed (default 3)")
    parser.add_argument("--epochs", type=int, default=None, help="times through the data (default: as tuned)")
    parser.add_argument("--out", type=Path, default=None, help="folder for the results (default runs/DATA)")
    options = parser.parse_args()
    if options.seeds < 1 or (options.epochs is not None and options.epochs < 1):
        parser.error("--seeds and --epochs must be at least 1")

    task = TASKS[options.data]
    try:
        data = task["data"]()
    except (FileNotFoundError, ValueError, ImportError) as error:
        print(f"cannot read the data: {error}", file=sys.stderr)
        return 1
    net, epochs = task["net"], options.epochs or task["epochs"]
    (x, _), (x_test, y_test) = data.train, data.test
    print(f"{options.data}: {len(x):,} images to train on, {len(x_test):,} to test on. {data.licence}\n")
    print(fcnn.summary(net, x.shape[1:]), flush=True)

    # the rate rises for a tenth of the steps and falls along a cosine to zero
    steps = epochs * (len(x) // task["batch_size"])
    rate = optax.schedules.warmup_cosine_decay_schedule(0.0, task["rate"], max(1, steps // 10), max(2, steps))
    optimizer = optax.adam(rate)

    runs, accuracies = [], []
    begun = time.perf_counter()
    for seed in range(options.seeds):
        print(f"\nseed {seed}", flush=True)
        # the test set is watched, and nothing is chosen by it: the last parameters count
        run = fcnn.fit(
            net,
            data.train,
            optimizer=optimizer,
            epochs=epochs,
            key=jax.random.key(seed),
            batch_size=task["batch_size"],
            validation=data.test,
        )
        found = fcnn.evaluate(net, run.params, data.test, state=run.state)
        print(f"seed {seed}: test accuracy {found['accuracy']:.2%}, loss {found['loss']:.4f}", flush=True)
        runs.append(run)
        accuracies.append(found["accuracy"])
    seconds = time.perf_counter() - begun

    # the pictures show the first seed; the weights are its weights
    out = options.out or Path("runs") / options.data
    out.mkdir(parents=True, exist_ok=True)
    params, state = runs[0].params, runs[0].state
    predict = jax.jit(lambda batch: net.apply(params, batch, state=state).argmax(-1))
    predicted = np.concatenate([predict(x_test[i : i + 1000]) for i in range(0, len(x_test), 1000)])
    wrong = int((predicted != y_test).sum())
    written = {
        "learning curve": out / "learning_curve.png",
        "first-layer kernels": out / "kernels.png",
        "digits it got wrong": out / "mistakes.png",
        "weights": fcnn.interop.save_weights(out / "weights.safetensors", params, state),
        "figures": out / "result.json",
    }
    title = f"{options.data}, {options.seeds} seeds; validation is on the test set"
    fcnn.draw.learning_curve([run.history for run in runs], title).savefig(written["learning curve"], dpi=150)
    kernels = fcnn.draw.kernels(params["conv1"]["kernel"], title="kernels of the first layer")
    kernels.savefig(written["first-layer kernels"], dpi=150)
    title = f"{wrong} of {len(y_test):,} test digits are wrong: what it is, what the network said"
    fcnn.draw.mistakes(x_test, y_test, predicted, data.classes, title=title).savefig(
        written["digits it got wrong"], dpi=150
    )
    mean, deviation = float(np.mean(accuracies)), float(np.std(accuracies))
    result = {
        "data": options.data,
        "test_accuracy": {"mean": mean, "std": deviation, "n": len(accuracies), "seeds": accuracies},
        "seconds": round(seconds, 1),
        "epochs": epochs,
        "batch_size": task["batch_size"],
        **report.provenance(),
    }
    written["figures"].write_text(json.dumps(result, indent=2) + "\n")

    print(f"\ntest accuracy {mean:.2%} (mean of {len(accuracies)} seeds, s.d. {deviation:.2%}), {seconds:.1f} seconds")
    print("written:")
    for name, path in written.items():
        print(f"  {name:<20} {path.resolve()}")
    return 0


if __name__ == "__main__":
    compiled.keep()
    sys.exit(main())
