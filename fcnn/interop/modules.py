"""The arrays of one layer of another framework, by this library's names, and where the layer is there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from .slots import Slot

#: layers here with a kernel whose axes mean the same in all frameworks, or that is transposed
KERNELS = ("Conv", "Dense", "ConvTranspose")


class Step(NamedTuple):
    """One step of the way to a module: modules of one family are in the order of their numbers, others in none."""

    family: str
    numbers: tuple[int, ...]


@dataclass
class Module:
    """The arrays of one layer of another framework.

    Attributes:
        name: its path there, "layer1.0.conv1".
        tensors: its arrays by this library's names: kernel, bias, mean, ...; "weight" for a kernel or a scale, and
            "value" for the only array of another name.
        names: the name there of each.
        place: where it comes in the order of layers there.
        kind: its class by the name it has here: "Conv", "GroupNorm"; "" where it cannot be seen.
        flipped: whether the kernel of a transposed convolution is that of the convolution it is the transpose of, as
            Flax's ``transpose_kernel`` says; None: it cannot be seen.
    """

    name: str
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    place: tuple[Step, ...] = ()
    kind: str = ""
    flipped: bool | None = None

    def add(self, name: str, tensor: np.ndarray, theirs: str) -> None:
        """Add an array by its name here and its name there."""
        self.tensors[name], self.names[name] = tensor, theirs

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers its arrays have, which no order of axes changes; without counters."""
        return tuple(sorted(tensor.size for name, tensor in self.tensors.items() if name != "count"))

    @property
    def kernel(self) -> np.ndarray | None:
        """Its kernel; None: it has none."""
        weight = self.tensors.get("weight")
        if weight is None or weight.ndim < 2 or "mean" in self.tensors:
            return self.tensors.get("kernel")
        bias = self.tensors.get("bias")
        return None if bias is not None and bias.shape == weight.shape else weight

    def get(self, slot: Slot, name: str) -> tuple[np.ndarray, str] | None:
        """The array for an entry of a slot, and its name there."""
        for mine in (name, "weight", "value") if name in slot.params and name != "bias" else (name,):
            if mine in self.tensors:
                return self.tensors[mine], self.names[mine]
        return None

    def may_be(self, slot: Slot) -> bool:
        """Whether it is a layer of the same kind, as far as that can be seen."""
        return self.kernels_agree(slot) and (self.kernel is not None) == ("kernel" in slot.params)

    def kernels_agree(self, slot: Slot) -> bool:
        """Whether both are transposed convolutions or neither is, as far as that can be seen."""
        return self.kind not in KERNELS or slot.transposed == (self.kind == "ConvTranspose")


def ignored(name: str, patterns: Iterable[str], separator: str) -> bool:
    """Whether one of the patterns is for an array of this name, or for a layer that holds it."""
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}{separator}*") for pattern in patterns)


def in_order(modules: Iterable[Module]) -> list[Module]:
    """The modules, with the order given as their places."""
    found = list(modules)
    for number, module in enumerate(found):
        module.place = (Step("", (number,)),)
    return found


def step(name: str) -> Step:
    """The family of a name and its numbers, where only names tell the order.

    Example:
        >>> step("Conv_10"), step("conv2d"), step("conv2d_1"), step("block1_conv2")
        (Step(family='Conv', numbers=(10,)), Step(family='conv#d', numbers=(2, -1)),
         Step(family='conv#d', numbers=(2, 1)), Step(family='block#_conv#', numbers=(1, 2, -1)))
    """
    end = re.fullmatch(r"(.*?)_(\d+)", name)
    base, last = (end[1], int(end[2])) if end else (name, None)
    numbers = [int(digits) for digits in re.findall(r"\d+", base)]
    if last is not None or numbers:
        numbers.append(-1 if last is None else last)
    return Step(re.sub(r"\d+", "#", base), tuple(numbers))


def precedes(first: Module, second: Module) -> bool:
    """Whether one module is known to come before another."""
    for a, b in zip(first.place, second.place, strict=False):
        if a != b:
            return a.family == b.family and a.numbers < b.numbers
    return False


def kept_order(*trees: Any) -> bool:
    """Whether nested dicts have another order than the alphabetical one, in which JAX's functions leave dicts."""
    for tree in trees:
        if isinstance(tree, Mapping):
            keys = list(tree)
            try:
                if keys != sorted(keys):
                    return True
            except TypeError:  # names and numbers, which JAX does not sort either
                return True
            if kept_order(*tree.values()):
                return True
    return False
