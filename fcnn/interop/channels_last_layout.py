"""How one layer's arrays are laid out in Flax and Keras, which have the channels last as well."""

from __future__ import annotations

from math import prod

import numpy as np

from ..geometry import Shape
from .modules import Module
from .slots import Slot


class ChannelsLastLayout:
    r"""Kernels (\*kernel, in // groups, out), as here; those of transposed convolutions differ.

    JAX's ``conv_transpose``, and so Flax, takes the kernel by which a stretched input is convolved: it is mirrored
    here. With ``transpose_kernel=True``, as in Keras, it is that of the convolution whose transpose it is,
    (\*kernel, out, in).
    """

    input_axis = -2

    def fits(self, module: Module, slot: Slot, name: str, shape: Shape) -> bool:
        """Whether an array has the shape of a layer's, once its axes are in this library's order."""
        wanted = tuple(slot.params[name] if name in slot.params else slot.state[name])
        if shape == wanted:
            return not (name == "kernel" and slot.transposed and module.flipped and wanted[-1] != wanted[-2])
        if name != "kernel":  # a value for each channel that is written with axes of size 1
            return name in slot.params and name != "bias" and _squeezed(shape) == _squeezed(wanted)
        *kernel, into, out = wanted
        if slot.transposed:
            return module.flipped is not False and slot.layer.groups == 1 and shape == (*kernel, out, into)
        if prod(kernel) == 1 and getattr(slot.layer, "groups", 1) == 1 and _squeezed(shape[:-2]) == ():
            return shape[-2:] == (into, out)  # a dense layer for a 1x1 convolution, or the other way round
        # a dense layer here, and there a convolution with a kernel as large as what was flattened
        return not kernel and slot.flattened is not None and shape == (*slot.flattened, out)

    def convert(self, module: Module, slot: Slot, name: str, array: np.ndarray) -> np.ndarray:
        """An array in the layout of a layer's entry."""
        wanted = tuple(slot.params[name] if name in slot.params else slot.state[name])
        if name != "kernel" or not slot.transposed:
            return array.reshape(wanted)
        if array.shape != wanted or module.flipped:
            return array.swapaxes(-1, -2)
        return np.flip(array, tuple(range(array.ndim - 2)))


def undecided(module: Module, slot: Slot) -> bool:
    """Whether a kernel of a transposed convolution may be mirrored or not, as far as the shape tells."""
    if not slot.transposed or module.flipped is not None:
        return False
    *_, into, out = slot.params["kernel"]
    return into == out and slot.layer.groups == 1


def _squeezed(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)
