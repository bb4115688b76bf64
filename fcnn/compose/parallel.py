"""Layers side by side: the shortcut of a residual block, the branches of an inception module."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, ClassVar

import jax.numpy as jnp

from .. import names
from ..errors import layer_path
from ..geometry import Shape
from ..layer import Context, Layer
from ..ops.dtypes import together
from ..types import Params, State
from .parts import Composite, Parts, lift, named, one, same, single_array, single_shape, some
from .serial import calling

JOINS = ("concat", "sum")


class _Parallel(Composite):
    """Base class of compositions whose parts all get the same input."""

    def infer_shape(self, *shapes: Shape) -> Shape:
        shape = one(shapes, self.label)
        outs = {}
        for name, part in self.named_parts():
            with layer_path(name):
                out = part.infer_shape(*part.accept_shapes((shape,)))
                outs[name] = single_shape(out, self._refusal)
        return self.joined_shape(shape, outs)

    def part_shapes(self, shapes: tuple[Shape, ...]) -> dict[str, tuple[Shape, ...]]:
        return {name: shapes for name, _ in self.named_parts()}

    def walk(self, context: Context, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        x = one(inputs, self.label)
        outs, new_state = {}, {}
        for name, part in self.named_parts():
            y, part_state = context.part(name, part, params, state, (x,))
            with layer_path(name):
                outs[name] = single_array(y, self._refusal)
            if part_state:
                new_state[name] = part_state
        self.joined_shape(tuple(x.shape[1:]), {name: tuple(y.shape[1:]) for name, y in outs.items()})
        return self.join_outputs(x, together(*outs.values())), new_state

    @property
    def _refusal(self) -> str:
        return f"gives {{}}, but every part of {self.label} must give one array"

    def joined_shape(self, shape: Shape, outs: dict[str, Shape]) -> Shape:
        """The shape after joining; raises where the outputs cannot be joined."""
        raise NotImplementedError

    def join_outputs(self, x: Any, outs: list[Any]) -> Any:
        """Join the outputs of the parts, which have the same dtype."""
        raise NotImplementedError


@dataclass(frozen=True, repr=False)
class Residual(_Parallel):
    """The result of :func:`residual`."""

    only_hands_on: ClassVar[bool] = True

    body: Layer
    shortcut: Layer | None

    @property
    def parts(self) -> Parts:
        """The parts by name, under the same attribute as in other compositions."""
        return self.named_parts()

    def named_parts(self) -> Parts:
        parts = (("body", self.body), ("shortcut", self.shortcut))
        return tuple((name, part) for name, part in parts if part is not None)

    def joined_shape(self, shape: Shape, outs: dict[str, Shape]) -> Shape:
        outs = outs if self.shortcut is not None else {**outs, "the identity shortcut": shape}
        return same(
            outs,
            "body and shortcut",
            "give a shortcut with the body's output shape, such as fcnn.Conv(features, 1, stride=...)",
        )

    def join_outputs(self, x: Any, outs: list[Any]) -> Any:
        return reduce(add, outs if self.shortcut is not None else together(*outs, x))

    def __repr__(self) -> str:
        parts = [names.code(part) for _, part in self.named_parts()]
        return f"fcnn.residual({', '.join(parts)})"


@dataclass(frozen=True, repr=False)
class Branches(_Parallel):
    """The result of :func:`branches`."""

    only_hands_on: ClassVar[bool] = True

    parts: Parts
    join: str

    def named_parts(self) -> Parts:
        return self.parts

    def sliced(self, places: slice) -> Branches:
        return Branches(some(self, places), self.join)

    def joined_shape(self, shape: Shape, outs: dict[str, Shape]) -> Shape:
        if self.join == "sum":
            return same(outs, "branches that are summed", 'make them equal, or use join="concat"')
        if () in outs.values():
            raise ValueError("branches that are concatenated must have channels, but one outputs (batch,) alone")
        space = same(
            {name: out[:-1] for name, out in outs.items()},
            "the spaces of branches that are concatenated",
            'use padding="SAME" and equal strides in all of them',
        )
        return (*space, sum(out[-1] for out in outs.values()))

    def join_outputs(self, x: Any, outs: list[Any]) -> Any:
        return reduce(add, outs) if self.join == "sum" else jnp.concatenate(outs, -1)

    def __repr__(self) -> str:
        return calling("branches", self.parts, *([] if self.join == "concat" else [f"join={self.join!r}"]))


def residual(body: Any, shortcut: Any = None) -> Residual:
    r"""Add the input, or the output of a shortcut, to the output of a layer.

    .. math:: y = f(x) + g(x)

    Args:
        body: f, a layer or function.
        shortcut: g, likewise; None: the identity.

    Returns:
        A layer whose params have entries ``body`` and ``shortcut``, where these have parameters.

    Raises:
        ValueError: when a shape is given, body and shortcut have different output shapes.
        TypeError: an argument that is neither a layer nor a function; when a shape is given, a part that outputs
            several arrays.

    Source:
        He et al., "Deep residual learning for image recognition", 2016, equations 1 and 2.

    Example:
        >>> import fcnn, jax
        >>> block = residual(fcnn.Conv(16, 3, stride=2, padding="SAME"), fcnn.Conv(16, 1, stride=2))
        >>> block.out_shape((8, 8, 4))
        (4, 4, 16)
    """
    with layer_path("residual"):
        return Residual(lift(body), None if shortcut is None else lift(shortcut))


def branches(*layers: Any, join: str = "concat", **named_layers: Any) -> Branches:
    """Apply several layers to the same input and join their outputs.

    Args:
        layers: layers or functions, named by class and count as in ``serial``.
        join: "concat" concatenates the channels, "sum" adds.
        named_layers: further branches, named by their keywords.

    Returns:
        A layer whose params have an entry for each branch that has parameters.

    Raises:
        ValueError: no branches, an unknown join, or, when a shape is given, outputs that cannot be joined.
        TypeError: an argument that is neither a layer nor a function; when a shape is given, a part that outputs
            several arrays.

    Source:
        Szegedy et al., "Going deeper with convolutions", 2015, figure 2.

    Example:
        >>> import fcnn, jax
        >>> module = branches(fcnn.Conv(64, 1), fcnn.Conv(128, 3, padding="SAME"), fcnn.Conv(32, 5, padding="SAME"))
        >>> module.out_shape((28, 28, 192))
        (28, 28, 224)
    """
    with layer_path("branches"):
        if join not in JOINS:
            raise ValueError(f"join {join!r} is unknown; use one of {', '.join(map(repr, JOINS))}")
        parts = named(layers, named_layers)
        if not parts:
            raise ValueError("has no branches; give at least one layer")
    return Branches(parts, join)
