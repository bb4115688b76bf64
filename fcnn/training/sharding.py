"""Where the arrays of a run live: on one device, or over the devices of a mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from .processes import ManyProcesses, OneProcess, processes_of


@dataclass(frozen=True)
class Sharding:
    """Parameters are replicated on every device; every batch is split equally along all axes of the mesh.

    Attributes:
        mesh: the devices; None: the default device.
        processes: the processes that the devices belong to.
    """

    mesh: Mesh | None = None
    processes: OneProcess | ManyProcesses = OneProcess()  # noqa: RUF009 (a value)

    @classmethod
    def over(cls, mesh: Any) -> Sharding:
        """The sharding over a mesh that a user gave, or None.

        Raises:
            TypeError: not a mesh.
            ValueError: a mesh without devices of this process, with devices of only some of several processes, or with
                unequal numbers of them.
        """
        if mesh is None:
            return cls()
        if not isinstance(mesh, Mesh):
            raise TypeError(
                f'mesh must be a mesh of devices, as jax.make_mesh((8,), ("batch",)) makes it, not {mesh!r}'
            )
        # the partitioner places what lies between inputs and outputs; meshes are Explicit by default
        mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
        return cls(mesh, processes_of(mesh))

    @property
    def devices(self) -> int:
        """Number of devices that share a batch."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def replicated(self) -> NamedSharding | None:
        """The sharding of an array that every device has whole."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())

    @property
    def split(self) -> NamedSharding | None:
        """The sharding of a batch."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))

    @property
    def own(self) -> Sharding:
        """The sharding over this process's devices alone."""
        return Sharding(self.processes.own_mesh(self.mesh))

    def replicate(self, tree: Any) -> Any:
        """Arrays as new arrays, whole on every device; a step may take over their memory."""
        fresh, sharding = jax.tree.map(jnp.array, tree), self.replicated
        return fresh if sharding is None else jax.tree.map(lambda a: self.processes.replicate(a, sharding), fresh)

    def put(self, tree: Any) -> Any:
        """The arrays of a batch, or of this process's part of it, on the devices that share it."""
        if self.mesh is None:
            return jax.tree.map(lambda a: jnp.array(np.asarray(a)), tree)  # a loader may reuse its memory
        return jax.tree.map(self._put, tree)

    def _put(self, array: Any) -> jax.Array:
        host = np.asarray(array)
        host = host.astype(jax.dtypes.canonicalize_dtype(host.dtype))
        own = self.devices // self.processes.count  # devices of this process
        if host.shape[0] % own:
            return jax.device_put(host, self.replicated)  # such as the last batch of an evaluation
        return jax.make_array_from_process_local_data(self.split, host)  # type: ignore[arg-type]

    def keep_split(self, tree: Any) -> Any:
        """Inside a compiled function: hold the arrays of a batch to their sharding."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, self.split), tree)

    def check_batch(self, size: int) -> None:
        """Raise unless a batch can be split equally.

        Raises:
            ValueError: the number of devices does not divide it.
        """
        if size % self.devices:
            near = max(self.devices, size - size % self.devices)
            raise ValueError(
                f"a batch of {size} examples cannot be shared equally by the {self.devices} devices of the mesh; "
                f"use a batch_size that is a multiple of {self.devices}, such as {near}"
            )
