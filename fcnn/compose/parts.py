"""Shared code of all compositions: named parts, and the wrapping of functions as layers."""

from __future__ import annotations

import dataclasses
import functools
import keyword
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import jax

from ..checks import checked_shapes, extra_entry
from ..errors import format_shape, layer_path
from ..geometry import Shape
from ..initialization import fold
from ..layer import Context, Layer
from ..layers.function import Function
from ..symbolic_sizes import plain, symbolic
from ..types import Params, State
from .cutting import Parted

Parts = tuple[tuple[str, Layer], ...]


def lift(value: Any) -> Layer:
    """Return a layer unchanged, and wrap a function as a layer without parameters.

    Raises:
        TypeError: the value is neither a layer nor a function.

    Example:
        >>> lift(jax.nn.relu)
        jax.nn.relu
    """
    if isinstance(value, Layer):
        return value
    if isinstance(value, type) and issubclass(value, Layer):
        raise TypeError(f"{value.__name__} is a class, not a layer; write {value.__name__}(...)")
    if isinstance(value, (list, tuple)):
        raise TypeError(f"a {type(value).__name__} is not a layer; unpack it with *, or join its layers by serial")
    if not callable(value):
        raise TypeError(
            f"{value!r} is neither a layer nor a function of one array; write a layer such as fcnn.Dense(10) or a "
            "function such as jax.nn.relu, and options by keyword"
        )
    return Function(value)


def named(layers: Iterable[Any], by_name: Mapping[str, Any]) -> Parts:
    """Name the parts: positional ones by class and count, the others by the given names.

    Raises:
        ValueError: a name that is used twice or is not an identifier.
        TypeError: a part that is neither a layer nor a function.

    Example:
        >>> from fcnn.layers import Conv, Dense
        >>> [name for name, _ in named([Conv(6, 5), Conv(16, 5)], {"head": Dense(10)})]
        ['conv1', 'conv2', 'head']
    """
    counts: Counter[str] = Counter()
    parts = []
    for layer in map(lift, layers):
        counts[layer.label] += 1
        parts.append((f"{layer.label}{counts[layer.label]}", layer))
    for name, layer in by_name.items():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"the name {name!r} of a part must be a Python identifier, such as 'conv1'")
        parts.append((name, lift(layer)))
    for name, count in Counter(name for name, _ in parts).items():
        if count > 1:
            raise ValueError(f"two parts have the name {name!r}; give one of them another name")
    return tuple(parts)


class Composite(Parted, Layer):
    """A layer made of named parts. Parts without parameters or state have no entry in params or state."""

    inputs: ClassVar[int | None] = None
    floating: ClassVar[bool] = False  # the parts check their own inputs

    def walk_shapes(self, shapes: tuple[Shape, ...]) -> tuple[Any, dict[str, tuple[Shape, ...]]]:
        """The output shape and ``part_shapes``, for compositions that compute both in one pass."""
        raise NotImplementedError

    def part_shapes(self, shapes: tuple[Shape, ...]) -> dict[str, tuple[Shape, ...]]:
        """The input shapes of every part."""
        raise NotImplementedError

    def init_part(self, key: jax.Array, shapes: tuple[Shape, ...]) -> Params:
        return self._collect(shapes, lambda name, part, inner: part.init_part(fold(key, name), inner))

    def state_part(self, shapes: tuple[Shape, ...]) -> State:
        return self._collect(shapes, lambda name, part, inner: part.state_part(inner))

    def _collect(self, shapes: tuple[Shape, ...], make: Any) -> dict[str, Any]:
        self.infer_shape(*shapes)
        inner = self.part_shapes(shapes)
        made = {}
        for name, part in self.named_parts():
            with layer_path(name):
                made[name] = make(name, part, inner[name])
        return {name: value for name, value in made.items() if value}

    def run(self, context: Context, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        known = [name for name, _ in self.named_parts()]
        for kind, given in (("params", params), ("state", state)):
            for name in given:
                if name not in known:
                    raise extra_entry(kind, name, f"the parts are {', '.join(known)}")
        checked_shapes(inputs, self.inputs, self.floating)
        if context.plan is None and context.record is None:
            from ..plan import planned  # slow to import, see ops.convolution

            plan = planned(self, context.train, inputs)
            context = dataclasses.replace(context, plan=plan, base=len(context.path))
        return self.walk(context, params, state, inputs)

    def slides(self, shapes: tuple[Shape, ...]) -> bool:
        inner = self.part_shapes(shapes)
        return any(inner[name] == shapes and part.slides(shapes) for name, part in self.named_parts())

    def walk(self, context: Context, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        """Run the parts; the names in params and state have been checked."""
        raise NotImplementedError


def some(composite: Composite, places: slice) -> Parts:
    """The parts in a slice, with their names."""
    parts = composite.named_parts()[places]
    if not parts:
        raise ValueError(f"{composite.label} has {len(composite)} parts, none of them in {places}; take at least one")
    return parts


@functools.lru_cache(maxsize=1024)
def walked(composite: Composite, shapes: tuple[Shape, ...]) -> tuple[Any, dict[str, tuple[Shape, ...]]]:
    """``walk_shapes``, cached; otherwise every level of nesting would repeat the passes of the levels below it."""
    return composite.walk_shapes(shapes)


def one(shapes: tuple[Any, ...], what: str) -> Any:
    """The input of a composition that takes exactly one."""
    if len(shapes) != 1:
        raise TypeError(f"{what} takes one input, {len(shapes)} were given; use graph for several")
    return shapes[0]


def single_shape(out: Any, refusal: str) -> Shape:
    """The output shape of a part that must output one array.

    Args:
        out: the result of the part's ``infer_shape``: a shape, or a tree of the shapes of several arrays.
        refusal: the first half of the error message, with {} in place of the actual output.
    """
    if _sizes(out):
        return tuple(map(plain, out))
    shapes = jax.tree.leaves_with_path(out, is_leaf=_sizes)
    if not shapes or not all(_sizes(shape) for _, shape in shapes):
        raise TypeError(f"{refusal.format(f'the shape {out!r}')}; infer_shape must return a tuple of whole numbers")
    raise TypeError(
        f"{refusal.format(f'several arrays of the shapes {out}')}; wrap the part that gives them in a graph whose "
        "wiring chooses or joins them, such as "
        f"fcnn.graph(part=...)(lambda layer, x: layer.part(x){jax.tree_util.keystr(shapes[0][0])})"
    )


def single_array(y: Any, refusal: str) -> Any:
    """The output of a part that must output one array; ``refusal`` as in ``single_shape``."""
    if hasattr(y, "shape"):
        return y
    leaves = jax.tree.leaves(y)
    if leaves and all(hasattr(leaf, "shape") for leaf in leaves):
        single_shape(jax.tree.map(lambda leaf: tuple(leaf.shape[1:]), y), refusal)
    raise TypeError(f"{refusal.format(f'a {type(y).__name__}')}; forward must return an array")


def _sizes(value: Any) -> bool:
    """Whether value is one shape; users' layers may return a list, or NumPy integers."""
    return isinstance(value, (tuple, list)) and all(hasattr(size, "__index__") or symbolic(size) for size in value)


def same(shapes: Mapping[str, Shape], what: str, way_out: str) -> Shape:
    """Raise unless all the shapes are equal."""
    distinct = set(shapes.values())
    if len(distinct) > 1:
        listed = ", ".join(f"{name} gives {format_shape(shape)}" for name, shape in shapes.items())
        raise ValueError(f"{what} must agree in shape: {listed}; {way_out}")
    return next(iter(distinct))
