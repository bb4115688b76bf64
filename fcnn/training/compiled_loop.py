"""Many steps in one call of a compiled function.

A call from Python costs as much as a step of a small network, and reading a result on the host makes the device wait.
If the data are on the device, the loop itself is compiled: one program takes any number of steps up to a limit and
stores the sums of each. The number is an argument, so a run compiles once.
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

#: the most steps in a call, whose sums memory is set aside for
SLOTS = 1024
#: the most bytes of that memory; steps with large sums, such as a large confusion matrix, have fewer slots
SLOTS_BYTES = 1 << 24


class Steps(NamedTuple):
    """The result of a call.

    Attributes:
        train: the train state after the last good step.
        done: the number of steps taken, without the one that stopped them.
        stopped: whether a step came out with a value that is not finite, and such steps stop the run.
        good: for each slot, whether its step was taken, (slots,).
        sums: for each slot, the sums of its batch, (slots, ...).
        accumulators: accumulators of metrics after the last good step.
    """

    train: TrainState
    done: jax.Array
    stopped: jax.Array
    good: jax.Array
    sums: dict[str, Any]
    accumulators: dict[str, Any]


def guarded(step: Callable[..., Any], skip: bool, members: bool) -> Callable[..., Any]:
    """A step that keeps the old train state if the loss or the new train state is not finite.

    Args:
        step: (train state, batch, examples=, epoch=, accumulators=) to (train state, measured), as ``make_measured``
            returns it, or a step of ``make_step``.
        skip: whether the step counter advances over such a step, so that the next one has another key.
        members: whether arrays have a first axis of members of an ensemble.

    Returns:
        A function of (train state, batch, examples, epoch, accumulators, idle) that returns (train state, good, sums,
        accumulators). If ``idle`` is true, the train state and the accumulators stay as they are.
    """
    step = getattr(step, "measured", step)

    def take(before: TrainState, batch: Any, examples: Any, epoch: Any, accumulators: Any, idle: Any = None) -> Any:
        def one(train: Any, batch: Any, examples: Any, accumulators: Any) -> Any:
            return step(train, batch, examples=examples, epoch=epoch, accumulators=accumulators)

        after, (sums, moved) = (jax.vmap(one) if members else one)(before, batch, examples, accumulators)
        good = jnp.ones((), bool)
        for name, parts in sums.items():
            if name == "loss" or name.startswith("loss/"):
                good &= jnp.all(jnp.isfinite(parts["sum"]))
        for new, old in zip(*(jax.tree.leaves(t.params) for t in (after, before)), strict=True):
            if new is not old:  # else it is frozen
                good &= jnp.all(jnp.isfinite(new))
        # an optimizer state may start at infinity; a value that was finite has to stay so, or later steps do nothing
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
        moved = jax.tree.map(lambda new, old: jnp.where(taken, new, old), moved, accumulators)
        return kept._replace(key=before.key), good, sums, moved

    return take


@lru_cache(maxsize=8)
def resident(step: Callable[..., Any], batch_size: int, sharding: Sharding, skip: bool, members: bool) -> Any:
    """Steps on data that are on the device.

    Args:
        step: as for :func:`guarded`.
        batch_size: examples in a step.
        sharding: where arrays live.
        skip: whether steps with values that are not finite are left out instead of stopping the run.
        members: whether train state, order, sums and accumulators have a first axis of members of an ensemble.

    Returns:
        A compiled function of (train state, inputs, targets, order, epoch, first, count, accumulators) that returns
        :class:`Steps`. It takes ``count`` steps, starting at batch ``first`` of the order; fewer if there are fewer
        slots. It takes over the memory of the train state.
    """
    take = guarded(step, skip, members)

    def one(train: TrainState, inputs: Any, targets: Any, order: Any, epoch: Any, index: Any, accumulators: Any) -> Any:
        examples = lax.dynamic_slice_in_dim(order, index * batch_size, batch_size, axis=order.ndim - 1)
        batch = sharding.keep_split(jax.tree.map(lambda a: a[examples], (inputs, targets)))
        return take(train, batch, examples, epoch, accumulators)

    def many(
        train: TrainState,
        inputs: Any,
        targets: Any,
        order: jax.Array,
        epoch: Any,
        first: Any,
        count: Any,
        accumulators: Any = None,
    ) -> Steps:
        given, accumulators = (inputs, targets, order, epoch), {} if accumulators is None else accumulators
        # traced once, for the form of the sums and for the loop
        traced, shapes = jax.make_jaxpr(one, return_shape=True)(train, *given, first, accumulators)
        run = jaxpr_as_fun(traced)
        tree = jax.tree.structure(shapes)
        sums = shapes[2]
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(sums))
        slots = max(1, min(SLOTS, SLOTS_BYTES // max(size, 1)))
        count = jnp.minimum(count, slots)
        blank = jax.tree.map(lambda leaf: jnp.zeros((slots, *leaf.shape), leaf.dtype), sums)
        before = Steps(train, jnp.zeros((), "int32"), jnp.zeros((), bool), jnp.zeros(slots, bool), blank, accumulators)

        def body(now: Steps) -> Steps:
            flat = run(*jax.tree.leaves((now.train, *given, first + now.done, now.accumulators)))
            train, good, found, accumulators = jax.tree.unflatten(tree, flat)
            stopped = ~good & (not skip)
            return Steps(
                train,
                now.done + (~stopped).astype("int32"),
                stopped,
                now.good.at[now.done].set(good),
                jax.tree.map(lambda slot, value: slot.at[now.done].set(value), now.sums, found),
                accumulators,
            )

        return lax.while_loop(lambda now: (now.done < count) & ~now.stopped, body, before)

    return jax.jit(many, donate_argnums=0, out_shardings=sharding.replicated)


@lru_cache(maxsize=8)
def fed(step: Callable[..., Any], sharding: Sharding, skip: bool) -> Any:
    """One step on a batch that comes from the host.

    Returns:
        A compiled function of (train state, stopped, batch, examples, epoch, announced, accumulators) that returns
        (train state, stopped, good, sums, announced, accumulators). After ``stopped``, steps change nothing, so several
        can be in flight before a result is read. ``announced`` has a number of each of several processes, and a step in
        which one of them is not 0 changes nothing; for one process it is None. ``examples`` are the indices of the
        batch's examples in the data, or None.
    """
    take = guarded(step, skip, members=False)

    def one(
        train: TrainState, stopped: jax.Array, batch: Any, examples: Any, epoch: Any, announced: Any, accumulators: Any
    ) -> Any:
        idle = stopped if announced is None else stopped | jnp.any(announced != 0)
        after, good, sums, accumulators = take(train, batch, examples, epoch, accumulators, idle)
        return after, stopped | (~good & ~idle & (not skip)), good & ~idle, sums, announced, accumulators

    return jax.jit(one, donate_argnums=0, out_shardings=sharding.replicated)
