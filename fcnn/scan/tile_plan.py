"""Where the tiles of an image lie, in integers: their size, their starts, and which outputs are taken from each."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from ..errors import format_shape
from ..geometry import Shape
from ..layer import Layer
from .receptive_field import ReceptiveField

#: default samples along each axis of a tile, by the rank of the space: half a million in all
TILES = {1: 2**19, 2: 768, 3: 80}
#: the least number of receptive fields along each axis of a default tile; with fewer, most of it would be overlap
FIELDS = 3


@dataclass(frozen=True)
class TileLine:
    """The tiles along one axis.

    Attributes:
        tile: samples of each tile.
        starts: where each tile begins.
        kept: for each tile, the range [begin, end) of its outputs that are used, and the index of the first of them in
            the result.
    """

    tile: int
    starts: tuple[int, ...]
    kept: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class TilePlan:
    """How tiles of one size lie along an axis.

    Attributes:
        whole: samples of the image.
        tile: samples of a tile; differs from ``whole`` by a multiple of the period.
        step: samples between the fields of neighbouring outputs.
        inside: outputs of a tile.
        end: number of outputs, from the first, whose fields end within the tile.
        ahead: samples from one tile to the next; 0 if too few outputs have their whole field in a tile.
    """

    whole: int
    tile: int
    step: Fraction
    inside: int
    end: int
    ahead: int

    @classmethod
    def of(cls, whole: int, outputs: int, seen: ReceptiveField, axis: int, tile: int) -> TilePlan:
        """The plan for an image of ``whole`` samples and ``outputs`` outputs along an axis."""
        step, period, first = Fraction(seen.step[axis]), seen.period[axis], seen.first[axis]
        inside = outputs - int((whole - tile) / step)
        begin = max(math.ceil(-first / step), 0)
        end = min(math.floor((tile - first - seen.size[axis]) / step) + 1, inside)
        return cls(whole, tile, step, inside, end, max(math.floor((end - begin) * step) // period * period, 0))

    @property
    def works(self) -> bool:
        """Whether such tiles cover the image."""
        return self.ahead > 0 or self.tile == self.whole

    @property
    def count(self) -> int:
        """Number of tiles."""
        return 1 if self.tile == self.whole else -((self.tile - self.whole) // self.ahead) + 1

    def line(self) -> TileLine:
        """The tiles; the last ends with the image."""
        last = self.whole - self.tile
        starts = (*range(0, last, self.ahead), last) if last else (0,)
        kept, done = [], 0
        for start in starts:
            moved = int(start / self.step)
            until = self.inside if start == last else self.end
            kept.append((done - moved, until, done))
            done = moved + until
        return TileLine(self.tile, starts, tuple(kept))


def tile_lines(net: Layer, shape: Shape, seen: ReceptiveField, made: Shape, tile: Shape | None) -> tuple[TileLine, ...]:
    """The tiles along every axis, as equal in size as possible."""
    space = shape[:-1]
    if tile is None:
        usual = TILES.get(len(space), TILES[3])
        tile = tuple(max(usual, FIELDS * size) for size in seen.size)
    lines, least = [], []
    for axis, (whole, most) in enumerate(zip(space, tile, strict=True)):
        plan = partial(TilePlan.of, whole, made[axis], seen, axis)
        period = seen.period[axis]
        sizes = range((whole - 1) % period + 1, whole + 1, period)  # the last is the whole
        smallest = next(i for i, n in enumerate(sizes) if plan(n).works and _fits(net, shape, axis, n, plan(n).inside))
        least.append(sizes[smallest])
        if most < sizes[smallest]:
            continue
        largest = (min(most, whole) - sizes[0]) // period
        fewest = plan(sizes[largest]).count
        # the smallest size that needs no more tiles: with the largest, the last tile would overlap more
        even = bisect_left(range(len(sizes)), True, smallest, largest, key=lambda i: plan(sizes[i]).count <= fewest)
        lines.append(plan(sizes[even]).line())
    if len(lines) < len(space):
        raise ValueError(
            f"a tile of {format_shape(tile)} is too small for the receptive field of {format_shape(seen.size)} samples "
            f"with a step of {format_shape(seen.step)}; the smallest that works is {format_shape(tuple(least))}"  # type: ignore[arg-type]
        )
    return tuple(lines)


def _fits(net: Layer, shape: Shape, axis: int, size: int, outputs: int) -> bool:
    """Whether the network accepts an image of ``size`` along an axis, and has ``outputs`` outputs there."""
    try:
        return net.out_shape((*shape[:axis], size, *shape[axis + 1 :]))[axis] == outputs
    except Exception:  # a user's function may raise anything on a space that is too small for it
        return False
