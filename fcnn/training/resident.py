"""Steps on data that are on the device: many of them in one call of a compiled program."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np

from .arrays import orders
from .compiled_loop import SLOTS, resident
from .config import FitConfig
from .core import Chunk, Progress
from .examples import taken

#: seconds that one chunk of steps should take: short enough for progress bars, checkpoints and Ctrl-C
CHUNK_SECONDS = 0.25


class ResidentSteps:
    """Steps on arrays that are on the device.

    Args:
        config: the settings of the run.
        data: the arrays, (inputs, targets), on the device.
        count: number of examples.
        batch_size: examples in a step.
        steps: steps in an epoch.

    Attributes:
        compile_seconds: seconds that compilation took; 0 before.
    """

    def __init__(self, config: FitConfig, data: Any, count: int, batch_size: int, steps: int) -> None:
        self._config, self._data, self._count, self._batch_size, self._steps = config, data, count, batch_size, steps
        members = config.members is not None
        self._take = resident(config.step, batch_size, config.sharding, config.skips, members)
        self._step_seconds = CHUNK_SECONDS  # the first call takes one step
        self.compile_seconds = 0.0

    @contextmanager
    def epoch(self, progress: Progress, compiled: Callable[[], None]) -> Iterator[Callable[[Progress, int], Chunk]]:
        """What ``run_epoch`` advances with in an epoch; ``compiled`` is called after compilation."""
        config = self._config
        order = orders(config.key, progress.epoch, self._count, config.members, config.sharding)
        yield partial(self._advance, order, compiled)

    def _advance(self, order: jax.Array, compiled: Callable[[], None], progress: Progress, most: int) -> Chunk:
        left = self._steps - progress.done
        if left <= 0:
            return Chunk(progress.train, ended=True)
        epoch, accumulators, train = np.int32(progress.epoch), progress.sums.accumulators, progress.train
        if not self.compile_seconds:
            begun = time.perf_counter()
            # no step is taken, so that what follows is the time of steps alone
            train = self._take(train, *self._data, order, epoch, np.int32(0), np.int32(0), accumulators).train
            jax.block_until_ready(train.step)
            self.compile_seconds = time.perf_counter() - begun
            compiled()
        wanted = max(1, min(int(CHUNK_SECONDS / self._step_seconds), SLOTS, left, most))
        begun = time.perf_counter()
        first, count = np.int32(progress.done), np.int32(wanted)
        answer = self._take(train, *self._data, order, epoch, first, count, accumulators)
        done = int(answer.done)
        self._step_seconds = max((time.perf_counter() - begun) / max(done, 1), 1e-6)
        return Chunk(
            train=answer.train,
            done=done,
            good=np.asarray(answer.good)[:done],
            sums=jax.tree.map(lambda a: np.asarray(a)[:done], answer.sums),
            accumulators=answer.accumulators,
            examples=done * self._batch_size * (self._config.members or 1),
            ended=done == left,
            bad=self._batch(order, progress.done + done) if answer.stopped else None,
        )

    def _batch(self, order: jax.Array, number: int) -> tuple[Any, np.ndarray]:
        """A batch of the epoch, and the indices of its examples."""
        chosen = np.asarray(order)[..., number * self._batch_size :][..., : self._batch_size]
        return taken(self._data, chosen), chosen
