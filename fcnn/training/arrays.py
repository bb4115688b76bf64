"""Data that are arrays: their order in an epoch, where they are kept, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..initialization import fold
from .examples import taken
from .mapped import in_file, lazy
from .sharding import Sharding


def order_of(key: jax.Array, epoch: int, count: int) -> jax.Array:
    """The order in which ``fit`` visits the examples in an epoch.

    Args:
        key: the random key of the run; for a member of an ensemble, the member's own key.
        epoch: number of the epoch, from 0.
        count: number of examples.

    Returns:
        A permutation of the indices of the examples, (count,) int32.

    Example:
        >>> sorted(order_of(jax.random.key(0), 3, 5).tolist())
        [0, 1, 2, 3, 4]
    """
    return jax.random.permutation(jax.random.fold_in(fold(key, "order"), epoch), count)


def orders(key: jax.Array, epoch: int, count: int, members: int | None, sharding: Sharding) -> jax.Array:
    """:func:`order_of` on the devices; for an ensemble, one order for each member."""
    if members is None:
        order = order_of(key, epoch, count)
    else:
        order = jax.vmap(lambda key: order_of(key, epoch, count))(jax.random.split(key, members))
    return order if sharding.mesh is None else jax.device_put(order, sharding.replicated)


def batches_in_order(inputs: tuple[Any, ...], targets: Any, order: np.ndarray, size: int, done: int) -> Iterator[Any]:
    """Batches of arrays on the host, without the first ``done``, each with the indices of its examples."""
    for first in range(done * size, len(order) - size + 1, size):
        chosen = order[first : first + size]
        yield taken((inputs, targets), chosen), chosen


def placed(arrays: Any, sharding: Sharding, members: int | None) -> Any:
    """Arrays on the device, or on every device of a mesh; None if they have to stay on the host or in their files."""
    device = jnp.zeros(()).device if sharding.mesh is None else sharding.mesh.devices.flat[0]
    inputs, targets = arrays
    if members is None and not on_device(inputs, targets, device):
        return None
    whole = jax.tree.map(lambda a: jnp.asarray(np.asarray(a) if lazy(a) else a), arrays)
    return whole if sharding.mesh is None else jax.device_put(whole, sharding.replicated)


def on_device(inputs: tuple[Any, ...], targets: Any, device: Any) -> bool:
    """Whether the data are kept on the device.

    Data in files are not. Other data are if they leave room for a network: always on a CPU; on an accelerator if they
    take at most 40 % of its free memory.
    """
    if any(in_file(a) for a in jax.tree.leaves((inputs, targets))):
        return False
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if not statistics or "bytes_limit" not in statistics:
        return True
    free = statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    return sum(a.nbytes for a in jax.tree.leaves((inputs, targets))) <= 0.4 * free


def check_steps(wanted: int | None, there: int) -> int:
    """The number of steps in an epoch on arrays: all batches, or the number that was asked for.

    Raises:
        ValueError: there are fewer batches.
    """
    if wanted is not None and wanted > there:
        raise ValueError(
            f"fit: steps is {wanted}, but the data have only {there} batches; leave it out and train for more epochs, "
            "or use a smaller batch_size"
        )
    return there if wanted is None else wanted
