"""The numbers of a run, epoch by epoch."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..layer import Layer
from .objective import measure

if TYPE_CHECKING:
    from .run import Options
    from .step import TrainState


class History:
    """Metrics of the steps of the running epoch, and means of the epochs before.

    Attributes:
        epochs: for each name a list with one value for each finished epoch.
        steps: for each name a list with one value for each step of the running epoch.
    """

    def __init__(self) -> None:
        self.epochs: dict[str, list[Any]] = {}
        self.steps: dict[str, list[Any]] = {}
        self.skipped = 0
        self._before = 0.0
        self._begun = time.perf_counter()

    def begin(self, seconds: float = 0.0) -> None:
        """Start an epoch, or go on with one that took some seconds before."""
        self._before, self._begun = seconds, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of the running epoch."""
        return self._before + time.perf_counter() - self._begun

    def add(self, metrics: Mapping[str, np.ndarray], good: np.ndarray) -> None:
        """Note down the metrics of some steps, (steps, ...); of those that were skipped only the number."""
        self.skipped += int(np.sum(~good))
        for name, values in metrics.items():
            self.steps.setdefault(name, []).extend(np.asarray(values)[good].tolist())

    def latest(self) -> dict[str, Any]:
        """The numbers of the last step of the running epoch that was not skipped."""
        return {name: values[-1] for name, values in self.steps.items() if values}

    def means(self) -> dict[str, Any]:
        """Means over the steps of the running epoch so far; an ensemble has one for each member."""
        return {name: _plain(np.mean(values, axis=0)) for name, values in self.steps.items() if values}

    def close(self, values: Mapping[str, Any]) -> None:
        """End the epoch with these values."""
        values = {**values, "seconds": self.seconds}
        before = len(self.epochs.get("seconds", ()))
        for name in dict.fromkeys((*self.epochs, *values)):  # a run that is resumed may report other numbers: NaN there
            like = values[name] if name in values else self.epochs[name][-1]
            blank = np.full(np.shape(like), np.nan).tolist()
            self.epochs.setdefault(name, [blank] * before).append(values.get(name, blank))
        self.steps, self.skipped = {}, 0

    def arrays(self) -> dict[str, np.ndarray]:
        """An array for each name, (epochs,), or (epochs, members)."""
        return {name: np.asarray(values) for name, values in self.epochs.items()}

    def best(self, name: str) -> int | None:
        """The epoch, from 0, in which a number was best; the first of equals, None where there is none.

        Highest is best for accuracies, lowest for everything else. The mean counts for an ensemble.
        """
        if not self.epochs.get(name):
            return None
        values = np.asarray([np.mean(value) for value in self.epochs[name]])
        if np.isnan(values).all():
            return None
        return int(np.nanargmax(values) if name.endswith("accuracy") else np.nanargmin(values))

    def written(self) -> dict[str, Any]:
        """All of it as plain numbers."""
        return {"epochs": self.epochs, "steps": self.steps, "skipped": self.skipped, "seconds": self.seconds}

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> History:
        """What was written."""
        history = cls()
        history.epochs = {name: list(values) for name, values in written["epochs"].items()}
        history.steps = {name: list(values) for name, values in written["steps"].items()}
        history.skipped = written["skipped"]
        history.begin(written["seconds"])
        return history


def reported(net: Layer, options: Options, train: TrainState, batch: Any) -> list[str]:
    """The names of the numbers that an epoch is going to report, from shapes alone: nothing is computed.

    Args:
        net: the network.
        options: the run's settings.
        train: the train state before the first step.
        batch: the first batch, ((x, ...), y).

    Returns:
        The names in training, and those in validation where there are data for it.
    """

    def validate(params: Any, state: Any, inputs: Any, targets: Any) -> dict[str, jax.Array]:
        outputs = net.apply(params, *inputs, state=state)
        return measure(options.minimised, outputs, targets, options.metrics)

    names = list(jax.eval_shape(options.step, train, batch)[1])
    if options.validation is not None:
        found = jax.eval_shape(validate, train.params, train.state, *options.validation)
        names += [f"validation_{name}" for name in found]
    return names


def check_monitor(monitor: str, names: Collection[str]) -> None:
    """Raise unless the number that a run goes by is among those that it reports."""
    if monitor not in names:
        raise ValueError(
            f"fit: monitor is {monitor!r}, but this run reports {', '.join(names)}; an accuracy needs labels of "
            "classes, in training those that augmentation does not mix"
        )


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist()
