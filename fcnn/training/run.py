"""The result of ``fit``, and what it passes to callbacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..types import Params, State
from .step import TrainState


class EpochInfo(NamedTuple):
    """What a callback receives after an epoch, or after some steps (``training.every``).

    Attributes:
        epoch: number of the epoch, from 1; after some steps, of the current one.
        epochs: number of epochs that ``fit`` was called with.
        metrics: the values of this epoch by name, as in the history; after some steps, the values of the last step.
        history: by name, a list with one value for each epoch so far.
        params: the current parameters, or their average. The next step takes over their memory: copy what you keep.
        state: the network's current state, likewise.
        step: number of steps so far, in all epochs.
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
        history: by name, an array with one value for each epoch: "loss" and "accuracy" (over the examples of the epoch,
            each batch before its update, weighted by its examples or their weights), "loss/class" and so on for several
            losses, further metrics, "validation_loss" and so on with validation data, "skipped" with
            ``non_finite="skip"`` (steps left out count in none of the others), "gradient_norm" (the mean over steps of
            the norm of the whole gradient before clipping), "learning_rate" (of the last step of the epoch, if it can
            be found in the optimizer), and "seconds". For a metric that is an array, (epochs, *array).
        train: the train state after the last step, to continue from in a loop of your own.
        stopped: why training ended before the last epoch, in words; None if it did not.
        best_epoch: the best epoch by ``monitor``, from 1; None before the first has ended.
        compile_seconds: seconds that compilation took; contained in the "seconds" of the first epoch.
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
