"""Many steps in one call of a compiled function.

A call from Python costs as much as a small network's step, and while it waits for numbers the device waits too.
So where the data are on the device the loop is compiled: one program that takes any number of steps, up to a
limit, and notes down the metrics of each. The number is an argument, so every call of a run is one compilation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import jaxpr_as_fun

from .optimizers import still_overflows
from .sharding import Sharding
from .step import TrainState

#: most steps in a call; the memory for their sums is set aside
SLOTS = 1024
#: bytes of it, at most; a step that has many sums, such as a large confusion matrix, has fewer slots
SLOTS_BYTES = 1 << 24


class Steps(NamedTuple):
    """What a call gives back.

    Attributes:
        train: the train state after the last good step.
        done: the number of steps taken, without the one that stopped them.
        stopped: whether a step came out with a value that is not finite, and that was to stop the run.
        good: for each slot whether its step was taken, (slots,).
        sums: for each slot the sums of its batch, (slots, ...).
        folds: accumulators after the last good step.
    """

    train: TrainState
    done: jax.Array
    stopped: jax.Array
    good: jax.Array
    sums: dict[str, Any]
    folds: dict[str, Any]


def guarded(step: Callable[..., Any], skip: bool, members: bool) -> Callable[..., Any]:
    """A step that keeps the old train state where the loss, or what comes of it, is not finite.

    Args:
        step: (train state, batch, examples=, epoch=, folds=) to (train state, found); or one of ``make_step``.
        skip: whether the step counter goes on, so that the next step has another key.
        members: whether arrays have a first axis of an ensemble's members.

    Returns:
        (train state, batch, examples, epoch, folds, idle) to (train state, good, sums, folds); where ``idle`` is true
        nothing changes, whatever comes of the step.
    """
    step = getattr(step, "measured", step)

    def take(before: TrainState, batch: Any, examples: Any, epoch: Any, folds: Any, idle: Any = None) -> Any:
        if members:
            one = lambda train, batch, examples, folds: step(  # noqa: E731
                train, batch, examples=examples, epoch=epoch, folds=folds
            )
            after, (sums, moved) = jax.vmap(one)(before, batch, examples, folds)
        else:
            after, (sums, moved) = step(before, batch, examples=examples, epoch=epoch, folds=folds)
        good = jnp.ones((), bool)
        for name, tally in sums.items():
            if name == "loss" or name.startswith("loss/"):
                good &= jnp.all(jnp.isfinite(tally["sum"]))
        for new, old in zip(*(jax.tree.leaves(t.params) for t in (after, before)), strict=True):
            if new is not old:  # else it is frozen
                good &= jnp.all(jnp.isfinite(new))
        # an optimizer may begin with infinity; what was finite has to stay so, or steps of no effect would follow
        for new, old in zip(*(jax.tree.leaves((t.state, t.optimizer_state)) for t in (after, before)), strict=True):
            if jnp.issubdtype(new.dtype, jnp.floating):
                good &= jnp.all(jnp.isfinite(new) | ~jnp.isfinite(old))
        good &= ~still_overflows(before.optimizer_state, after.optimizer_state)
        taken = good if idle is None else good & ~idle
        kept = jax.tree.map(
            lambda new, old: jnp.where(taken, new, old), after._replace(key=None), before._replace(key=None)
        )
        if skip:
            kept = kept._replace(step=after.step if idle is None else jnp.where(idle, before.step, after.step))
        folds = jax.tree.map(lambda new, old: jnp.where(taken, new, old), moved, folds)
        return kept._replace(key=before.key), good, sums, folds

    return take


@lru_cache(maxsize=8)
def resident(step: Callable[..., Any], batch_size: int, sharding: Sharding, skip: bool, members: bool) -> Any:
    """Steps on data that are on the device.

    Args:
        step: as for :func:`guarded`.
        batch_size: examples in a step.
        sharding: where arrays live.
        skip: whether a step that is not finite is left out, instead of stopping the run.
        members: whether train state, order, sums and folds have a first axis of an ensemble's members.

    Returns:
        Compiled (train state, inputs, targets, order, epoch, first, count, folds) to :class:`Steps`: from the batch
        number ``first`` of the order, ``count`` steps, fewer where their sums need more memory than is set aside. It
        takes over the train state's memory.
    """
    take = guarded(step, skip, members)

    def one(train: TrainState, inputs: Any, targets: Any, order: jax.Array, epoch: Any, index: Any, folds: Any) -> Any:
        examples = lax.dynamic_slice_in_dim(order, index * batch_size, batch_size, axis=order.ndim - 1)
        batch = sharding.keep_divided(jax.tree.map(lambda a: a[examples], (inputs, targets)))
        return take(train, batch, examples, epoch, folds)

    def many(
        train: TrainState,
        inputs: Any,
        targets: Any,
        order: jax.Array,
        epoch: Any,
        first: Any,
        count: Any,
        folds: Any = None,
    ) -> Steps:
        given, folds = (inputs, targets, order, epoch), {} if folds is None else folds
        # traced once, for the form of the sums and for the loop
        traced, shapes = jax.make_jaxpr(one, return_shape=True)(train, *given, first, folds)
        run = jaxpr_as_fun(traced)
        tree = jax.tree.structure(shapes)
        sums = shapes[2]
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(sums))
        slots = max(1, min(SLOTS, SLOTS_BYTES // max(size, 1)))
        count = jnp.minimum(count, slots)
        blank = jax.tree.map(lambda leaf: jnp.zeros((slots, *leaf.shape), leaf.dtype), sums)
        before = Steps(train, jnp.zeros((), "int32"), jnp.zeros((), bool), jnp.zeros(slots, bool), blank, folds)

        def body(now: Steps) -> Steps:
            flat = run(*jax.tree.leaves((now.train, *given, first + now.done, now.folds)))
            train, good, found, folds = jax.tree.unflatten(tree, flat)
            stopped = ~good & (not skip)
            return Steps(
                train,
                now.done + (~stopped).astype("int32"),
                stopped,
                now.good.at[now.done].set(good),
                jax.tree.map(lambda slot, value: slot.at[now.done].set(value), now.sums, found),
                folds,
            )

        return lax.while_loop(lambda now: (now.done < count) & ~now.stopped, body, before)

    return jax.jit(many, donate_argnums=0, out_shardings=sharding.whole)


@lru_cache(maxsize=8)
def fed(step: Callable[..., Any], sharding: Sharding, skip: bool) -> Any:
    """One step on a batch that is handed in.

    Returns:
        Compiled (train state, stopped, batch, examples, epoch, told, folds) to (train state, stopped, good, sums, told,
        folds). Once ``stopped``, further steps change nothing, so several may be on their way before anyone looks.
        With several processes ``told`` has a number of each, and a step in which one is not 0 changes nothing; else it
        is None. ``examples`` are the places of the batch's examples in the data, None where nobody knows them.
    """
    take = guarded(step, skip, members=False)

    def one(train: TrainState, stopped: jax.Array, batch: Any, examples: Any, epoch: Any, told: Any, folds: Any) -> Any:
        idle = stopped if told is None else stopped | jnp.any(told != 0)
        after, good, sums, folds = take(train, batch, examples, epoch, folds, idle)
        return after, stopped | (~good & ~idle & (not skip)), good & ~idle, sums, told, folds

    return jax.jit(one, donate_argnums=0, out_shardings=sharding.whole)
