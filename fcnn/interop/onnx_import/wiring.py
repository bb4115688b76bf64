"""How the layers of a network that is no chain are wired, as a value: it prints, compares and pickles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ... import names


@dataclass(frozen=True, repr=False)
class Wiring:
    """The wiring of ``graph``: steps one after another.

    Args:
        steps: the name of a layer or a function, and the places of its inputs: -1 is the first input of the network,
            -2 the second, 0 the result of the first step.
        outputs: the places of the outputs.
        labels: their names; (): there is one, which is given without a name.

    Example:
        >>> import fcnn
        >>> double = Wiring((("dense", (-1,)), (jax.numpy.add, (0, -1))), (1,))
        >>> fcnn.graph(dense=fcnn.Dense(3))(double).out_shape((3,))
        (3,)
    """

    steps: tuple[tuple[str | Callable[..., Any], tuple[int, ...]], ...]
    outputs: tuple[int, ...]
    labels: tuple[str, ...] = ()

    def __call__(self, layer: Any, *inputs: Any) -> Any:
        known = {-1 - i: x for i, x in enumerate(inputs)}
        for number, (what, places) in enumerate(self.steps):
            function = getattr(layer, what) if isinstance(what, str) else what
            known[number] = function(*(known[place] for place in places))
        made = [known[place] for place in self.outputs]
        return dict(zip(self.labels, made, strict=True)) if self.labels else made[0]

    def __repr__(self) -> str:
        steps = ", ".join(f"({names.code(what)}, {places})" for what, places in self.steps)
        labels = f", {self.labels}" if self.labels else ""
        return f"{__name__}.Wiring(({steps},), {self.outputs}{labels})"

    def __reduce__(self) -> Any:
        return _rebuilt, (names.pack(self.steps), self.outputs, self.labels)


def _rebuilt(steps: Any, outputs: Any, labels: Any) -> Wiring:
    return Wiring(names.unpack(steps), outputs, labels)
