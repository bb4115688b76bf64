"""Checkpoints of a run: when to write them, and what can go wrong with them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..errors import at
from ..geometry import integer
from ..paths import path_of


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or used; the text says why and what to do."""


class CheckpointDamagedWarning(UserWarning):
    """A checkpoint is not what was written, and an earlier one takes its place."""


class CheckpointFailedWarning(UserWarning):
    """A checkpoint could not be written; the run goes on, and the earlier ones are there."""


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a run is saved.

    Args:
        folder: the folder that the checkpoints are in; made where it is missing. ``~`` is the home folder; a relative
            path counts from where the program is when ``fit`` is called.
        every_seconds: one when so many seconds have passed since the last; None: never by time.
        every_steps: one after so many steps; None: never by steps.
        keep: the newest so many are kept, older ones deleted.

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
        with at("Checkpoints"):
            path_of(self.folder, "folder")
            if self.every_seconds is not None:
                if isinstance(self.every_seconds, bool) or not isinstance(self.every_seconds, (int, float)):
                    raise TypeError(f"every_seconds must be a number of seconds or None, not {self.every_seconds!r}")
                if not self.every_seconds > 0:
                    raise ValueError(f"every_seconds must be more than 0, not {self.every_seconds!r}; None: never")
            if self.every_steps is not None:
                integer(self.every_steps, "every_steps")
            integer(self.keep, "keep")
