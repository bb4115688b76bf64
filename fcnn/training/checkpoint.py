"""Checkpoints of a run: when to write them, and what can go wrong with them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..errors import layer_path
from ..geometry import integer
from ..paths import path_of


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or used; the message says why and what to do."""


class CheckpointDamagedWarning(UserWarning):
    """A checkpoint is damaged, and an earlier one is used instead."""


class CheckpointFailedWarning(UserWarning):
    """A checkpoint could not be written. The run goes on, and earlier checkpoints are intact."""


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often the checkpoints of a run are written.

    Args:
        folder: the folder for the checkpoints, created if missing. ``~`` is the home folder; a relative path starts at
            the working directory when ``fit`` is called.
        every_seconds: seconds between checkpoints; None: not by time.
        every_steps: steps between checkpoints; None: not by steps.
        keep: number of checkpoints that are kept; older ones are deleted.

    Raises:
        ValueError: a number out of range.
        TypeError: arguments of the wrong kind.

    Example:
        >>> Checkpoints("runs/digits", every_seconds=None, every_steps=500)
        Checkpoints(folder='runs/digits', every_seconds=None, every_steps=500, keep=3)
    """

    folder: str | os.PathLike[str]
    every_seconds: float | None = 60.0
    every_steps: int | None = None
    keep: int = 3

    def __post_init__(self) -> None:
        with layer_path("Checkpoints"):
            path_of(self.folder, "folder")
            if self.every_seconds is not None:
                if isinstance(self.every_seconds, bool) or not isinstance(self.every_seconds, (int, float)):
                    raise TypeError(f"every_seconds must be a number of seconds or None, not {self.every_seconds!r}")
                if not self.every_seconds > 0:
                    raise ValueError(f"every_seconds is {self.every_seconds!r}, it must be above 0; None: not by time")
            if self.every_steps is not None:
                integer(self.every_steps, "every_steps")
            integer(self.keep, "keep")
