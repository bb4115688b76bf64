"""Layers of a network and the modules of another framework that hold their arrays, by order, name and shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, Protocol

import numpy as np

from ..errors import format_shape
from ..geometry import Shape, check_shape
from .modules import Module, precedes
from .slots import Slot, slots

#: sides of images that are tried where no shape is given, those of networks that people know
SIDES = (224, 32, 28, 227, 299, 64, 96, 128, 256)
#: choices that are followed up where names and shapes leave several
MOST_CHOICES = 5_000
Pairs = list[tuple[Slot, Module]]


class Layout(Protocol):
    """How a framework lays out the arrays of a layer."""

    #: the axis of a kernel that has the channels of the input
    input_axis: int

    def fits(self, module: Module, slot: Slot, name: str, shape: Shape) -> bool:
        """Whether an array has the shape of a layer's entry, once its axes are in this library's order."""
        ...

    def convert(self, module: Module, slot: Slot, name: str, array: np.ndarray) -> np.ndarray:
        """An array in the layout of a layer's entry."""
        ...


def matched(
    net: Any, modules: list[Module], shape: Shape | None, names: Mapping[str, str], layout: Layout, more: str = ""
) -> Pairs:
    """Every layer with the module that holds its arrays.

    Args:
        net: the network.
        modules: those of the other framework.
        shape: of one example; None: found among common ones.
        names: the module of a layer, by path, where the order would be wrong.
        layout: that of the framework.
        more: a further way out, for an error.

    Raises:
        ValueError: layers and modules without a counterpart, of other shapes, or with several that are possible.
    """
    problems: list[str] = []
    for found in _candidates(net, modules, shape, layout):
        pairs, problems = _pairs(found, modules, names, layout)
        if not problems:
            return pairs
    if not problems:
        raise ValueError(f"the network takes none of the usual images, {SIDES} samples a side; give shape=")
    told = "" if shape is not None else "; or the shape of an example is another one: give shape="
    listed = "\n  ".join(problems[:20])
    rest = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
    raise ValueError(
        f"{len(problems)} of {len(modules)} entries do not fit:\n  {listed}{rest}\nmake the networks equal, give "
        f"ignore= patterns of names for what is to be left out, or names= for what is in another order{more}{told}"
    )


def _candidates(net: Any, modules: list[Module], shape: Shape | None, layout: Layout) -> Iterable[list[Slot]]:
    """The layers of the network, for the shape given or for usual ones that it takes."""
    if shape is not None:
        yield slots(net, check_shape(shape))
        return
    kernels = [kernel for module in modules if (kernel := module.kernel) is not None]
    rank = max(kernels[0].ndim - 2, 0) if kernels else 2
    first = kernels[0].shape[layout.input_axis] if kernels else 3
    for channels in dict.fromkeys((first, 3, 1) if kernels else (3, 1)):
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
    found: list[Slot], modules: list[Module], names: Mapping[str, str], layout: Layout
) -> tuple[Pairs, list[str]]:
    """The layers with their modules, and what is wrong with the others."""
    by_name = {module.name: module for module in modules}
    problems, pairs, rest = [], [], []
    for slot in found:
        if slot.path not in names:
            rest.append(slot)
        elif names[slot.path] not in by_name:
            problems.append(f"names= gives {names[slot.path]!r} for {slot.path}, which the source does not have")
        else:
            pairs.append((slot, by_name[names[slot.path]]))
    taken = {id(module) for _, module in pairs}
    for path in names.keys() - {slot.path for slot in found}:
        problems.append(f"names= has {path!r}, which is no layer with parameters here")
    queues: dict[tuple[int, ...], tuple[list[Slot], list[Module]]] = defaultdict(lambda: ([], []))
    for slot in rest:
        queues[_sizes(slot)][0].append(slot)
    for module in modules:
        if id(module) not in taken:
            queues[module.sizes][1].append(module)
    missing: list[Slot] = []
    extra: list[Module] = []
    for here, there in queues.values():
        more, unclear = _assigned(here, there, layout)
        pairs += more
        problems += unclear
        done = {(slot.path, slot.copies) for slot, _ in more}, {id(module) for _, module in more}
        here = [slot for slot in here if (slot.path, slot.copies) not in done[0]]
        there = [module for module in there if id(module) not in done[1]]
        for slot in list(here):  # of one size, but of another shape
            other = next((module for module in there if module.may_be(slot)), None)
            if other is not None:
                pairs.append((slot, other))
                here.remove(slot)
                there = [module for module in there if module is not other]
        missing += here
        extra += there
    order = {(slot.path, slot.copies): i for i, slot in enumerate(found)}
    places = {id(module): i for i, module in enumerate(modules)}
    missing.sort(key=lambda slot: order[slot.path, slot.copies])
    extra.sort(key=lambda module: places[id(module)])
    problems += _unmatched(missing, extra)
    problems += [wrong for slot, module in pairs for wrong in _misshapen(slot, module, layout)]
    return sorted(pairs, key=lambda pair: order[pair[0].path, pair[0].copies]), problems


def _sizes(slot: Slot) -> tuple[int, ...]:
    """As of a module, see :class:`~fcnn.interop.modules.Module`."""
    return tuple(sorted(prod(shape) for name, shape in (slot.params | slot.state).items() if name != "count"))


def _fits(slot: Slot, module: Module, layout: Layout) -> bool:
    return module.may_be(slot) and not _misshapen(slot, module, layout)


def _misshapen(slot: Slot, module: Module, layout: Layout) -> list[str]:
    """What of a module does not fit a layer, in words."""
    problems = []
    for name in (*slot.params, *slot.state):
        tensor = module.get(slot, name)
        if name == "count":
            continue
        if tensor is None:
            problems.append(f"{module.name} has no counterpart of {slot.path}/{name}")
        elif not layout.fits(module, slot, name, tensor[0].shape):
            ours = format_shape((slot.params | slot.state)[name])
            problems.append(
                f"{tensor[1]} has shape {format_shape(tensor[0].shape)}, {slot.path}/{name} has {ours} here"
            )
    return problems


def _assigned(here: list[Slot], there: list[Module], layout: Layout) -> tuple[Pairs, list[str]]:
    """Layers and modules of one size in pairs, in the order of both; in words where the order is not known.

    Of the modules that fit a layer, those are possible before which no other such module is known to come. Where
    several are, the name decides; where it does not, all choices are followed up, to see whether only one works out.
    """
    possible = [[j for j, module in enumerate(there) if _fits(slot, module, layout)] for slot in here]
    before = [{i for i, one in enumerate(there) if precedes(one, module)} for module in there]
    ends: list[tuple[list[int | None], list[tuple[int, list[int]]]]] = []
    stack: list[tuple[list[int | None], list[tuple[int, list[int]]]]] = [([], [])]
    for _ in range(MOST_CHOICES + len(here)):
        if not stack:
            break
        chosen, choices = stack.pop()
        number = len(chosen)
        if number == len(here):
            if None not in chosen or not ends:
                ends = [end for end in ends if None not in end[0]] + [(chosen, choices)]
            if len(ends) > 1 or (len(here) != len(there) and ends):
                break
            continue
        free = [j for j in possible[number] if j not in chosen]
        free = [j for j in free if not before[j].intersection(free)]
        free = _by_name(here, there, number, free)
        if len(free) > 1:
            choices = [*choices, (number, free)]
        stack += [([*chosen, j], choices) for j in reversed(free)] or [([*chosen, None], choices)]
    if not ends:
        return [], []
    chosen, choices = ends[0]
    pairs = [(slot, there[j]) for slot, j in zip(here, chosen, strict=True) if j is not None]
    if len(ends) == 1 and not stack:
        return pairs, []
    if None in chosen or len(here) != len(there):  # what is missing is told; the rest may be in any order
        return pairs, []
    return pairs, [
        f"{_described(here[number])} may be {' or '.join(there[j].name for j in free)}, of one shape and in no order "
        "that is known"
        for number, free in choices
    ]


def _by_name(here: Sequence[Slot], there: Sequence[Module], number: int, free: list[int]) -> list[int]:
    """Those of several modules that are most like the layer in path and class, and like no later layer more."""
    if len(free) < 2:
        return free
    mine = {j: _likeness(here[number], there[j]) for j in free}
    nearest = [j for j in free if mine[j] == max(mine.values())]
    return [j for j in nearest if mine[j] >= max(_likeness(slot, there[j]) for slot in here[number:])] or nearest


def _likeness(slot: Slot, module: Module) -> tuple[int, int]:
    """How many steps of the paths agree from the first on, and whether the classes do."""
    count = 0
    for a, b in zip(slot.path.split("/"), module.name.replace(".", "/").split("/"), strict=False):
        if a != b:
            break
        count += 1
    same = module.kind == type(slot.layer).__name__
    return count, 0 if not module.kind else 1 if same else -1


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
