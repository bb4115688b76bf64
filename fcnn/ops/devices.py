"""Device placement as recorded in the type of an array."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AxisType


def explicit_axes(x: Any) -> bool:
    """Whether x is on a mesh with Explicit axes, on which every operation states how its result is sharded.

    Example:
        >>> explicit_axes(jax.numpy.ones(2))
        False
    """
    return AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types


def varying_axes(x: Any) -> frozenset[str]:
    """The mesh axes over which x varies, under ``shard_map``.

    Example:
        >>> sorted(varying_axes(jax.numpy.ones(2)))
        []
    """
    kind = jax.typeof(x)
    manual = getattr(kind, "manual_axis_type", None)  # its name in jax 0.10; newer and older versions: vma
    return frozenset(manual.varying) if manual is not None else getattr(kind, "vma", frozenset())
