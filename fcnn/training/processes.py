"""Several processes that train together, and the same operations for a process on its own.

Nothing else in fcnn asks how many processes there are. ``OneProcess`` is the null form: it communicates with nobody.
Processes cannot look into each other, so whatever ends a run (a signal, an error, the last batch) has to be announced,
and all of them have to act on it after the same step: one that leaves earlier lets the others wait for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from .examples import array_types
from .packing import packed, unpacked

#: what a process announces with a step instead of the number of a signal: it has no more batches, or has failed
END, FAILED = 1000, 1001
#: bytes of an error message that are sent to the other processes
_TEXT = 2000
#: how XLA's errors begin when another process is gone: collectives of CPUs and GPUs, and JAX's coordination service
_LOST = re.compile(
    r"(?!RESOURCE_EXHAUSTED|INVALID_ARGUMENT)[A-Z_]+: .*(gloo|nccl|rccl|coordination|heartbeat|barrier|connection)",
    re.IGNORECASE | re.DOTALL,
)


def processes_of(mesh: Mesh | None) -> OneProcess | ManyProcesses:
    """The processes whose devices a mesh has.

    Raises:
        ValueError: a mesh without devices of this process, with devices of only some of several processes, or with
            unequal numbers of them.
    """
    if mesh is None:
        return OneProcess()
    owners = [device.process_index for device in mesh.devices.flat]
    counts = {owner: owners.count(owner) for owner in sorted(set(owners))}
    if jax.process_index() not in counts:
        raise ValueError(
            f"mesh has no device of this process, number {jax.process_index()} of {jax.process_count()}; "
            'make it of all devices: jax.make_mesh((jax.device_count(),), ("batch",))'
        )
    if len(counts) == 1:
        return OneProcess()
    if len(counts) < jax.process_count() or len(set(counts.values())) > 1:
        raise ValueError(
            f"mesh has devices of the processes {', '.join(f'{p} ({n})' for p, n in counts.items())}, of "
            f"{jax.process_count()} processes; it must have equally many of each, or devices of this one alone: "
            'jax.make_mesh((jax.device_count(),), ("batch",))'
        )
    return ManyProcesses(mesh)


@dataclass(frozen=True)
class OneProcess:
    """A process on its own, which has nobody to wait for.

    Attributes:
        count: number of processes.
        leads: whether this process writes checkpoints and shows progress.
        has_all_data: whether this process has all the data, which can then be kept on the devices.
    """

    count: ClassVar[Any] = 1
    leads: ClassVar[Any] = True
    has_all_data: ClassVar[Any] = True

    # arrays

    def own_mesh(self, mesh: Mesh | None) -> Mesh | None:
        """The part of a mesh that belongs to this process."""
        return mesh

    def replicate(self, array: jax.Array, sharding: NamedSharding) -> jax.Array:
        """An array as a new one, whole on every device."""
        return jax.device_put(array, sharding, may_alias=False)

    def local(self, tree: Any) -> Any:
        """Replicated arrays as arrays on a device of this process."""
        return tree

    def gather(self, value: Any) -> np.ndarray:
        """A small array of every process, stacked in the order of their numbers."""
        return np.asarray(value)[None]

    def add(self, sums: Any) -> Any:
        """The sums over all processes of a tree of arrays."""
        return sums

    def merge(self, tree: Any, function: Callable[[Any, Any], Any] | None, what: str) -> Any:
        """The accumulators of all processes as one."""
        return tree

    def first(self, read: Callable[[], Any], like: Any, kind: type[Exception]) -> Any:
        """What the first process reads, (number, tree like ``like``, JSON) or None."""
        return read()

    # errors

    @contextmanager
    def share_errors(self, kind: type[Exception] = RuntimeError) -> Iterator[None]:
        """Raise an error of one process in all of them; in the others as ``kind``."""
        yield

    @contextmanager
    def explain_loss(self, advice: Callable[[], str]) -> Iterator[None]:
        """Explain errors that mean that another process is gone, with advice on how to continue."""
        yield

    def check_same(self, batch: Any) -> None:
        """Raise in all processes unless their first batches have the same shapes."""

    def check_like(self, batch: Any, first: Any, what: str) -> None:
        """Raise unless a batch has the shapes of this process's first."""

    def salvage(self, action: Callable[[], Any]) -> None:
        """Do something after an error that the other processes do not have."""
        action()

    def blame(self, where: str, found: str) -> tuple[str, str]:
        """Where a value that is not finite arose, in view of what this process could see."""
        return where, found

    # decisions

    def lockstep(self, batches: Iterable[Any], *_: Any) -> NoLockstep:
        """Batches for as many steps as all processes take."""
        return NoLockstep(batches)

    def signal(self, received: int | None, announced: int | None) -> int | None:
        """The signal to act on: the one received here, or the one that all processes know of."""
        return received

    def stops(self, reason: str | None) -> str | None:
        """Whether a reason of this process ends the run in the middle of an epoch."""
        return reason

    def agree_to_end(self, signal: int | None, stopped: str | None) -> tuple[int | None, str | None]:
        """The signal and the reason to stop that hold after an epoch."""
        return signal, stopped

    def newest(self, path: Path | None, folder: Any) -> str:
        """Where the newest checkpoint is and how to continue from it, as a sentence."""
        found = f"The newest checkpoint is {path}; the same command with resume=True goes on from the newest."
        return f"There is no checkpoint in {folder} yet." if path is None else found


@dataclass(eq=False)
class NoLockstep:
    """Batches of a process on its own."""

    batches: Iterable[Any]

    def __iter__(self) -> Iterator[tuple[Any, None]]:
        for batch in self.batches:
            yield batch, None

    def heard(self, announced: Any) -> dict[int, int]:
        """What processes announced with a step, by process."""
        return {}

    def may_pause(self, waiting: Iterable[tuple[Any, Any]]) -> bool:
        """Whether the steps in flight may be waited for here."""
        return True

    def conclude(self, heard: dict[int, int]) -> int | None:
        """The signal that ends the run."""
        return None


@dataclass(frozen=True)
class ManyProcesses(OneProcess):
    """Processes that train together. Methods of :class:`OneProcess` say what they do.

    Attributes:
        mesh: the devices of all of them.
    """

    mesh: Mesh
    has_all_data: ClassVar[Any] = False

    @property
    def count(self) -> int:  # type: ignore[override]
        return jax.process_count()

    @property
    def leads(self) -> bool:  # type: ignore[override]
        return jax.process_index() == 0

    def own_mesh(self, mesh: Mesh | None) -> Mesh | None:
        devices = [device for device in self.mesh.devices.flat if device.process_index == jax.process_index()]
        return Mesh(np.array(devices), ("batch",), axis_types=(AxisType.Auto,))

    def replicate(self, array: jax.Array, sharding: NamedSharding) -> jax.Array:
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            data = self.replicate(jax.random.key_data(array), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    def local(self, tree: Any) -> Any:
        return jax.tree.map(
            lambda a: a.addressable_data(0) if isinstance(a, jax.Array) and not a.is_fully_addressable else a, tree
        )

    def gather(self, value: Any) -> np.ndarray:
        from jax.experimental import multihost_utils

        value = np.asarray(value)
        raw = np.frombuffer(value.tobytes(), np.uint8)  # JAX would round float64 to float32
        gathered = np.asarray(multihost_utils.process_allgather(raw))
        return np.frombuffer(gathered.tobytes(), value.dtype).reshape(-1, *value.shape)

    def add(self, sums: Any) -> Any:
        leaves, form = jax.tree.flatten(sums)
        return jax.tree.unflatten(form, [np.sum(self.gather(leaf), 0) for leaf in leaves])

    def merge(self, tree: Any, function: Callable[[Any, Any], Any] | None, what: str) -> Any:
        if function is None:
            raise ValueError(
                f"{what}: each process has an accumulator of its own part; say how two become one: "
                "(start, update, result, merge)"
            )
        leaves, form = jax.tree.flatten(tree)
        gathered = [self.gather(np.asarray(leaf)) for leaf in leaves]
        return reduce(function, [jax.tree.unflatten(form, [leaf[i] for leaf in gathered]) for i in range(self.count)])

    def first(self, read: Callable[[], Any], like: Any, kind: type[Exception]) -> Any:
        with self.share_errors(kind):
            found = read() if self.leads else None
        head = {} if found is None else {"number": found[0], "about": found[2]}
        head = json.loads(broadcast(json.dumps(head).encode()))
        if "number" not in head:
            return None
        like = like if found is None else found[1]
        tree = unpacked(broadcast(packed(like)), like)
        return head["number"], tree, head["about"]

    @contextmanager
    def share_errors(self, kind: type[Exception] = RuntimeError) -> Iterator[None]:
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        said = self._texts("" if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            raise failure
        for process, text in enumerate(said):
            if text:
                raise kind(f"process {process} of {len(said)} stopped with {text}")

    def _texts(self, text: str) -> list[str]:
        """A text of every process."""
        gathered = self.gather(np.frombuffer(text.encode()[:_TEXT].ljust(_TEXT, b"\0"), np.uint8))
        return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in gathered]

    @contextmanager
    def explain_loss(self, advice: Callable[[], str]) -> Iterator[None]:
        try:
            yield
        except (jax.errors.JaxRuntimeError, ValueError) as error:  # JAX raises either
            if not _LOST.match(str(error)):
                raise
            raise RuntimeError(
                f"fit: process {jax.process_index()} of {jax.process_count()} noticed that another process ended or "
                f"cannot be reached ({str(error).strip().splitlines()[0][:200]}). {advice()}"
            ) from error

    def check_same(self, batch: Any) -> None:
        said = self._texts(array_types(batch))
        for process, other in enumerate(said):
            if other != said[0]:
                raise ValueError(
                    f"fit: data: a batch is {said[0]} in process 0 and {other} in process {process}; "
                    "batches of several processes must have the same shapes and types in all"
                )

    def check_like(self, batch: Any, first: Any, what: str) -> None:
        now, before = array_types(batch), array_types(first)
        if now != before:
            raise ValueError(
                f"{what}: it is {now}, the first was {before}; with several processes all batches have the same "
                "shapes, because no process knows those of the others: leave out a smaller last one (drop_last=True)"
            )

    def salvage(self, action: Callable[[], Any]) -> None:
        return  # the others are waiting in a step, and nothing that was computed with them can be read

    def blame(self, where: str, found: str) -> tuple[str, str]:
        if where == "optimizer":  # this process's part of the batch is fine
            return "another process", "nothing of it is in this process's part of the batch"
        return where, found

    def lockstep(self, batches: Iterable[Any], *rest: Any) -> Lockstep:
        return Lockstep(batches, self, *rest)

    def signal(self, received: int | None, announced: int | None) -> int | None:
        return announced

    def stops(self, reason: str | None) -> str | None:
        return None

    def agree_to_end(self, signal: int | None, stopped: str | None) -> tuple[int | None, str | None]:
        gathered = self.gather(np.array([signal or 0, stopped is not None], np.int32))
        if gathered[:, 1].any():
            stopped = stopped or f"process {gathered[:, 1].argmax()}"
        return int(gathered[:, 0].max()) or None, stopped

    def newest(self, path: Path | None, folder: Any) -> str:
        where = f"The newest checkpoint is {path}" if path else f"Checkpoints are in {folder}, as process 0 sees it"
        return f"{where}; the same command in every process with resume=True goes on from the newest."

    def announce(self, code: int) -> jax.Array:
        """A number of this process as its part of an array that all can read after a step."""
        sharding = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))
        own = np.full(self.mesh.size // self.count, code, np.int32)
        return jax.make_array_from_process_local_data(sharding, own)

    def heard(self, announced: Any) -> dict[int, int]:
        """What processes announced with a step, by process; only what is not 0."""
        codes = np.asarray(self.local(announced)).tolist()
        return {d.process_index: code for d, code in zip(self.mesh.devices.flat, codes, strict=True) if code}


@dataclass(eq=False)
class Lockstep(NoLockstep):
    """Batches of this process, for as many steps as the other processes take.

    When this process has no more batches, received a signal or failed to read its data, a blank batch takes the place
    of the next one, together with a number that announces the reason to all. No process takes that step, and every
    process sees the number after it.

    Attributes:
        batches: batches on the host and on the devices.
        processes: the processes.
        blank: makes a batch of the right shapes.
        count: number of batches if it is the same in every process; None: unknown.
        received: gives the number of a signal that this process received, or None.
        failure: the error that reading the data raised.
    """

    processes: ManyProcesses
    blank: Callable[[], Any]
    count: int | None
    received: Callable[[], int | None]
    failure: BaseException | None = None

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        batches, code, given = iter(self.batches), 0, 0
        while given != self.count:
            item = None
            if not code:
                try:
                    item = next(batches, None)
                except BaseException as error:
                    self.failure = error
                code = FAILED if self.failure is not None else self.received() or (END if item is None else 0)
            yield self.blank() if item is None else item, self.processes.announce(code)
            given += 1

    def heard(self, announced: Any) -> dict[int, int]:
        return self.processes.heard(announced)

    def may_pause(self, waiting: Iterable[tuple[Any, Any]]) -> bool:
        # the others act on what ends the run one step later, and this process has to take that step too
        return not any(stopped or self.heard(announced) for stopped, announced in waiting)

    def conclude(self, heard: dict[int, int]) -> int | None:
        """The signal that any process received; raises where one has failed."""
        if self.failure is not None:
            raise self.failure
        failed = [process for process, code in heard.items() if code == FAILED]
        if failed:
            who = f"process {failed[0]} of {jax.process_count()}"
            raise RuntimeError(f"fit: {who} stopped with an error in its data, which it shows")
        return max((code for code in heard.values() if code != END), default=None)


def broadcast(raw: bytes) -> bytes:
    """Bytes of the first process, in all."""
    from jax.experimental import multihost_utils

    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(raw))))
    # four bytes at a time, as integers, whose sums over processes are exact
    words = np.zeros(-(-length // 4), np.uint32)
    if jax.process_index() == 0:
        words = np.frombuffer(raw.ljust(4 * len(words), b"\0"), np.uint32)
    return np.asarray(multihost_utils.broadcast_one_to_all(words)).tobytes()[:length]
