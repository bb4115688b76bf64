"""Where batches come from: arrays in a random order, or whatever the user iterates over."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import at
from ..given import fold
from ..layer import Layer
from .examples import check_data, count_of, taken
from .mapped import in_file, lazy
from .objective import Objective
from .sharding import Sharding

#: batches that are made ready while a step computes
AHEAD = 2
#: examples whose values are looked at before training
LOOKED_AT = 256


def are_batches(data: Any) -> bool:
    """Whether data are batches to go through, rather than the pair (x, y) of all examples.

    Example:
        >>> are_batches((np.ones((5, 1)), np.ones(5))), are_batches([(np.ones((5, 1)), np.ones(5))])
        (False, True)
    """
    if isinstance(data, (tuple, str, bytes, dict)) or hasattr(data, "shape"):
        return False
    if isinstance(data, list):
        return bool(data) and all(isinstance(batch, (tuple, list)) and len(batch) in (2, 3) for batch in data)
    return callable(data) or isinstance(data, Iterable)


def order_of(key: jax.Array, epoch: int, count: int) -> jax.Array:
    """The order in which an epoch of ``fit`` goes through the examples.

    Args:
        key: the random key of the run; of an ensemble's member, its own.
        epoch: number of the epoch, from 0.
        count: number of examples.

    Returns:
        Places of the examples, each of them once, (count,) int32.

    Example:
        >>> sorted(order_of(jax.random.key(0), 3, 5).tolist())
        [0, 1, 2, 3, 4]
    """
    return jax.random.permutation(jax.random.fold_in(fold(key, "order"), epoch), count)


class Batches:
    """Batches that a user hands in, epoch by epoch.

    Args:
        data: an iterable of batches (x, y), or a function from the epoch, 0, 1, ..., to one.
        epochs: how often it will be gone through.
        what: what they are, for messages.
        limit: batches in an epoch; the next goes on where it ended, and what ends begins anew. A function of the epoch
            gives those of each. None: an epoch is all that the data give.

    Raises:
        ValueError: an iterator, which can be gone through once, for several epochs, or what never ends.
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
                f"{what.split(': ')[-1]} is a {type(data).__name__}, which can be gone through once, and epochs is "
                f"{epochs}; give a list, a loader, or a function (epoch) that returns the batches of an epoch, or say "
                "how many of its batches are an epoch: steps=1000"
            )

    def peek(self) -> Any:
        """The first batch; it is still there for the first epoch.

        Raises:
            ValueError: there is none.
            TypeError: data are a function that does not take the epoch, or that returns no batches.
        """
        batches = self._start(0)
        for batch in batches:
            self._first = itertools.chain([batch], batches)
            return batch
        raise ValueError(f"{self._what}: there are no batches")

    def epoch(self, number: int, done: int = 0) -> Iterator[Any]:
        """The batches of an epoch, without those that have been done."""
        if self._limit is not None:
            return self._part(number, done, self._limit)
        first, self._first = self._first, None
        same = number == 0 or isinstance(self._data, Iterator)
        batches = first if first is not None and same else self._start(number)
        return itertools.islice(batches, done, None)

    def steps(self) -> int | None:
        """The number of batches in an epoch, where the iterable knows.

        Raises:
            ValueError: it knows that it never ends.
        """
        if self._limit is not None:
            return self._limit
        try:
            found = len(self._data)
        except (TypeError, NotImplementedError):
            return None
        except OverflowError:
            found = sys.maxsize
        if found > sys.maxsize // 2:  # as repeat() of Grain has it
            raise ValueError(f"{self._what} never ends; say how many batches are an epoch: steps=1000")
        return found

    def _part(self, number: int, done: int, limit: int) -> Iterator[Any]:
        """The batches of an epoch of ``limit``, without those that have been done."""
        if self._by_epoch():
            first, self._first = self._first, None
            given = 0
            batches = first if first is not None and number == 0 else self._start(number)
            for given, batch in enumerate(batches, start=1):
                if given > done:
                    yield batch
                if given == limit:
                    return
            raise ValueError(f"{self._what}: epoch {number + 1} has {given} batches, and steps is {limit}")
        if self._stream is None:
            self._stream = self._endless()
        while self._position < number * limit + done:  # what a run that goes on has seen
            next(self._stream)
            self._position += 1
        while self._position < (number + 1) * limit:
            batch = next(self._stream)
            self._position += 1
            yield batch

    def _endless(self) -> Iterator[Any]:
        """All batches, from the first again whenever they end."""
        given = True
        while given:
            given = False
            first, self._first = self._first, None
            for batch in self._start(0) if first is None else first:
                given = True
                yield batch
            if isinstance(self._data, Iterator):
                raise ValueError(
                    f"{self._what} is a {type(self._data).__name__} that ended after {self._position} batches, and "
                    f"every epoch takes {self._limit} (steps); give a list, a loader or a function (epoch)"
                )
        raise ValueError(f"{self._what}: there are no batches")

    def _by_epoch(self) -> bool:
        return callable(self._data) and not isinstance(self._data, Iterable)

    def sizes(self) -> dict[int, str]:
        """Sizes of the batches of an epoch as far as they are known beforehand, each with a batch that has it."""
        data = self._data
        if isinstance(data, list):
            found: dict[int, str] = {}
            for number, batch in enumerate(data, start=1):
                x = batch[0][0] if isinstance(batch[0], (tuple, list)) and batch[0] else batch[0]
                if getattr(x, "shape", None):
                    found.setdefault(int(x.shape[0]), f"batch {number}")
            return found
        # loaders of PyTorch, whose samplers may choose otherwise
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
                        f"{self._what} is a function that does not take the epoch; write def batches(epoch), or give "
                        "lambda epoch: batches()"
                    ) from None
            made = self._data(number)
        if not isinstance(made, Iterable):
            raise TypeError(
                f"{self._what}({number}) returned a {type(made).__name__}, it must return an iterable of batches (x, y)"
            )
        return iter(made)


def checked(net: Layer, batch: Any, objective: Objective, sharding: Sharding, what: str) -> tuple[tuple[Any, ...], Any]:
    """A batch, checked, as ((x, ...), y).

    Raises:
        TypeError: not a pair (x, y), or not of arrays.
        ValueError: arrays that do not suit the network or the mesh.
    """
    with at(what):
        if isinstance(batch, dict):
            raise TypeError(
                f"a batch must be a pair (x, y), not a dict with {', '.join(map(repr, batch))}; "
                "make pairs of them: ((b['x'], b['y']) for b in loader)"
            )
        inputs, targets = check_data(net, batch, "batch", objective)
        sharding.check_batch(count_of(inputs) * sharding.processes)
    return inputs, targets


def check_augmented(augment: Any, inputs: tuple[Any, ...]) -> None:
    """Raise where the values of the first examples do not suit an augmentation; in the step they cannot be seen."""
    check = getattr(augment, "check_values", None)
    if check is not None:
        with at("fit: augment"):
            check(np.asarray(inputs[0][:LOOKED_AT]))


def check_sizes(step: Any, train: Any, first: Any, sizes: dict[int, str], sharding: Sharding) -> None:
    """Raise for batches of another size than the first that the step will not take; nothing is computed.

    Args:
        step: (train state, batch) to anything.
        train: the train state before the first step.
        first: the first batch.
        sizes: the sizes that are known, each with words for a batch that has it.
        sharding: where arrays live.

    Raises:
        ValueError: the step raises it for such a batch.
    """
    for size, which in sizes.items():
        if size == count_of(first[0]):
            continue
        with at(f"fit: data: {which}, of {size} example{'s' * (size != 1)}"):
            sharding.check_batch(size * sharding.processes)
            batch = jax.tree.map(lambda a, n=size: jax.ShapeDtypeStruct((n, *a.shape[1:]), a.dtype), first)
            jax.eval_shape(step, train, batch)


def shapes_of(inputs: tuple[Any, ...]) -> list[tuple[int, ...]]:
    """The shape of one example of each input."""
    return [tuple(a.shape[1:]) for a in inputs]


def from_arrays(inputs: tuple[Any, ...], targets: Any, order: np.ndarray, size: int, done: int) -> Iterator[Any]:
    """Batches of arrays on the host in a given order, without the first ``done``, and the places of their examples."""
    for first in range(done * size, len(order) - size + 1, size):
        chosen = order[first : first + size]
        yield taken((inputs, targets), chosen), chosen


class Prefetcher:
    """An iterator's next items, made ready on a thread while the present one is used.

    Args:
        items: the iterator.
        prepare: what is done with an item on the thread, such as the way to the device.
    """

    _END = object()

    def __init__(self, items: Iterator[Any], prepare: Callable[[Any], Any]) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        # settings made by "with" hold for the thread that made them
        self._wide, self._device = (getattr(jax.config, f"jax_{name}") for name in ("enable_x64", "default_device"))
        self._thread = threading.Thread(target=self._work, args=(items, prepare), daemon=True, name="fcnn batches")
        self._thread.start()

    def _work(self, items: Iterator[Any], prepare: Callable[[Any], Any]) -> None:
        try:
            with jax.enable_x64(self._wide), jax.default_device(self._device):
                for item in items:
                    if not self._put(prepare(item)):
                        return
            self._put(self._END)
        except BaseException as error:  # raised where the items are used
            self._put(_Failure(error))

    def _put(self, item: Any) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[Any]:
        while (item := self._queue.get()) is not self._END:
            if isinstance(item, _Failure):
                raise item.error
            yield item

    def close(self) -> None:
        """Let the thread end; items that nobody took are dropped."""
        self._closed.set()
        self._thread.join(timeout=5)


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def placed(arrays: Any, sharding: Sharding, members: int | None) -> Any:
    """Arrays on the device, or on every one of a mesh; None where they are to stay on the host or in their files."""
    device = jnp.zeros(()).device if sharding.mesh is None else sharding.mesh.devices.flat[0]
    inputs, targets = arrays
    if members is None and not on_device(inputs, targets, device):
        return None
    whole = jax.tree.map(lambda a: jnp.asarray(np.asarray(a) if lazy(a) else a), arrays)
    return whole if sharding.mesh is None else jax.device_put(whole, sharding.whole)


def orders(key: jax.Array, epoch: int, count: int, members: int | None, sharding: Sharding) -> jax.Array:
    """:func:`order_of` an epoch on the devices, for each member of an ensemble its own."""
    if members is None:
        order = order_of(key, epoch, count)
    else:
        order = jax.vmap(lambda key: order_of(key, epoch, count))(jax.random.split(key, members))
    return order if sharding.mesh is None else jax.device_put(order, sharding.whole)


def check_steps(wanted: int | None, there: int) -> int:
    """The steps of an epoch on arrays, all that there are or fewer.

    Raises:
        ValueError: more are wanted than there are.
    """
    if wanted is not None and wanted > there:
        raise ValueError(
            f"fit: steps is {wanted}, and the data are {there} batches; leave it out and give more epochs, or "
            "a smaller batch_size"
        )
    return there if wanted is None else wanted


def on_device(inputs: tuple[Any, ...], targets: Any, device: Any) -> bool:
    """Whether the data are to be on the device.

    Those in files are not. Others are where they fit beside a network: on the CPU always, else in 40 % of its free
    memory.
    """
    if any(in_file(a) for a in jax.tree.leaves((inputs, targets))):
        return False
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if not statistics or "bytes_limit" not in statistics:
        return True
    free = statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    return sum(a.nbytes for a in jax.tree.leaves((inputs, targets))) <= 0.4 * free
