"""Augmentation of a batch within a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .measures import Weighted

#: (key, (x, y)) -> (x, y)
Augment = Callable[..., Any]
#: ((x, ...), y), or (x, y) for networks of one input; (x, y, w) where examples have weights
Batch = tuple[Any, ...]


def augmented(augment: Augment | None, key: jax.Array, batch: Batch, examples: Any = None, epoch: Any = None) -> Batch:
    """An augmented batch, ((x, ...), y).

    Args:
        augment: (key, batch) to batch; with the attribute ``by_example`` it also gets ``examples`` and ``epoch``.
        key: random key.
        batch: ((x, ...), y), or (x, y), or with weights (x, y, w), which augmentation does not change.
        examples: indices of the examples in the data, (batch,) int32; None: 0, 1, ..., as if they were all the data.
        epoch: number of the epoch, from 0.

    Returns:
        The batch, with inputs as a tuple; with weights, the targets are Weighted.
    """
    inputs, targets = batch if len(batch) == 2 else (batch[0], Weighted(*batch[1:]))
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    if augment is None:
        return inputs, targets
    told: dict[str, Any] = {}
    if getattr(augment, "by_example", False):
        told["examples"] = jnp.arange(inputs[0].shape[0], dtype="int32") if examples is None else examples
        told["epoch"] = jnp.zeros((), "int32") if epoch is None else epoch
    weights = targets.weights if isinstance(targets, Weighted) else None
    made = augment(key, (inputs, targets if weights is None else targets.targets), **told)
    if not isinstance(made, (tuple, list)) or len(made) != 2:
        raise TypeError(f"augment returned a {type(made).__name__}, it must return the batch as a pair (x, y)")
    inputs, targets = made
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    return inputs, targets if weights is None else Weighted(targets, weights)


def check_unmixed(batch: Batch, targets: Any) -> None:
    """Raise if labels became class probabilities, which have neither a single weight nor an ignored label."""
    before, after = (t.targets if isinstance(t, Weighted) else t for t in (batch[1], targets))
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=False):
        if jnp.issubdtype(old.dtype, jnp.integer) and jnp.issubdtype(new.dtype, jnp.floating):
            raise ValueError(
                "augment mixes the labels of examples, but weights and ignore_label belong to single labels; leave out "
                "the mixing (Mixup, CutMix), or the weights and ignore_label"
            )


#: the error for an augmentation that needs indices of examples on batches that have none
BY_EXAMPLE = (
    "augment depends on the indices of the examples in the data (by_example), as AlternatingFlip does, but batches "
    "that are handed in have none; give the data as arrays, do this part in the loader, or use a random one such as "
    "Flip; in a loop of your own pass them: step(train, batch, examples=indices, epoch=epoch)"
)
