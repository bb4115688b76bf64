"""Batches that are prepared on a thread while a step computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

#: batches that are prepared while a step computes
AHEAD = 2


class Prefetcher:
    """The next items of an iterator, prepared on a thread while the current one is used.

    Args:
        items: the iterator.
        prepare: applied to every item on the thread, for example to copy it to the device.
    """

    _END = object()

    def __init__(self, items: Iterator[Any], prepare: Callable[[Any], Any]) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        # settings made by "with" are local to a thread
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
        except BaseException as error:  # raised again where the items are used
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
        """End the thread, and drop the items that were not taken."""
        self._closed.set()
        self._thread.join(timeout=5)


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error
