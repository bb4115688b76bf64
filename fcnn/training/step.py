"""One step of training as a pure function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from ..geometry import Shape
from ..given import Params, State, fold
from ..layer import Layer
from .objective import Loss, measure

if TYPE_CHECKING:
    import optax

#: (key, (x, y)) -> (x, y)
Augment = Callable[[jax.Array, Any], Any]


class TrainState(NamedTuple):
    """Everything that training changes, as one pytree."""

    params: Params
    state: State
    optimizer_state: Any
    key: jax.Array
    step: jax.Array


def start(
    net: Layer,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    *shapes: Shape,
    params: Params | None = None,
    state: State | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
        net: the network.
        optimizer: an optax optimizer.
        key: random key, for the initial parameters and for dropout.
        shapes: shape of one example of each input.
        params: parameters to begin with; None: ``net.init``.
        state: state to begin with; None: ``net.init_state``.

    Returns:
        The train state.

    Example:
        >>> import fcnn, optax
        >>> int(start(fcnn.Dense(2), optax.sgd(0.1), jax.random.key(0), (3,)).step)
        0
    """
    params = net.init(fold(key, "init"), *shapes) if params is None else params
    state = net.init_state(*shapes) if state is None else state
    return TrainState(params, state, optimizer.init(params), fold(key, "train"), jax.numpy.zeros((), "int32"))


@lru_cache(maxsize=32)
def make_step(
    net: Layer, optimizer: optax.GradientTransformation, loss: Loss, augment: Augment | None = None
) -> Callable[[TrainState, tuple[tuple[Any, ...], Any]], tuple[TrainState, dict[str, jax.Array]]]:
    r"""The step (train state, batch) to (train state, metrics), pure and not yet compiled.

    .. math:: g = \nabla_\theta \tfrac{1}{n} \sum_i \ell(f_\theta(x_i), y_i)

    Args:
        net: the network.
        optimizer: an optax optimizer.
        loss: (outputs, targets) to one number for each example, or one for the batch.
        augment: (key, batch) to batch, or None.

    Returns:
        The step; its batch is ((x, ...), y). Metrics are those of the batch before the update.

    Example:
        >>> import fcnn, optax, jax.numpy as jnp
        >>> net, optimizer = fcnn.Dense(1), optax.sgd(0.5)
        >>> step = jax.jit(make_step(net, optimizer, optax.losses.squared_error))
        >>> before = start(net, optimizer, jax.random.key(0), (1,), params={"kernel": jnp.zeros((1, 1)),
        ...                "bias": jnp.zeros(1)})
        >>> after, metrics = step(before, ((jnp.ones((4, 1)),), jnp.ones((4, 1))))
        >>> after.params["bias"].tolist(), metrics["loss"].item()
        ([1.0], 1.0)
    """

    def step(before: TrainState, batch: tuple[tuple[Any, ...], Any]) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(before.key, before.step)
        inputs, targets = batch if augment is None else augment(fold(key, "augment"), batch)

        def objective(params: Params) -> tuple[jax.Array, tuple[dict[str, jax.Array], State]]:
            outputs, state = net.apply_train(params, *inputs, key=fold(key, "dropout"), state=before.state)
            metrics = measure(loss, outputs, targets)
            return metrics["loss"], (metrics, state)

        (value, (metrics, state)), gradient = jax.value_and_grad(objective, has_aux=True)(before.params)
        # optax counts on JAX's standard promotion, whatever the program has set
        with jax.numpy_dtype_promotion("standard"):
            updates, optimizer_state = optimizer.update(
                gradient,
                before.optimizer_state,
                before.params,
                **_wanted(optimizer, value=value, grad=gradient, value_fn=lambda params: objective(params)[0]),
            )
        params = jax.tree.map(lambda p, u: p + u.astype(p.dtype), before.params, updates)
        return TrainState(params, state, optimizer_state, before.key, before.step + 1), metrics

    return step


def _wanted(optimizer: Any, **extra: Any) -> dict[str, Any]:
    """What an optimizer's update takes beside the gradient, the state and the params: line searches ask for more."""
    taken = inspect.signature(optimizer.update).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        return extra
    return {parameter.name: extra[parameter.name] for parameter in taken if parameter.name in extra}
