"""The monitored value: whether a run will report it, its best epoch, and when to stop waiting for a better one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..types import Params, State
from .config import FitConfig
from .history import History
from .step import TrainState


class Monitor:
    """The best epoch so far, by the value that a run monitors.

    Args:
        config: the settings of the run.
        in_use: gives the parameters and the state to keep.

    Attributes:
        kept: parameters and state of the best epoch, where ``keep_best`` is set.
    """

    def __init__(self, config: FitConfig, in_use: Callable[[], tuple[Params, State]]) -> None:
        self._config, self._in_use = config, in_use
        self.kept: tuple[Params, State] | None = _copies(in_use()) if config.keep_best else None

    @property
    def matters(self) -> bool:
        """Whether the run depends on the value."""
        return self._config.patience is not None or self._config.keep_best

    def best(self, history: History) -> int | None:
        """The best epoch, from 0; None before the first has ended."""
        return history.best(self._config.monitor, self._config.mode)

    def update(self, history: History, epoch: int) -> None:
        """Keep parameters and state if the epoch that ended last, from 0, is the best."""
        if self.kept is not None and self.best(history) == epoch:
            self.kept = _copies(self._in_use())

    def out_of_patience(self, history: History, epoch: int) -> str | None:
        """Why training ends after ``epoch`` epochs; None if it does not."""
        best, patience = self.best(history), self._config.patience
        if best is None or patience is None or epoch - 1 - best < patience:
            return None
        return f"patience: {self._config.monitor} was best in epoch {best + 1}"


def _copies(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def reported(config: FitConfig, train: TrainState, batch: Any, validation: Any) -> dict[str, int]:
    """The names of the values that an epoch will report, found from shapes alone: nothing is computed.

    Args:
        config: the settings of the run.
        train: the train state before the first step.
        batch: the first batch, ((x, ...), y).
        validation: such a batch to evaluate on, or None.

    Returns:
        The names, those of validation included, each with its number of axes.
    """
    net, measures = config.net, config.measures

    def axes(measured: Any) -> dict[str, int]:
        known = jax.eval_shape(measures.results, measured.sums)
        return {name: value.ndim for name, value in known.items()} | dict.fromkeys(measured.accumulators, 0)

    def validate(params: Any, state: Any, inputs: Any, targets: Any) -> Any:
        return measures.measure(net.apply(params, *inputs, state=state), targets)[1]

    examples = jax.ShapeDtypeStruct((len(jax.tree.leaves(batch)[0]),), "int32")
    names = axes(jax.eval_shape(config.step, train, batch, examples=examples)[1])
    if validation is not None:
        found = axes(jax.eval_shape(validate, train.params, train.state, *validation))
        names |= {f"validation_{name}": count for name, count in found.items()}
    return names


def check_monitor(monitor: str, names: Collection[str]) -> None:
    """Raise unless the monitored value is among those that the run reports, and a single number.

    Raises:
        ValueError: it is not.
    """
    if monitor not in names:
        raise ValueError(
            f"fit: monitor is {monitor!r}, but this run reports {', '.join(names)}; an accuracy needs labels of "
            "classes, in training those that augmentation does not mix"
        )
    if isinstance(names, Mapping) and isinstance(names[monitor], int) and names[monitor]:
        raise ValueError(f"fit: monitor is {monitor!r}, which is an array; give the name of a single number")
