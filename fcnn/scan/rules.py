"""The table of rewriting rules, one for each kind of part, and what all rules use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import jax

from .. import names
from ..geometry import Shape
from ..identity import nearest
from ..layer import Layer
from .activation_layout import ActivationLayout, Part, RewriteOptions
from .sample_grid import SampleGrid

#: the rule for each kind of layer, see :mod:`fcnn.scan.rewrite`
RULES: dict[type[Layer], Callable[[Any, ActivationLayout, RewriteOptions], Part]] = {}

#: what to do about a part that cannot share its work, in a scan and in a network that is written as convolutions
_PATCHES = 'Scan(..., method="patches") computes it position by position'
_NO_CONVOLUTION = "it is not a convolution; leave it out, or convert the network up to it"


def rewritten(layer: Layer, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """Rewrite a layer for an input of the given layout.

    Raises:
        ValueError: if the layer cannot be computed for all positions together.
    """
    return RULES[nearest(layer, RULES) or Layer](layer, layout, options)


def refuse(layer: Layer, reason: str, options: RewriteOptions, instead: str = "") -> NoReturn:
    """Raise for a part that cannot be computed for all positions together."""
    way_out = (instead and f"{instead}, or ") + (_NO_CONVOLUTION if options.whole else _PATCHES)
    raise ValueError(f"{names.code(layer)} {reason}, so positions cannot share its work; {way_out}")


def same(x: jax.Array) -> jax.Array:
    """The identity, where nothing is left to compute."""
    return x


def least(grid: SampleGrid, options: RewriteOptions) -> Shape:
    """Values along each axis that all windows hold together; with fragments, the length of the longest one."""
    if not options.fragments:
        return grid.count
    return tuple(-(-n // f) for n, f in zip(grid.count, grid.fragments, strict=True))
