"""Taking up a run where its newest checkpoint left it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..layer import Layer
from .checkpoint import CheckpointError, Store
from .sharding import Sharding

if TYPE_CHECKING:
    from .run import Options

#: what the parts of a run's identity are called in messages
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


def identity(net: Layer, key: jax.Array, examples: int, batch_size: int, options: Options) -> dict[str, Any]:
    """What has to be the same for a run to be continued bit for bit, as JSON holds it."""
    words = re.sub(r" at 0x[0-9a-f]+", "", repr(net))  # addresses differ from process to process
    return {
        "network": words,
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "examples": examples,
        "batch_size": batch_size,
        "processes": options.sharding.processes,
        "members": options.members,
        "keep_best": options.keep_best,
        "average": options.averaging,
        "trainable": None if options.trainable is None else repr(options.trainable),
        "steps": options.steps,
    }


def latest(
    store: Store | None, like: Any, options: Options, identity: dict[str, Any], sharding: Sharding
) -> tuple[int, Any, dict[str, Any]] | None:
    """The newest whole checkpoint of a run; the first process reads it and tells the others.

    Args:
        store: where checkpoints are; None in all processes but the first.
        like: the tree that is wanted.
        options: the run's settings.
        identity: what has to be the same in the run that wrote it.
        sharding: the processes.

    Returns:
        (steps taken, tree, what is known about it), or None where the folder has no checkpoint.

    Raises:
        CheckpointError: there are checkpoints and ``resume`` is not set, or they belong to another run, or none
            is whole.
    """
    if sharding.processes == 1:
        return None if store is None else _read(store, like, options, identity)
    found = None
    with sharding.together(CheckpointError):
        if store is not None:
            found = _read(store, like, options, identity)
    head = {} if found is None else {"step": found[0], "about": found[2]}
    head = json.loads(_told(json.dumps(head).encode()))
    if "step" not in head:
        return None
    leaves, form = jax.tree.flatten(like if found is None else found[1])
    plain = [np.asarray(_data(leaf)) for leaf in leaves]
    raw = _told(b"".join(a.tobytes() for a in plain))
    whole, at = [], 0
    for leaf, array in zip(leaves, plain, strict=True):
        value = np.frombuffer(raw[at : at + array.nbytes], array.dtype).reshape(array.shape)
        at += array.nbytes
        if _is_key(leaf):
            value = jax.random.wrap_key_data(jax.numpy.asarray(value), impl=jax.random.key_impl(leaf))
        whole.append(value)
    return head["step"], jax.tree.unflatten(form, whole), head["about"]


def _read(
    store: Store, like: Any, options: Options, identity: dict[str, Any]
) -> tuple[int, Any, dict[str, Any]] | None:
    folder = store.folder
    if not options.resume:
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


def _told(raw: bytes) -> bytes:
    """Bytes of the first process, in all."""
    from jax.experimental import multihost_utils

    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(raw))))
    # four bytes at a time, as integers, whose sums over processes are exact
    words = np.zeros(-(-length // 4), np.uint32)
    if jax.process_index() == 0:
        words = np.frombuffer(raw.ljust(4 * len(words), b"\0"), np.uint32)
    return np.asarray(multihost_utils.broadcast_one_to_all(words)).tobytes()[:length]


def _is_key(leaf: Any) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    """The numbers of an array, which every process has whole."""
    leaf = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    return leaf.addressable_data(0) if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable else leaf
