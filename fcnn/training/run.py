"""What a training is asked for, what it tells on the way, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..given import Params, State
from .step import TrainState


class EpochInfo(NamedTuple):
    """What a callback is told after an epoch, or after some steps (``training.every``).

    Attributes:
        epoch: number of the epoch, from 1; of the running one after some steps.
        epochs: number of epochs asked for.
        metrics: this epoch's numbers by name, as in the history; after some steps those of the last step.
        history: for each name a list with one number for each epoch so far.
        params: the parameters as they would be used now. The next step takes over their memory: copy what you keep.
        state: the network's state, likewise.
        step: steps so far, in all epochs.
    """

    epoch: int
    epochs: int
    metrics: dict[str, Any]
    history: dict[str, list[Any]]
    params: Params
    state: State
    step: int


@dataclass(frozen=True)
class Run:
    """What :func:`fit` returns.

    Attributes:
        params: the trained parameters.
        state: the state after training; ``{}`` for networks without.
        history: arrays with one number for each epoch: "loss" and "accuracy" (over the epoch's examples, each batch
            before its update; batches count by their examples or weights), "loss/class" and so on where there are
            several losses, further metrics, "validation_loss" and so on where validation data were given, "skipped"
            where steps may be left out (they count in none of the others), "gradient_norm" (the mean over steps of the
            norm of the whole gradient, before any clipping), "learning_rate" (that of the epoch's last step, where the
            optimizer lets it be known), and "seconds". Of a metric that is an array, (epochs, *array).
        train: the train state after the last step, to go on from in a loop of one's own.
        stopped: why training ended before its last epoch, in words; None: it did not.
        best_epoch: the epoch, from 1, that was best by ``monitor``; None before the first has ended.
        compile_seconds: seconds that the compilation of the step took; contained in the first epoch's "seconds".
    """

    params: Params
    state: State
    history: dict[str, np.ndarray]
    train: TrainState = field(repr=False)
    stopped: str | None = None
    best_epoch: int | None = None
    compile_seconds: float = 0.0

    def __repr__(self) -> str:
        last = ", ".join(
            f"{name} {np.mean(values[-1]):.4g}"
            for name, values in self.history.items()
            if len(values) and values.ndim < 3
        )
        why = f", stopped by {self.stopped}" if self.stopped else ""
        return f"<fcnn run: {len(self.history.get('seconds', ()))} epochs{why}; last {last}>"
