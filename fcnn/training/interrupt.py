"""Ctrl-C and SIGTERM as requests to stop, which a run acts on at the next safe point."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn


def interactive() -> bool:
    """Whether the program is interactive: a notebook, IPython, or Python's own prompt, now or after the script."""
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return True
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


class Interrupt:
    """While entered, the first Ctrl-C or SIGTERM is recorded instead of ending the program; the second ends it.

    Signals can only be caught on the main thread; on other threads this does nothing.

    Args:
        watch: whether to catch them at all.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, watch: bool) -> None:
        self.received: int | None = None
        self._watch = watch and threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if self._watch:
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()
        # the signal may have interrupted another print
        os.write(2, f"\n{self.name}: saving after this step; once more ends at once\n".encode())

    def end(self, message: str) -> NoReturn:
        """End the program with the status of the signal; after Ctrl-C in an interactive one, only what was running."""
        if self.received == signal.SIGINT and interactive():
            raise KeyboardInterrupt(message)
        raise SystemExit(128 + (self.received or 0))

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None: a handler that Python did not install and cannot restore
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    @property
    def name(self) -> str:
        """The name of the signal that was received."""
        return "Ctrl-C" if self.received == signal.SIGINT else "SIGTERM"
