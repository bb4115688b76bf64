"""Predictions and metrics of an ensemble of networks."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks import check_mapping
from ..errors import format_shape, layer_path
from ..geometry import integer
from ..layer import Layer
from ..ops.dtypes import wide
from ..types import Params, State
from .evaluate import add
from .examples import check_data, check_net, count_of, taken
from .measure_arguments import check_measures
from .measures import Measured, Measures


def _scores(net: Layer, params: Params, state: State, inputs: tuple[Any, ...]) -> jax.Array:
    """The scores of every member, (members, batch, *space, classes), in float32 or wider."""
    scores = jax.vmap(lambda p, s: net.apply(p, *inputs, state=s))(params, state)
    if not hasattr(scores, "ndim") or scores.ndim < 3:
        raise ValueError(
            "the members must give scores of classes, (batch, *space, classes); end the network in fcnn.Dense(classes)"
        )
    return scores.astype(wide(scores.dtype))


def _vote(scores: jax.Array) -> jax.Array:
    """The logarithm of the mean probability from the scores of all members; finite unless all probabilities are 0."""
    log_members = jnp.log(jnp.asarray(scores.shape[0], scores.dtype))
    return jax.nn.logsumexp(jax.nn.log_softmax(scores, -1), 0) - log_members


@partial(jax.jit, static_argnames="net")
def _voted(net: Layer, params: Params, state: State, inputs: tuple[Any, ...]) -> jax.Array:
    return jnp.exp(_vote(_scores(net, params, state, inputs)))


def vote(net: Layer, params: Params, x: Any, *, state: State | None = None) -> jax.Array:
    r"""The mean of the class probabilities of the members of an ensemble.

    .. math:: p = \frac{1}{M} \sum_{m=1}^{M} \operatorname{softmax}(f_{\theta_m}(x))

    Args:
        net: the network; its outputs are scores of classes.
        params: parameters with a first axis of M members, as ``jax.vmap`` of ``net.init`` makes them.
        x: input (batch, *space, channels), or a tuple of inputs.
        state: the state, likewise with a first axis of members, if the network has any.

    Returns:
        Probabilities (batch, *space, classes), in float32 or wider; the predicted class is their ``argmax(-1)``.

    Raises:
        ValueError: arrays with different numbers of members, or that do not suit the network.
        TypeError: arguments of the wrong kind.

    Source:
        Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using deep
        ensembles", 2017, section 2.4.

    Example:
        >>> import fcnn
        >>> net, even = fcnn.Dense(2, bias=False), jnp.log(3.0)
        >>> params = {"kernel": jnp.stack([jnp.array([[even, 0.0]]), jnp.array([[0.0, 0.0]])])}
        >>> vote(net, params, jnp.ones((1, 1))).round(4).tolist()  # the mean of (3/4, 1/4) and (1/2, 1/2)
        [[0.625, 0.375]]
    """
    with layer_path("vote"):
        check_net(net)
        state = {} if state is None else state
        count_members(params, state)
    inputs = tuple(x) if isinstance(x, (tuple, list)) else (x,)
    return _voted(net, params, state, inputs)


def count_members(params: Params, state: State) -> int:
    """The number of members, which is the size of the first axis of every array.

    Raises:
        ValueError: no parameters, or first axes of different sizes.
        TypeError: params or state that are not dicts.

    Example:
        >>> count_members({"kernel": jnp.ones((5, 3, 2))}, {})
        5
    """
    check_mapping("params", params)
    check_mapping("state", state)
    first, members = "", 0
    for kind, tree in (("params", params), ("state", state)):
        for path, leaf in jax.tree.leaves_with_path(tree):
            name, shape = kind + jax.tree_util.keystr(path), jnp.shape(leaf)
            first, members = (first, members) if first else (name, shape[0] if shape else 0)
            if not shape or shape[0] != members:
                raise ValueError(
                    f"{name} has shape {format_shape(shape)}, but "
                    + (f"{first} has {members} members" if first != name else "the first axis counts the members")
                    + "; every array of params and state has a first axis of one length: "
                    "jax.vmap(lambda key: net.init(key, shape))(jax.random.split(key, members))"
                )
    if not first:
        raise ValueError(
            "params have no arrays, so the number of members is unknown; a network without parameters is no ensemble"
        )
    return members


@partial(jax.jit, static_argnames=("net", "measures"))
def _measured(
    net: Layer, measures: Measures, params: Params, state: State, inputs: Any, targets: Any, accumulators: Any
) -> tuple[Measured, Measured]:
    """The sums of every member, and of their vote."""
    scores = _scores(net, params, state, inputs)
    of_members, of_vote = accumulators
    each = jax.vmap(lambda z, fold: measures.measure(z, targets, fold)[1])(scores, of_members)
    # log-probabilities are scores, which softmax leaves as they are
    return each, measures.measure(_vote(scores), targets, of_vote)[1]


def evaluate_ensemble(
    net: Layer,
    params: Params,
    data: Any,
    *,
    state: State | None = None,
    metrics: Any = None,
    ignore_label: int | None = None,
    batch_size: int = 512,
) -> dict[str, Any]:
    """Accuracy and loss of every member of an ensemble and of their vote, and the gain of the vote.

    Args:
        net: the network.
        params: parameters with a first axis of members.
        data: (x, y), or with weights (x, y, w); x an array (examples, *space, channels), or a tuple of arrays for
            several inputs; y labels.
        state: the state, likewise with a first axis of members, if the network has any.
        metrics: as for ``fit``.
        ignore_label: as for ``fit``.
        batch_size: examples at a time. Every example counts once.

    Returns:
        A dict: "accuracy", "loss" and the metrics are arrays (members,); "vote_accuracy", "vote_loss" and so on are
        those of the mean probabilities (:func:`vote`), whose logarithms are the scores; "gain" is the accuracy of the
        vote minus the mean accuracy of the members. Accuracies are in [0, 1].

    Raises:
        ValueError: data that do not suit the network; arrays with different numbers of members.
        TypeError: data that are not a pair of arrays, or labels that are not integers.

    Example:
        >>> import fcnn
        >>> net, params = fcnn.Dense(2, bias=False), {"kernel": jnp.array([[[0.0, 4.0]], [[1.0, 0.0]]])}
        >>> found = evaluate_ensemble(net, params, (jnp.array([[1.0], [-1.0]]), jnp.array([1, 0])))
        >>> found["accuracy"].tolist(), found["vote_accuracy"], found["gain"]
        ([1.0, 0.0], 1.0, 0.5)
    """
    with layer_path("evaluate_ensemble"):
        check_net(net)
        state = {} if state is None else state
        members = count_members(params, state)
        measures = check_measures(None, None, metrics, ignore_label)
        inputs, labels = check_data(net, data, "data", measures)
        batch_size = integer(batch_size, "batch_size")
    accumulators: Any = (measures.accumulators(members), measures.accumulators())
    parts = []
    for first in range(0, count_of(inputs), batch_size):
        x, y = jax.tree.map(jnp.asarray, taken((inputs, labels), slice(first, first + batch_size)))
        each, voted = _measured(net, measures, params, state, x, y, accumulators)
        accumulators = (each.accumulators, voted.accumulators)
        parts.append((each.sums, voted.sums))
    sums: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for part in parts:  # read at the end, so that the device need not wait
        for total, more in zip(sums, part, strict=True):
            add(total, more)
    found = measures.numbers(sums[0], accumulators[0], members)
    for name, value in measures.numbers(sums[1], accumulators[1]).items():
        found[f"vote_{name}"] = np.asarray(value).tolist() if np.ndim(value) == 0 else np.asarray(value)
    return {**found, "gain": found["vote_accuracy"] - float(np.mean(found["accuracy"]))}
