"""A bar for each epoch, where tqdm is installed; a line for each epoch, where it is not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


class EpochBar:
    """Shows one epoch as it goes.

    Args:
        epoch: number of the epoch, from 1.
        epochs: number of epochs.
        steps: steps in the epoch.
        show: whether to show anything.
    """

    #: seconds between updates of the numbers, so that reading them does not slow the device
    EVERY = 0.25

    def __init__(self, epoch: int, epochs: int, steps: int, show: bool) -> None:
        self._title = f"epoch {epoch:>{len(str(epochs))}}/{epochs}"
        self._bar: Any = None
        self._show = show
        self._last = time.monotonic()
        if show:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=steps, desc=self._title, unit="step", dynamic_ncols=True, leave=True)

    def due(self) -> bool:
        """Whether it is time to show new numbers."""
        return self._bar is not None and time.monotonic() - self._last > self.EVERY

    def update(self, done: int, metrics: Mapping[str, Any]) -> None:
        """Show the numbers after ``done`` steps."""
        if self._bar is not None:
            self._last = time.monotonic()
            self._bar.set_postfix_str(_text(metrics), refresh=False)
            self._bar.update(done - self._bar.n)

    def close(self, steps: int, metrics: Mapping[str, Any]) -> None:
        """Show the numbers of the whole epoch."""
        self.update(steps, metrics)
        if self._bar is not None:
            self._bar.close()
        elif self._show:
            print(f"{self._title}: {_text(metrics)}", flush=True)


def _text(metrics: Mapping[str, Any]) -> str:
    """The numbers as text, each loss before its accuracy (a compiled step returns its dict sorted)."""
    return ", ".join(
        f"{name.replace('_', ' ')} {float(value):.4f}" for name, value in sorted(metrics.items(), key=_place)
    )


def _place(item: tuple[str, Any]) -> tuple[bool, bool]:
    name = item[0]
    return name.startswith("validation"), name.endswith("accuracy")
