"""PyTorch's weights as params and state of a network, and the other way round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import jax
import numpy as np

from ..compose.parts import lift
from ..errors import layer_path
from ..geometry import Shape, check_shape
from ..tracing.structure import structure
from ..types import Params, State
from .assembly import assembled
from .matching import SIDES, matched
from .modules import Module, ignored, in_order
from .slots import Slot, slots
from .torch_files import read_tensors
from .torch_layout import STATE, TorchLayout, to_torch_layout

LAYOUT = TorchLayout()

T = TypeVar("T")


def from_torch(
    net: Any,
    source: Any,
    *,
    shape: Shape | None = None,
    ignore: Iterable[str] = (),
    names: Mapping[str, str] | None = None,
    channels_last: Iterable[str] = (),
) -> tuple[Params, State]:
    r"""Params and state of a network from PyTorch's weights.

    Layers are matched in order: of all that have the same shapes, the first in order of computation here gets the first
    in the state dict. That suits networks whose modules are registered in the order of their use, as those of
    torchvision and timm are; ``names`` says it where they are not. What is converted:

    - kernels of convolutions, (out, in // groups, \*kernel) to (\*kernel, in // groups, out), and of transposed ones;
    - dense layers, (out, in) to (in, out); after a flattened space their inputs are put in this library's order, which
      has the channels last;
    - a dense layer for a 1x1 convolution and the other way round; a convolution with an axis less, where its kernel has
      size 1 there;
    - normalisations, with running mean and variance.

    Compare what the two networks compute: an equal structure does not mean equal padding or epsilon. Of timm's networks
    that ``fcnn.models`` has, the weights of ``tf_efficientnet_*`` belong to padding="SAME" and an epsilon of 1e-3, and
    ``efficientnet_b5`` to ``b7`` have an epsilon of 1e-5 where torchvision and ``fcnn.models`` have 1e-3. Timm's
    ``resnetv2_*`` lack the normalisation after the first convolution, which is an error.

    Args:
        net: the network.
        source: a state dict of tensors or arrays, a module, or the path of a .pth or .safetensors file. No code in a
            file is run, and PyTorch need not be installed.
        shape: shape of one example, (\*space, channels); None: found among common sizes, which a network with dense
            layers on a flattened space needs to fit.
        ignore: patterns of names in the source that are left out, such as "aux\*"; and counters of batches always are.
        names: by path here, the module there, for layers that the order would match wrongly: {"head": "fc"}.
        channels_last: patterns of paths of layers whose input is flattened with the channels last in the source as
            well, so that their weights stay in order. Networks that were converted from TensorFlow transpose before
            they flatten.

    Returns:
        (params, state); floating point numbers in JAX's default dtype, or of 16 bits as they are.

    Raises:
        ValueError: layers or tensors without a counterpart, or of other shapes: all of them are named; a pattern in
            ``channels_last`` without a layer.
        TypeError: a source that holds anything but tensors.

    Source:
        The layouts: documentation of torch.nn.Conv2d, ConvTranspose2d, Linear and BatchNorm2d.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Conv(2, 3), fcnn.Flatten(), fcnn.Dense(4))
        >>> theirs = {
        ...     "conv.weight": np.ones((2, 1, 3, 3), "float32"), "conv.bias": np.zeros(2, "float32"),
        ...     "fc.weight": np.arange(32, dtype="float32").reshape(4, 8), "fc.bias": np.zeros(4, "float32"),
        ... }
        >>> params, state = from_torch(net, theirs, shape=(4, 4, 1))
        >>> params["dense1"]["kernel"][:, 0].tolist()    # two maps of 2 x 2, now the maps last
        [0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]
    """
    with layer_path("from_torch"):
        net = lift(net)
        pairs = matched(net, _modules(read_tensors(source), tuple(ignore)), shape, names or {}, LAYOUT)
        return assembled(_in_their_order(pairs, channels_last), LAYOUT)


def to_torch(
    net: Any,
    params: Params,
    state: State | None = None,
    *,
    shape: Shape | None = None,
    like: Any = None,
    channels_last: Iterable[str] = (),
) -> dict[str, np.ndarray]:
    """The weights of a network as PyTorch's modules have them; the inverse of :func:`from_torch`.

    Args:
        net: the network.
        params: its parameters.
        state: its state, where it has one.
        shape: shape of one example; None: found as :func:`from_torch` does.
        like: a state dict, a module or a file with the wanted names and shapes; None: names are the paths here,
            "stage1.conv1.weight".
        channels_last: as for :func:`from_torch`.

    Returns:
        NumPy arrays by name; give them to ``module.load_state_dict`` as
        ``{name: torch.from_numpy(array) for name, array in ...}``.

    Raises:
        ValueError: params that do not fit the network, or a ``like`` that does not.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Conv(2, 3), fcnn.BatchNorm())
        >>> theirs = to_torch(net, net.init(jax.random.key(0), (8, 8, 1)), net.init_state((8, 8, 1)))
        >>> {name: array.shape for name, array in theirs.items() if name.startswith("conv1")}
        {'conv1.weight': (2, 1, 3, 3), 'conv1.bias': (2,)}
    """
    with layer_path("to_torch"):
        net = lift(net)
        state = {} if state is None else state
        if like is not None:
            pairs = matched(net, _modules(read_tensors(like), ()), shape, {}, LAYOUT)
        else:
            pairs = [(slot, None) for slot in _fitting(net, params, shape)]
        found = {}
        for slot, module in _in_their_order(pairs, channels_last):
            for tree, entries in ((params, slot.params), (state, slot.state)):
                for name in sorted(entries, key=_torch_order):
                    array = np.asarray(slot.get(tree, name))
                    if module is not None:
                        known = module.get(slot, name)
                        if known is None:
                            continue
                        found[known[1]] = to_torch_layout(slot, name, array, known[0].shape)
                        continue
                    prefix = ".".join([slot.path.replace("/", "."), *map(str, slot.copies)]).strip(".")
                    theirs = STATE.get(name, "bias" if name == "bias" else "weight")
                    found[f"{prefix}.{theirs}" if prefix else theirs] = to_torch_layout(slot, name, array)
        return found


def _in_their_order(pairs: Sequence[tuple[Slot, T]], channels_last: Iterable[str]) -> list[tuple[Slot, T]]:
    """Layers whose flattened input has the channels last in the source, too, are taken as if nothing were flattened."""
    patterns = (channels_last,) if isinstance(channels_last, str) else tuple(channels_last)
    flattened = [slot.path for slot, _ in pairs if slot.flattened is not None]
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in flattened):
            listed = ", ".join(flattened) or "none"
            raise ValueError(
                f"channels_last={pattern!r} matches no layer that sees a flattened space; these do: {listed}"
            )
    return [
        (replace(slot, flattened=None) if any(fnmatchcase(slot.path, p) for p in patterns) else slot, other)
        for slot, other in pairs
    ]


def _torch_order(name: str) -> tuple[bool, bool, str]:
    """The weight first, then the bias, then statistics."""
    return name in STATE, name == "bias", name


def _modules(tensors: dict[str, np.ndarray], ignore: tuple[str, ...]) -> list[Module]:
    found: dict[str, Module] = {}
    ours = {"running_mean": "mean", "running_var": "variance", "num_batches_tracked": "count"}
    for name, tensor in tensors.items():
        if ignored(name, ignore, "."):
            continue
        prefix, _, last = name.rpartition(".")
        if last not in ("weight", "bias", *ours):  # a parameter of the module itself, such as a factor for each channel
            prefix, last = name, "value"
        found.setdefault(prefix, Module(prefix)).add(ours.get(last, last), tensor, name)
    return in_order(found.values())


def _fitting(net: Any, params: Params, shape: Shape | None) -> list[Slot]:
    """The layers of a network, for a shape of which these are the params."""
    given = jax.tree.map(lambda a: tuple(np.shape(a)), params)
    if shape is not None:
        return slots(net, check_shape(shape))
    for channels, rank in ((c, r) for c in (3, 1, 2, 4) for r in (2, 1, 3)):
        for side in SIDES:
            one = (*(side,) * rank, channels)
            try:
                declared, _ = structure(net, (one,))
            except (ValueError, TypeError):
                continue
            if jax.tree.map(lambda a: tuple(a.shape), declared) == given:
                return slots(net, one)
    raise ValueError("the params fit the network at none of the usual shapes of an example; give shape=")
