"""How good a network is on data that it is not trained on."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from ..errors import at
from ..geometry import integer
from ..given import Params, State
from ..layer import Layer
from .objective import Loss, Metric, check_data, check_metrics, check_net, cross_entropy, measure
from .precision import check_precision, lowered
from .spread import Spread


@partial(jax.jit, static_argnames=("net", "loss", "metrics", "members", "precision"))
def _measured(
    net: Layer,
    loss: Loss,
    metrics: Any,
    members: bool,
    precision: str | None,
    params: Params,
    state: State,
    inputs: Any,
    targets: Any,
) -> dict[str, Any]:
    def one(params: Params, state: State) -> dict[str, Any]:
        low, x = lowered((params, inputs), precision)
        return measure(loss, net.apply(low, *x, state=state), targets, metrics)

    return (jax.vmap(one) if members else one)(params, state)


def evaluate(
    net: Layer,
    params: Params,
    data: tuple[Any, Any],
    *,
    state: State | None = None,
    loss: Loss | None = None,
    metrics: dict[str, Metric] | None = None,
    batch_size: int = 512,
    mesh: jax.sharding.Mesh | None = None,
    precision: str | None = None,
) -> dict[str, float]:
    """Mean loss and accuracy over all examples, with dropout off and stored statistics in use.

    Args:
        net: the network.
        params: its parameters.
        data: (x, y); x an array (examples, *space, channels), or a tuple of arrays for several inputs.
        state: its state, where it has one.
        loss: (outputs, targets) to one number for each example, or one for the batch; None: softmax
            cross-entropy with integer labels.
        metrics: further numbers by name: functions (outputs, targets) to one for each example, or one for the batch.
        batch_size: examples at a time. Every example counts once, in the last, smaller batch too.
        mesh: devices that share each batch; None: one. Where the mesh is that of several processes, each gives a
            part of the data, and all get the result for the whole.
        precision: "bfloat16" or "float16" to compute in it, as in ``fit``; None: the precision of the parameters.

    Returns:
        {"loss": ..., "accuracy": ...} and the metrics, plain numbers, the accuracy in [0, 1]; none where the targets
        are not labels of classes.

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
        named = check_metrics(metrics)
        spread = Spread.over(mesh)
        precision = check_precision(precision)
    found = measured(
        net, params, state, inputs, targets, loss or cross_entropy, named, batch_size, spread, precision=precision
    )
    return {name: float(value) for name, value in found.items()}


def measured(
    net: Layer,
    params: Params,
    state: State | None,
    inputs: tuple[Any, ...],
    targets: Any,
    loss: Loss,
    metrics: tuple[tuple[str, Metric], ...] = (),
    batch_size: int = 512,
    spread: Spread = Spread(),  # noqa: B008 (a value)
    members: bool = False,
    precision: str | None = None,
) -> dict[str, Any]:
    """``evaluate`` with its arguments checked; for an ensemble's members an array of numbers each."""
    kept: State = {} if state is None else state
    count = targets.shape[0]
    place = spread.own  # each process has devices of its own for its part
    if place.mesh is not None:
        params = jax.device_put(spread.local(params), place.whole)
        kept = jax.device_put(spread.local(kept), place.whole)
    parts = []
    for first in range(0, count, batch_size):
        x, y = (tuple(a[first : first + batch_size] for a in inputs), targets[first : first + batch_size])
        if place.mesh is not None:
            x, y = place.batch((x, y))
        parts.append(
            (min(batch_size, count - first), _measured(net, loss, metrics, members, precision, params, kept, x, y))
        )
    # read at the end, so that batches do not wait for each other
    names = list(parts[0][1])
    totals = np.stack([sum(size * np.asarray(found[name], np.float64) for size, found in parts) for name in names])
    if spread.processes > 1:
        totals, count = np.sum(spread.agree(totals), 0), np.sum(spread.agree(count))
    return dict(zip(names, totals / count, strict=True))
