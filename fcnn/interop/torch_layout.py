"""How one layer's arrays are laid out in PyTorch, and back."""

from __future__ import annotations

from math import prod

import numpy as np

from ..geometry import Shape
from .channel_order import to_first, to_last, transposed_kernel
from .modules import Module
from .slots import Slot

#: the names that PyTorch's modules give to what a normalisation stores
STATE = {"mean": "running_mean", "variance": "running_var", "count": "num_batches_tracked"}


class TorchLayout:
    """Channels first: kernels (out, in // groups, *kernel), transposed ones (in, out // groups, *kernel)."""

    input_axis = 1

    def fits(self, module: Module, slot: Slot, name: str, shape: Shape) -> bool:
        """Whether an array has the shape of a layer's, once its axes are in this library's order."""
        if name != "kernel":
            return prod(shape) == prod(slot.params.get(name, slot.state.get(name, ())))
        *kernel, into, out = slot.params["kernel"]
        if slot.transposed:
            return tuple(shape) == self.transposed_shape(slot)
        if len(shape) < 2 or shape[0] != out or prod(shape[1:]) != into * prod(kernel):
            return False
        space = tuple(shape[2:])
        if len(shape) == 2 or space == tuple(kernel) or (not kernel and prod(space) == 1):
            return True
        if 0 < len(kernel) < len(space):  # such as a convolution over time written as one over pictures, (512, 1)
            return [n for n in space if n > 1] == [n for n in kernel if n > 1]
        # a dense layer here, and there a convolution with a kernel as large as what was flattened
        return not kernel and slot.flattened is not None and space == slot.flattened[:-1]

    def convert(self, module: Module, slot: Slot, name: str, array: np.ndarray) -> np.ndarray:
        """An array in the layout of a layer's entry."""
        if name != "kernel":
            return _channels_last(slot, array, (slot.params | slot.state)[name])
        *kernel, into, out = slot.params["kernel"]
        if slot.transposed:
            return self.transposed_kernel(slot, array)
        if kernel:
            return np.moveaxis(array.reshape(out, into, *kernel), (0, 1), (-1, -2))
        array = array.reshape(out, into)
        return (array if slot.flattened is None else array[:, to_last(slot.flattened)]).T

    def transposed_shape(self, slot: Slot) -> Shape:
        """The shape of the kernel of a transposed convolution."""
        *kernel, into, out = slot.params["kernel"]
        return into * slot.layer.groups, out // slot.layer.groups, *kernel

    def transposed_kernel(self, slot: Slot, array: np.ndarray) -> np.ndarray:
        """The kernel of a transposed convolution, (*kernel, in // groups, out)."""
        *kernel, into, out = slot.params["kernel"]
        groups = slot.layer.groups
        split = array.reshape(groups, into, out // groups, *kernel)
        moved = np.moveaxis(split, (0, 1, 2), (-2, -3, -1))  # (*kernel, in // groups, groups, out // groups)
        return moved.reshape(*kernel, into, out)


def to_torch_layout(slot: Slot, name: str, array: np.ndarray, shape: Shape | None = None) -> np.ndarray:
    """The inverse of :meth:`TorchLayout.convert`; ``shape`` is that of PyTorch's module, None: the usual one."""
    if name == "count":
        return np.asarray(round(float(array.max(initial=0))), np.int64)
    if name != "kernel":
        made = _channels_first(slot, array)
    elif slot.transposed:
        made = transposed_kernel(array, slot.layer.groups)
    elif array.ndim > 2:
        made = np.moveaxis(array, (-1, -2), (0, 1))
    else:
        made = array.T if slot.flattened is None else array.T[:, to_first(slot.flattened)]
    return np.ascontiguousarray(made if shape is None else made.reshape(shape))


def _channels_last(slot: Slot, array: np.ndarray, shape: Shape) -> np.ndarray:
    """Values for each channel, or for each number of an example, which PyTorch has with the channels first."""
    if len(shape) > 1 and array.ndim == len(shape):
        array = np.moveaxis(array, 0, -1)
    elif _of_flattened(slot, array):
        array = array.ravel()[to_last(slot.flattened or ())]
    return array.reshape(shape)


def _channels_first(slot: Slot, array: np.ndarray) -> np.ndarray:
    if array.ndim > 1:
        return np.moveaxis(array, -1, 0)
    if _of_flattened(slot, array):
        return array[to_first(slot.flattened or ())]
    return array


def _of_flattened(slot: Slot, array: np.ndarray) -> bool:
    """Whether an array has a value for each number that was flattened, as that of a norm has and a bias has not."""
    return slot.flattened is not None and array.size == prod(slot.flattened) and "kernel" not in slot.params
