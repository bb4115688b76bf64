"""Loss and metrics of a network on any data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from ..errors import layer_path
from ..geometry import integer
from ..layer import Layer
from ..native import native
from ..types import Params, State
from .batches import Batches, are_batches, checked
from .examples import check_data, check_net, count_of, taken
from .mapped import in_file
from .measure_arguments import check_measures
from .measures import Measured, Measures
from .precision import check_precision, lowered
from .sharding import Sharding

#: batches in flight before the sums of the first are read
WAITING = 16


@partial(jax.jit, static_argnames=("net", "measures", "members", "precision"))
def _measured(
    net: Layer,
    measures: Measures,
    members: bool,
    precision: str | None,
    params: Params,
    state: State,
    inputs: Any,
    targets: Any,
    accumulators: Any,
) -> Measured:
    def one(params: Params, state: State, accumulators: Any) -> Measured:
        low, x = lowered((params, inputs), precision)
        return measures.measure(net.apply(low, *x, state=state), targets, accumulators)[1]

    return (jax.vmap(one) if members else one)(params, state, accumulators)


def evaluate(
    net: Layer,
    params: Params,
    data: Any,
    *,
    state: State | None = None,
    loss: Any = None,
    loss_weights: Any = None,
    metrics: Any = None,
    ignore_label: int | None = None,
    batch_size: int = 512,
    mesh: jax.sharding.Mesh | None = None,
    precision: str | None = None,
) -> dict[str, Any]:
    """Mean loss, accuracy and metrics over all examples, with dropout off and stored statistics.

    They do not depend on how the examples are split into batches. Weights apply to all of them: a mean is the sum of
    weight times value over the sum of weights.

    Args:
        net: the network.
        params: its parameters.
        data: (x, y), or with weights (x, y, w); x an array (examples, *space, channels), or a tuple of arrays for
            several inputs. Or batches of such arrays, as ``fit`` takes them: a list, a loader, or a function of the
            epoch, which is called with 0.
        state: its state, if it has any.
        loss: as for ``fit``; None: softmax cross-entropy with integer labels.
        loss_weights: as for ``fit``.
        metrics: as for ``fit``.
        ignore_label: as for ``fit``.
        batch_size: examples at a time. Every example counts once; the last batch may be smaller.
        mesh: devices that share each batch; None: one device. If it has devices of several processes, each process
            gives its own part of the data, and all of them get the result for the whole.
        precision: "bfloat16" or "float16" to compute in it, as in ``fit``; None: the precision of the parameters.

    Returns:
        A dict with "loss", "accuracy" and the metrics, as plain numbers, or arrays for metrics that are arrays. The
        accuracy is in [0, 1]; there is none if the targets are not labels of classes.

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
    with layer_path("evaluate"):
        check_net(net)
        measures = check_measures(loss, loss_weights, metrics, ignore_label)
        batch_size = integer(batch_size, "batch_size")
        sharding = Sharding.over(mesh)
        precision = check_precision(precision)
        given = data
        if not are_batches(data):
            given = check_data(net, data, "data", measures)
    if are_batches(data):
        given = batches_of(net, Batches(data, 1, "evaluate: data"), measures, "evaluate: data", 0)
    found = measured(net, params, state, given, measures, batch_size, sharding, precision=precision)
    for name in measures.further:
        if name not in found:
            raise ValueError(
                f"evaluate: the metric {name} needs labels, but targets are class probabilities; use y.argmax(-1)"
            )
    return {name: np.asarray(value).tolist() if np.ndim(value) == 0 else value for name, value in found.items()}


def batches_of(net: Layer, batches: Batches, measures: Measures, what: str, epoch: int) -> Iterator[Any]:
    """The batches of an epoch, each checked.

    Raises:
        ValueError: there are none.
    """
    number = 0
    for number, batch in enumerate(batches.epoch(epoch), start=1):
        yield checked(net, batch, measures, Sharding(), f"{what}: batch {number}")
    if not number:
        raise ValueError(f"{what}: there are no batches")


def measured(
    net: Layer,
    params: Params,
    state: State | None,
    data: Any,
    measures: Measures,
    batch_size: int = 512,
    sharding: Sharding = Sharding(),  # noqa: B008 (a value)
    members: int | None = None,
    precision: str | None = None,
) -> dict[str, Any]:
    """``evaluate`` for arguments that are checked; for an ensemble, arrays with a value for each member.

    Args:
        net: as for ``evaluate``.
        params: as for ``evaluate``.
        state: as for ``evaluate``.
        data: (inputs, targets), or an iterable of such batches.
        measures: losses and metrics.
        batch_size: as for ``evaluate``.
        sharding: where arrays live.
        members: number of members of an ensemble; None: a single network.
        precision: as for ``evaluate``.
    """
    kept: State = {} if state is None else state
    params, kept = jax.tree.map(native, (params, kept))
    place = sharding.own  # every process evaluates its part on its own devices
    if place.mesh is not None:
        params = jax.device_put(sharding.processes.local(params), place.replicated)
        kept = jax.device_put(sharding.processes.local(kept), place.replicated)
    else:
        params, kept = sharding.processes.local((params, kept))
    sums: dict[str, Any] = {}
    accumulators = measures.accumulators(members)
    waiting: list[Any] = []
    # batches in flight are in memory, and data in files are meant to take little of it
    most = 1 if isinstance(data, tuple) and any(map(in_file, jax.tree.leaves(data))) else WAITING
    # the other processes wait for the sums of this one
    with sharding.processes.share_errors():
        for inputs, targets in _split(data, batch_size):
            x, y = place.put((inputs, targets)) if place.mesh is not None else (inputs, targets)
            found = _measured(net, measures, members is not None, precision, params, kept, x, y, accumulators)
            accumulators = found.accumulators
            waiting.append(found.sums)
            if len(waiting) > most:  # read late, so that the device need not wait
                add(sums, waiting.pop(0))
        for found in waiting:
            add(sums, found)
    sums = sharding.processes.add(sums)
    for name, _, metric in measures.metrics:
        if name in accumulators:
            merge = metric.merge if members is None or metric.merge is None else jax.vmap(metric.merge)
            accumulators[name] = sharding.processes.merge(accumulators[name], merge, metric.name)
    return measures.numbers(sums, accumulators, members)


def _split(data: Any, batch_size: int) -> Iterable[Any]:
    """Batches of arrays, of which the last may be smaller; batches that are handed in as they are."""
    if not isinstance(data, tuple):
        yield from data
        return
    for first in range(0, count_of(data[0]), batch_size):
        yield taken(data, slice(first, first + batch_size))


def add(sums: dict[str, Any], more: dict[str, Any]) -> None:
    """Add the sums of a batch to those before, in float64."""
    for name, tally in more.items():
        before = sums.setdefault(name, dict.fromkeys(tally, 0.0))
        sums[name] = {part: before[part] + np.asarray(value, np.float64) for part, value in tally.items()}
