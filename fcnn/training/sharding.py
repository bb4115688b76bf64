"""Where arrays live: on one device, or over the devices of a mesh, in one process or several."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ..errors import shown

#: what a process tells the others with a step, beside the number of a signal: it has no more batches, or an error
END, FAILED = 1000, 1001
#: bytes of an error's text that the others are told
_TEXT = 2000
#: how XLA's errors begin where another process is gone, for the collectives of CPUs and GPUs and for JAX's own service
_LOST = re.compile(
    r"(?!RESOURCE_EXHAUSTED|INVALID_ARGUMENT)[A-Z_]+: .*(gloo|nccl|rccl|coordination|heartbeat|barrier|connection)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Sharding:
    """How a run is laid out: parameters everywhere, every batch in equal parts over all axes of the mesh.

    Attributes:
        mesh: the devices; None: the default device.
    """

    mesh: Mesh | None = None

    @classmethod
    def over(cls, mesh: Any) -> Sharding:
        """The layout for a mesh that a user gave, or None.

        Raises:
            TypeError: not a mesh.
            ValueError: a mesh without devices of this process, or of some processes only, or of unequal numbers.
        """
        if mesh is None:
            return cls()
        if not isinstance(mesh, Mesh):
            raise TypeError(
                f'mesh must be a mesh of devices, as jax.make_mesh((8,), ("batch",)) makes it, not {mesh!r}'
            )
        if jax.process_index() not in {device.process_index for device in mesh.devices.flat}:
            raise ValueError(
                f"mesh has no device of this process, number {jax.process_index()} of {jax.process_count()}; "
                'make it of all devices: jax.make_mesh((jax.device_count(),), ("batch",))'
            )
        owners = [device.process_index for device in mesh.devices.flat]
        counts = {owner: owners.count(owner) for owner in sorted(set(owners))}
        if len(counts) > 1 and (len(counts) < jax.process_count() or len(set(counts.values())) > 1):
            raise ValueError(
                f"mesh has devices of the processes {', '.join(f'{p} ({n})' for p, n in counts.items())}, of "
                f"{jax.process_count()} processes; it must have equally many of each, or devices of this one alone: "
                'jax.make_mesh((jax.device_count(),), ("batch",))'
            )
        # the partitioner places what lies between inputs and outputs; meshes are Explicit by default
        return cls(Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names)))

    @property
    def devices(self) -> int:
        """Number of devices that share a batch."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def processes(self) -> int:
        """Number of processes that share a batch."""
        return 1 if self.mesh is None else len({device.process_index for device in self.mesh.devices.flat})

    @property
    def whole(self) -> NamedSharding | None:
        """The sharding of what every device has whole."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())

    @property
    def divided(self) -> NamedSharding | None:
        """The sharding of a batch."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))

    def everywhere(self, tree: Any) -> Any:
        """Arrays, whole on every device; new arrays, whose memory a step may take over."""
        fresh = jax.tree.map(jnp.array, tree)
        if self.mesh is None:
            return fresh
        if self.processes == 1:
            return jax.tree.map(lambda a: jax.device_put(a, self.whole, may_alias=False), fresh)
        return jax.tree.map(self._from_every_process, fresh)

    def _from_every_process(self, array: jax.Array) -> jax.Array:
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            data = self._from_every_process(jax.random.key_data(array))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, self.whole, lambda index: host[index])  # type: ignore[arg-type]

    def batch(self, tree: Any) -> Any:
        """The arrays of a batch, or of this process's part of it, on the devices that share it."""
        if self.mesh is None:
            return jax.tree.map(lambda a: jnp.array(np.asarray(a)), tree)  # a loader may use its memory again
        return jax.tree.map(self._divide, tree)

    def _divide(self, array: Any) -> jax.Array:
        host = np.asarray(array)
        host = host.astype(jax.dtypes.canonicalize_dtype(host.dtype))
        if self.processes == 1 and host.shape[0] % self.devices:
            return jax.device_put(host, self.whole)  # such as the last batch of an evaluation
        return jax.make_array_from_process_local_data(self.divided, host)

    def keep_divided(self, tree: Any) -> Any:
        """Inside a compiled function: hold the arrays of a batch to their layout."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, self.divided), tree)

    def local(self, tree: Any) -> Any:
        """What is whole everywhere, on a device of this process."""
        if self.processes == 1:
            return tree
        return jax.tree.map(
            lambda a: a.addressable_data(0) if isinstance(a, jax.Array) and not a.is_fully_addressable else a, tree
        )

    @property
    def own(self) -> Sharding:
        """The same over this process's devices alone."""
        if self.mesh is None or self.processes == 1:
            return self
        devices = [device for device in self.mesh.devices.flat if device.process_index == jax.process_index()]
        return Sharding(Mesh(np.array(devices), ("batch",), axis_types=(AxisType.Auto,)))

    def check_batch(self, size: int) -> None:
        """Raise unless a batch can be shared equally.

        Raises:
            ValueError: it cannot.
        """
        if size % self.devices:
            near = max(self.devices, size - size % self.devices)
            raise ValueError(
                f"a batch of {size} examples cannot be shared equally by the {self.devices} devices of the mesh; "
                f"use a batch_size that is a multiple of {self.devices}, such as {near}"
            )

    def agree(self, value: Any) -> np.ndarray:
        """A small array of every process, stacked in the order of their numbers, bit for bit."""
        value = np.asarray(value)
        if self.processes == 1:
            return value[None]
        from jax.experimental import multihost_utils

        raw = np.frombuffer(value.tobytes(), np.uint8)  # JAX would round float64 to float32
        told = np.asarray(multihost_utils.process_allgather(raw))
        return np.frombuffer(told.tobytes(), value.dtype).reshape(-1, *value.shape)

    # what several processes owe each other

    @contextmanager
    def together(self, kind: type[Exception] = RuntimeError) -> Iterator[None]:
        """Within: what may fail in one process alone. Its error is raised in all, in the others as this kind."""
        if self.processes == 1:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        text = "" if failure is None else f"{type(failure).__name__}: {failure}"
        told = self.agree(np.frombuffer(text.encode()[:_TEXT].ljust(_TEXT, b"\0"), np.uint8))
        if failure is not None:
            raise failure
        for process, row in enumerate(told):
            if row.any():
                said = row.tobytes().rstrip(b"\0").decode(errors="ignore")
                raise kind(f"process {process} of {len(told)} stopped with {said}")

    def check_same(self, batch: Any) -> None:
        """Raise in all processes unless their first batches have the same shapes.

        Raises:
            ValueError: they have not.
        """
        text = shapes(batch)
        told = self.agree(np.frombuffer(text.encode()[:_TEXT].ljust(_TEXT, b"\0"), np.uint8))
        said = [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in told]
        for process, other in enumerate(said):
            if other != said[0]:
                raise ValueError(
                    f"fit: data: a batch is {said[0]} in process 0 and {other} in process {process}; "
                    "batches of several processes must have the same shapes and types in all"
                )

    def check_like(self, batch: Any, first: Any, what: str) -> None:
        """Raise unless a batch has the shapes of this process's first; one process may have any.

        Raises:
            ValueError: it has not.
        """
        if self.processes > 1 and shapes(batch) != shapes(first):
            raise ValueError(
                f"{what}: it is {shapes(batch)}, the first was {shapes(first)}; with several processes all batches "
                "have the same shapes, because no process knows those of the others: leave out a smaller last one "
                "(drop_last=True)"
            )

    def tell(self, code: int) -> jax.Array | None:
        """A number of this process on its devices, for a step that shows the numbers of all; None for one process."""
        if self.processes == 1:
            return None
        return self._divide(np.full(self.own.devices, code, np.int32))

    def heard(self, told: Any) -> dict[int, int]:
        """What processes told with a step, by their number; of those that told anything but 0."""
        if told is None or self.mesh is None:
            return {}
        codes = np.asarray(self.local(told)).tolist()
        return {d.process_index: code for d, code in zip(self.mesh.devices.flat, codes, strict=True) if code}

    @contextmanager
    def connected(self, newest: Callable[[], str]) -> Iterator[None]:
        """Within: work with the other processes. Where one of them is gone, the error says so.

        Args:
            newest: what can be said about the newest checkpoint and the way on, as a sentence.

        Raises:
            RuntimeError: another process ended or cannot be reached.
        """
        try:
            yield
        except (jax.errors.JaxRuntimeError, ValueError) as error:  # JAX raises the one or the other
            if self.processes == 1 or not _LOST.match(str(error)):
                raise
            raise RuntimeError(
                f"fit: process {jax.process_index()} of {jax.process_count()} noticed that another process ended or "
                f"cannot be reached ({str(error).strip().splitlines()[0][:200]}). {newest()}"
            ) from error


def shapes(batch: Any) -> str:
    """Shapes and types of a batch's arrays, as text for messages."""
    return ", ".join(f"{a.dtype}{shown(a.shape)}" for a in jax.tree.leaves(batch))


class Lockstep:
    """Batches of this process, for as many steps as the others take.

    Where this process has no batch (any more), was told to stop, or failed to read its data, a blank one takes the
    place, with a number that says so to all.

    Args:
        batches: pairs of a batch on the host and on the devices.
        blank: such a pair.
        count: how many there are in every process; None: nobody knows.
        signal: tells the number of a signal that this process received, or None.
    """

    def __init__(
        self, batches: Iterator[Any], blank: Callable[[], Any], count: int | None, signal: Callable[[], int | None]
    ) -> None:
        self._batches, self._blank, self._count, self._signal = batches, blank, count, signal
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        code, given = 0, 0
        while given != self._count:
            item = None
            if not code:
                try:
                    item = next(self._batches, None)
                except BaseException as error:
                    self.failure = error
                code = FAILED if self.failure is not None else self._signal() or (END if item is None else 0)
            yield self._blank() if item is None else item, code
            given += 1

    def check(self, heard: dict[int, int]) -> int | None:
        """The number of a signal that any process received; raises where one failed."""
        if self.failure is not None:
            raise self.failure
        failed = [process for process, code in heard.items() if code == FAILED]
        if failed:
            raise RuntimeError(
                f"fit: process {failed[0]} of {jax.process_count()} stopped with an error in its data, which it shows"
            )
        return max((code for code in heard.values() if code != END), default=None)
