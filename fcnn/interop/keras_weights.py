"""Keras's weights as params and state of a network."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..compose.parts import lift
from ..errors import described, layer_path
from ..geometry import Shape
from ..paths import path_of
from ..types import Params, State
from .assembly import assembled
from .channels_last_layout import ChannelsLastLayout
from .keras_files import Stored, read_layers
from .matching import matched
from .modules import Module, ignored, in_order
from .slots import Slot

#: Keras's names of arrays, and those here
NAMES = {
    **{"kernel": "kernel", "bias": "bias", "depthwise_kernel": "kernel", "pointwise_kernel": "kernel"},
    **{"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "variance", "alpha": "slope"},
}
#: the order in which a layer has its arrays, where they have no names
ENTRIES = ("kernel", "scale", "slope", "bias", "mean", "variance")


class KerasLayout(ChannelsLastLayout):
    r"""Channels last; depthwise kernels are (\*kernel, in, multiplier), transposed ones (\*kernel, out, in)."""

    def fits(self, module: Module, slot: Slot, name: str, shape: Shape) -> bool:
        if name == "kernel" and not slot.transposed and getattr(slot.layer, "groups", 1) > 1:
            *kernel, into, out = slot.params["kernel"]
            groups = slot.layer.groups
            if into == 1 and shape == (*kernel, groups, out // groups):
                return True
        return super().fits(module, slot, name, shape)


LAYOUT = KerasLayout()


class Unnamed(Module):
    """The arrays of a layer that have no names: those of a layer here, in Keras's order."""

    @property
    def kernel(self) -> np.ndarray | None:
        return next((array for array in self.tensors.values() if array.ndim > 1), None)

    def get(self, slot: Slot, name: str) -> tuple[np.ndarray, str] | None:
        mine = [entry for entry in ENTRIES if entry in slot.params or entry in slot.state]
        key = str(mine.index(name)) if name in mine else ""
        return (self.tensors[key], self.names[key]) if key in self.tensors else None

    def may_be(self, slot: Slot) -> bool:
        return "kernel" not in slot.params or self.kernels_agree(slot)


def from_keras(
    net: Any,
    source: Any,
    *,
    shape: Shape | None = None,
    ignore: Iterable[str] = (),
    names: Mapping[str, str] | None = None,
) -> tuple[Params, State]:
    r"""Params and state of a network from a Keras model.

    Layers are matched by order and shape, as by :func:`from_torch`. Models, .keras files and Keras 2's .h5 files have
    the order of the model's layers. A .weights.h5 file of Keras 3 has them sorted by name: ``conv2d_2`` still comes
    before ``conv2d_10``, but the order of layers of different classes is not known, and what shapes and names leave
    open is an error that lists the candidates. What is converted:

    - depthwise kernels, (\*kernel, in, multiplier) to (\*kernel, 1, in multiplier);
    - ``SeparableConv2D``, whose two kernels are two convolutions here, the first depthwise and without bias;
    - transposed kernels, (\*kernel, out, in) to (\*kernel, in, out).

    Hyperparameters are not compared, and most sources do not have them. The defaults that differ: BatchNormalization
    has an epsilon of 1e-3 and a momentum of 0.99, here 1e-5 and 0.9, and keeps the biased variance
    (``unbiased=False``); LayerNormalization and GroupNormalization have an epsilon of 1e-3, here 1e-5; a transposed
    convolution with padding "valid" is ``padding="VALID", output_padding=max(s - P, 0)`` here.

    Args:
        net: the network.
        source: a model; the path of a .keras, .weights.h5 or .h5 file, of which the arrays and the names of the layers
            are read and nothing is run or rebuilt; or the arrays of each layer,
            ``[layer.get_weights() for layer in model.layers]``.
        shape: shape of one example, (\*space, channels); None: found among common sizes, which a network with dense
            layers on a flattened space needs to fit.
        ignore: patterns of names in the source that are left out, such as "aux/\*".
        names: by path here, the layer there, for layers that the order would match wrongly: {"head": "predictions"}.

    Returns:
        (params, state); floating point numbers in JAX's default dtype, or of 16 bits as they are.

    Raises:
        ValueError: layers or arrays without a counterpart, of other shapes, or with several that are possible: all of
            them are named; a damaged file, or one that refers to others.
        TypeError: a source of another kind.
        ImportError: a file, and h5py is not installed.

    Source:
        The layouts: documentation of keras.layers.Conv2D, DepthwiseConv2D, Conv2DTranspose and BatchNormalization,
        version 3.15.

    Example:
        >>> net = fcnn.serial(fcnn.Conv(6, 3, groups=3, bias=False), fcnn.Conv(2, 1))
        >>> separable = [np.ones((3, 3, 3, 2)), np.ones((1, 1, 6, 2)), np.zeros(2)]
        >>> params, state = from_keras(net, [separable], shape=(8, 8, 3))
        >>> params["conv1"]["kernel"].shape, params["conv2"]["kernel"].shape
        ((3, 3, 1, 6), (1, 1, 6, 2))
    """
    with layer_path("from_keras"):
        net = lift(net)
        modules = [one for one in _modules(source) if not ignored(one.name, tuple(ignore), "/")]
        return assembled(matched(net, modules, shape, names or {}, LAYOUT), LAYOUT)


def _modules(source: Any) -> list[Module]:
    keras = sys.modules.get("keras")  # whoever has a model has imported it
    if isinstance(source, (str, os.PathLike)):
        found = [module for stored in read_layers(path_of(source)) for module in _of_stored(stored)]
    elif keras is not None and isinstance(source, keras.layers.Layer):
        found = in_order(module for stored in _layers(source, (), set()) for module in _of_stored(stored))
    elif isinstance(source, Sequence) and all(isinstance(layer, Sequence) for layer in source):
        given = [Stored(f"layer {i}", dict(enumerate(map(np.asarray, layer)))) for i, layer in enumerate(source)]
        found = in_order(module for stored in given for module in _of_stored(stored))
    else:
        raise TypeError(
            f"source is {described(source)}; give a Keras model, the path of a .keras or .h5 file, or "
            "[layer.get_weights() for layer in model.layers]"
        )
    for module in found:
        module.flipped = True
    return found


def _layers(layer: Any, above: tuple[str, ...], seen: set[int]) -> Iterator[Stored]:
    """The layers of a model that have no layers of their own, in order, each once; then the model's own arrays."""
    if id(layer) in seen:
        return
    seen.add(id(layer))
    inner = getattr(layer, "layers", None)
    for one in inner if isinstance(inner, (list, tuple)) else ():
        yield from _layers(one, (*above, one.name), seen)
    groups: dict[str, dict[int | str, np.ndarray]] = {}
    for weight in layer.weights:
        if id(weight) not in seen:
            seen.add(id(weight))
            owner, _, last = weight.path.rpartition("/")
            groups.setdefault(owner, {})[last] = np.asarray(weight)
    for owner, arrays in groups.items():
        name = "/".join(above) or layer.name
        if len(groups) > 1:  # a layer that holds layers; the names of its path begin with its own
            name = "/".join([name, *owner.split("/")[1:]])
        yield Stored(name, arrays, kind=type(layer).__name__ if len(groups) == 1 else "")


def _of_stored(stored: Stored) -> Iterator[Module]:
    """The modules of one layer: two of a separable convolution."""
    arrays = {key: array for key, array in stored.arrays.items() if jnp.issubdtype(array.dtype, jnp.floating)}
    separable = _separable(arrays)
    if separable:
        depthwise, pointwise, *others = arrays
        parts = {"/depthwise": [depthwise], "/pointwise": [pointwise, *others]}
    else:
        parts = {"": list(arrays)}
    for end, keys in parts.items():
        by_number = isinstance(keys[0], int) if keys else False
        own = [key for key in keys if by_number or key in NAMES]
        module = (Unnamed if by_number else Module)(f"{stored.name}{end}", place=stored.place)
        module.kind = _kind(stored.kind)
        for number, key in enumerate(own):
            module.add(str(number) if by_number else NAMES[str(key)], arrays[key], f"{stored.name}/{key}")
        if own:
            yield module
        for key in keys:
            if key not in own:  # an array of a name that none of Keras's common layers has
                alone = Module(f"{stored.name}/{key}", place=stored.place)
                alone.add("value", arrays[key], alone.name)
                yield alone


def _kind(theirs: str) -> str:
    """The name here of one of Keras's classes, of which a file has "Conv2D" or "conv2d"; "" for others."""
    name = theirs.replace("_", "").lower()
    conv = re.fullmatch(r"(?:depthwise|separable)?conv\dd(transpose)?", name)
    if conv is not None:
        return "ConvTranspose" if conv[1] else "Conv"
    norms = {f"{norm.lower()}normalization": f"{norm}Norm" for norm in ("Batch", "Layer", "Group")}
    return {"dense": "Dense", "prelu": "PReLU", **norms}.get(name, "")


def _separable(arrays: Mapping[int | str, np.ndarray]) -> bool:
    """Whether the first of a layer's arrays are a depthwise kernel and a pointwise one that takes its outputs."""
    if "pointwise_kernel" in arrays:
        return True
    first, second, *_ = [array.shape for array in arrays.values()] + [(), ()]
    return len(first) == len(second) > 2 and second[:-1] == (*(1,) * (len(first) - 2), first[-2] * first[-1])
