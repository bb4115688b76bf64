"""Running statistics, measured again for given parameters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks import check_inputs, check_key, check_mapping
from ..errors import layer_path
from ..geometry import integer
from ..layer import Context, Layer
from ..ops.dtypes import wide
from ..types import Params, State
from .examples import check_net
from .trainable import Trainable, check_trainable


@partial(jax.jit, static_argnames=("net", "resting"))
def _seen(
    net: Layer, params: Params, state: State, key: Any, inputs: tuple[Any, ...], resting: frozenset[str] = frozenset()
) -> tuple[list[Any], list[Any]]:
    """The statistics of one batch, and the fraction of the old statistics that an update keeps."""
    context = Context(train=True, root=None if key is None else check_key(key), resting=resting)
    moving, tree = jax.tree.flatten(state)
    places = [i for i, leaf in enumerate(moving) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def update(old: list[Any]) -> list[Any]:
        leaves = list(moving)
        for i, leaf in zip(places, old, strict=True):
            leaves[i] = leaf
        new = net.start_walk(context, params, jax.tree.unflatten(tree, leaves), inputs)[1]
        return [jax.tree.leaves(new)[i] for i in places]

    zeros = [jnp.zeros_like(moving[i]) for i in places]
    # new = kept * old + (1 - kept) * batch: from nothing, (1 - kept) * batch remains, and the slope is kept
    new, kept = jax.jvp(update, (zeros,), (jax.tree.map(jnp.ones_like, zeros),))
    new, kept = ([a.astype(wide(a.dtype)) for a in arrays] for arrays in (new, kept))
    batch = [jnp.where(m < 1, n / jnp.where(m < 1, 1 - m, jnp.ones_like(m)), n) for n, m in zip(new, kept, strict=True)]
    return batch, kept


def recompute_statistics(
    net: Layer,
    params: Params,
    state: State,
    x: Any,
    *,
    batch_size: int = 512,
    key: jax.Array | None = None,
    trainable: Trainable | str | Sequence[str] | None = None,
) -> State:
    r"""Measure the running statistics of a network again for given parameters, such as averaged ones.

    The parameters do not change; the examples go through ``apply_train`` in batches. The result is the mean of the
    statistics of the batches, weighted by their examples. It depends neither on momentum nor on the old statistics.
    A running average is linear in the old value,

    .. math:: s' = a s + (1 - a) b

    so a batch gives :math:`b = s'|_{s=0} / (1 - a)` with :math:`a = \partial s' / \partial s`, for every layer whose
    state is such an average and does not enter its output in training, as in ``BatchNorm``. The rounding error is that
    of the dtype divided by 1 - a. If a layer is used several times, its uses count as in the running average. The
    variance is the mean of the variances of the batches, by which training normalises. Batches whose statistics are
    not finite are left out. With ``momentum=None`` the stored number of batches does not change.

    Args:
        net: the network.
        params: its parameters.
        state: its state, for the structure, and for entries that never move (a = 1) or are not floating point.
        x: array (examples, *space, channels), or a tuple of arrays for several inputs.
        batch_size: at most this many examples at a time; the sizes of the batches differ by at most one.
        key: random key for networks with dropout; every batch has its own masks.
        trainable: the parts that were trained, as for ``fit``; statistics of frozen parts do not change. None: all.

    Returns:
        The new state; ``{}`` for networks without.

    Raises:
        ValueError: arrays that do not suit the network; a network with dropout and no key.
        TypeError: arguments of the wrong kind.

    Source:
        Izmailov et al., "Averaging weights leads to wider optima and better generalization", 2018, section 3.2.

    Example:
        >>> import fcnn
        >>> net, x = fcnn.BatchNorm(), jnp.array([[1.0], [3.0], [5.0], [7.0]])
        >>> state = recompute_statistics(net, net.init(jax.random.key(0), (1,)), net.init_state((1,)), x)
        >>> round(float(state["mean"][0]), 5), round(float(state["variance"][0]), 4)
        (4.0, 6.6667)
    """
    with layer_path("recompute_statistics"):
        check_net(net)
        check_mapping("params", params)
        check_mapping("state", state)
        inputs = tuple(x) if isinstance(x, (tuple, list)) else (x,)
        check_inputs(inputs)
        net.out_shape(*(tuple(a.shape[1:]) for a in inputs))
        batch_size = integer(batch_size, "batch_size")
        chosen = check_trainable(trainable)
        if chosen is not None:
            chosen.check(params, state)
    resting = frozenset() if chosen is None else chosen.resting(params, state)
    if not jax.tree.leaves(state):
        return state
    count = inputs[0].shape[0]
    # batches of nearly equal size: a small remainder would have a poor variance, or none
    batches = -(-count // batch_size)
    bounds = [count * i // batches for i in range(batches + 1)]
    found = []
    for index, (first, last) in enumerate(itertools.pairwise(bounds)):
        part = tuple(jnp.asarray(a[first:last]) for a in inputs)
        own_key = None if key is None else jax.random.fold_in(key, index)
        found.append(((last - first) / count, *_seen(net, params, state, own_key, part, resting)))
    leaves, tree = jax.tree.flatten(state)
    moving = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    for place, i in enumerate(moving):
        # a batch whose statistics are not finite is left out
        shares = [np.where(np.asarray(kept[place]) < 1, share, 0.0) for share, _, kept in found]
        total = np.sum(shares, 0)
        mean = sum(s * np.asarray(batch[place], np.float64) for s, (_, batch, _) in zip(shares, found, strict=True))
        mean = np.where(total > 0, mean / np.where(total > 0, total, 1), np.asarray(leaves[i], np.float64))
        leaves[i] = jnp.asarray(mean.astype(leaves[i].dtype))
    return jax.tree.unflatten(tree, leaves)
