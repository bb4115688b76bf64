"""The types of what a network is made of: trees of arrays, and what a layer declares of one array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from .geometry import Shape

#: what the optimizer may change: nested dicts of arrays
Params = dict[str, Any]
#: what the data may change: nested dicts of arrays
State = dict[str, Any]
#: (key, shape, dtype) -> array
Initializer = Callable[..., jax.Array]


class Parameter(NamedTuple):
    """One array that a layer declares.

    Attributes:
        shape: its shape.
        init: the function (key, shape, dtype) that makes the first value.
        axes: what its axes mean: "space" (samples of a kernel), "place" (positions of the output), "in" and "out"
            (channels); file formats, pictures and initialisers need it. () where nothing is said.
    """

    shape: Shape
    init: Initializer
    axes: tuple[str, ...] = ()
