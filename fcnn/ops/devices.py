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


def in_process(ctx: Any) -> bool:
    """Whether a lowering rule works for a program that this process runs on one device, or on each device separately.

    Args:
        ctx: the context that JAX hands to the rule.
    """
    module = ctx.module_context
    if module.lowering_parameters.for_export:
        return False
    axes = module.axis_context
    if hasattr(axes, "num_devices"):
        return axes.num_devices == 1
    mesh, manual = getattr(axes, "mesh", None), getattr(axes, "manual_axes", frozenset())
    return mesh is not None and set(mesh.axis_names) <= set(manual)  # under shard_map, over all axes
