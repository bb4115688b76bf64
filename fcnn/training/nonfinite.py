"""The search for the first value that is NaN or infinite."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..context import Observed
from ..initialization import fold
from ..layer import Context, Layer
from .augmentation import Augment, Batch, augmented
from .measures import Measures, Weighted
from .precision import lowered
from .step import TrainState
from .trainable import Trainable

if TYPE_CHECKING:
    from .config import FitConfig


class NonFiniteError(FloatingPointError):
    """The loss, or a parameter after the step, is NaN or infinite. Training stopped before that step.

    Attributes:
        run: the run so far; ``run.params`` and ``run.state`` are the last finite ones.
        where: the first place with such a value, such as ``"conv2"``.
    """

    def __init__(self, message: str, run: Any, where: str) -> None:
        super().__init__(message)
        self.run, self.where = run, where

    def __reduce__(self) -> tuple[Any, ...]:
        # by default an exception is unpickled from its message alone
        return type(self), (self.args[0], self.run, self.where), self.__dict__


def search(config: FitConfig, train: TrainState, batch: Batch, examples: Any, epoch: Any) -> tuple[str, str]:
    """:func:`first_place` for a run; for an ensemble, in the first member that has one. It never raises."""
    where, found = "optimizer", ""
    for member in range(config.members or 1):
        given = (train, batch, examples)
        if config.members is not None:
            given = jax.tree.map(lambda a, m=member: a[m], given)
        try:
            before, data, places = given
            how = (config.measures, config.augment, config.precision)
            where, found = first_place(config.net, before, data, *how, places, epoch, config.trainable)
        except Exception as error:  # the search takes more memory than the step did
            return "unknown", f"where could not be found out ({type(error).__name__})"
        found = found if config.members is None else f"in member {member} {found}"
        if where != "optimizer":
            return where, found
    if config.accumulate > 1:
        return "unknown", f"the batch as a whole is finite, one of its {config.accumulate} parts is not"
    return where, found


def failure_message(what: str, where: str, path: Path | None, skips: bool) -> str:
    """What happened, where the state before it is, and what to do."""
    kept = "the state before it is in this error's .run" + (f" and in {path}" if path else "")
    advice = "lower the learning rate, clip gradients (optax.clip_by_global_norm)"
    if "batch" in where:
        advice = "look at the data"
    if not skips:
        advice += ", or leave such steps out: non_finite='skip'"
    return f"fit: {what}; {kept}. To go on, {advice}"


def first_place(
    net: Layer,
    train: TrainState,
    batch: Batch,
    measures: Measures,
    augment: Augment | None,
    precision: str | None,
    examples: Any = None,
    epoch: Any = None,
    trainable: Trainable | None = None,
) -> tuple[str, str]:
    """The first place where a step produces a value that is not finite.

    The step is taken apart: the batch, the parameters, the output of every layer in the order of computation, the loss,
    the gradient, the update.

    Args:
        net: the network.
        train: the train state before the step.
        batch: the batch of the step, ((x, ...), y).
        measures: losses and metrics.
        augment: as for ``make_step``.
        precision: as for ``make_step``.
        examples: indices of the batch's examples in the data.
        epoch: the epoch, from 0.
        trainable: the parts that are trained; None: all.

    Returns:
        The place, and a description of the values.
    """
    key = jax.random.fold_in(train.key, train.step)
    plain = augmented(None, key, batch)
    for what, found in (
        ("the batch", plain),
        ("the augmented batch", augmented(augment, fold(key, "augment"), batch, examples, epoch)),
    ):
        named = {f"x[{i}]" if len(found[0]) > 1 else "x": a for i, a in enumerate(found[0])}
        targets = found[1].targets if isinstance(found[1], Weighted) else found[1]
        named |= {f"y{jax.tree_util.keystr(path)}": a for path, a in jax.tree.leaves_with_path(targets)}
        for name, array in named.items():
            if bad := _count(array):
                rows = np.flatnonzero(~np.isfinite(np.asarray(array)).reshape(array.shape[0], -1).all(1))
                of = "the batch" if examples is None else "the data"
                rows = rows if examples is None else np.asarray(examples)[rows]
                listed = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
                return what, f"{bad} in {name} of {what}, example{'s' * (len(rows) > 1)} {listed} of {of}"
    inputs, targets = augmented(augment, fold(key, "augment"), batch, examples, epoch)
    for path, leaf in _named(train.params).items():
        if bad := _count(leaf):
            return path, f"{bad} in the parameter {path}, before the step"
    resting = frozenset() if trainable is None else trainable.resting(train.params, train.state)
    context = Context(train=True, root=fold(key, "dropout"), resting=resting)
    observing = dataclasses.replace(context, observer=lambda seen: Observed(kept=seen.output))
    low, x = lowered((train.params, inputs), precision)
    with jax.numpy_dtype_promotion("standard"):
        outputs, _ = net.start_walk(observing, low, train.state, x)
    for kept in observing.kept:
        if bad := next(filter(None, map(_count, jax.tree.leaves(kept.value))), None):
            path = kept.path or net.label
            return path, f"the first is the output of {path}: {bad}"
    if bad := next(filter(None, map(_count, jax.tree.leaves(outputs))), None):
        return net.label, f"the first is the output of {net.label}: {bad}"
    if bad := _count(measures.measure(outputs, targets)[0]):
        return "loss", f"the outputs are finite, the loss of them is not: {bad}"

    def lost(params: Any) -> jax.Array:
        low, x = lowered((params, inputs), precision)
        return measures.measure(net.start_walk(context, low, train.state, x)[0], targets)[0]

    # gradients are computed backwards, so the last parameter with such a value comes first
    for path, leaf in reversed(_named(jax.grad(lost)(train.params)).items()):
        if trainable is not None and not trainable.chosen(tuple(path.split("/"))):
            continue
        if bad := _count(leaf):
            return path, f"the loss is finite, the gradient of {path} is not: {bad}"
    return "optimizer", "loss and gradients are finite, the optimizer's update is not"


def _named(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {"/".join(str(k.key) for k in keys): leaf for keys, leaf in jax.tree.leaves_with_path(tree)}


def _count(array: Any) -> str | None:
    """The values of an array that are not finite, in words; None if all are."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return None
    host = np.asarray(array, np.float64)
    kinds = {"NaN": int(np.isnan(host).sum()), "infinite": int(np.isinf(host).sum())}
    found = [f"{count:,} {kind}" for kind, count in kinds.items() if count]
    return f"{' and '.join(found)} of {host.size:,} value{'s' * (host.size != 1)}" if found else None
