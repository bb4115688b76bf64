"""Flax's weights, of Linen and NNX, as params and state of a network."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..compose.parts import lift
from ..errors import described, layer_path
from ..geometry import Shape
from ..types import Params, State
from .assembly import assembled
from .channels_last_layout import ChannelsLastLayout, undecided
from .matching import Pairs, matched
from .modules import Module, ignored, in_order, kept_order, step

LAYOUT = ChannelsLastLayout()
#: Flax's names of arrays, and those here
NAMES = {
    **{"kernel": "kernel", "bias": "bias", "scale": "scale", "negative_slope": "slope"},
    **{"mean": "mean", "var": "variance"},
}
#: layers that have the same name in Linen and here
KINDS = ("Conv", "ConvTranspose", "Dense", "BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "PReLU")


def from_flax(
    net: Any,
    source: Any,
    *,
    shape: Shape | None = None,
    ignore: Iterable[str] = (),
    names: Mapping[str, str] | None = None,
    order: Any = None,
    transpose_kernel: bool | None = None,
) -> tuple[Params, State]:
    r"""Params and state of a network from Flax's variables, of Linen or NNX.

    Layers are matched by order and shape, as by :func:`from_torch`. An NNX module has the order of its attributes.
    Dicts lose theirs wherever JAX handles them: what ``jit`` or ``jax.tree.map`` returns is sorted by name, Conv_10
    before Conv_2. Numbers are then read as numbers, but whether Conv_0 comes before Block_0 is not known. Shapes decide
    what they can, then equal names; what is left is an error that lists the candidates. ``order`` or ``names`` settle
    it.

    Kernels and flattened spaces have the channels last in both libraries. Kernels of transposed convolutions are
    mirrored, unless they have ``transpose_kernel=True``: then their last two axes are swapped. That can be seen in an
    NNX module, and in a shape with two numbers of channels; for others say it.

    Hyperparameters are not compared, and a dict of arrays does not have them. The defaults that differ: padding is
    "SAME" in Flax, "VALID" here; LayerNorm and GroupNorm have an epsilon of 1e-6, here 1e-5; BatchNorm has a momentum
    of 0.99, here 0.9, and keeps the biased variance (``unbiased=False``).

    Args:
        net: the network.
        source: Linen's variables, {"params": ..., "batch_stats": ...}, or its params alone; an NNX module, an
            ``nnx.State``, or its pure dict.
        shape: shape of one example, (\*space, channels); None: found among common sizes, which a network with dense
            layers on a flattened space needs to fit.
        ignore: patterns of names in the source that are left out, such as "aux/\*".
        names: by path here, the module there, for layers that the order would match wrongly:
            {"stem/batch_norm1": "bn_init"}.
        order: variables in the order of computation, as ``model.init(key, x)`` gives outside of ``jit``; their values
            do not matter.
        transpose_kernel: whether transposed convolutions were made with it, where that cannot be seen.

    Returns:
        (params, state); floating point numbers in JAX's default dtype, or of 16 bits as they are.

    Raises:
        ValueError: layers or arrays without a counterpart, of other shapes, or with several that are possible: all of
            them are named.
        TypeError: a source of another kind, or an entry that is no array.

    Source:
        The layouts: documentation of flax.linen.Conv, ConvTranspose, Dense and BatchNorm, version 0.12.

    Example:
        >>> net = fcnn.serial(fcnn.Conv(2, 3), fcnn.BatchNorm(), fcnn.Flatten(), fcnn.Dense(4))
        >>> theirs = {
        ...     "params": {
        ...         "Conv_0": {"kernel": np.ones((3, 3, 1, 2)), "bias": np.zeros(2)},
        ...         "BatchNorm_0": {"scale": np.ones(2), "bias": np.zeros(2)},
        ...         "Dense_0": {"kernel": np.ones((8, 4)), "bias": np.zeros(4)},
        ...     },
        ...     "batch_stats": {"BatchNorm_0": {"mean": np.full(2, 0.5), "var": np.ones(2)}},
        ... }
        >>> params, state = from_flax(net, theirs, shape=(4, 4, 1))
        >>> params["dense1"]["kernel"].shape, state["batch_norm1"]["mean"].tolist()
        ((8, 4), [0.5, 0.5])
    """
    with layer_path("from_flax"):
        net = lift(net)
        modules = [one for one in _modules(source) if not ignored(one.name, tuple(ignore), "/")]
        if order is not None:
            places = {one.name: number for number, one in enumerate(_modules(order, known=True))}
            modules = in_order(sorted(modules, key=lambda one: places.get(one.name, len(places))))
        for module in modules:
            module.flipped = transpose_kernel if module.flipped is None else module.flipped
        more = ", or order= with variables in the order of computation, as model.init gives outside of jit"
        pairs = matched(net, modules, shape, names or {}, LAYOUT, more)
        _check_decided(pairs)
        return assembled(pairs, LAYOUT)


def _check_decided(pairs: Pairs) -> None:
    unclear = [f"{module.name} for {slot.path}" for slot, module in pairs if undecided(module, slot)]
    if unclear:
        raise ValueError(
            f"the kernels of transposed convolutions with as many channels in as out do not show how they are laid out "
            f"({', '.join(unclear)}); give transpose_kernel=False, which is Flax's default, or True"
        )


def _modules(source: Any, known: bool = False) -> list[Module]:
    """The modules of a source; ``known``: the order of its dicts is that of computation."""
    nnx = sys.modules.get("flax.nnx")  # whoever has a module has imported it
    if nnx is not None and isinstance(source, nnx.Module):
        walk = _Walk(nnx)
        walk.value(source, "")
        return in_order(walk.found.values())
    if not isinstance(source, Mapping):
        raise TypeError(
            f"source is {described(source)}; give Linen's variables or params, an NNX module, or an nnx.State"
        )
    trees = [source]
    if isinstance(source.get("params"), Mapping):
        trees = [source["params"], source.get("batch_stats", {})]
    found: dict[str, Module] = {}
    for tree in trees:
        for path, leaf in _leaves(tree, ()):
            _put(found, path, leaf)
    if known or kept_order(*trees):
        return in_order(found.values())
    for name, module in found.items():
        module.place = tuple(map(step, name.split("/")))
    return list(found.values())


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, Mapping):
        for name, entry in tree.items():
            yield from _leaves(entry, (*path, str(name)))
    elif tree is not None:
        yield path, tree


def _put(found: dict[str, Module], path: tuple[str, ...], leaf: Any) -> Module | None:
    """Add one array to its module; None: it holds no floating point numbers, as keys and counters do not."""
    if hasattr(leaf, "unbox"):  # Linen's boxes with names of axes
        leaf = leaf.unbox()
    elif hasattr(leaf, "get_value"):  # NNX's variables
        leaf = leaf.get_value()
    whole = "/".join(path)
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "__array__"):
        raise TypeError(f"the entry {whole!r} is {described(leaf)}, not an array; give the variables alone")
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return None
    *above, last = path
    name = "/".join(above) if last in NAMES else whole
    module = found.setdefault(name, Module(name))
    module.add(NAMES.get(last, "value"), np.asarray(leaf), whole)
    kind = re.fullmatch(r"(\w+)_\d+", above[-1]) if above else None
    if kind is not None and kind[1] in KINDS:  # Linen's own name
        module.kind = kind[1]
    return module


class _Walk:
    """Collects the arrays of an NNX module in the order of its attributes; a module that is there twice once."""

    def __init__(self, nnx: Any) -> None:
        self._nnx = nnx
        self._seen: set[int] = set()
        self.found: dict[str, Module] = {}

    def value(self, value: Any, name: str, owner: Any = None) -> None:
        nnx = self._nnx
        if isinstance(value, nnx.Variable):
            self._variable(value, name, owner)
        elif isinstance(value, nnx.Pytree):
            if id(value) in self._seen:
                return
            self._seen.add(id(value))
            for last, entry in vars(value).items():
                self.value(entry, f"{name}/{last}" if name else last, value)
        elif isinstance(value, Mapping):
            for last, entry in value.items():
                self.value(entry, f"{name}/{last}")
        elif isinstance(value, (list, tuple)):
            for last, entry in enumerate(value):
                self.value(entry, f"{name}/{last}")

    def _variable(self, value: Any, name: str, owner: Any) -> None:
        nnx = self._nnx
        module = _put(self.found, tuple(name.split("/")), value)
        if module is None:
            return
        kinds = {"Conv": nnx.Conv, "ConvTranspose": nnx.ConvTranspose, "Dense": nnx.Linear}
        module.kind = next((kind for kind, theirs in kinds.items() if isinstance(owner, theirs)), "")
        if module.kind == "ConvTranspose":
            module.flipped = bool(owner.transpose_kernel)
