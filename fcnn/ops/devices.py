"""What the type of an array says of the devices that it lies on."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AxisType


def explicit_axes(x: Any) -> bool:
    """Whether x lies on a mesh with Explicit axes, on which every operation states how its result is sharded.

    Example:
        >>> explicit_axes(jax.numpy.ones(2))
        False
    """
    return AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types


def varying_axes(x: Any) -> frozenset[str]:
    """The axes of a mesh over which x varies, under ``shard_map``.

    Example:
        >>> sorted(varying_axes(jax.numpy.ones(2)))
        []
    """
    kind = jax.typeof(x)
    manual = getattr(kind, "manual_axis_type", None)  # as jax 0.10 names it; newer and older: vma
    return frozenset(manual.varying) if manual is not None else getattr(kind, "vma", frozenset())
