"""PyTorch's weights as params and state of a network, and the other way round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..compose.parts import lift
from ..errors import format_shape, layer_path
from ..geometry import Shape, check_shape
from ..tracing.structure import structure
from ..types import Params, State
from .slots import Slot, slots
from .torch_files import read_tensors
from .torch_layout import STATE, fits, from_torch_layout, signature, to_torch_layout

#: sides of images that are tried where no shape is given, those of networks that people know
SIDES = (224, 32, 28, 227, 299, 64, 96, 128, 256)


@dataclass
class Module:
    """The tensors of one PyTorch module.

    Attributes:
        name: its path, "layer1.0.conv1".
        tensors: its tensors by this library's names: kernel, bias, mean, ...; or "value", the only one of another name.
        names: PyTorch's name of each.
    """

    name: str
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def signature(self) -> tuple[object, ...]:
        """As of a slot, see :func:`~fcnn.interop.torch_layout.signature`."""
        weight, bias = self.tensors.get("weight"), self.tensors.get("bias")
        norm = self.state or (weight is not None and bias is not None and weight.shape == bias.shape)
        if weight is not None and weight.ndim > 1 and not norm:
            return ("kernel", weight.shape[0], prod(weight.shape[1:]), "bias" in self.tensors)
        values = [tensor.size for name, tensor in self.tensors.items() if name != "count"]
        affine = bool({"weight", "value"} & self.tensors.keys())
        return ("values", max(values, default=0), "bias" in self.tensors, affine, self.state)

    @property
    def state(self) -> bool:
        """Whether it stores running statistics."""
        return "mean" in self.tensors

    def get(self, slot: Slot, name: str) -> tuple[np.ndarray, str] | None:
        """The tensor for an entry of a slot, and PyTorch's name of it."""
        for mine in (name, "weight", "value") if name in slot.params and name != "bias" else (name,):
            if mine in self.tensors:
                return self.tensors[mine], self.names[mine]
        return None


def from_torch(
    net: Any,
    source: Any,
    *,
    shape: Shape | None = None,
    ignore: Iterable[str] = (),
    names: Mapping[str, str] | None = None,
) -> tuple[Params, State]:
    r"""Params and state of a network from PyTorch's weights.

    Layers are matched in order: of all that have the same shapes, the first in order of computation here gets the first
    in the state dict. That suits networks whose modules are registered in the order of their use, as those of
    torchvision and timm are; ``names`` says it where they are not. What is converted:

    - kernels of convolutions, (out, in // groups, \*kernel) to (\*kernel, in // groups, out), and of transposed ones;
    - dense layers, (out, in) to (in, out); after a flattened space their inputs are put in this library's order, which
      has the channels last;
    - a dense layer for a 1x1 convolution and the other way round;
    - normalisations, with running mean and variance.

    Compare what the two networks compute: an equal structure does not mean equal padding or epsilon.

    Args:
        net: the network.
        source: a state dict of tensors or arrays, a module, or the path of a .pth or .safetensors file. No code in a
            file is run, and PyTorch need not be installed.
        shape: shape of one example, (\*space, channels); None: found among common sizes, which a network with dense
            layers on a flattened space needs to fit.
        ignore: patterns of names in the source that are left out, such as "aux\*"; and counters of batches always are.
        names: by path here, the module there, for layers that the order would match wrongly: {"head": "fc"}.

    Returns:
        (params, state); floating point numbers in JAX's default dtype, or of 16 bits as they are.

    Raises:
        ValueError: layers or tensors without a counterpart, or of other shapes: all of them are named.
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
        modules = _modules(read_tensors(source), tuple(ignore))
        pairs = _matched(net, modules, shape, dict(names or {}))
        params: Params = {}
        state: State = {}
        copies: dict[tuple[str, str, str], list[np.ndarray]] = defaultdict(list)
        for slot, module in pairs:
            for kind, entries in (("params", slot.params), ("state", slot.state)):
                for name in entries:
                    found = module.get(slot, name)
                    array = np.zeros(()) if found is None else found[0]  # the count of batches, which is optional
                    copies[kind, slot.path, name].append(from_torch_layout(slot, name, array))
        example = _example(pairs)
        for (kind, path, name), arrays in copies.items():
            lead = example[path]
            stacked = np.stack(arrays).reshape(*lead, *arrays[0].shape) if lead else arrays[0]
            _put(params if kind == "params" else state, path, name, _in_default_dtype(stacked))
        return params, state


def to_torch(
    net: Any, params: Params, state: State | None = None, *, shape: Shape | None = None, like: Any = None
) -> dict[str, np.ndarray]:
    """The weights of a network as PyTorch's modules have them; the inverse of :func:`from_torch`.

    Args:
        net: the network.
        params: its parameters.
        state: its state, where it has one.
        shape: shape of one example; None: found as :func:`from_torch` does.
        like: a state dict, a module or a file with the wanted names and shapes; None: names are the paths here,
            "stage1.conv1.weight".

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
            pairs = _matched(net, _modules(read_tensors(like), ()), shape, {})
        else:
            pairs = [(slot, None) for slot in _fitting(net, params, shape)]
        found = {}
        for slot, module in pairs:
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


def _torch_order(name: str) -> tuple[bool, bool, str]:
    """The weight first, then the bias, then statistics."""
    return name in STATE, name == "bias", name


def _modules(tensors: dict[str, np.ndarray], ignore: tuple[str, ...]) -> list[Module]:
    found: dict[str, Module] = {}
    ours = {"running_mean": "mean", "running_var": "variance", "num_batches_tracked": "count"}
    for name, tensor in tensors.items():
        if any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for pattern in ignore):
            continue
        prefix, _, last = name.rpartition(".")
        if last not in ("weight", "bias", *ours):  # a parameter of the module itself, such as a factor for each channel
            prefix, last = name, "value"
        module = found.setdefault(prefix, Module(prefix))
        module.tensors[ours.get(last, last)] = tensor
        module.names[ours.get(last, last)] = name
    return list(found.values())


def _matched(net: Any, modules: list[Module], shape: Shape | None, names: dict[str, str]) -> list[tuple[Slot, Module]]:
    """Every layer with the module that holds its arrays."""
    problems: list[str] = []
    for found in _candidates(net, modules, shape):
        pairs, problems = _pairs(found, modules, names)
        if not problems:
            return pairs
    if not problems:
        raise ValueError(f"the network takes none of the usual images, {SIDES} samples a side; give shape=")
    told = "" if shape is not None else "; or the shape of an example is another one: give shape="
    listed = "\n  ".join(problems[:20])
    more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
    raise ValueError(
        f"{len(problems)} of {len(modules)} entries do not fit:\n  {listed}{more}\nmake the networks equal, give "
        f"ignore= patterns of names for what is to be left out, or names= for what is in another order{told}"
    )


def _candidates(net: Any, modules: list[Module], shape: Shape | None) -> Iterable[list[Slot]]:
    """The layers of the network, for the shape given or for usual ones that it takes."""
    if shape is not None:
        yield slots(net, check_shape(shape))
        return
    kernels = [module.tensors["weight"] for module in modules if module.signature()[0] == "kernel"]
    first = kernels[0] if kernels else np.zeros((1, 3, 1, 1))
    rank, known = max(first.ndim - 2, 0), {first.shape[1], 3, 1}
    for channels in sorted(known, key=lambda n: (n != first.shape[1], n)):
        before: list[Any] = []
        for side in SIDES if rank else (0,):
            try:
                found = slots(net, (*(side,) * rank, channels))
            except (ValueError, TypeError):
                continue
            shapes = [(slot.params, slot.state) for slot in found]
            if shapes == before:
                break  # no array depends on the size of the space
            before = shapes
            yield found


def _pairs(
    found: list[Slot], modules: list[Module], names: dict[str, str]
) -> tuple[list[tuple[Slot, Module]], list[str]]:
    """Pairs of equal shapes in order, and what is wrong with the others."""
    by_name = {module.name: module for module in modules}
    problems, pairs, rest = [], [], []
    for slot in found:
        if slot.path not in names:
            rest.append(slot)
        elif names[slot.path] not in by_name:
            problems.append(f"names= gives {names[slot.path]!r} for {slot.path}, which the source does not have")
        else:
            pairs.append((slot, by_name[names[slot.path]]))
    taken = {module.name for _, module in pairs}
    for path in names.keys() - {slot.path for slot in found}:
        problems.append(f"names= has {path!r}, which is no layer with parameters here")
    theirs = defaultdict(list)
    for module in modules:
        if module.name not in taken:
            theirs[module.signature()].append(module)
    missing = []
    for slot in rest:
        queue = theirs[signature(slot)]
        if queue:
            pairs.append((slot, queue.pop(0)))
        else:
            missing.append(slot)
    left = {module.name for queue in theirs.values() for module in queue}
    extra = [module for module in modules if module.name in left]
    problems += _unmatched(missing, extra)
    for slot, module in pairs:
        for name in (*slot.params, *slot.state):
            tensor = module.get(slot, name)
            if tensor is None:
                if name != "count":
                    problems.append(f"{module.name} has no counterpart of {slot.path}/{name}")
            elif name != "count" and not fits(slot, name, tensor[0].shape):
                ours = format_shape((slot.params | slot.state)[name])
                problems.append(
                    f"{tensor[1]} has shape {format_shape(tensor[0].shape)}, {slot.path}/{name} has {ours} here"
                )
    order = {(slot.path, slot.copies): i for i, slot in enumerate(found)}
    return sorted(pairs, key=lambda pair: order[pair[0].path, pair[0].copies]), problems


def _unmatched(missing: list[Slot], extra: list[Module]) -> list[str]:
    """Layers and modules without a counterpart, in words; those at the same place side by side."""
    found = []
    for slot, module in zip(missing, extra, strict=False):
        found.append(f"{_shapes(module)} has no counterpart here, and {_described(slot)} has none there")
    found += [f"{_described(slot)} has no counterpart in the source" for slot in missing[len(extra) :]]
    found += [f"{_shapes(module)} has no counterpart here" for module in extra[len(missing) :]]
    return found


def _shapes(module: Module) -> str:
    listed = ", ".join(format_shape(tensor.shape) for name, tensor in module.tensors.items() if name != "count")
    return f"{module.name} with {listed}"


def _described(slot: Slot) -> str:
    listed = ", ".join(f"{name} {format_shape(shape)}" for name, shape in (slot.params | slot.state).items())
    return f"{slot.path} with {listed}"


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


def _example(pairs: list[tuple[Slot, Module]]) -> dict[str, Shape]:
    """For every path the number of copies along each axis; () where there is one."""
    found: dict[str, Shape] = {}
    for slot, _ in pairs:
        most = tuple(n + 1 for n in slot.copies)
        found[slot.path] = tuple(map(max, most, found.get(slot.path, most)))
    return found


def _put(tree: dict[str, Any], path: str, name: str, value: jax.Array) -> None:
    for step in filter(None, path.split("/")):
        tree = tree.setdefault(step, {})
    tree[name] = value


def _in_default_dtype(array: np.ndarray) -> jax.Array:
    if array.dtype.itemsize < 4 and jnp.issubdtype(array.dtype, jnp.floating):
        return jnp.asarray(array)
    return jnp.asarray(array, jnp.zeros(()).dtype)
