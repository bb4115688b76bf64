"""What lies between the parts of a scanned network, and what they are rewritten to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..geometry import Shape
from ..layer import Layer
from ..types import Params
from .sample_grid import SampleGrid

#: what a value inside a window is
FIELD, FLAT, POINT = "field", "flat", "point"


class ActivationLayout(NamedTuple):
    """What lies between two parts of a scanned network.

    Attributes:
        kind: "field" (a value for every local position), "flat" (a field that has been flattened, and will be the input
            of a dense layer), or "point" (one value of any shape for a window).
        grid: where the values lie.
        shape: the shape of one example as the network for one window has it.
        extent: values along each axis of the array that holds them (of one fragment).
    """

    kind: str
    grid: SampleGrid
    shape: Any
    extent: Shape


class RewriteOptions(NamedTuple):
    """How the work is shared.

    Attributes:
        fragments: whether steps inside the window leave fragments; otherwise they dilate what follows.
        whole: whether nothing is scanned, and only what comes after the space becomes convolution.
        train: whether it is for training, where batch normalisation counts values as often as windows hold them.
    """

    fragments: bool = False
    whole: bool = False
    train: bool = False


@dataclass(frozen=True)
class Rewritten:
    """A network that computes another one at all positions.

    Attributes:
        net: the network, for the image, whose params are those of the other but for ``kernels``.
        layout: what it makes, and where that lies.
        kernels: the paths of kernels of dense layers that have become convolutions, and their shapes there.
        options: how the work is shared.
    """

    net: Layer
    layout: ActivationLayout
    kernels: tuple[tuple[tuple[str, ...], Shape], ...]
    options: RewriteOptions

    @property
    def fragments(self) -> Shape:
        """Fragments along each axis of what the network makes."""
        grid = self.layout.grid
        return grid.fragments if self.options.fragments else (1,) * grid.rank

    def convert(self, params: Params) -> Params:
        """Give the kernels of dense layers the shape of kernels of convolutions; all else is as it was."""
        for path, shape in self.kernels:
            params = reshaped(params, path, shape)
        return params


def reshaped(tree: Any, path: tuple[str, ...], shape: Shape) -> Any:
    """A tree with one leaf, the kernel of a dense layer, in another shape."""
    if not path:
        return tree.reshape(*tree.shape[:-2], *shape)  # copies made by repeat come first
    return {**tree, path[0]: reshaped(tree[path[0]], path[1:], shape)}


class Part(NamedTuple):
    """A part rewritten: the layer (None: nothing is left to do), what it makes, and which kernels change shape."""

    layer: Layer | None
    layout: ActivationLayout
    kernels: tuple[tuple[tuple[str, ...], Shape], ...] = ()
