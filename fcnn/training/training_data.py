"""The data of a run: what every epoch goes through, and how many steps that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .arrays import batches_in_order, check_steps, order_of, placed
from .augmentation import BY_EXAMPLE
from .batches import Batches, are_batches, check_augmented, checked
from .config import FitConfig
from .examples import check_data, count_of, taken
from .mapped import in_file
from .resident import ResidentSteps
from .streaming import StreamedSteps


def check_source(config: FitConfig, data: Any) -> Any:
    """The data as arrays, ((x, ...), y), or as Batches.

    Raises:
        ValueError: arrays that do not suit the network, the loss or the mesh.
        TypeError: data of the wrong kind.
    """
    if are_batches(data):
        if config.members is not None:
            raise TypeError(
                "data must be a pair (x, y) of arrays, because every member goes through them in its own order"
            )
        if getattr(config.augment, "by_example", False):
            raise ValueError(BY_EXAMPLE)
        return Batches(data, config.epochs, limit=config.steps)
    inputs, targets = check_data(config.net, data, "data", config.measures)
    config.sharding.check_batch(min(config.batch_size, count_of(inputs) * config.sharding.processes.count))
    return inputs, targets


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The data of a run.

    Attributes:
        source: arrays ((x, ...), y), or Batches.
        first: the first batch, ((x, ...), y), for its shapes.
        count: number of examples; 0 if unknown.
        batch_size: examples in a step of this process; 0 if unknown.
        steps: steps in an epoch; None if unknown.
    """

    source: Any
    first: tuple[tuple[Any, ...], Any]
    count: int
    batch_size: int
    steps: int | None

    @classmethod
    def of(cls, config: FitConfig, source: Any) -> TrainingData:
        """The data, with the first batch checked.

        Raises:
            ValueError: a batch that does not suit the network or the mesh, or too few batches.
        """
        sharding, processes = config.sharding, config.sharding.processes
        if isinstance(source, Batches):
            with processes.share_errors():
                first = checked(config.net, source.peek(), config.measures, sharding, "fit: data")
            processes.check_same(first)
            found = cls(source, first, 0, 0, source.steps())
        else:
            # every process takes as many steps as the one with the fewest examples
            count = int(np.min(processes.gather(np.int32(count_of(source[0])))))
            size = min(config.batch_size // processes.count, count)
            sharding.check_batch(size * processes.count)
            steps = check_steps(config.steps, count // size)
            found = cls(source, taken(source, slice(size)), count, size, steps)
        check_augmented(config.augment, found.first[0])
        return found

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of one example of each input."""
        return [tuple(a.shape[1:]) for a in self.first[0]]

    def steps_for(self, config: FitConfig, received: Callable[[], int | None]) -> ResidentSteps | StreamedSteps:
        """What takes the steps: on the device where the data fit, else from the host.

        Args:
            config: the settings of the run.
            received: gives the number of a signal that this process received, or None.
        """
        handed_in = isinstance(self.source, Batches)
        if not handed_in and config.sharding.processes.has_all_data:
            arrays = placed(self.source, config.sharding, config.members)
            if arrays is not None:
                return ResidentSteps(config, arrays, self.count, self.batch_size, self.steps or 0)
        places = None if handed_in else np.arange(self.batch_size, dtype="int32")
        known = self.steps if not handed_in or config.steps is not None else None
        batches = self._handed_in if handed_in else self._drawn
        return StreamedSteps(config, lambda *at: batches(config, *at), (self.first, places), known, received)

    def _handed_in(self, config: FitConfig, epoch: int, done: int) -> Iterator[Any]:
        for number, batch in enumerate(self.source.epoch(epoch, done), start=done + 1):
            what = f"fit: epoch {epoch + 1}, batch {number}"
            batch = checked(config.net, batch, config.measures, config.sharding, what)
            config.sharding.processes.check_like(batch, self.first, what)
            yield batch, None

    def _drawn(self, config: FitConfig, epoch: int, done: int) -> Iterator[Any]:
        order = np.asarray(order_of(config.key, epoch, self.count))[: (self.steps or 0) * self.batch_size]
        inputs, targets = jax.tree.map(lambda a: a if in_file(a) else np.asarray(a), self.source)
        yield from batches_in_order(inputs, targets, order, self.batch_size, done)
