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
from .spread import Spread
from .step import TrainState

#: most steps in a call; the memory for their metrics is set aside
SLOTS = 1024


class Steps(NamedTuple):
    """What a call gives back.

    Attributes:
        train: the train state after the last good step.
        done: the number of steps taken, without the one that stopped them.
        stopped: whether a step came out with a value that is not finite, and that was to stop the run.
        good: for each slot whether its step was taken, (slots,).
        metrics: for each slot the metrics of its batch, (slots, ...).
    """

    train: TrainState
    done: jax.Array
    stopped: jax.Array
    good: jax.Array
    metrics: dict[str, jax.Array]


def guarded(step: Callable[..., Any], skip: bool, members: bool) -> Callable[..., Any]:
    """A step that keeps the old train state where the loss, or what comes of it, is not finite.

    Args:
        step: (train state, batch, examples=, epoch=) to (train state, metrics).
        skip: whether the step counter goes on, so that the next step has another key.
        members: whether arrays have a first axis of an ensemble's members.

    Returns:
        (train state, batch, examples, epoch, idle) to (train state, good, metrics); where ``idle`` is true nothing
        changes, whatever comes of the step.
    """

    def take(before: TrainState, batch: Any, examples: Any, epoch: Any, idle: Any = None) -> Any:
        if members:
            one = lambda train, batch, examples: step(train, batch, examples=examples, epoch=epoch)  # noqa: E731
            after, metrics = jax.vmap(one)(before, batch, examples)
        else:
            after, metrics = step(before, batch, examples=examples, epoch=epoch)
        good = jnp.all(jnp.isfinite(metrics["loss"]))
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
        return kept._replace(key=before.key), good, metrics

    return take


@lru_cache(maxsize=8)
def resident(step: Callable[..., Any], batch_size: int, spread: Spread, skip: bool, members: bool) -> Any:
    """Steps on data that are on the device.

    Args:
        step: as for :func:`guarded`.
        batch_size: examples in a step.
        spread: where things live.
        skip: whether a step that is not finite is left out, instead of stopping the run.
        members: whether train state, order and metrics have a first axis of an ensemble's members.

    Returns:
        Compiled (train state, inputs, targets, order, epoch, first, count) to :class:`Steps`: from the batch
        number ``first`` of the order, ``count`` steps, at most SLOTS. It takes over the train state's memory.
    """
    take = guarded(step, skip, members)

    def one(train: TrainState, inputs: Any, targets: Any, order: jax.Array, epoch: Any, index: Any) -> Any:
        examples = lax.dynamic_slice_in_dim(order, index * batch_size, batch_size, axis=order.ndim - 1)
        batch = spread.keep_divided((tuple(a[examples] for a in inputs), targets[examples]))
        return take(train, batch, examples, epoch)

    def many(
        train: TrainState, inputs: Any, targets: Any, order: jax.Array, epoch: Any, first: Any, count: Any
    ) -> Steps:
        given = (inputs, targets, order, epoch)
        # traced once, for the form of the metrics and for the loop
        traced, shapes = jax.make_jaxpr(one, return_shape=True)(train, *given, first)
        run = jaxpr_as_fun(traced)
        tree = jax.tree.structure(shapes)
        _, _, metrics = shapes
        slots = {name: jnp.zeros((SLOTS, *m.shape), m.dtype) for name, m in metrics.items()}
        before = Steps(train, jnp.zeros((), "int32"), jnp.zeros((), bool), jnp.zeros(SLOTS, bool), slots)

        def body(now: Steps) -> Steps:
            flat = run(*jax.tree.leaves((now.train, *given, first + now.done)))
            train, good, found = jax.tree.unflatten(tree, flat)
            stopped = ~good & (not skip)
            return Steps(
                train,
                now.done + (~stopped).astype("int32"),
                stopped,
                now.good.at[now.done].set(good),
                {name: slot.at[now.done].set(found[name]) for name, slot in now.metrics.items()},
            )

        return lax.while_loop(lambda now: (now.done < count) & ~now.stopped, body, before)

    return jax.jit(many, donate_argnums=0, out_shardings=spread.whole)


@lru_cache(maxsize=8)
def fed(step: Callable[..., Any], spread: Spread, skip: bool) -> Any:
    """One step on a batch that is handed in.

    Returns:
        Compiled (train state, stopped, batch, epoch, told) to (train state, stopped, good, metrics, told). Once
        ``stopped``, further steps change nothing, so several may be on their way before anyone looks. With several
        processes ``told`` has a number of each, and a step in which one is not 0 changes nothing; else it is None.
    """
    take = guarded(step, skip, members=False)

    def one(train: TrainState, stopped: jax.Array, batch: Any, epoch: Any, told: Any) -> Any:
        idle = stopped if told is None else stopped | jnp.any(told != 0)
        after, good, metrics = take(train, batch, None, epoch, idle)
        return after, stopped | (~good & ~idle & (not skip)), good & ~idle, metrics, told

    return jax.jit(one, donate_argnums=0, out_shardings=spread.whole)
