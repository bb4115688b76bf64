"""Steps on batches that come from the host, one call of the compiled step for each."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from .compiled_loop import fed
from .config import FitConfig
from .core import Chunk, Progress
from .examples import count_of
from .prefetch import Prefetcher
from .resident import CHUNK_SECONDS


class StreamedSteps:
    """Steps on batches from the host.

    Args:
        config: the settings of the run.
        batches: (epoch, steps that are done) to the other batches of the epoch, each with the indices of its examples
            in the data; None in their place where they are unknown.
        blank: a batch of the right shapes, with indices likewise.
        steps: batches in an epoch if it is the same number in every process, else None.
        received: gives the number of a signal that this process received, or None.

    Attributes:
        compile_seconds: seconds that compilation and the first step took; 0 before.
    """

    def __init__(
        self,
        config: FitConfig,
        batches: Callable[[int, int], Iterator[Any]],
        blank: Any,
        steps: int | None,
        received: Callable[[], int | None],
    ) -> None:
        self.config, self.batches, self.steps, self.received = config, batches, steps, received
        self.take = fed(config.step, config.sharding, config.skips)
        self.blank = functools.cache(lambda: (blank, config.sharding.put(blank)))
        self.compile_seconds = 0.0

    @contextmanager
    def epoch(self, progress: Progress, compiled: Callable[[], None]) -> Iterator[Callable[[Progress, int], Chunk]]:
        """What ``run_epoch`` advances with in an epoch; ``compiled`` is called after the first step."""
        sharding = self.config.sharding
        batches = Prefetcher(self.batches(progress.epoch, progress.done), lambda host: (host, sharding.put(host)))
        try:
            yield _Epoch(self, batches, progress, compiled).advance
        finally:
            batches.close()


class _Epoch:
    """The steps of one epoch. The device computes one of them while the result of the one before is read."""

    def __init__(
        self, steps: StreamedSteps, batches: Prefetcher, progress: Progress, compiled: Callable[[], None]
    ) -> None:
        self.steps, self.processes, self.compiled = steps, steps.config.sharding.processes, compiled
        count = None if steps.steps is None else steps.steps - progress.done
        self.lockstep = self.processes.lockstep(batches, steps.blank, count, steps.received)
        self.items = iter(self.lockstep)
        self.stopped = steps.config.sharding.replicate(np.zeros((), bool))
        self.waiting: deque[Any] = deque()  # steps in flight
        self.read: list[Any] = []  # results of the others
        self.examples = 0
        self.heard: dict[int, int] = {}
        self.bad: Any = None

    def advance(self, progress: Progress, most: int) -> Chunk:
        """Take steps for a while, and wait for all of them."""
        epoch, train, accumulators = np.int32(progress.epoch), progress.train, progress.sums.accumulators
        self.read, self.examples = [], 0
        begun, sent, ended, failure, signal = time.perf_counter(), 0, False, None, None
        try:
            while not (self.heard or self.bad):
                item = next(self.items, None)
                if item is None:
                    ended = True
                    break
                (host, (batch, places)), announced = item
                train, self.stopped, good, sums, announced, accumulators = self.steps.take(
                    train, self.stopped, batch, places, epoch, announced, accumulators
                )
                self.waiting.append((host, self.stopped, good, sums, announced))
                sent += 1
                if not self.steps.compile_seconds:
                    jax.block_until_ready(self.stopped)
                    self.steps.compile_seconds = time.perf_counter() - begun
                    self.compiled()
                if len(self.waiting) > 1:
                    self._read()
                if (sent >= most or time.perf_counter() - begun >= CHUNK_SECONDS) and self.lockstep.may_pause(
                    (stopped, announced) for _, stopped, _, _, announced in self.waiting
                ):
                    break
            self._read_all()
            signal = self.lockstep.conclude(self.heard)
        except Exception as error:
            failure = error
            with contextlib.suppress(Exception):
                self.processes.salvage(self._read_all)  # steps that were taken before a loader failed count
        return Chunk(
            train=train,
            done=len(self.read),
            good=np.array([good for good, _ in self.read], bool),
            sums=jax.tree.map(lambda *values: np.stack(values), *(sums for _, sums in self.read)) if self.read else {},
            accumulators=accumulators,
            examples=self.examples,
            ended=ended or bool(self.heard),
            bad=self.bad,
            failure=failure,
            signal=signal,
        )

    def _read_all(self) -> None:
        while self.waiting and not (self.heard or self.bad):
            self._read()

    def _read(self) -> None:
        """Wait for the oldest step in flight, and note its numbers, unless a process announced that it is none."""
        host, stopped, good, sums, announced = self.waiting.popleft()
        if heard := self.lockstep.heard(announced):
            self.heard = heard
        elif stopped:
            self.bad = host
        else:
            self.read.append((bool(good), jax.tree.map(np.asarray, sums)))
            self.examples += count_of(host[0][0]) * self.processes.count
