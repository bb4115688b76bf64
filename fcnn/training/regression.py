"""Metrics of targets that are numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from ..errors import format_shape
from ..ops.dtypes import wide
from .metric import Metric, Sums, ratio, weighted_sum


@dataclass(frozen=True)
class Error(Metric):
    """What :func:`mean_absolute_error`, :func:`mean_squared_error` and :func:`psnr` return."""

    kind: str = "absolute"
    peak: float = 1.0
    mode: ClassVar[str | None] = "min"

    def tally(self, outputs: Any, targets: Any, weights: Any = None) -> Sums:
        if tuple(outputs.shape) != tuple(targets.shape):
            raise ValueError(
                f"{self.kind} error: outputs have shape {format_shape(tuple(outputs.shape))}, but targets have shape "
                f"{format_shape(tuple(targets.shape))}; reshape the targets to the shape of the outputs"
            )
        dtype = wide(jnp.result_type(outputs.dtype, "float32"))
        gap = outputs.astype(dtype) - targets.astype(dtype)
        values = jnp.abs(gap) if self.kind == "absolute" else gap * gap
        if self.kind == "psnr":
            values = jnp.mean(values.reshape(len(values), -1), 1)
            values = 10 * jnp.log10(jnp.asarray(self.peak**2, dtype) / values)
        return weighted_sum(values, weights, len(values), f"{self.kind} error")

    def result(self, sums: Sums) -> Any:
        return ratio(sums["sum"], sums["weight"])


@dataclass(frozen=True)
class SignalToNoise(Error):
    """What :func:`psnr` returns."""

    kind: str = "psnr"
    mode: ClassVar[str | None] = "max"
