"""Batches that a user hands in: lists, loaders, any other iterable, or a function of the epoch."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from ..errors import layer_path
from ..layer import Layer
from .examples import check_data, count_of
from .measures import Measures
from .sharding import Sharding

#: examples whose values are checked before training
LOOKED_AT = 256


def are_batches(data: Any) -> bool:
    """Whether data are batches, rather than a pair (x, y) of all examples.

    Example:
        >>> are_batches((np.ones((5, 1)), np.ones(5))), are_batches([(np.ones((5, 1)), np.ones(5))])
        (False, True)
    """
    if isinstance(data, (tuple, str, bytes, dict)) or hasattr(data, "shape"):
        return False
    if isinstance(data, list):
        return bool(data) and all(isinstance(batch, (tuple, list)) and len(batch) in (2, 3) for batch in data)
    return callable(data) or isinstance(data, Iterable)


class Batches:
    """Batches that a user hands in, epoch by epoch.

    Args:
        data: an iterable of batches (x, y), or a function from the epoch, 0, 1, ..., to one.
        epochs: number of passes through it.
        what: name of the data in messages.
        limit: batches in an epoch. The next epoch continues where one ended, and data that end start again. A function
            of the epoch gives the batches of each epoch. None: all batches.

    Raises:
        ValueError: an iterator, which can be used once, for several epochs, or data that never end.
    """

    def __init__(self, data: Any, epochs: int, what: str = "fit: data", limit: int | None = None) -> None:
        self._data, self._what, self._limit = data, what, limit
        self._stream: Iterator[Any] | None = None
        self._position = 0  # batches that the stream has given
        if limit is not None:
            return
        self._first: Iterator[Any] | None = None
        if isinstance(data, Iterator) and epochs > 1:
            raise ValueError(
                f"{what.split(': ')[-1]} is a {type(data).__name__}, which can be used only once, but epochs is "
                f"{epochs}; give a list, a loader, or a function (epoch) that returns the batches of an epoch, or set "
                "the number of batches in an epoch: steps=1000"
            )

    def peek(self) -> Any:
        """The first batch, which the first epoch has as well.

        Raises:
            ValueError: there is none.
            TypeError: a function that does not take the epoch, or does not return batches.
        """
        batches = self._start(0)
        for batch in batches:
            self._first = itertools.chain([batch], batches)
            return batch
        raise ValueError(f"{self._what}: there are no batches")

    def epoch(self, number: int, done: int = 0) -> Iterator[Any]:
        """The batches of an epoch, without those that have been used."""
        if self._limit is not None:
            return self._part(number, done, self._limit)
        first, self._first = self._first, None
        same = number == 0 or isinstance(self._data, Iterator)
        batches = first if first is not None and same else self._start(number)
        return itertools.islice(batches, done, None)

    def steps(self) -> int | None:
        """The number of batches in an epoch; None if the iterable does not know it.

        Raises:
            ValueError: the iterable never ends.
        """
        if self._limit is not None:
            return self._limit
        try:
            found = len(self._data)
        except (TypeError, NotImplementedError):
            return None
        except OverflowError:
            found = sys.maxsize
        if found > sys.maxsize // 2:  # the length of repeat() in Grain
            raise ValueError(f"{self._what} never ends; set the number of batches in an epoch: steps=1000")
        return found

    def _part(self, number: int, done: int, limit: int) -> Iterator[Any]:
        """The batches of an epoch that has ``limit`` of them, without those that have been used."""
        if self._by_epoch():
            first, self._first = self._first, None
            given = 0
            batches = first if first is not None and number == 0 else self._start(number)
            for given, batch in enumerate(batches, start=1):
                if given > done:
                    yield batch
                if given == limit:
                    return
            raise ValueError(
                f"{self._what}: epoch {number + 1} has only {given} batches, but steps is {limit}; give at least "
                "that many batches, or a smaller steps"
            )
        if self._stream is None:
            self._stream = self._endless()
        while self._position < number * limit + done:  # those before a resumed run
            next(self._stream)
            self._position += 1
        while self._position < (number + 1) * limit:
            batch = next(self._stream)
            self._position += 1
            yield batch

    def _endless(self) -> Iterator[Any]:
        """All batches, again and again."""
        given = True
        while given:
            given = False
            first, self._first = self._first, None
            for batch in self._start(0) if first is None else first:
                given = True
                yield batch
            if isinstance(self._data, Iterator):
                raise ValueError(
                    f"{self._what} is a {type(self._data).__name__} that ended after {self._position} batches, but "
                    f"every epoch takes {self._limit} (steps); give a list, a loader or a function (epoch)"
                )
        raise ValueError(f"{self._what}: there are no batches")

    def _by_epoch(self) -> bool:
        return callable(self._data) and not isinstance(self._data, Iterable)

    def sizes(self) -> dict[int, str]:
        """Sizes of batches that are known in advance, each with words for a batch of that size."""
        data = self._data
        if isinstance(data, list):
            found: dict[int, str] = {}
            for number, batch in enumerate(data, start=1):
                x = batch[0][0] if isinstance(batch[0], (tuple, list)) and batch[0] else batch[0]
                if getattr(x, "shape", None):
                    found.setdefault(int(x.shape[0]), f"batch {number}")
            return found
        # loaders of PyTorch; their samplers may yield fewer examples than there are
        size = getattr(data, "batch_size", None)
        if type(data).__module__.startswith("torch.utils.data") and isinstance(size, int) and not data.drop_last:
            try:
                left = len(data.sampler) % size
            except (TypeError, NotImplementedError):
                return {}
            return {left: "the last batch"} if left else {}
        return {}

    def _start(self, number: int) -> Iterator[Any]:
        made = self._data
        if self._by_epoch():
            with contextlib.suppress(ValueError):  # a function that has no signature
                try:
                    inspect.signature(self._data).bind(number)
                except TypeError:
                    raise TypeError(
                        f"{self._what} is a function that does not take the epoch; write def batches(epoch), or pass "
                        "lambda epoch: batches()"
                    ) from None
            made = self._data(number)
        if not isinstance(made, Iterable):
            raise TypeError(
                f"{self._what}({number}) returned a {type(made).__name__}, it must return an iterable of batches (x, y)"
            )
        return iter(made)


def checked(net: Layer, batch: Any, measures: Measures, sharding: Sharding, what: str) -> tuple[tuple[Any, ...], Any]:
    """A batch as ((x, ...), y), checked.

    Raises:
        TypeError: not a pair (x, y), or not of arrays.
        ValueError: arrays that do not suit the network or the mesh.
    """
    with layer_path(what):
        if isinstance(batch, dict):
            raise TypeError(
                f"a batch must be a pair (x, y), not a dict with {', '.join(map(repr, batch))}; "
                "make pairs of them: ((b['x'], b['y']) for b in loader)"
            )
        inputs, targets = check_data(net, batch, "batch", measures)
        sharding.check_batch(count_of(inputs) * sharding.processes.count)
    return inputs, targets


def check_augmented(augment: Any, inputs: tuple[Any, ...]) -> None:
    """Raise if an augmentation cannot take the values of the first examples; inside the step they are unknown."""
    check = getattr(augment, "check_values", None)
    if check is not None:
        with layer_path("fit: augment"):
            check(np.asarray(inputs[0][:LOOKED_AT]))


def check_sizes(step: Any, train: Any, first: Any, sizes: dict[int, str], sharding: Sharding) -> None:
    """Raise if the step cannot take batches whose size differs from the first one's; nothing is computed.

    Args:
        step: (train state, batch) to anything.
        train: the train state before the first step.
        first: the first batch.
        sizes: the known sizes, each with words for a batch of that size.
        sharding: where arrays live.

    Raises:
        ValueError: the step raises it for a batch of that size.
    """
    for size, which in sizes.items():
        if size == count_of(first[0]):
            continue
        with layer_path(f"fit: data: {which}, of {size} example{'s' * (size != 1)}"):
            sharding.check_batch(size * sharding.processes.count)
            batch = jax.tree.map(lambda a, n=size: jax.ShapeDtypeStruct((n, *a.shape[1:]), a.dtype), first)
            jax.eval_shape(step, train, batch)
