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
    """A batch ((x, ...), y), augmented.

    Args:
        augment: (key, batch) to batch; one with the attribute ``by_example`` is also told ``examples`` and ``epoch``.
        key: random key.
        batch: ((x, ...), y), or (x, y), or with weights (x, y, w), which no augmentation changes.
        examples: the places of the examples in the data, (batch,) int32; None: 0, 1, ..., as if they were all.
        epoch: times that the data have been gone through before.

    Returns:
        The batch, its inputs a tuple, its targets Weighted where there are weights.
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
    """Raise where labels became shares of classes, which neither have one weight nor show that one does not count."""
    before, after = (t.targets if isinstance(t, Weighted) else t for t in (batch[1], targets))
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=False):
        if jnp.issubdtype(old.dtype, jnp.integer) and jnp.issubdtype(new.dtype, jnp.floating):
            raise ValueError(
                "augment mixes the labels of examples, and weights or an ignored label belong to each of them alone; "
                "leave out the mixing (Mixup, CutMix), or the weights and ignore_label"
            )


#: what is said where an augmentation asks for places that nobody knows
BY_EXAMPLE = (
    "augment goes by the examples' places in the data (by_example), as AlternatingFlip does, and batches that are "
    "handed in have none; give the data as arrays, do this part in the loader, or use one that draws at random, such "
    "as Flip; a loop of your own tells them: step(train, batch, examples=places, epoch=epoch)"
)
