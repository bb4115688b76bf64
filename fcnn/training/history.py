"""The numbers of a run, epoch by epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np


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


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist()
