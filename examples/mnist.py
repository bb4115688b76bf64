"""MNIST: handwritten digits, three trainings from three seeds.

    python examples/mnist.py

The measured result, with versions, machine, minutes and seeds, is benchmarks/results/mnist.json: the result.json
that this command writes.
"""

import argparse
import sys

import compiled
import jax
import optax
import report

import fcnn
from fcnn.data import augment

BATCH = 128

# Pooling comes before the norm and the activation where it can: a quarter of the numbers is left for them.
NET = fcnn.serial(
    fcnn.Conv(24, 5, bias=False), fcnn.MaxPool(2), fcnn.BatchNorm(), jax.nn.relu,                  # (batch, 12, 12, 24)
    fcnn.Conv(64, 5, padding="SAME", bias=False), fcnn.MaxPool(2), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 6, 6, 64)
    fcnn.Conv(128, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu,                  # (batch, 6, 6, 128)
    fcnn.Conv(128, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu,                  # (batch, 6, 6, 128)
    fcnn.Flatten(), fcnn.Dropout(0.3), fcnn.Dense(10),                                             # (batch, 10)
)  # fmt: skip

# A digit a little turned, slanted, larger or smaller, or elsewhere is the same digit. A mirrored one is not.
AUGMENT = augment.Affine(rotate=12, scale=(0.9, 1.1), shear=6, translate=2)


def train(data: fcnn.data.Dataset, seed: int, options: argparse.Namespace) -> float:
    """One training; returns the accuracy on the test set, which is looked at once, at the end."""
    steps = options.epochs * (len(data.train[1]) // BATCH)
    # the rate rises for a fifth of the steps and falls to nearly zero; decay is for kernels, not for norms and biases
    rate = optax.schedules.cosine_onecycle_schedule(steps, 0.15, pct_start=0.2)
    decay = optax.add_decayed_weights(5e-4, mask=fcnn.training.decay_mask)
    run = fcnn.fit(
        NET,
        data.train,
        optimizer=optax.chain(decay, optax.sgd(rate, momentum=0.9, nesterov=True)),
        epochs=options.epochs,
        key=jax.random.key(seed),
        batch_size=BATCH,
        loss=fcnn.training.label_smoothing(0.1),
        augment=AUGMENT,
        progress=options.progress,
    )
    return fcnn.evaluate(NET, run.params, data.test, state=run.state)["accuracy"]


if __name__ == "__main__":
    compiled.keep()
    sys.exit(report.main(__doc__, train, fcnn.data.mnist, epochs=8, batch_size=BATCH, out="runs/mnist"))
