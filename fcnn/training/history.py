"""The loss and metrics of a run, epoch by epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np


class History:
    """The values of every epoch that is complete, and a clock for the current one.

    Attributes:
        epochs: by name, a list with one value for each epoch.
    """

    def __init__(self, epochs: Mapping[str, Any] | None = None) -> None:
        self.epochs: dict[str, list[Any]] = {name: list(values) for name, values in (epochs or {}).items()}
        self.start()

    def start(self, seconds: float = 0.0) -> None:
        """Start the clock of an epoch; of one that is resumed, after the seconds that it has taken."""
        self._before, self._begun = seconds, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of the current epoch."""
        return self._before + time.perf_counter() - self._begun

    def close(self, values: Mapping[str, Any]) -> None:
        """End the epoch with these values."""
        values = {**values, "seconds": self.seconds}
        before = len(self.epochs.get("seconds", ()))
        for name in dict.fromkeys((*self.epochs, *values)):  # a resumed run may report other metrics: NaN for those
            like = values[name] if name in values else self.epochs[name][-1]
            blank = np.full(np.shape(like), np.nan).tolist()
            self.epochs.setdefault(name, [blank] * before).append(values.get(name, blank))

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, an array (epochs,), or (epochs, members) for an ensemble."""
        return {name: np.asarray(values) for name, values in self.epochs.items()}

    def best(self, name: str, mode: str) -> int | None:
        """The first epoch, from 0, in which a value was best; None if there is none.

        Args:
            name: the name of the value; the mean over the members of an ensemble counts.
            mode: "max" if the highest value is best, "min" if the lowest.

        Example:
            >>> History({"loss": [3.0, float("nan"), 1.0]}).best("loss", "min")
            2
        """
        if not self.epochs.get(name):
            return None
        values = np.asarray([np.mean(value) for value in self.epochs[name]])
        if np.isnan(values).all():
            return None
        return int(np.nanargmax(values) if mode == "max" else np.nanargmin(values))
