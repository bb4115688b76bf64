"""The core of training: a value that says how far a run is, and a function that takes it through an epoch.

Nothing here opens a file, catches a signal, talks to another process or prints. The compiled step comes in as a
function, and so does whatever wants to look between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from .step import TrainState


@dataclass(frozen=True, eq=False)
class EpochSums:
    """Sums over the steps of an epoch, from which its loss and metrics are computed.

    Attributes:
        sums: by name, {"sum": ..., "weight": ...}, in float64.
        accumulators: those of metrics that are carried from step to step.
        skipped: steps that were left out.
        last: the sums of the last step that was not left out.
    """

    sums: Mapping[str, Any] = field(default_factory=dict)
    accumulators: Any = field(default_factory=dict)
    skipped: int = 0
    last: Mapping[str, Any] = field(default_factory=dict)

    def add(self, steps: Mapping[str, Any], good: np.ndarray, accumulators: Any = None) -> EpochSums:
        """The sums with some further steps; of steps that were left out only the number is added.

        Args:
            steps: by name, the sums over the examples of each step, {"sum": (steps, ...), "weight": (steps, ...)}; or
                one number for each step, (steps, ...), all of which weigh the same.
            good: whether each step was taken, (steps,).
            accumulators: those after the steps.

        Example:
            >>> sums = EpochSums().add({"loss": np.array([3.0, 1.0])}, np.array([True, True]))
            >>> float(sums.sums["loss"]["sum"] / sums.sums["loss"]["weight"])
            2.0
        """
        sums, last = dict(self.sums), dict(self.last)
        if good.any():
            for name, given in steps.items():
                weighted = given if isinstance(given, Mapping) else {"sum": given, "weight": np.ones(np.shape(given))}
                parts = {part: np.asarray(values)[good].astype(np.float64) for part, values in weighted.items()}
                before = sums.get(name, {})
                sums[name] = {part: _total(before.get(part), values) for part, values in parts.items()}
                last[name] = {part: values[-1] for part, values in parts.items()}
        return EpochSums(sums, accumulators, self.skipped + int(np.sum(~good)), last)


def _total(before: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    """The sum of all steps, added one after another: it does not depend on how many steps come at a time."""
    if before is not None:
        values = np.concatenate([np.broadcast_to(before, values.shape[1:])[None], values])
    return np.add.accumulate(values)[-1]


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a run is.

    Attributes:
        train: the train state; the next step takes over its memory.
        epoch: epochs that are complete.
        done: steps taken in the epoch after those.
        taken: steps taken in all.
        sums: sums over the steps of that epoch.
    """

    train: TrainState
    epoch: int = 0
    done: int = 0
    taken: int = 0
    sums: EpochSums = EpochSums()

    def after(self, chunk: Chunk) -> Progress:
        """The progress after some more steps."""
        sums = self.sums
        if chunk.done or len(chunk.good):
            sums = sums.add(chunk.sums, chunk.good, chunk.accumulators)
        return replace(self, train=chunk.train, done=self.done + chunk.done, taken=self.taken + chunk.done, sums=sums)

    def next_epoch(self) -> Progress:
        """The progress at the start of the next epoch."""
        return replace(self, epoch=self.epoch + 1, done=0, sums=EpochSums())

    def restart_epoch(self) -> Progress:
        """The progress with none of the epoch's steps counted."""
        return replace(self, done=0, sums=EpochSums())


class Chunk(NamedTuple):
    """The result of some steps.

    Attributes:
        train: the train state after them.
        done: the number of steps.
        good: whether each of them was taken and not left out, (done,).
        sums: for each of them the sums over its batch, (done, ...), by name.
        accumulators: the accumulators of metrics after them.
        examples: the number of examples in them.
        ended: whether the epoch has no more batches.
        bad: the batch whose step came out with a value that is not finite, and the indices of its examples; that
            step is not among the ``done``. None: there is none.
        failure: an error that ended the chunk, after the steps in it; None: there was none.
        signal: the number of a signal that any of several processes announced.
    """

    train: TrainState
    done: int = 0
    good: np.ndarray = np.zeros(0, bool)
    sums: Mapping[str, Any] = {}
    accumulators: Any = None
    examples: int = 0
    ended: bool = False
    bad: Any = None
    failure: Exception | None = None
    signal: int | None = None


class EpochEnd(NamedTuple):
    """How an epoch ended.

    Attributes:
        progress: the progress by then.
        stopped: why it ended before its last step; None: it did not, or ``bad`` or ``failure`` say why.
        bad: as in :class:`Chunk`.
        failure: as in :class:`Chunk`.
    """

    progress: Progress
    stopped: str | None = None
    bad: Any = None
    failure: Exception | None = None


def run_epoch(
    progress: Progress,
    advance: Callable[[Progress, int], Chunk],
    limit: Callable[[int], int],
    between: Callable[[Progress, Chunk], str | None] = lambda progress, chunk: None,
) -> EpochEnd:
    """Take a run to the end of its epoch.

    Args:
        progress: how far it is.
        advance: (progress, most) to :class:`Chunk`: takes at least one step, unless there are no more batches, and at
            most ``most``.
        limit: the steps taken so far to the most steps until ``between`` has to be called.
        between: called after every chunk with the progress and the chunk; text that it returns ends the epoch.

    Returns:
        How the epoch ended.

    Example:
        A step that adds one to a number, in an epoch of five:

        >>> def advance(progress, most):
        ...     done = min(most, 5 - progress.done)
        ...     sums = {"loss": np.arange(progress.done, progress.done + done, dtype=float)}
        ...     return Chunk(progress.train + done, done, np.ones(done, bool), sums, ended=progress.done + done == 5)
        >>> end = run_epoch(Progress(train=0), advance, limit=lambda taken: 2)
        >>> end.progress.train, end.progress.done, float(end.progress.sums.sums["loss"]["sum"])
        (5, 5, 10.0)
    """
    while True:
        chunk = advance(progress, limit(progress.taken))
        progress = progress.after(chunk)
        if chunk.bad is not None or chunk.failure is not None:
            return EpochEnd(progress, None, chunk.bad, chunk.failure)
        stopped = between(progress, chunk)
        if stopped is not None or chunk.ended:
            return EpochEnd(progress, stopped)
