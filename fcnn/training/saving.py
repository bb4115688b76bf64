"""When the checkpoints of a run are written."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .checkpoint import CheckpointError, CheckpointFailedWarning, Checkpoints
from .compiled_loop import SLOTS
from .processes import OneProcess
from .store import Store


class Saving:
    """The checkpoints of a run; only the first of several processes writes them.

    Args:
        given: where and how often to write them; None: never.
        processes: the processes of the run.
    """

    def __init__(self, given: Checkpoints | None, processes: OneProcess) -> None:
        self.given, self.processes = given, processes
        self.store: Store | None = None
        self.written = (-1, -1)  # steps and finished epochs of the last checkpoint
        self._written_at = time.monotonic()

    def open(self) -> None:
        """Open the folder, and lock it."""
        with self.processes.share_errors(CheckpointError):
            if self.given is not None and self.processes.leads:
                self.store = Store(self.given.folder, self.given.keep)

    def prepare(self, tree: Any) -> None:
        """Make memory for copies of such a tree."""
        if self.store is not None:
            self.store.prepare(tree)

    def close(self) -> None:
        """Wait until everything is written, and unlock the folder."""
        if self.store is not None:
            self.store.close()

    def until(self, taken: int) -> int:
        """Steps until the next checkpoint by steps."""
        every = None if self.given is None else self.given.every_steps
        return SLOTS if every is None else every - taken % every

    def due(self, taken: int) -> bool:
        """Whether a checkpoint is due after this number of steps."""
        if self.given is None or taken == self.written[0]:
            return False
        if self.given.every_seconds is not None and time.monotonic() - self._written_at >= self.given.every_seconds:
            return True
        return self.given.every_steps is not None and taken % self.given.every_steps == 0

    def save(self, taken: int, epoch: int, what: Callable[[], tuple[Any, dict[str, Any]]]) -> None:
        """Write a checkpoint, a tree and what is known about it, unless there is one of this progress."""
        now = (taken, epoch)
        if self.given is None or self.written == now:
            return
        if self.store is not None:
            self.store.save(taken, *what())
        self.written, self._written_at = now, time.monotonic()

    def wait(self, instead: str) -> Path | None:
        """Wait until everything is written; the newest checkpoint. A failure is only a warning."""
        try:
            return None if self.store is None else self.store.wait()
        except CheckpointError as error:
            warnings.warn(f"fit: {error}. {instead}", CheckpointFailedWarning, stacklevel=2)
            return None

    def newest(self) -> str:
        """Where the newest checkpoint is and how to continue from it, as a sentence."""
        path = self.wait("Earlier ones may be there")
        folder = self.store.folder if self.store is not None else self.given and self.given.folder
        return self.processes.newest(path, folder)
