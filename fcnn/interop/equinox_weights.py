"""Equinox's weights as params and state of a network."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..compose.parts import lift
from ..errors import described, layer_path
from ..geometry import Shape
from ..types import Params, State
from .assembly import assembled
from .matching import matched
from .modules import Module, ignored, in_order
from .slots import Slot
from .torch_layout import TorchLayout


class EquinoxLayout(TorchLayout):
    """As PyTorch's, but kernels of transposed convolutions are (out, in // groups, *kernel), and mirrored."""

    def transposed_shape(self, slot: Slot) -> Shape:
        *kernel, into, out = slot.params["kernel"]
        return out, into, *kernel

    def transposed_kernel(self, slot: Slot, array: np.ndarray) -> np.ndarray:
        return np.flip(np.moveaxis(array, (0, 1), (-1, -2)), tuple(range(array.ndim - 2)))


LAYOUT = EquinoxLayout()


def from_equinox(
    net: Any,
    source: Any,
    *,
    shape: Shape | None = None,
    ignore: Iterable[str] = (),
    names: Mapping[str, str] | None = None,
) -> tuple[Params, State]:
    r"""Params and state of a network from an Equinox module.

    Layers are matched as by :func:`from_torch`: of all that have the same shapes, the first in order of computation
    here gets the first in the order of the module's fields. What is converted:

    - kernels of convolutions, (out, in // groups, \*kernel) to (\*kernel, in // groups, out); those of transposed ones
      are mirrored as well;
    - dense layers, (out, in) to (in, out); after a flattened space their inputs are put in this library's order, which
      has the channels last;
    - normalisations; the running statistics of ``BatchNorm`` are read from its ``State``. With ``mode="batch"`` they
      are divided by 1 - momentum\ :sup:`batches`, as Equinox does at inference.

    Hyperparameters are not compared. The defaults that differ: Equinox's ``BatchNorm`` has a momentum of 0.99, here it
    is 0.9; with ``mode="ema"`` it normalises by running statistics in training too, which is no layer of this library.

    Args:
        net: the network.
        source: an ``eqx.Module``, or the pair (module, state) that ``eqx.nn.make_with_state`` gives.
        shape: shape of one example, (\*space, channels), the channels last; None: found among common sizes.
        ignore: patterns of names in the module that are left out, such as "aux\*".
        names: by path here, the module there, for layers that the order would match wrongly: {"head": "layers.3"}.

    Returns:
        (params, state); floating point numbers in JAX's default dtype, or of 16 bits as they are.

    Raises:
        ValueError: layers or arrays without a counterpart, or of other shapes: all of them are named; running
            statistics without their ``State``.
        TypeError: no Equinox module.

    Source:
        The layouts: documentation of equinox.nn.Conv, ConvTranspose, Linear and BatchNorm, version 0.13.

    Example:
        ::

            model, state = eqx.nn.make_with_state(Net)(jax.random.key(0))
            params, state = fcnn.interop.from_equinox(net, (model, state), shape=(28, 28, 1))
    """
    with layer_path("from_equinox"):
        net = lift(net)
        modules = [one for one in _modules(source) if not ignored(one.name, tuple(ignore), ".")]
        return assembled(matched(net, modules, shape, names or {}, LAYOUT), LAYOUT)


def _modules(source: Any) -> list[Module]:
    library = sys.modules.get("equinox")  # whoever has a module has imported it
    module, state = source if isinstance(source, tuple) and len(source) == 2 else (source, None)
    if library is None or not isinstance(module, library.Module):
        raise TypeError(
            f"source is {described(source)}; give an equinox.Module, or the pair (module, state) where it has "
            "running statistics"
        )
    if state is not None and not isinstance(state, library.nn.State):
        raise TypeError(f"the second of source is {described(state)}; give the equinox.nn.State of the module")
    walk = _Walk(library, state)
    walk.value(module, "")
    return in_order(walk.found.values())


class _Walk:
    """Collects the arrays of a module in the order of its fields."""

    def __init__(self, library: Any, state: Any) -> None:
        self._library, self._state = library, state
        self.found: dict[str, Module] = {}

    def value(self, value: Any, name: str, owner: Any = None) -> None:
        if isinstance(value, self._library.nn.StateIndex):
            for number, leaf in enumerate(jax.tree.leaves(self._stored(value, name))):
                self.value(leaf, f"{name}.{number}")
        elif isinstance(value, self._library.Module):
            self._module(value, name)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self.value(item, _below(name, key))
        elif isinstance(value, (list, tuple)):
            for number, item in enumerate(value):
                self.value(item, _below(name, number))
        elif isinstance(value, (jax.Array, np.ndarray)) and jnp.issubdtype(value.dtype, jnp.floating):
            self._array(np.asarray(value), name, owner)

    def _module(self, module: Any, name: str) -> None:
        norm = isinstance(module, self._library.nn.BatchNorm)
        for field in dataclasses.fields(module):
            value = getattr(module, field.name, None)
            if not norm or not isinstance(value, self._library.nn.StateIndex):
                self.value(value, _below(name, field.name), module)
            elif field.name in ("batch_state_index", "ema_state_index"):
                for entry, array in zip(("mean", "variance"), self._statistics(module, value, name), strict=True):
                    self._at(name).add(entry, array, _below(name, f"{field.name} ({entry})"))

    def _array(self, array: np.ndarray, name: str, owner: Any) -> None:
        above, _, last = name.rpartition(".")
        if last not in ("weight", "bias"):
            self._at(name).add("value", array, name)
            return
        module = self._at(above)
        module.add(last, array, name)
        nn = self._library.nn
        kinds = {"Conv": nn.Conv, "ConvTranspose": nn.ConvTranspose, "Dense": nn.Linear}
        module.kind = next((kind for kind, theirs in kinds.items() if isinstance(owner, theirs)), "")

    def _at(self, name: str) -> Module:
        return self.found.setdefault(name, Module(name))

    def _statistics(self, module: Any, index: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = map(np.asarray, self._stored(index, name))
        if module.batch_counter is not None:  # averages that begin at 0; Equinox takes that out when they are used
            batches = int(self._stored(module.batch_counter, name))
            share = 1 - np.asarray(module.momentum, mean.dtype) ** batches if batches else 1
            mean, variance = mean / share, variance / share
        return mean, variance

    def _stored(self, index: Any, name: str) -> Any:
        if self._state is not None:
            return self._state.get(index)
        if not jax.tree.leaves(index.init) or any(not hasattr(leaf, "dtype") for leaf in jax.tree.leaves(index.init)):
            raise ValueError(f"{name} stores its statistics in an equinox.nn.State; give the pair (module, state)")
        return index.init


def _below(name: str, last: Any) -> str:
    return f"{name}.{last}" if name else str(last)
