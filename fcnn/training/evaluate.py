"""How good a network is on data that it is not trained on."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import at
from ..geometry import integer
from ..given import Params, State
from ..layer import Layer
from .objective import Loss, check_data, check_net, cross_entropy, measure


@partial(jax.jit, static_argnames=("net", "loss"))
def _measured(net: Layer, loss: Loss, params: Params, state: State, inputs: Any, targets: Any) -> dict[str, Any]:
    return measure(loss, net.apply(params, *inputs, state=state), targets)


def evaluate(
    net: Layer,
    params: Params,
    data: tuple[Any, Any],
    *,
    state: State | None = None,
    loss: Loss | None = None,
    batch_size: int = 512,
) -> dict[str, float]:
    """Mean loss and accuracy over all examples, with dropout off and stored statistics in use.

    Args:
        net: the network.
        params: its parameters.
        data: (x, y); x an array (examples, *space, channels), or a tuple of arrays for several inputs.
        state: its state, where it has one.
        loss: (outputs, targets) to one number for each example, or one for the batch; None: softmax
            cross-entropy with integer labels.
        batch_size: examples at a time. Every example counts once, in the last, smaller batch too.

    Returns:
        {"loss": ..., "accuracy": ...}, plain numbers, the accuracy in [0, 1]; none where the targets are not
        labels of classes.

    Raises:
        ValueError: data that do not suit the network.
        TypeError: data that are not a pair of arrays, or labels that are not integers.

    Example:
        >>> import fcnn
        >>> net = fcnn.Dense(2)
        >>> params = {"kernel": jnp.array([[0.0, 1.0]]), "bias": jnp.zeros(2)}
        >>> found = evaluate(net, params, (jnp.array([[5.0], [-5.0], [3.0], [1.0]]), jnp.array([1, 0, 0, 1])))
        >>> found["accuracy"]
        0.75
    """
    with at("evaluate"):
        check_net(net)
        inputs, targets = check_data(net, data, "data", loss)
        batch_size = integer(batch_size, "batch_size")
    state = {} if state is None else state
    count = targets.shape[0]
    totals: dict[str, float] = {}
    parts = []
    for first in range(0, count, batch_size):
        batch = slice(first, first + batch_size)
        part = tuple(jnp.asarray(a[batch]) for a in inputs)
        metrics = _measured(net, loss or cross_entropy, params, state, part, jnp.asarray(targets[batch]))
        parts.append((min(batch_size, count - first), metrics))
    for size, metrics in parts:  # read at the end, so that batches do not wait for each other
        for name, value in metrics.items():
            totals[name] = totals.get(name, 0.0) + size * float(value)
    return {name: total / count for name, total in totals.items()}
