"""Spoken digits: six people say 0 to 9; three trainings from three seeds, tested on takes 0 to 4 of everybody.

    python examples/spoken_digits.py

The measured result, with versions, machine, minutes and seeds, is benchmarks/results/spoken_digits.json: the
result.json that this command writes.
"""

import argparse
import sys

import compiled
import jax
import optax
import report

import fcnn
from fcnn.data import augment

BATCH = 64


def picture(wave: jax.Array) -> jax.Array:
    """The sound's power in 40 bands of frequency, every 16 ms."""
    return fcnn.data.log_mel(wave, hop=128)


# The network hears the wave itself: the picture is its first layer, as any function of one array can be.
NET = fcnn.serial(
    picture, fcnn.BatchNorm(),                                                                     # (batch, 61, 40, 1)
    fcnn.Conv(16, 5, padding="SAME", bias=False), fcnn.MaxPool(2), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 30, 20, 16)
    fcnn.Conv(32, 3, padding="SAME", bias=False), fcnn.MaxPool(2), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 15, 10, 32)
    fcnn.Conv(64, 3, padding="SAME", bias=False), fcnn.MaxPool(2), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 7, 5, 64)
    fcnn.Conv(128, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu,                  # (batch, 7, 5, 128)
    fcnn.GlobalAvgPool(), fcnn.Dropout(0.3), fcnn.Dense(10),                                       # (batch, 10)
)  # fmt: skip

# A word said a tenth of a second earlier or later, louder or softer, is the same word.
AUGMENT = augment.compose(augment.TimeShift(800), augment.Gain(10))


def train(data: fcnn.data.Dataset, seed: int, options: argparse.Namespace) -> float:
    """One training; returns the accuracy on the test set, which is looked at once, at the end."""
    steps = options.epochs * (len(data.train[1]) // BATCH)
    rate = optax.schedules.cosine_onecycle_schedule(steps, 4e-3, pct_start=0.2)
    run = fcnn.fit(
        NET,
        data.train,
        optimizer=optax.adamw(rate, b2=0.99, weight_decay=0.05, mask=fcnn.training.decay_mask),
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
    sys.exit(
        report.main(__doc__, train, fcnn.data.spoken_digits, epochs=20, batch_size=BATCH, out="runs/spoken_digits")
    )
