"""How good a network is on data that it is not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial, reduce
from typing import Any

import jax
import numpy as np

from ..errors import at
from ..geometry import integer
from ..given import Params, State
from ..layer import Layer
from ..native import native
from .batches import Batches, are_batches, checked
from .examples import check_data, check_net, count_of, taken
from .history import numbers
from .mapped import in_file
from .objective import Found, Objective, check_objective
from .precision import check_precision, lowered
from .sharding import Sharding

#: batches that may be on their way before the sums of the first are waited for
WAITING = 16


@partial(jax.jit, static_argnames=("net", "objective", "members", "precision"))
def _measured(
    net: Layer,
    objective: Objective,
    members: bool,
    precision: str | None,
    params: Params,
    state: State,
    inputs: Any,
    targets: Any,
    folds: Any,
) -> Found:
    def one(params: Params, state: State, folds: Any) -> Found:
        low, x = lowered((params, inputs), precision)
        return objective.measure(net.apply(low, *x, state=state), targets, folds)[1]

    return (jax.vmap(one) if members else one)(params, state, folds)


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
    """Mean loss and accuracy over all examples, with dropout off and stored statistics in use.

    The numbers are those of the whole and do not depend on how it is split into batches. Weights count in all of them:
    a mean is the sum of weight times value over the sum of weights.

    Args:
        net: the network.
        params: its parameters.
        data: (x, y), or with weights (x, y, w); x an array (examples, *space, channels), or a tuple of arrays for
            several inputs. Or batches of such, as ``fit`` takes them: a list, a loader, or a function of the epoch,
            which is given 0.
        state: its state, where it has one.
        loss: as for ``fit``; None: softmax cross-entropy with integer labels.
        loss_weights: as for ``fit``.
        metrics: as for ``fit``.
        ignore_label: as for ``fit``.
        batch_size: examples at a time. Every example counts once, in the last, smaller batch too.
        mesh: devices that share each batch; None: one. Where the mesh is that of several processes, each gives a
            part of the data, and all get the result for the whole.
        precision: "bfloat16" or "float16" to compute in it, as in ``fit``; None: the precision of the parameters.

    Returns:
        {"loss": ..., "accuracy": ...} and the metrics, plain numbers, or arrays where a metric is one; the accuracy in
        [0, 1], none where the targets are not labels of classes.

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
        objective = check_objective(loss, loss_weights, metrics, ignore_label)
        batch_size = integer(batch_size, "batch_size")
        sharding = Sharding.over(mesh)
        precision = check_precision(precision)
        given = data
        if not are_batches(data):
            given = check_data(net, data, "data", objective)
    if are_batches(data):
        given = batches_of(net, Batches(data, 1, "evaluate: data"), objective, "evaluate: data", 0)
    found = measured(net, params, state, given, objective, batch_size, sharding, precision=precision)
    for name in objective.further:
        if name not in found:
            raise ValueError(f"evaluate: the metric {name} takes labels of classes, and the targets are shares of them")
    return {name: np.asarray(value).tolist() if np.ndim(value) == 0 else value for name, value in found.items()}


def batches_of(net: Layer, batches: Batches, objective: Objective, what: str, epoch: int) -> Iterator[Any]:
    """The batches of an epoch, checked one after the other.

    Raises:
        ValueError: there are none.
    """
    number = 0
    for number, batch in enumerate(batches.epoch(epoch), start=1):
        yield checked(net, batch, objective, Sharding(), f"{what}: batch {number}")
    if not number:
        raise ValueError(f"{what}: there are no batches")


def measured(
    net: Layer,
    params: Params,
    state: State | None,
    data: Any,
    objective: Objective,
    batch_size: int = 512,
    sharding: Sharding = Sharding(),  # noqa: B008 (a value)
    members: int | None = None,
    precision: str | None = None,
) -> dict[str, Any]:
    """``evaluate`` with its arguments checked; for an ensemble's members an array of numbers each.

    Args:
        net: as for ``evaluate``.
        params: likewise.
        state: likewise.
        data: (inputs, targets), or an iterable of such batches.
        objective: what is measured.
        batch_size: as for ``evaluate``.
        sharding: where arrays live.
        members: members of an ensemble; None: there is one network.
        precision: as for ``evaluate``.
    """
    kept: State = {} if state is None else state
    params, kept = jax.tree.map(native, (params, kept))
    place = sharding.own  # each process has devices of its own for its part
    if place.mesh is not None:
        params = jax.device_put(sharding.local(params), place.whole)
        kept = jax.device_put(sharding.local(kept), place.whole)
    else:
        params, kept = sharding.local((params, kept))
    sums: dict[str, Any] = {}
    folds = objective.folds(members)
    waiting: list[Any] = []
    # batches on their way hold their memory, which those of a file are to have little of
    most = 1 if isinstance(data, tuple) and any(map(in_file, jax.tree.leaves(data))) else WAITING
    # the first process that fails tells the others, which wait for its sums
    with sharding.together():
        for inputs, targets in _split(data, batch_size):
            x, y = place.batch((inputs, targets)) if place.mesh is not None else (inputs, targets)
            found = _measured(net, objective, members is not None, precision, params, kept, x, y, folds)
            folds = found.folds
            waiting.append(found.sums)
            if len(waiting) > most:  # read late, so that batches do not wait for each other
                add(sums, waiting.pop(0))
        for found in waiting:
            add(sums, found)
    if sharding.processes > 1:
        leaves, form = jax.tree.flatten(sums)
        sums = jax.tree.unflatten(form, [np.sum(sharding.agree(leaf), 0) for leaf in leaves])
        folds = _merged(objective, folds, sharding, members)
    return numbers(objective, sums, folds, members)


def _split(data: Any, batch_size: int) -> Iterable[Any]:
    """Batches of arrays, the last of them smaller; batches as they are."""
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


def _merged(objective: Objective, folds: Any, sharding: Sharding, members: int | None) -> Any:
    """The accumulators of all processes as one."""
    known = {name: metric for name, _, metric in objective.metrics}
    found = {}
    for name, tree in folds.items():
        merge = known[name].merge
        if merge is None:
            raise ValueError(
                f"{known[name].name}: each process has an accumulator of its own part; say how two become one: "
                "(start, update, result, merge)"
            )
        leaves, form = jax.tree.flatten(tree)
        told = [sharding.agree(np.asarray(leaf)) for leaf in leaves]
        each = [jax.tree.unflatten(form, [leaf[i] for leaf in told]) for i in range(sharding.processes)]
        found[name] = reduce(merge if members is None else jax.vmap(merge), each)
    return found
