"""An augmentation that moves masks, boxes and further inputs together with the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...errors import format_shape, layer_path
from .augmentation import Augmentation, Batch, kind, pack, real, unpack
from .compose import asks, call, check_callable, check_values, moves, named
from .resampling import sample

#: the kinds that can be moved: sampled linearly, sampled at the nearest position, boxes; None is left unchanged
KINDS = ("image", "mask", "boxes", None)


def together(
    augmentation: Callable[..., Batch], *, targets: Any = None, inputs: tuple[Any, ...] = (), fill: float = 0.0
) -> Augmentation:
    r"""Move masks, boxes and further inputs together with the first input.

    The augmentation is also applied to the coordinates of the samples, with the same random numbers. This gives the
    source :math:`c(q)` of each output sample q, by which the other arrays are moved:

    .. math::
        \text{image: } y_q = x(c(q)) \text{ (linear)}, \quad \text{mask: } y_q = x(\text{round}(c(q))), \quad
        \text{boxes: the bounds of } \{q : c(q) \in \text{box}\}

    Augmentations that alter only values (noise, colours, erasing) leave all of these unchanged.

    Args:
        augmentation: an augmentation of this package, including ``compose(...)`` and ``sometimes(...)``, or your own
            with an attribute ``moves`` that says whether it moves samples.
        targets: the kind of the targets: "mask" (batch, \*space) or (batch, \*space, channels), "image" (batch,
            \*space, channels), "boxes" (batch, count, 2 rank), each the first row, column, ..., then the end row,
            column, ... (exclusive), in samples; None for targets that are not moved, such as labels. If the targets are
            a dict or tuple, give a dict or tuple of these.
        inputs: likewise for the inputs after the first, one entry each; (): they are not moved.
        fill: the value of images and masks outside the source, such as the ignored label 255. Boxes that leave the
            image become zeros.

    Shapes:
        x (batch, \*space, channels), the others as described for ``targets`` and ``inputs``; all shapes are unchanged.

    Returns:
        The augmentation.

    Raises:
        ValueError: an unknown kind, an augmentation that mixes examples, or targets over another space than x.
        TypeError: an argument that is not callable, or that does not say whether it moves samples.

    Source:
        Ronneberger, Fischer and Brox, "U-Net: Convolutional networks for biomedical image segmentation", 2015, section
        3.1, for deforming images and masks together; ``torchvision.transforms.v2`` for masks and boxes with an image.

    Example:
        >>> from .moving import Flip
        >>> image, mask = jnp.arange(3.0).reshape(1, 1, 3, 1), jnp.array([[[0, 1, 2]]])
        >>> boxes = jnp.array([[[0, 0, 1, 1]]])
        >>> flip = together(Flip(p=1.0), targets={"mask": "mask", "boxes": "boxes", "class": None})
        >>> (x,), y = flip(jax.random.key(0), ((image,), {"mask": mask, "boxes": boxes, "class": jnp.array([5])}))
        >>> y["mask"].tolist(), y["boxes"].tolist(), y["class"].tolist()
        ([[[2, 1, 0]]], [[[0, 2, 1, 3]]], [5])
    """
    return _Together(augmentation, targets=_frozen(targets), inputs=tuple(inputs), fill=fill)


@dataclass(frozen=True, repr=False)
class _Together(Augmentation):
    part: Callable[..., Batch]
    _: KW_ONLY
    targets: Any
    inputs: tuple[Any, ...]
    fill: float

    def check(self) -> dict[str, Any]:
        check_callable(self.part)
        moves(self.part)  # raises if it is not known
        for place in (*_leaves(self.targets), *self.inputs):
            if place not in KINDS:
                raise ValueError(f"{place!r} cannot be moved along; use one of {', '.join(map(repr, KINDS))}")
        return {"fill": real(self.fill, "fill")}

    @property
    def by_example(self) -> bool:  # type: ignore[override]
        return asks(self.part)

    def __call__(self, key: jax.Array, batch: Batch, **known: Any) -> Batch:
        inputs, targets, alone = unpack(batch)
        with layer_path("together"):
            others = self.inputs or (None,) * (len(inputs) - 1)
            if len(others) != len(inputs) - 1:
                raise ValueError(
                    f"inputs names {len(others)} inputs after the first, the batch has {len(inputs) - 1}; "
                    "name each, None for those that stay"
                )
            space = tuple(inputs[0].shape[1:-1])
            follow = _Follower(space, self.fill, self._coordinates(key, len(inputs[0]), space, known))
            moved = tuple(follow(what, x, "an input") for what, x in zip(others, inputs[1:], strict=True))
            targets = _map(follow, self.targets, targets)
        (first,), _ = call(self.part, key, ((inputs[0],), None), known)
        return pack((first, *moved), targets, alone)

    def _coordinates(self, key: jax.Array, count: int, space: tuple[int, ...], known: dict[str, Any]) -> jax.Array:
        """The coordinates of the samples, a one and a zero, moved like the image: (batch, *space, rank + 2)."""
        axes = jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in space), indexing="ij")
        grid = jnp.stack([*axes, jnp.ones(space, jnp.float32), jnp.zeros(space, jnp.float32)], -1)
        grid = jnp.broadcast_to(grid, (count, *grid.shape))
        return self.move(key, grid, known)

    def move(self, key: jax.Array, x: jax.Array, known: dict[str, Any]) -> jax.Array:
        moved = moves(self.part)
        return x if moved is None else moved(key, x, known)

    def check_values(self, x: Any) -> None:
        check_values(self.part, x)

    @property
    def moves(self) -> bool:  # type: ignore[override]
        return moves(self.part) is not None

    def __repr__(self) -> str:
        options = "" if self.targets is None else f", targets={_code(self.targets)}"
        options += f", inputs={self.inputs!r}" if self.inputs else ""
        options += f", fill={self.fill!r}" if self.fill else ""
        return f"together({named(self.part)}{options})"


class _Follower:
    """Moves one array of each kind by the coordinates."""

    def __init__(self, space: tuple[int, ...], fill: float, coordinates: jax.Array) -> None:
        self.space, self.rank, self.fill = space, len(space), fill
        # at a border a sample is mixed with the augmentation's fill value; the moved zero shows how much of it
        filled = coordinates[..., -1:]
        within = coordinates[..., -2:-1] - filled
        self.places = (coordinates[..., :-2] - filled) / jnp.maximum(within, 0.5)
        self.within = within[..., 0] >= 0.5

    def __call__(self, what: str | None, x: Any, where: str) -> Any:
        if what is None:
            return x
        x = jnp.asarray(x)
        if what == "boxes":
            if x.ndim != 3 or x.shape[-1] != 2 * self.rank:
                raise ValueError(
                    f"{where} has shape {format_shape(x.shape)}, boxes are (batch, count, {2 * self.rank}): the first "
                    "sample along each axis of the space, then the last, not included"
                )
            return jax.vmap(self._boxes)(x, self.places, self.within)
        if tuple(x.shape[1 : 1 + self.rank]) != self.space or (what == "image" and x.ndim != 2 + self.rank):
            wanted = "(batch, *space, channels)" if what == "image" else "(batch, *space) or (batch, *space, channels)"
            raise ValueError(
                f"{where} has shape {format_shape(x.shape)}, but moved as {what} over x it must be {wanted} with the "
                f"space {format_shape(self.space)}"
            )
        return jax.vmap(self._image if what == "image" else self._mask)(x, self.places, self.within)

    def _image(self, x: jax.Array, places: jax.Array, within: jax.Array) -> jax.Array:
        moved = sample(x, [places[..., n] for n in range(self.rank)], "edge")
        return jnp.where(within[..., None], moved, jnp.asarray(self.fill, x.dtype))

    def _mask(self, x: jax.Array, places: jax.Array, within: jax.Array) -> jax.Array:
        nearest = [
            jnp.clip(jnp.floor(places[..., n] + 0.5).astype(jnp.int32), 0, size - 1)
            for n, size in enumerate(self.space)
        ]
        within = within.reshape(*within.shape, *(1,) * (x.ndim - self.rank))
        return jnp.where(within, x[tuple(nearest)], jnp.asarray(self.fill).astype(x.dtype))

    def _boxes(self, boxes: jax.Array, places: jax.Array, within: jax.Array) -> jax.Array:
        lows, highs = boxes[:, : self.rank], boxes[:, self.rank :]

        def one(low: jax.Array, high: jax.Array) -> jax.Array:
            middle = places + 0.5  # sample i covers the interval from i to i + 1
            inside = ((middle >= low.astype(middle.dtype)) & (middle < high.astype(middle.dtype))).all(-1) & within
            bounds: list[jax.Array] = []
            for last in (False, True):
                for axis, size in enumerate(self.space):
                    along = inside.any(tuple(n for n in range(self.rank) if n != axis))
                    end = size - jnp.argmax(along[::-1]) if last else jnp.argmax(along)
                    bounds.append(jnp.where(inside.any(), end, 0))
            return jnp.stack(bounds).astype(boxes.dtype)

        return jax.vmap(one)(lows, highs)


# Trees of kinds in a hashable form.


class _Dict(tuple[tuple[str, Any], ...]):
    """A dict of kinds as its items."""

    __slots__ = ()


def _frozen(targets: Any) -> Any:
    if isinstance(targets, Mapping):
        return _Dict((str(name), _frozen(value)) for name, value in sorted(targets.items()))
    if isinstance(targets, tuple | list):
        return tuple(map(_frozen, targets))
    return targets


def _leaves(targets: Any) -> list[Any]:
    if isinstance(targets, _Dict):
        return [leaf for _, value in targets for leaf in _leaves(value)]
    if isinstance(targets, tuple):
        return [leaf for value in targets for leaf in _leaves(value)]
    return [targets]


def _map(follow: _Follower, kinds: Any, targets: Any) -> Any:
    if isinstance(kinds, _Dict):
        if not isinstance(targets, Mapping) or set(targets) != {name for name, _ in kinds}:
            raise ValueError(f"the targets are {_described(targets)}, targets= names {', '.join(n for n, _ in kinds)}")
        return {name: _map(follow, value, targets[name]) for name, value in kinds}
    if isinstance(kinds, tuple):
        if not isinstance(targets, tuple | list) or len(targets) != len(kinds):
            raise ValueError(f"the targets are {_described(targets)}, targets= names {len(kinds)} of them")
        return tuple(_map(follow, value, target) for value, target in zip(kinds, targets, strict=True))
    if kinds is not None and (isinstance(targets, Mapping | tuple | list) or targets is None):
        raise ValueError(f"the targets are {_described(targets)}, targets= names one array")
    return follow(kinds, targets, "y")


def _described(targets: Any) -> str:
    if isinstance(targets, Mapping):
        return f"a dict of {', '.join(map(str, targets))}"
    return f"{len(targets)} arrays" if isinstance(targets, tuple | list) else kind(targets)


def _code(targets: Any) -> str:
    if isinstance(targets, _Dict):
        return "{" + ", ".join(f"{name!r}: {_code(value)}" for name, value in targets) + "}"
    return repr(targets)
