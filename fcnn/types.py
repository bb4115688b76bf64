"""Types of a network's data: trees of arrays, and a layer's declaration of one array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from .geometry import Shape

#: the arrays that the optimizer may change: nested dicts
Params = dict[str, Any]
#: the arrays that training data update: nested dicts
State = dict[str, Any]
#: (key, shape, dtype) -> array
Initializer = Callable[..., jax.Array]


class Parameter(NamedTuple):
    """One array that a layer declares.

    Attributes:
        shape: its shape.
        init: the function (key, shape, dtype) that returns the initial value.
        axes: the meaning of each axis: "space" (samples of a kernel), "place" (positions of the output), "in" and
            "out" (channels); file formats, pictures and initialisers use it. (): not stated.
    """

    shape: Shape
    init: Initializer
    axes: tuple[str, ...] = ()
