"""How one layer's arrays are laid out in PyTorch, and back."""

from __future__ import annotations

from math import prod

import numpy as np

from ..geometry import Shape
from .channel_order import to_first, to_last, transposed_kernel
from .slots import Slot

#: the names that PyTorch's modules give to what a normalisation stores
STATE = {"mean": "running_mean", "variance": "running_var", "count": "num_batches_tracked"}


def signature(slot: Slot) -> tuple[object, ...]:
    """What a layer's arrays and those of a PyTorch module must have in common.

    For a kernel: the sizes of the weight's first axis and of all others together, which neither the order of axes
    changes nor whether a dense layer is written as a 1x1 convolution. Without a kernel: the number of values.
    """
    if "kernel" in slot.params:
        return ("kernel", *_weight_sizes(slot), "bias" in slot.params)
    sizes = [prod(shape) for shape in (*slot.params.values(), *slot.state.values())]
    return ("values", max(sizes), "bias" in slot.params, bool(slot.params), bool(slot.state))


def _weight_sizes(slot: Slot) -> tuple[int, int]:
    *kernel, into, out = slot.params["kernel"]
    if not slot.transposed:
        return out, into * prod(kernel)
    groups = slot.layer.groups
    return into * groups, out // groups * prod(kernel)


def fits(slot: Slot, name: str, shape: Shape) -> bool:
    """Whether an array of PyTorch has the shape of one of a layer's, once its axes are in this library's order."""
    if name != "kernel":
        return prod(shape) == prod(slot.params.get(name, slot.state.get(name, ())))
    *kernel, into, out = slot.params["kernel"]
    space = tuple(shape[2:])
    if slot.transposed:
        groups = slot.layer.groups
        return tuple(shape) == (into * groups, out // groups, *kernel)
    if shape[0] != out or prod(shape[1:]) != into * prod(kernel):
        return False
    if len(shape) == 2 or space == tuple(kernel) or (not kernel and prod(space) == 1):
        return True
    # a dense layer here, and there a convolution with a kernel as large as what was flattened
    return not kernel and slot.flattened is not None and space == slot.flattened[:-1]


def from_torch_layout(slot: Slot, name: str, array: np.ndarray) -> np.ndarray:
    """An array of PyTorch in the layout of a layer's entry."""
    if name == "count":
        return np.broadcast_to(np.asarray(array, np.float32), slot.state[name]).copy()
    if name != "kernel":
        return _channels_last(slot, array, (slot.params | slot.state)[name])
    *kernel, into, out = slot.params["kernel"]
    if slot.transposed:
        groups = slot.layer.groups
        split = array.reshape(groups, into, out // groups, *kernel)
        moved = np.moveaxis(split, (0, 1, 2), (-2, -3, -1))  # (*kernel, in // groups, groups, out // groups)
        return moved.reshape(*kernel, into, out)
    if kernel:
        return np.moveaxis(array.reshape(out, into, *kernel), (0, 1), (-1, -2))
    array = array.reshape(out, into)
    return (array if slot.flattened is None else array[:, to_last(slot.flattened)]).T


def to_torch_layout(slot: Slot, name: str, array: np.ndarray, shape: Shape | None = None) -> np.ndarray:
    """The inverse of :func:`from_torch_layout`; ``shape`` is the one that PyTorch's module has, None: the usual one."""
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
    elif slot.flattened is not None and array.size == prod(slot.flattened):
        array = array.ravel()[to_last(slot.flattened)]
    return array.reshape(shape)


def _channels_first(slot: Slot, array: np.ndarray) -> np.ndarray:
    if array.ndim > 1:
        return np.moveaxis(array, -1, 0)
    if slot.flattened is not None and array.size == prod(slot.flattened):
        return array[to_first(slot.flattened)]
    return array
