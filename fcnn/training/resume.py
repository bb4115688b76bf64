"""Continuing a run from its newest checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from .checkpoint import CheckpointError
from .config import FitConfig
from .core import EpochSums, Progress
from .history import History
from .measures import Measures
from .store import Store

#: how messages name the parts of a run's identity
_WORDS = {
    "network": "another network",
    "key": "another key",
    "examples": "another number of examples",
    "batch_size": "another batch size",
    "processes": "another number of processes",
    "members": "another number of members",
    "keep_best": "another keep_best",
    "average": "an average kept or not",
    "trainable": "other parts frozen",
    "steps": "another number of steps in an epoch",
}


def identity(config: FitConfig, examples: int, batch_size: int) -> dict[str, Any]:
    """What has to be the same for a run to be continued bit for bit, as JSON holds it."""
    words = re.sub(r" at 0x[0-9a-f]+", "", repr(config.net))  # addresses differ from process to process
    return {
        "network": words,
        "key": np.asarray(jax.random.key_data(config.key)).tolist(),
        "examples": examples,
        "batch_size": batch_size,
        "processes": config.sharding.processes.count,
        "members": config.members,
        "keep_best": config.keep_best,
        "average": config.averages,
        "trainable": None if config.trainable is None else repr(config.trainable),
        "steps": config.steps,
    }


def latest(
    store: Store | None, like: Any, resume: bool, identity: dict[str, Any]
) -> tuple[int, Any, dict[str, Any]] | None:
    """The newest whole checkpoint of a run.

    Args:
        store: where checkpoints are; None: nowhere.
        like: a tree with the structure, shapes and types of the one that is wanted.
        resume: whether the run is to be continued.
        identity: what has to be the same in the run that wrote the checkpoint.

    Returns:
        (steps taken, tree, what is known about it), or None if the folder has no checkpoint.

    Raises:
        CheckpointError: there are checkpoints and ``resume`` is not set, or they belong to another run, or none
            is whole.
    """
    if store is None:
        return None
    folder = store.folder
    if not resume:
        newest = store.newest()
        if newest is not None:
            raise CheckpointError(
                f"fit: {folder} holds checkpoints of an earlier run, up to step {newest:,}; go on with resume=True, "
                "or give another folder"
            )
        return None
    found = store.latest(like)
    if found is None:
        return None
    before = found[2]["run"]
    for name, value in identity.items():
        if before.get(name) != value:
            raise CheckpointError(
                f"fit: the checkpoints in {folder} are of a run with {_WORDS[name]} ({before.get(name)}, now {value}), "
                "which cannot be continued bit for bit; give what it was started with, or another folder"
            )
    return found


def written(progress: Progress, accumulators: Any, history: History) -> dict[str, Any]:
    """Progress without the train state, and history, as JSON holds them."""
    sums = progress.sums
    return {
        "epoch": progress.epoch,
        "done": progress.done,
        "history": {
            "epochs": history.epochs,
            "sums": {name: {part: a.tolist() for part, a in parts.items()} for name, parts in sums.sums.items()},
            "accumulators": {
                name: [np.asarray(a).tolist() for a in jax.tree.leaves(tree)] for name, tree in accumulators.items()
            },
            "skipped": sums.skipped,
            "seconds": history.seconds,
        },
    }


def sums_of(about: Mapping[str, Any], measures: Measures) -> tuple[EpochSums, History]:
    """The sums of the epoch that was interrupted, and the history, from what :func:`written` returned."""
    given = about["history"]
    sums = {
        name: {part: np.asarray(values, np.float64) for part, values in parts.items()}
        for name, parts in given["sums"].items()
    }
    accumulators = {}
    for name, first in measures.accumulators().items():
        if name in given["accumulators"]:
            leaves, form = jax.tree.flatten(first)
            leaves = [np.asarray(a, b.dtype) for a, b in zip(given["accumulators"][name], leaves, strict=True)]
            accumulators[name] = jax.tree.unflatten(form, leaves)
    history = History(given["epochs"])
    history.start(given["seconds"])
    return EpochSums(sums, accumulators, given["skipped"]), history
