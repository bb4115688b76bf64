"""Callbacks: functions that ``fit`` calls after an epoch or after some steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import layer_path
from ..geometry import integer


@dataclass(frozen=True)
class Every:
    """A callback that is called every few steps; made by :func:`every`.

    Attributes:
        steps: steps between two calls.
        callback: the function of a ``training.EpochInfo``.
    """

    steps: int
    callback: Callable[..., Any]

    def __call__(self, info: Any) -> Any:
        return self.callback(info)

    @property
    def __name__(self) -> str:
        return name_of(self.callback)


def every(steps: int, callback: Callable[..., Any]) -> Every:
    """Call a callback of ``fit`` every few steps of the run instead of after every epoch.

    It receives a ``training.EpochInfo``: ``step`` is the number of steps so far, ``epoch`` the number of the current
    epoch, and ``metrics`` are the values of the last step. If it returns True, training ends with that step; the epoch
    is then not in the history, and ``resume=True`` continues within it. A call of the compiled program ends when a
    callback is due, so a callback after every step costs as much as a Python loop. Each of several processes calls its
    own callbacks, which cannot end the run.

    Args:
        steps: steps between two calls.
        callback: the function of a ``training.EpochInfo``.

    Returns:
        A callback for ``fit(..., callbacks=[...])``.

    Raises:
        ValueError: steps that are not a positive integer.
        TypeError: not a function.

    Example:
        >>> import fcnn, optax
        >>> seen = []
        >>> run = fcnn.fit(fcnn.Dense(2), (jnp.ones((40, 3)), jnp.zeros(40, "int32")), optimizer=optax.sgd(0.1),
        ...                epochs=2, key=jax.random.key(0), batch_size=4, progress=False,
        ...                callbacks=[every(8, lambda info: seen.append((info.epoch, info.step)))])
        >>> seen
        [(1, 8), (2, 16)]

        Values for a TensorBoard writer, such as ``torch.utils.tensorboard.SummaryWriter("runs/1")``:

        >>> class Writer:
        ...     def add_scalar(self, name, value, step):
        ...         print(step, name)
        >>> writer = Writer()
        >>> def write(info):
        ...     for name, value in info.metrics.items():
        ...         if "loss" in name:
        ...             writer.add_scalar(name, value, info.step)
        >>> run = fcnn.fit(fcnn.Dense(2), (jnp.ones((40, 3)), jnp.zeros(40, "int32")), optimizer=optax.sgd(0.1),
        ...                epochs=1, key=jax.random.key(0), batch_size=4, progress=False, callbacks=[every(5, write)])
        5 loss
        10 loss
    """
    with layer_path("every"):
        if not callable(callback):
            raise TypeError(f"callback must be a function of an EpochInfo, not {callback!r}")
        return Every(integer(steps, "steps"), callback)


def name_of(callback: Any) -> str:
    """The name of a callback in messages."""
    return str(getattr(callback, "__name__", callback))


def until_next(callbacks: Iterable[Any], taken: int, most: int) -> int:
    """Steps until the next callback by steps is due, at most ``most``."""
    return min([most, *(c.steps - taken % c.steps for c in callbacks if isinstance(c, Every))])


def due(callbacks: Sequence[Any], taken: int) -> list[Every]:
    """The callbacks by steps that are due after this number of steps."""
    return [c for c in callbacks if isinstance(c, Every) and taken and taken % c.steps == 0]


def answers(callbacks: Iterable[Any], info: Any) -> str | None:
    """Call callbacks; the first that ends the training, in words, or None."""
    stopped = None
    for callback in callbacks:
        answer = callback(info)
        if isinstance(answer, (bool, np.bool_)) and answer and stopped is None:
            stopped = f"the callback {name_of(callback)}"
    return stopped
