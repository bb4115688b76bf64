"""Progress of an epoch: a bar in a terminal or notebook with tqdm, else lines that are seconds apart."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np


class EpochBar:
    """Shows the loss, the metrics and the examples per second of an epoch while it runs.

    A bar that is redrawn would fill a log with thousands of copies. So if stderr is neither a terminal nor a notebook,
    or tqdm is not installed, there is a line every ten seconds and one for the whole epoch. All output goes to stderr.

    Args:
        epoch: number of the epoch, from 1.
        epochs: number of epochs.
        steps: steps in the epoch; None: unknown.
        done: steps that were taken before, in a resumed run.
        show: whether to show anything.
    """

    #: seconds between updates of the values; reading them more often would slow the device down
    EVERY = 0.25
    #: seconds between two lines
    LINES = 10.0

    def __init__(self, epoch: int, epochs: int, steps: int | None, show: bool, done: int = 0) -> None:
        self._title = f"epoch {epoch:>{len(str(epochs))}}/{epochs}"
        self._bar: Any = None
        self._show, self._steps = show, steps
        self._examples, self._begun = 0, time.monotonic()
        self._last = self._counted = self._begun
        if show and _watched():
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=steps, initial=done, desc=self._title, unit="step", dynamic_ncols=True, leave=True)

    def say(self, text: str) -> None:
        """Show an activity, such as compiling."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def restart(self) -> None:
        """Measure examples per second from now on."""
        self._begun = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to show new values."""
        return self._show and time.monotonic() - self._last > (self.LINES if self._bar is None else self.EVERY)

    def count(self, examples: int) -> None:
        """Add examples that have been processed."""
        self._examples += examples
        self._counted = time.monotonic()

    def update(self, done: int, metrics: Mapping[str, Any]) -> None:
        """Show the values after ``done`` steps of the epoch."""
        self._last = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(self._text(metrics), refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._show:
            of = "" if self._steps is None else f"/{self._steps:,}"
            self._line(f"{self._title}, step {done:,}{of}: {self._text(metrics)}")

    def close(self, steps: int, metrics: Mapping[str, Any]) -> None:
        """Show the values of the whole epoch, and end the bar."""
        if self._bar is not None:
            self.update(steps, metrics)
            self._bar.close()
        elif self._show:
            self._line(f"{self._title}: {self._text(metrics)}")

    def _line(self, text: str) -> None:
        print(f"{text}, {self._counted - self._begun:.1f} s", file=sys.stderr, flush=True)

    def abandon(self) -> None:
        """End the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _text(self, metrics: Mapping[str, Any]) -> str:
        """The values as text, each loss before its accuracy (a compiled step returns a sorted dict)."""
        parts = [
            f"{name.replace('_', ' ')} {np.mean(value):.4f}"
            for name, value in sorted(metrics.items(), key=_place)
            if np.ndim(value) < 2 and name != "gradient_norm"  # no matrices, and nothing that is rarely of interest
        ]
        seconds = self._counted - self._begun  # without the validation after it
        if self._examples and seconds > 0:
            parts.append(f"{self._examples / seconds:,.0f} examples/s")
        return ", ".join(parts)


def _watched() -> bool:
    """Whether stderr is a terminal, or the program runs in a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return sys.stderr.isatty() or hasattr(shell, "kernel")


def _place(item: tuple[str, Any]) -> tuple[bool, bool]:
    name = item[0]
    return name.startswith("validation"), name.endswith("accuracy")
