"""Fashion-MNIST: grey pictures of clothes in ten kinds, three trainings from three seeds.

    python examples/fashion.py

The measured result, with versions, machine, minutes and seeds, is benchmarks/results/fashion.json: the result.json
that this command writes.
"""

import argparse
import sys
from typing import Any

import compiled
import jax
import optax
import report

import fcnn
from fcnn.data import augment

BATCH = 128

# Pooling comes before the norm and the activation where it can: a quarter of the numbers is left for them.
NET = fcnn.serial(
    fcnn.Conv(32, 3, padding="SAME", bias=False), fcnn.MaxPool(2), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 14, 14, 32)
    fcnn.Conv(64, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu,                   # (batch, 14, 14, 64)
    fcnn.Conv(64, 3, padding="SAME", bias=False), fcnn.MaxPool(2), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 7, 7, 64)
    fcnn.Conv(128, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu,                  # (batch, 7, 7, 128)
    fcnn.Conv(128, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu,                  # (batch, 7, 7, 128)
    fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dropout(0.3), fcnn.Dense(10),                            # (batch, 10)
)  # fmt: skip

# A coat in a mirror is a coat, and so is one a little to the side, or one of which a part is hidden.
AUGMENT = augment.compose(augment.Flip(), augment.Shift(2), augment.sometimes(0.5, augment.Cutout(8)))


@fcnn.graph(net=NET)
def both_ways(layer: Any, x: jax.Array) -> jax.Array:
    """What the trained network says of an image and of its mirror image, together."""
    return layer.net(x) + layer.net(x[:, :, ::-1])


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
    return fcnn.evaluate(both_ways, {"net": run.params}, data.test, state={"net": run.state})["accuracy"]


if __name__ == "__main__":
    compiled.keep()
    sys.exit(report.main(__doc__, train, fcnn.data.fashion_mnist, epochs=14, batch_size=BATCH, out="runs/fashion"))
