"""Augmentations built from augmentations: in sequence, with a probability, on another input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...errors import format_shape, layer_path
from ...geometry import integer
from .augmentation import Augmentation, Batch, pack, real, unpack


def compose(*augmentations: Callable[..., Batch]) -> Augmentation:
    """Apply augmentations in sequence.

    The i-th gets the key ``jax.random.fold_in(key, i)``, so no two share random numbers. Those that need the examples'
    positions and the epoch (``by_example``) get them.

    Args:
        augmentations: functions (key, batch) to batch: those of this package, or your own.

    Returns:
        The composition, itself an augmentation.

    Raises:
        TypeError: an argument that is not callable.

    Example:
        >>> from .moving import Crop, Flip
        >>> compose(Crop(4), Flip())
        compose(Crop(padding=4, mode='reflect'), Flip(axis=-1, p=0.5))
    """
    return _Composition(tuple(augmentations))


def sometimes(p: float, augmentation: Callable[..., Batch]) -> Augmentation:
    """Augment each example with probability p.

    If the augmentation turns labels into class probabilities, the labels of the other examples become one-hot.

    Args:
        p: probability.
        augmentation: a function (key, batch) to batch that keeps the shape of the inputs.

    Returns:
        The augmentation.

    Raises:
        ValueError: p is not from 0 to 1.
        TypeError: an argument that is not callable.

    Example:
        >>> from .erasing import Cutout
        >>> (x,), _ = sometimes(0.5, Cutout(9))(jax.random.key(0), ((jnp.ones((100, 8, 8, 1)),), None))
        >>> bool(25 < (x.min((1, 2, 3)) == 1).sum() < 75)
        True
    """
    return _Sometimes(p, augmentation)


def on_input(position: int, augmentation: Callable[..., Batch]) -> Augmentation:
    """Augment an input other than the first, for networks with several inputs.

    Args:
        position: which input, counted from 0.
        augmentation: a function (key, batch) to batch.

    Returns:
        The augmentation.

    Raises:
        ValueError: a negative position, or a batch without such an input.
        TypeError: an argument that is not callable.

    Example:
        >>> from .moving import Flip
        >>> image, sound = jnp.zeros((1, 2, 2, 1)), jnp.arange(3.0).reshape(1, 3, 1)
        >>> (_, turned), _ = on_input(1, Flip(p=1.0))(jax.random.key(0), ((image, sound), None))
        >>> turned.ravel().tolist()
        [2.0, 1.0, 0.0]
    """
    return _OnInput(position, augmentation)


@dataclass(frozen=True, repr=False)
class _Composition(Augmentation):
    parts: tuple[Callable[..., Batch], ...]

    def check(self) -> dict[str, Any]:
        for part in self.parts:
            check_callable(part)
        return {}

    @property
    def by_example(self) -> bool:  # type: ignore[override]
        return any(map(asks, self.parts))

    def __call__(self, key: jax.Array, batch: Batch, **known: Any) -> Batch:
        for place, part in enumerate(self.parts):
            batch = call(part, jax.random.fold_in(key, place), batch, known)
        return batch

    @property
    def moves(self) -> bool:  # type: ignore[override]
        said = [moves(part) is not None for part in self.parts]  # check all parts: any of them may raise
        return any(said)

    def move(self, key: jax.Array, x: jax.Array, known: dict[str, Any]) -> jax.Array:
        for place, part in enumerate(self.parts):
            moved = moves(part)
            x = x if moved is None else moved(jax.random.fold_in(key, place), x, known)
        return x

    def check_values(self, x: Any) -> None:
        for part in self.parts:
            check_values(part, x)

    def __repr__(self) -> str:
        return f"compose({', '.join(map(named, self.parts))})"


@dataclass(frozen=True, repr=False)
class _Sometimes(Augmentation):
    p: float
    part: Callable[..., Batch]

    def check(self) -> dict[str, Any]:
        check_callable(self.part)
        return {"p": real(self.p, "p", 0, 1)}

    @property
    def by_example(self) -> bool:  # type: ignore[override]
        return asks(self.part)

    def __call__(self, key: jax.Array, batch: Batch, **known: Any) -> Batch:
        inputs, targets, alone = unpack(batch)
        choice_key, part_key = jax.random.split(key)
        (new_inputs, new_targets) = call(self.part, part_key, (inputs, targets), known)
        chosen = self.draw(choice_key, len(inputs[0]))
        with layer_path("sometimes"):
            inputs = tuple(_select(chosen, new, old) for new, old in zip(new_inputs, inputs, strict=True))
            return pack(inputs, _select_targets(chosen, new_targets, targets), alone)

    @property
    def moves(self) -> bool:  # type: ignore[override]
        return moves(self.part) is not None

    def move(self, key: jax.Array, x: jax.Array, known: dict[str, Any]) -> jax.Array:
        moved = moves(self.part)
        if moved is None:
            return x
        choice_key, part_key = jax.random.split(key)
        return _select(self.draw(choice_key, len(x)), moved(part_key, x, known), x)

    def check_values(self, x: Any) -> None:
        check_values(self.part, x)

    def draw(self, key: jax.Array, batch: int) -> jax.Array:
        """Draw which examples are augmented, (batch,) bool."""
        return jax.vmap(lambda k: jax.random.bernoulli(k, self.p))(jax.random.split(key, batch))

    def __repr__(self) -> str:
        return f"sometimes({self.p!r}, {named(self.part)})"


@dataclass(frozen=True, repr=False)
class _OnInput(Augmentation):
    position: int
    part: Callable[..., Batch]

    def check(self) -> dict[str, Any]:
        check_callable(self.part)
        return {"position": integer(self.position, "position", 0)}

    @property
    def by_example(self) -> bool:  # type: ignore[override]
        return asks(self.part)

    def __call__(self, key: jax.Array, batch: Batch, **known: Any) -> Batch:
        inputs, targets, alone = unpack(batch)
        if self.position >= len(inputs):
            raise ValueError(
                f"on_input: the batch has {len(inputs)} inputs, none at position {self.position}; they count from 0"
            )
        (changed,), targets = call(self.part, key, ((inputs[self.position],), targets), known)
        inputs = (*inputs[: self.position], changed, *inputs[self.position + 1 :])
        return pack(inputs, targets, alone)

    def __repr__(self) -> str:
        return f"on_input({self.position!r}, {named(self.part)})"


def asks(part: Any) -> bool:
    """Whether an augmentation needs the examples' positions and the epoch."""
    return bool(getattr(part, "by_example", False))


def check_values(part: Any, x: Any) -> None:
    """Raise if the values of an input are unsuitable for an augmentation."""
    if isinstance(part, Augmentation):
        part.check_values(x)


def moves(part: Any) -> Callable[[jax.Array, jax.Array, dict[str, Any]], jax.Array] | None:
    """The function that moves an array (batch, *space, channels) as an augmentation moves the first input.

    None for an augmentation that moves nothing.

    Raises:
        ValueError: if the augmentation mixes examples.
        TypeError: if it does not say whether it moves samples.
    """
    if getattr(part, "mixes", False):
        raise ValueError(f"{named(part)} mixes examples, so masks and boxes cannot follow it; put it outside together")
    said = getattr(part, "moves", None)
    if not isinstance(said, bool):
        raise TypeError(
            f"{named(part)} does not say whether it moves samples; set its attribute moves to True or False"
        )
    if not said:
        return None
    if isinstance(part, Augmentation):
        return part.move
    return lambda key, x, known: call(part, key, ((x,), None), known)[0][0]


def call(part: Callable[..., Batch], key: jax.Array, batch: Batch, known: dict[str, Any]) -> Batch:
    """Call an augmentation, with the examples' positions and the epoch if it needs them."""
    return part(key, batch, **known) if asks(part) else part(key, batch)


def check_callable(part: Any) -> None:
    """Raise unless the argument is callable like an augmentation."""
    if isinstance(part, type) or not callable(part):
        way_out = f"write {part.__name__}(...)" if isinstance(part, type) else "such as Flip()"
        raise TypeError(f"an augmentation is a function (key, batch) to batch, not {part!r}; {way_out}")


def named(part: Any) -> str:
    """An augmentation as code, or its name."""
    return repr(part) if isinstance(part, Augmentation) else getattr(part, "__name__", None) or repr(part)


def _select(chosen: jax.Array, new: Any, old: Any) -> jax.Array:
    if new is old:
        return old
    new, old = jnp.asarray(new), jnp.asarray(old)
    if new.shape != old.shape or new.dtype != old.dtype:
        raise ValueError(
            f"the augmentation changed {old.dtype} {format_shape(old.shape)} to {new.dtype} {format_shape(new.shape)}; "
            "to apply it to some of the examples only, it must keep shape and dtype"
        )
    return jnp.where(chosen.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def _select_targets(chosen: jax.Array, new: Any, old: Any) -> Any:
    if new is old:
        return old
    if getattr(new, "ndim", 0) == 2 and getattr(old, "ndim", 0) == 1 and jnp.issubdtype(old.dtype, jnp.integer):
        old = jax.nn.one_hot(jnp.asarray(old), new.shape[1], dtype=new.dtype)
    return jax.tree.map(lambda a, b: _select(chosen, a, b), new, old)
