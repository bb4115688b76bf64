"""Training from arrays to parameters."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import at
from ..geometry import integer
from ..given import Params, State, check_key, fold
from ..layer import Layer
from .evaluate import evaluate
from .objective import Loss, check_data, check_net, cross_entropy
from .progress import EpochBar
from .step import Augment, TrainState, make_step, start

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class Run:
    """What :func:`fit` returns.

    Attributes:
        params: the trained parameters.
        state: the state after training; ``{}`` for networks without.
        history: arrays with one number for each epoch: "loss" and "accuracy" (means over the epoch's batches,
            each before its update), "validation_loss" and "validation_accuracy" where validation data were
            given, and "seconds".
    """

    params: Params
    state: State
    history: dict[str, np.ndarray]

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.history.items() if len(values))
        return f"<fcnn run: {len(self.history['loss'])} epochs; last {last}>"


@lru_cache(maxsize=32)
def _compiled(net: Layer, optimizer: Any, loss: Loss, augment: Augment | None, batch_size: int) -> Any:
    """The step that takes its batch from data on the device; cached, so a second run compiles nothing."""
    step = make_step(net, optimizer, loss, augment)

    def take_step(before: TrainState, inputs: Any, targets: Any, order: jax.Array, index: Any) -> Any:
        chosen = jax.lax.dynamic_slice_in_dim(order, index * batch_size, batch_size)
        return step(before, (tuple(a[chosen] for a in inputs), targets[chosen]))

    return jax.jit(take_step, donate_argnums=0)


def fit(
    net: Layer,
    data: tuple[Any, Any],
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    key: jax.Array,
    batch_size: int = 128,
    loss: Loss | None = None,
    validation: tuple[Any, Any] | None = None,
    augment: Augment | None = None,
    params: Params | None = None,
    state: State | None = None,
    progress: bool = True,
) -> Run:
    """Train a network on arrays.

    Every epoch goes through the examples in a new random order, in batches of equal size; the examples left
    over, fewer than a batch, wait for an epoch whose order puts them elsewhere. The same key gives the same run.

    Args:
        net: the network.
        data: (x, y); x an array (examples, *space, channels), or a tuple of arrays for several inputs.
        optimizer: an optax optimizer, such as ``optax.adam(1e-3)``.
        epochs: times through the data.
        key: random key, for initial parameters, order, dropout and augmentation.
        batch_size: examples in a step; all of them where there are fewer.
        loss: (outputs, targets) to one number for each example, or one for the batch, such as a function of
            ``optax.losses``; None: softmax cross-entropy with integer labels.
        validation: (x, y) to evaluate on after every epoch.
        augment: (key, batch) to batch, compiled into the step; the batch is ((x, ...), y).
        params: parameters to begin with; None: ``net.init``.
        state: state to begin with; None: ``net.init_state``.
        progress: whether to show a bar for each epoch.

    Returns:
        A run with ``params``, ``state`` and ``history``.

    Raises:
        ValueError: data that do not suit the network, labels outside the classes, a number out of range.
        TypeError: arguments of the wrong kind.

    Example:
        >>> import fcnn, optax
        >>> x = jnp.linspace(-1, 1, 64).reshape(64, 1)
        >>> run = fit(fcnn.Dense(2), (x, (x[:, 0] > 0).astype("int32")), optimizer=optax.adam(0.1), epochs=30,
        ...           key=jax.random.key(0), batch_size=16, progress=False)
        >>> bool(run.history["accuracy"][-1] > 0.9)
        True
    """
    with at("fit"):
        check_net(net)
        key = check_key(key)
        epochs, batch_size = integer(epochs, "epochs"), integer(batch_size, "batch_size")
        if not hasattr(optimizer, "init") or not hasattr(optimizer, "update"):
            raise TypeError(f"optimizer must be an optax optimizer such as optax.adam(1e-3), not {optimizer!r}")
        inputs, targets = check_data(net, data, "data", loss)
        if validation is not None:
            check_data(net, validation, "validation", loss)
    shapes = [tuple(a.shape[1:]) for a in inputs]
    inputs, targets = tuple(map(jnp.asarray, inputs)), jnp.asarray(targets)
    count = targets.shape[0]
    batch_size = min(batch_size, count)
    steps = count // batch_size
    # the step takes over the memory of its train state, so every array in it has to be its own: not the caller's,
    # not an initialiser's, and not one that the optimizer keeps a second time
    now = jax.tree.map(jnp.copy, start(net, optimizer, key, *shapes, params=params, state=state))
    take_step = _compiled(net, optimizer, loss or cross_entropy, augment, batch_size)
    history: dict[str, list[float]] = {}
    for epoch in range(epochs):
        begun = time.perf_counter()
        order = jax.random.permutation(jax.random.fold_in(fold(key, "order"), epoch), count)
        bar = EpochBar(epoch + 1, epochs, steps, progress)
        seen: list[dict[str, Any]] = []
        for index in range(steps):
            now, metrics = take_step(now, inputs, targets, order, index)
            seen.append(metrics)
            if bar.due():
                bar.update(index + 1, metrics)
        means = {name: float(np.mean([float(metrics[name]) for metrics in seen])) for name in seen[0]}
        if validation is not None:
            found = evaluate(net, now.params, validation, state=now.state, loss=loss)
            means |= {f"validation_{name}": value for name, value in found.items()}
        bar.close(steps, means)
        for name, value in {**means, "seconds": time.perf_counter() - begun}.items():
            history.setdefault(name, []).append(value)
    return Run(now.params, now.state, {name: np.asarray(values) for name, values in history.items()})
