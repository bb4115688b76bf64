"""The learning rate of an optax optimizer, as far as it can be found from outside."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np


def learning_rate(optimizer: Any, optimizer_state: Any) -> float | None:
    """The learning rate of the last update.

    ``optax.inject_hyperparams`` and line searches store it in the state. Otherwise it is the factor that the last
    transformations of an ``optax.chain`` scale by: a number or a function of the number of updates, as in
    ``optax.adam(schedule)``.

    Args:
        optimizer: the optimizer.
        optimizer_state: its state.

    Returns:
        The rate; None if it is unknown, or if there are several.

    Example:
        >>> import optax
        >>> optimizer, params = optax.adamw(optax.linear_schedule(1.0, 0.0, 4)), {"kernel": jnp.ones(2)}
        >>> state = optimizer.init(params)
        >>> with jax.numpy_dtype_promotion("standard"):
        ...     for _ in range(3):
        ...         _, state = optimizer.update(params, state, params)
        >>> learning_rate(optimizer, state)
        0.5
    """
    stored = list(_stored(optimizer_state))
    if stored:
        return stored[0] if len(stored) == 1 else None
    functions = list(_leaves(optimizer.update, set()))
    if any(_kind(function) in _ADAPTIVE for function in functions):
        return None
    factors, schedules = [], []
    for function in reversed(functions):  # scaling before a transformation of another kind does not scale the update
        closed = _closed(function)
        if _kind(function) == "scale_by_schedule" and "step_size_fn" in closed:
            schedules.append(closed["step_size_fn"])
        elif _kind(function) == "scale" and np.ndim(closed.get("step_size", ())) == 0:
            factors.append(float(closed["step_size"]))
        else:
            break
    counts = {int(np.ravel(state.count)[0]) for state in _states(optimizer_state, "ScaleByScheduleState")}
    if not (factors or schedules) or (schedules and len(counts) != 1):
        return None
    with jax.numpy_dtype_promotion("standard"):
        made = [float(schedule(max(*counts, 1) - 1)) for schedule in schedules]
    return abs(float(np.prod(factors + made)))


#: transformations without a single rate
_ADAPTIVE = ("partition", "multi_transform", "scale_by_polyak")


def _closed(function: Any) -> dict[str, Any]:
    """The variables that a function closes over."""
    try:
        return dict(inspect.getclosurevars(function).nonlocals)
    except ValueError:  # a variable that is not bound yet
        return {}


def _kind(function: Any) -> str:
    return function.__qualname__.split(".")[0]


def _leaves(function: Any, seen: set[int]) -> Iterator[Any]:
    """The update functions within one, in the order of their calls, without those that only call others."""
    function = getattr(function, "__func__", function)
    if id(function) in seen or not inspect.isfunction(function):
        return
    seen.add(id(function))
    inner = []
    if _kind(function) not in ("scale", "scale_by_schedule", *_ADAPTIVE):
        for value in _closed(function).values():
            for part in value if isinstance(value, (tuple, list)) else (value,):
                update = getattr(part, "update", part)
                if inspect.isfunction(update) and "update" in update.__name__:
                    inner.append(update)
    if not inner:
        yield function
    for update in inner:
        yield from _leaves(update, seen)


def _stored(optimizer_state: Any) -> Iterator[float]:
    """Learning rates stored in a state."""
    for state in _states(optimizer_state, None):
        given = getattr(state, "hyperparams", None)
        rate = given.get("learning_rate") if isinstance(given, dict) else getattr(state, "learning_rate", None)
        if rate is not None and np.ndim(rate) <= 1:  # of an ensemble, the rate of the first member
            yield float(np.ravel(rate)[0])


def _states(tree: Any, name: str | None) -> Iterator[Any]:
    """The named tuples in a state, of one name or all."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if not isinstance(tree, (tuple, list)):
        return
    if hasattr(tree, "_fields") and name in (None, type(tree).__name__):
        yield tree
    for inner in tree:
        yield from _states(inner, name)
