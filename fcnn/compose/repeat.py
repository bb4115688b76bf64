"""The same layer n times in a row, with separate parameters for each copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from .. import names
from ..checks import check_mapping, checked_shapes
from ..context import Inside
from ..errors import format_shape, layer_path
from ..geometry import Shape, integer
from ..initialization import check_finite, without_keys
from ..layer import Context, Layer
from ..ops.dtypes import common
from ..types import Params, State
from .cutting import inside
from .parts import lift, one


@dataclass(frozen=True, repr=False)
class Repeat(Layer):
    """The result of :func:`repeat`."""

    only_hands_on: ClassVar[bool] = True

    layer: Layer
    n: int

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Layer]:
        return iter((self.layer,) * self.n)

    def __getitem__(self, place: Any) -> Any:
        """One copy, or several: params and state of copies i to j are ``jax.tree.map(lambda a: a[i:j], params)``."""
        if isinstance(place, str):
            copy, slash, rest = place.partition("/")
            if not copy.isdecimal():
                raise ValueError(f"repeat has {self.n} copies, known by their number, and no part {copy!r}")
            return inside(self[int(copy)], rest) if slash else self[int(copy)]
        chosen = range(self.n)[place]
        if isinstance(chosen, range) and not chosen:
            raise ValueError(f"repeat has {self.n} copies, none of them in {place}; take at least one")
        return Repeat(self.layer, len(chosen)) if isinstance(chosen, range) else self.layer

    @property
    def floating(self) -> bool:  # type: ignore[override]
        return self.layer.floating

    def infer_shape(self, *shapes: Shape) -> Shape:
        shape = one(shapes, "repeat")
        out = self.layer.infer_shape(*self.layer.accept_shapes((shape,)))
        if out != shape:
            raise ValueError(
                f"the repeated layer turns {format_shape(shape)} into {format_shape(out)}; to follow itself it "
                'must keep the shape: use padding="SAME", stride 1 and as many features as channels'
            )
        return out

    def slides(self, shapes: tuple[Shape, ...]) -> bool:
        return self.layer.slides(shapes)

    def init_part(self, key: jax.Array, shapes: tuple[Shape, ...]) -> Params:
        self.infer_shape(*shapes)
        if without_keys():
            return _stacked(self.n, self.layer.init_part(key, shapes))
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(self.n))
        params = jax.vmap(lambda k: self.layer.init_part(k, shapes))(keys)
        for path, leaf in jax.tree.leaves_with_path(params):  # under vmap the layers could not check the values
            check_finite("/".join(step.key for step in path), leaf)
        return params

    def state_part(self, shapes: tuple[Shape, ...]) -> State:
        self.infer_shape(*shapes)
        state = self.layer.state_part(shapes)
        if without_keys():
            return _stacked(self.n, state)
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (self.n, *a.shape)), state)

    def run(self, context: Context, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        x = one(inputs, "repeat")
        self.infer_shape(*checked_shapes(inputs, self.inputs, self.floating))
        for kind, tree in (("params", params), ("state", state)):
            self._check_stacked(kind, tree)
        x = x.astype(common(x, *jax.tree.leaves(params)))  # the carry of a scan keeps its dtype
        inside = Inside(context)

        def step(y: Any, copy: tuple[Any, Params, State]) -> tuple[Any, Any]:
            index, own_params, own_state = copy
            inner = inside.enter(index)
            out, new_state = self.layer.run(inner, own_params, own_state, (y,))
            return out, (new_state, inside.leave(inner))

        y, (new_state, kept) = lax.scan(step, x, (jnp.arange(self.n), params, state))
        inside.bring_out(kept, (self.n,))
        return y, new_state

    def _check_stacked(self, kind: str, tree: dict[str, Any]) -> None:
        check_mapping(kind, tree)
        for path, leaf in jax.tree.leaves_with_path(tree):
            shape = jnp.shape(leaf)
            if not shape or shape[0] != self.n:
                raise ValueError(
                    f"{kind}{jax.tree_util.keystr(path)} has shape {format_shape(shape)}, but {self.n} copies ask for "
                    f"a first axis of {self.n}; use the {kind} that this network made for repeat(..., {self.n})"
                )

    def __repr__(self) -> str:
        return f"fcnn.repeat({names.code(self.layer)}, {self.n})"


def _stacked(n: int, tree: Any) -> Any:
    """The shapes of the stacked arrays of n copies."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((n, *a.shape), a.dtype), tree)


def repeat(layer: Any, n: int) -> Repeat:
    """Apply a layer n times in a row, each time with separate parameters and dropout masks.

    The parameters of the copies are stacked along a first axis and run by ``jax.lax.scan``, so compile time
    does not grow with n. To apply one set of parameters several times, name the layer in a ``graph``.

    Args:
        layer: a layer or function that keeps the shape of its input.
        n: number of copies, at least 1.

    Returns:
        A layer whose params are those of ``layer`` with a first axis of n.

    Raises:
        ValueError: n below 1, or, when a shape is given, a layer that changes it.
        TypeError: ``layer`` is neither a layer nor a function.

    Example:
        >>> import fcnn
        >>> net = repeat(fcnn.residual(fcnn.Conv(8, 3, padding="SAME")), 4)
        >>> net.init(jax.random.key(0), (16, 16, 8))["body"]["kernel"].shape
        (4, 3, 3, 8, 8)
    """
    with layer_path("repeat"):
        return Repeat(lift(layer), integer(n, "n"))
