"""Checks of hyperparameters that several layers share."""

from __future__ import annotations

import math
from typing import Any

from ..errors import refuse_traced


def check_flag(value: Any, name: str) -> bool:
    """Raise unless value is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def check_number(value: Any, name: str, above: float | None = None) -> float:
    """Raise unless value is a finite number, above a bound where one is given."""
    refuse_traced(value, name)
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, not {value!r}")
    value = float(value)
    if not math.isfinite(value) or (above is not None and not value > above):
        raise ValueError(f"{name} is {value:g}, it must be finite{'' if above is None else f' and above {above}'}")
    return value
