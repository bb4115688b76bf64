"""One layer after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .. import names
from ..errors import layer_path
from ..geometry import Shape
from ..layer import Context
from ..types import Params, State
from .parts import Composite, Parts, named, single_array, single_shape, some, walked

#: the error message for a part before the last that does not output one array
_REFUSAL = "takes one array, but the part before it gives {}"


@dataclass(frozen=True, repr=False)
class Serial(Composite):
    """The result of :func:`serial`."""

    only_hands_on: ClassVar[bool] = True

    parts: Parts

    def named_parts(self) -> Parts:
        return self.parts

    def sliced(self, places: slice) -> Serial:
        return Serial(some(self, places))

    def infer_shape(self, *shapes: Shape) -> Any:
        return walked(self, shapes)[0]

    def part_shapes(self, shapes: tuple[Shape, ...]) -> dict[str, tuple[Shape, ...]]:
        return walked(self, shapes)[1]

    def walk_shapes(self, shapes: tuple[Shape, ...]) -> tuple[Any, dict[str, tuple[Shape, ...]]]:
        seen = {}
        for name, part in self.parts:
            with layer_path(name):
                shapes = tuple(single_shape(shape, _REFUSAL) for shape in shapes)
                seen[name] = part.accept_shapes(shapes)
                shapes = (part.infer_shape(*shapes),)
        return shapes[0], seen

    def slides(self, shapes: tuple[Shape, ...]) -> bool:
        for _, part in self.parts:
            if part.slides(shapes):
                return True
            if len(shapes) != 1 or part.infer_shape(*shapes) != shapes[0]:
                return False
        return False

    def walk(self, context: Context, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        new_state = {}
        for name, part in self.parts:
            with layer_path(name):
                inputs = tuple(single_array(x, _REFUSAL) for x in inputs)
            y, part_state = context.part(name, part, params, state, inputs)
            inputs = (y,)
            if part_state:
                new_state[name] = part_state
        return inputs[0], new_state

    def __repr__(self) -> str:
        return calling("serial", self.parts)


def serial(*layers: Any, **named_layers: Any) -> Serial:
    """Compose layers so that each takes the output of the one before.

    Only the last layer may output several arrays; to choose or join them for a next layer, wrap the part in a
    ``graph``.

    Args:
        layers: layers, or functions of one array; named by class and count, ``conv1``, ``conv2``, ``dense1``.
        named_layers: layers that follow, named by their keywords.

    Returns:
        A layer whose params have an entry for each part that has parameters.

    Raises:
        ValueError: no layers, or two with the same name.
        TypeError: an argument that is neither a layer nor a function; when a shape is given, a part before the last
            that outputs several arrays.

    Example:
        >>> import fcnn, jax
        >>> net = serial(fcnn.Conv(8, 3), jax.nn.relu, fcnn.Flatten(), head=fcnn.Dense(10))
        >>> net.out_shape((28, 28, 1))
        (10,)
        >>> sorted(net.init(jax.random.key(0), (28, 28, 1)))
        ['conv1', 'head']
    """
    with layer_path("serial"):
        parts = named(layers, named_layers)
        if not parts:
            raise ValueError("has no layers; give at least one, or a function of one array")
    return Serial(parts)


def calling(function: str, parts: Parts, *options: str) -> str:
    """The call that rebuilds a composition; parts with automatic names are positional arguments.

    Positional arguments come first, so only parts before the first one with another name are positional.
    """
    layers = [layer for _, layer in parts]
    count = next(
        n for n in range(len(parts), -1, -1) if [name for name, _ in named(layers[:n], {})] == [n for n, _ in parts[:n]]
    )
    arguments = [names.code(layer) for layer in layers[:count]]
    arguments += [f"{name}={names.code(layer)}" for name, layer in parts[count:]]
    return f"fcnn.{function}({', '.join([*arguments, *options])})"
