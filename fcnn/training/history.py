"""The numbers of a run, epoch by epoch."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..layer import Layer
from .objective import Objective

if TYPE_CHECKING:
    from .run import Options
    from .step import TrainState


class History:
    """Sums over the examples of the running epoch, and the numbers of the epochs before.

    Args:
        objective: what makes numbers of the sums.
        members: members of an ensemble, which all arrays have a first axis of; None: there is one network.

    Attributes:
        epochs: for each name a list with one value for each finished epoch.
        sums: sums over the steps of the running epoch by name, in float64.
        folds: accumulators of metrics that go from step to step.
    """

    def __init__(self, objective: Objective | None = None, members: int | None = None) -> None:
        self.objective = Objective() if objective is None else objective
        self.members = members
        self.epochs: dict[str, list[Any]] = {}
        self.sums: dict[str, dict[str, Any]] = {}
        self.folds: dict[str, Any] = {}
        self.skipped = 0
        self._last: dict[str, dict[str, Any]] = {}
        self._before = 0.0
        self._begun = time.perf_counter()

    def begin(self, seconds: float = 0.0) -> None:
        """Start an epoch, or go on with one that took some seconds before."""
        self._before, self._begun = seconds, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of the running epoch."""
        return self._before + time.perf_counter() - self._begun

    def add(self, steps: Mapping[str, Any], good: np.ndarray) -> None:
        """Note down some steps; of those that were skipped only the number.

        Args:
            steps: by name, sums over the examples of each step, {"sum": (steps, ...), "weight": (steps, ...)}; or a
                number of each step, (steps, ...), which all steps have the same share in.
            good: whether each step was taken, (steps,).
        """
        self.skipped += int(np.sum(~good))
        if not good.any():
            return
        for name, given in steps.items():
            alone = not isinstance(given, Mapping)
            tally = {"sum": given, "weight": np.ones(np.shape(given))} if alone else given
            tally = {part: np.asarray(values)[good].astype(np.float64) for part, values in tally.items()}
            before = self.sums.get(name, {})
            # one after another: so that the sum does not depend on how many steps are told at a time
            self.sums[name] = {part: _total(before.get(part), values) for part, values in tally.items()}
            self._last[name] = {part: values[-1] for part, values in tally.items()}

    def latest(self) -> dict[str, Any]:
        """The numbers of the last step of the running epoch that was not skipped."""
        return {name: value for name, value in self._numbers(self._last).items() if np.ndim(value) < 2}

    def means(self) -> dict[str, Any]:
        """The numbers of the running epoch so far; an ensemble has one for each member."""
        return self._numbers(self.sums, self.folds)

    def _numbers(self, sums: Any, folds: Any = None) -> dict[str, Any]:
        found = numbers(self.objective, sums, folds if sums else None, self.members)
        return {name: np.asarray(value).tolist() for name, value in found.items()}

    def close(self, values: Mapping[str, Any]) -> None:
        """End the epoch with these values."""
        values = {**values, "seconds": self.seconds}
        before = len(self.epochs.get("seconds", ()))
        for name in dict.fromkeys((*self.epochs, *values)):  # a run that is resumed may report other numbers: NaN there
            like = values[name] if name in values else self.epochs[name][-1]
            blank = np.full(np.shape(like), np.nan).tolist()
            self.epochs.setdefault(name, [blank] * before).append(values.get(name, blank))
        self.restart()

    def restart(self) -> None:
        """Forget the steps of the running epoch."""
        self.sums, self.folds, self._last, self.skipped = {}, {}, {}, 0

    def arrays(self) -> dict[str, np.ndarray]:
        """An array for each name, (epochs,), or (epochs, members)."""
        return {name: np.asarray(values) for name, values in self.epochs.items()}

    def best(self, name: str, mode: str | None = None) -> int | None:
        """The epoch, from 0, in which a number was best; the first of equals, None where there is none.

        Args:
            name: of the number; of an ensemble the mean counts.
            mode: "max" where highest is best, "min" where lowest; None: as the name tells.
        """
        if not self.epochs.get(name):
            return None
        values = np.asarray([np.mean(value) for value in self.epochs[name]])
        if np.isnan(values).all():
            return None
        mode = mode or self.objective.mode_of(name)
        return int(np.nanargmax(values) if mode == "max" else np.nanargmin(values))

    def written(self) -> dict[str, Any]:
        """All of it as plain numbers."""
        folds = {name: [np.asarray(a).tolist() for a in jax.tree.leaves(tree)] for name, tree in self.folds.items()}
        sums = {name: {part: a.tolist() for part, a in tally.items()} for name, tally in self.sums.items()}
        return {
            "epochs": self.epochs,
            "sums": sums,
            "folds": folds,
            "skipped": self.skipped,
            "seconds": self.seconds,
        }

    @classmethod
    def read(
        cls, written: Mapping[str, Any], objective: Objective | None = None, members: int | None = None
    ) -> History:
        """What was written."""
        history = cls(objective, members)
        history.epochs = {name: list(values) for name, values in written["epochs"].items()}
        history.sums = {
            name: {part: np.asarray(values, np.float64) for part, values in tally.items()}
            for name, tally in written["sums"].items()
        }
        for name, first in history.objective.folds().items():
            if name in written["folds"]:
                leaves, form = jax.tree.flatten(first)
                leaves = [np.asarray(a, b.dtype) for a, b in zip(written["folds"][name], leaves, strict=True)]
                history.folds[name] = jax.tree.unflatten(form, leaves)
        history.skipped = written["skipped"]
        history.begin(written["seconds"])
        return history


def _total(before: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    if before is not None:
        values = np.concatenate([np.broadcast_to(before, values.shape[1:])[None], values])
    return np.add.accumulate(values)[-1]


def numbers(objective: Objective, sums: Any, folds: Any = None, members: int | None = None) -> dict[str, Any]:
    """``objective.results`` on the host, for every member of an ensemble."""
    if members is None:
        return objective.results(sums, folds)
    each = [objective.results(*jax.tree.map(lambda a, i=i: a[i], (sums, folds or {}))) for i in range(members)]
    return {name: np.stack([np.asarray(found[name]) for found in each]) for name in each[0]}


def reported(net: Layer, options: Options, train: TrainState, batch: Any, validation: Any) -> dict[str, int]:
    """The names of the numbers that an epoch is going to report, from shapes alone: nothing is computed.

    Args:
        net: the network.
        options: the run's settings.
        train: the train state before the first step.
        batch: the first batch, ((x, ...), y).
        validation: such a batch to evaluate on, or None.

    Returns:
        The names in training, and those in validation where there are data for it, each with its number of axes.
    """
    objective = options.objective

    def numbers(found: Any) -> dict[str, int]:
        known = jax.eval_shape(objective.results, found.sums)
        return {name: value.ndim for name, value in known.items()} | dict.fromkeys(found.folds, 0)

    def validate(params: Any, state: Any, inputs: Any, targets: Any) -> Any:
        return objective.measure(net.apply(params, *inputs, state=state), targets)[1]

    examples = jax.ShapeDtypeStruct((len(jax.tree.leaves(batch)[0]),), "int32")
    names = numbers(jax.eval_shape(options.step, train, batch, examples=examples)[1])
    if validation is not None:
        found = numbers(jax.eval_shape(validate, train.params, train.state, *validation))
        names |= {f"validation_{name}": axes for name, axes in found.items()}
    return names


def check_monitor(monitor: str, names: Collection[str]) -> None:
    """Raise unless the number that a run goes by is among those that it reports."""
    if monitor not in names:
        raise ValueError(
            f"fit: monitor is {monitor!r}, but this run reports {', '.join(names)}; an accuracy needs labels of "
            "classes, in training those that augmentation does not mix"
        )
    if isinstance(names, Mapping) and isinstance(names[monitor], int) and names[monitor]:
        raise ValueError(f"fit: monitor is {monitor!r}, which is an array; give the name of a single number")
