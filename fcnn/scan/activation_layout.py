"""Activations between the parts of a scanned network, and the result of rewriting a part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..geometry import Shape
from ..layer import Layer
from ..types import Params
from .sample_grid import SampleGrid

#: the kinds of activations inside a window
FIELD, FLAT, POINT = "field", "flat", "point"


class ActivationLayout(NamedTuple):
    """The activations between two parts of a scanned network.

    Attributes:
        kind: "field" (a value at every local position), "flat" (a flattened field, the input of a dense layer), or
            "point" (one value of any shape per window).
        grid: where the values lie.
        shape: the shape of one example in the network for one window.
        extent: size along each axis of the array that holds the values (of one fragment).
    """

    kind: str
    grid: SampleGrid
    shape: Any
    extent: Shape


class RewriteOptions(NamedTuple):
    """How positions share their work.

    Attributes:
        fragments: whether strides inside the window produce fragments; otherwise the layers that follow are dilated.
        whole: whether nothing is scanned, and only the layers that see the whole space are rewritten.
        train: whether the network is for training, where batch normalisation counts a value once for every window
            that holds it.
    """

    fragments: bool = False
    whole: bool = False
    train: bool = False


@dataclass(frozen=True)
class Rewritten:
    """A network that computes another one at all positions.

    Attributes:
        net: the network for the image; its params are those of the original except for ``kernels``.
        layout: its output, and where the values lie.
        kernels: paths of the kernels of dense layers that have become convolutions, and their new shapes.
        options: how positions share their work.
    """

    net: Layer
    layout: ActivationLayout
    kernels: tuple[tuple[tuple[str, ...], Shape], ...]
    options: RewriteOptions

    @property
    def fragments(self) -> Shape:
        """Fragments along each axis of the network's output."""
        grid = self.layout.grid
        return grid.fragments if self.options.fragments else (1,) * grid.rank

    def convert(self, params: Params) -> Params:
        """Reshape the kernels of dense layers to convolution kernels; everything else is unchanged."""
        for path, shape in self.kernels:
            params = reshaped(params, path, shape)
        return params


def reshaped(tree: Any, path: tuple[str, ...], shape: Shape) -> Any:
    """The tree with one leaf, the kernel of a dense layer, reshaped."""
    if not path:
        return tree.reshape(*tree.shape[:-2], *shape)  # the leading axes are the copies of repeat
    return {**tree, path[0]: reshaped(tree[path[0]], path[1:], shape)}


class Part(NamedTuple):
    """A rewritten part: the layer (None: nothing is left to compute), its output, and the kernels that change shape."""

    layer: Layer | None
    layout: ActivationLayout
    kernels: tuple[tuple[tuple[str, ...], Shape], ...] = ()
