"""A list of steps as a network: chains, residual blocks and branches where the steps have that form, else a graph."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from ...compose.graph import graph
from ...compose.parallel import branches, residual
from ...compose.serial import serial
from ...identity import Key
from ...layer import Layer
from ...types import Params, State
from .labels import usable
from .values import Step
from .wiring import Wiring


@dataclass(frozen=True)
class Piece:
    """A part of the network, with what it holds.

    Attributes:
        kind: the name that it gets where nothing else is known, with a number.
        layer: a layer, or a function.
        params: its parameters.
        state: its state.
        path: the modules that the file's names tell, from the outside in.
    """

    kind: str
    layer: Any
    params: Params = field(default_factory=dict)
    state: State = field(default_factory=dict)
    path: tuple[str, ...] = ()


#: pieces under the names that they have in the composition around them
Named = dict[str, Piece]
#: one step of a wiring: the name of a layer, or a function, and the places of its inputs
Row = tuple[str | Callable[..., Any], tuple[int, ...]]


def assemble(steps: list[Step], outputs: tuple[int, ...], labels: tuple[str, ...], inputs: int) -> Piece:
    """The network of steps.

    Args:
        steps: in an order in which they can be computed.
        outputs: the sources of the outputs.
        labels: the names of the outputs.
        inputs: the number of inputs.
    """
    steps, outputs = _needed(steps, outputs)
    owner = _owners(steps)
    alone = len(set(owner.values())) == len(owner)
    # parts of a chain take (batch, *space, channels); what goes on with (batch,) alone is a function in a wiring
    parts = all(steps[n].example for step in steps for n in step.inputs if n >= 0)
    if len(outputs) == 1 and inputs == 1 and alone and parts:
        network = _Network(steps, outputs[0])
        return _in_a_row(network.chain(-1, outputs[0], set(range(len(steps)))))
    return _wired(steps, range(len(steps)), outputs, labels if len(outputs) > 1 else (), owner)


def _needed(steps: list[Step], outputs: tuple[int, ...]) -> tuple[list[Step], tuple[int, ...]]:
    """The steps that an output depends on."""
    wanted, left = set(), [n for n in outputs if n >= 0]
    while left:
        number = left.pop()
        if number not in wanted:
            wanted.add(number)
            left += [n for n in steps[number].inputs if n >= 0]
    place = {old: new for new, old in enumerate(sorted(wanted))}
    kept = [replace(steps[n], inputs=tuple(place.get(i, i) for i in steps[n].inputs)) for n in sorted(wanted)]
    return kept, tuple(place.get(n, n) for n in outputs)


def _owners(steps: list[Step]) -> dict[int, int]:
    """The step whose layer and weights a step uses: itself, or an earlier one."""
    found: defaultdict[Any, list[int]] = defaultdict(list)
    owner = {}
    for number, step in enumerate(steps):
        if step.params or step.state:
            earlier = found[Key(step.layer), step.weights] if step.weights else []
            # one initialiser may be used as it is and transposed, which makes two kernels of it
            owner[number] = next((n for n in earlier if _same_weights(steps[n], step)), number)
            if owner[number] == number:
                earlier.append(number)
    return owner


def _same_weights(one: Step, other: Step) -> bool:
    return all(
        mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name], equal_nan=True) for name in mine)
        for mine, theirs in ((one.params, other.params), (one.state, other.state))
    )


def _in_a_row(parts: list[Piece]) -> Piece:
    """A chain, with chains for the modules that the names tell."""
    path = _common(parts)
    named = _nested([replace(part, path=part.path[len(path) :]) for part in parts])
    named = named or {"identity1": Piece("identity", jax.nn.identity)}
    return Piece("serial", serial(**_layers(named)), *_held(named), path)


def _common(parts: list[Piece]) -> tuple[str, ...]:
    """The modules that all parts are in; a part's own name does not count."""
    paths = [part.path for part in parts]
    found: tuple[str, ...] = ()
    while paths and all(
        len(path) > len(found) and path[: len(found) + 1] == paths[0][: len(found) + 1] for path in paths
    ):
        found = paths[0][: len(found) + 1]
    return found if len(parts) > 1 else found[:-1]


def _nested(parts: list[Piece]) -> Named:
    """Parts under their names; neighbours of one module become a chain of that name."""
    named: Named = {}
    counts: Counter[str] = Counter()
    for module, together in itertools.groupby(parts, lambda part: part.path[:1]):
        group = list(together)
        if not module:
            for part in group:
                counts[part.kind] += 1
                named[_free(f"{part.kind}{counts[part.kind]}", named)] = part
        elif len(group) == 1:
            named[_free("_".join(group[0].path), named, group[0].kind)] = group[0]
        else:
            inner = _in_a_row([replace(part, path=part.path[1:] or ()) for part in group])
            named[_free(module[0], named, "block")] = inner
    return named


def _free(name: str, named: Named, kind: str = "part") -> str:
    """A name that is not used yet and that ``serial`` takes; a number gets the kind of the part before it."""
    name = name if usable(name) else f"{kind}_{name}".rstrip("_")
    number = 2
    free = name
    while free in named:
        free, number = f"{name}_{number}", number + 1
    return free


def _layers(named: Named) -> dict[str, Any]:
    return {name: part.layer for name, part in named.items()}


def _held(named: Named) -> tuple[Params, State]:
    params = {name: part.params for name, part in named.items() if part.params}
    state = {name: part.state for name, part in named.items() if part.state}
    return params, state


def _wired(
    steps: list[Step], chosen: Iterable[int], outputs: tuple[int, ...], labels: tuple[str, ...], owner: dict[int, int],
    start: int = -1,
) -> Piece:  # fmt: skip
    """Some of the steps as a graph whose input is ``start``."""
    chosen = list(chosen)
    place = {old: new for new, old in enumerate(chosen)}
    place.setdefault(start, -1)
    named: Named = {}
    rows: list[Row] = []
    for number in chosen:
        step = steps[number]
        what: Any = step.layer
        if isinstance(what, Layer):
            first = steps[owner.get(number, number)]
            what = first.label
            named.setdefault(what, _piece(first))
        rows.append((what, tuple(place.get(i, i) for i in step.inputs)))
    return _graph(rows, named, tuple(place.get(n, n) for n in outputs), labels)


def _graph(rows: list[Row], named: Named, outputs: tuple[int, ...], labels: tuple[str, ...] = ()) -> Piece:
    """Rows of a wiring as a graph, which has one layer at least."""
    if not named:
        named = {"identity1": Piece("identity", jax.nn.identity)}

        def later(places: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(n + 1 if n >= -1 else n for n in places)

        rows = [("identity1", (-1,)), *((what, later(places)) for what, places in rows)]
        outputs = later(outputs)
    return Piece("graph", graph(**_layers(named))(Wiring(tuple(rows), outputs, labels)), *_held(named))


def _piece(step: Step) -> Piece:
    return Piece(step.kind, step.layer, step.params, step.state, step.path)


class _Network:
    """Steps of one input and one output, and where ways that part come together again."""

    def __init__(self, steps: list[Step], end: int) -> None:
        self.steps, self.end = steps, end
        self.users: dict[int, list[int]] = defaultdict(list)
        for number, step in enumerate(steps):
            for source in set(step.inputs):
                self.users[source].append(number)
        # where all ways from a value to the end come together first (its immediate post-dominator), and how far that
        # is from the end
        self.meets: dict[int, int] = {}
        self.depth = {end: 0}
        for number in range(end - 1, -2, -1):
            if self.users[number]:
                self.meets[number] = self._meeting(self.users[number])
                self.depth[number] = self.depth[self.meets[number]] + 1

    def _meeting(self, numbers: list[int]) -> int:
        first, *others = numbers
        for other in others:
            while first != other:
                if self.depth[first] >= self.depth[other]:
                    first = self.meets[first]
                else:
                    other = self.meets[other]
        return first

    def chain(self, start: int, end: int, allowed: set[int]) -> list[Piece]:
        """The parts between two values."""
        parts, here = [], start
        while here != end:
            users = [n for n in self.users[here] if n in allowed]
            if len(users) == 1 and self.steps[users[0]].inputs == (here,):
                parts.append(_piece(self.steps[users[0]]))
                here = users[0]
                continue
            meet = self._meeting(users)
            parts.append(self._parallel(here, meet, allowed))
            here = meet
        return parts

    def _parallel(self, start: int, meet: int, allowed: set[int]) -> Piece:
        """What lies between a value and the step where all ways from it come together."""
        join = self.steps[meet]
        ways = [self._between(start, source, allowed) for source in join.inputs]
        together = set().union(*ways)
        if sum(map(len, ways)) == len(together) and all(self._closed(start, way) for way in ways):
            pieces = [self._way(start, source, way) for source, way in zip(join.inputs, ways, strict=True)]
            made = _joined(join, pieces)
        else:
            chosen = sorted(together | {meet})
            made = _wired(self.steps, chosen, (meet,), (), {n: n for n in chosen}, start)
        return replace(made, path=join.path)

    def _between(self, start: int, source: int, allowed: set[int]) -> set[int]:
        """The steps on the ways from a value to another."""
        found: set[int] = set()
        left = [source]
        while left:
            number = left.pop()
            if number != start and number not in found and number in allowed:
                found.add(number)
                left += self.steps[number].inputs
        return found

    def _closed(self, start: int, way: set[int]) -> bool:
        return all(source == start or source in way for n in way for source in self.steps[n].inputs)

    def _way(self, start: int, source: int, way: set[int]) -> Piece | None:
        if source == start:
            return None
        parts = self.chain(start, source, way)
        return parts[0] if len(parts) == 1 else _in_a_row(parts)


def _joined(join: Step, pieces: list[Piece | None]) -> Piece:
    """Ways from one value that come together in a step; None is the value itself."""
    if join.join == "sum" and len(pieces) == 2:
        return _residual(*pieces)
    if join.join in ("sum", "concat"):
        given = [piece or Piece("identity", jax.nn.identity) for piece in pieces]
        named = {f"branch{number}": piece for number, piece in enumerate(given, 1)}
        return Piece("branches", branches(join=join.join, **_layers(named)), *_held(named))
    named, rows, sources = {}, [], []
    for piece in pieces:  # such as the gate of a squeeze-and-excitation block
        if piece is None:
            sources.append(-1)
            continue
        own = piece.path[len(join.path) :] if piece.path[: len(join.path)] == join.path else piece.path
        name = _free(own[-1] if own and usable(own[-1]) else f"{piece.kind}1", named)
        named[name] = piece
        sources.append(len(rows))
        rows.append((name, (-1,)))
    rows.append((join.layer, tuple(sources)))
    return _graph(rows, named, (len(rows) - 1,))


def _residual(first: Piece | None, second: Piece | None) -> Piece:
    """A sum of two; the one with more weights is the body."""
    if first is None or (second is not None and _count(second) > _count(first)):
        first, second = second, first
    named = {"body": first or Piece("identity", jax.nn.identity)}
    if second is not None:
        named["shortcut"] = second
    return Piece("residual", residual(*_layers(named).values()), *_held(named))


def _count(piece: Piece) -> int:
    return len(jax.tree.leaves(piece.params))
