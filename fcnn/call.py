"""One walk through a network: its mode, where in the network it is, and what is noted down on the way."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from .errors import at
from .geometry import Shape
from .given import Params, State, check_mapping, number


@dataclass(frozen=True)
class Call:
    """One walk through a network: its mode, and where in the network it is.

    Attributes:
        train: whether the network is being trained.
        root: the random key of the whole walk, or None.
        folds: numbers folded into the root on the way to this part; folded only where a layer draws.
        path: names of the parts on the way.
        events: where outputs are noted down as they appear, for ``capture`` and ``summary``; None: nowhere.
        nudges: by path, what is added to the output of a part, whose own parameters are then constants: the gradient
            with respect to a nudge of zero is the gradient at that output. None: nothing, anywhere.
        resting: paths, from here, of parts that run as they are used although the network is being trained.
    """

    train: bool
    root: jax.Array | None = None
    folds: tuple[Any, ...] = ()
    path: tuple[str, ...] = ()
    events: list[Event] | None = None
    nudges: dict[str, jax.Array] | None = None
    resting: frozenset[str] = frozenset()

    @property
    def key(self) -> jax.Array:
        """The random key of this part."""
        if self.root is None:
            raise ValueError(
                "draws random numbers in training and needs a key: apply_train(..., key=jax.random.key(0))"
            )
        key = self.root
        for step in self.folds:
            key = jax.random.fold_in(key, step)
        return key

    def part(
        self, name: str, layer: Any, params: Params, state: State, inputs: tuple[Any, ...], use: int = 0
    ) -> tuple[Any, State]:
        """Run one named part of a composition; ``use`` counts the uses of a shared part."""
        folds = (*self.folds, number(name), *((use,) if use else ()))
        step = name if not use else f"{name}#{use + 1}"
        inner = dataclasses.replace(self, folds=folds, path=(*self.path, step), **self._mode(name))
        with at(name):
            own_params = check_mapping("params", params.get(name, {}))
            own_state = check_mapping("state", state.get(name, {}))
            nudge = None if self.nudges is None else self.nudges.get("/".join(inner.path))
            if nudge is not None:
                own_params = jax.lax.stop_gradient(own_params)
            y, new_state = layer.run(inner, own_params, own_state, inputs)
        if self.events is not None:
            self.events.append(Event("/".join(inner.path), layer, inputs, y))
        return y if nudge is None else y + nudge, new_state

    def _mode(self, name: str) -> dict[str, Any]:
        """How one part runs where some rest."""
        if not self.resting:
            return {}
        if name in self.resting:
            return {"train": False, "resting": frozenset()}
        inside = (path.removeprefix(f"{name}/") for path in self.resting if path.startswith(f"{name}/"))
        return {"resting": frozenset(inside)}

    def copy(self, index: Any) -> Call:
        """The walk through one of several copies of a layer, with random numbers and nudges of its own."""
        here = "".join(f"{step}/" for step in self.path)
        nudges = self.nudges and {path: a[index] for path, a in self.nudges.items() if path.startswith(here)}
        events = None if self.events is None else []
        return dataclasses.replace(self, folds=(*self.folds, index), events=events, nudges=nudges)


class Event(NamedTuple):
    """What one part of a network made of its inputs; inside ``repeat`` the arrays have first axes for the copies."""

    path: str
    layer: Any
    inputs: tuple[Any, ...]
    output: Any
    copies: Shape = ()
