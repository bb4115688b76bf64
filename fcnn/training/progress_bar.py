"""A bar for each epoch in a terminal or notebook where tqdm is installed; lines, seconds apart, everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np


class EpochBar:
    """Shows one epoch as it goes: loss, metrics, examples per second.

    A bar that draws itself anew fills a log with thousands of copies. So where nobody watches, and where tqdm is not
    installed, there is a line every ten seconds and one for the whole epoch. All of it goes to stderr.

    Args:
        epoch: number of the epoch, from 1.
        epochs: number of epochs.
        steps: steps in the epoch, None where nobody knows.
        done: steps that were taken before this bar, in a run that is continued.
        show: whether to show anything.
    """

    #: seconds between updates of the numbers, so that reading them does not slow the device
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
        """Show what is going on, such as compiling."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def restart(self) -> None:
        """Count examples per second from now on."""
        self._begun = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to show new numbers."""
        return self._show and time.monotonic() - self._last > (self.LINES if self._bar is None else self.EVERY)

    def count(self, examples: int) -> None:
        """Add examples that have been computed."""
        self._examples += examples
        self._counted = time.monotonic()

    def update(self, done: int, metrics: Mapping[str, Any]) -> None:
        """Show the numbers after ``done`` steps of the epoch."""
        self._last = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(self._text(metrics), refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._show:
            of = "" if self._steps is None else f"/{self._steps:,}"
            self._line(f"{self._title}, step {done:,}{of}: {self._text(metrics)}")

    def close(self, steps: int, metrics: Mapping[str, Any]) -> None:
        """Show the numbers of the whole epoch."""
        if self._bar is not None:
            self.update(steps, metrics)
            self._bar.close()
        elif self._show:
            self._line(f"{self._title}: {self._text(metrics)}")

    def _line(self, text: str) -> None:
        print(f"{text}, {self._counted - self._begun:.1f} s", file=sys.stderr, flush=True)

    def abandon(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _text(self, metrics: Mapping[str, Any]) -> str:
        """The numbers as text, each loss before its accuracy (a compiled step returns its dict sorted)."""
        parts = [
            f"{name.replace('_', ' ')} {np.mean(value):.4f}"
            for name, value in sorted(metrics.items(), key=_place)
            if np.ndim(value) < 2 and name != "gradient_norm"  # no matrices, and what is looked at when in doubt
        ]
        seconds = self._counted - self._begun  # without the validation that comes after
        if self._examples and seconds > 0:
            parts.append(f"{self._examples / seconds:,.0f} examples/s")
        return ", ".join(parts)


def _watched() -> bool:
    """Whether stderr is a terminal, or a notebook that draws bars of its own."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return sys.stderr.isatty() or hasattr(shell, "kernel")


def _place(item: tuple[str, Any]) -> tuple[bool, bool]:
    name = item[0]
    return name.startswith("validation"), name.endswith("accuracy")
