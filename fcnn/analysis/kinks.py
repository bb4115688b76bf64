"""Whether a gradient on which two methods disagree lies at a kink, where it is not unique."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np

#: the distance of the neighbours, relative to the largest entry of each array
BESIDE = 1e-3
#: the step of the differences at the neighbours, small compared with that distance, so that few kinks lie within it
STEP = 1e-6
#: the number of random neighbours, of arrays moved alone (up and down), and of points at which differences are taken
RANDOM, ALONE, TRIED = 2, 8, 6

Arrays = dict[str, np.ndarray]


class Neighbour(NamedTuple):
    """A neighbouring point and the gradients there, by autodiff and by hand (None if there is none)."""

    arrays: Arrays
    autodiff: Arrays
    hand: Arrays | None


class Neighbours:
    """Neighbours of a point at which methods for a gradient disagree.

    At a kink the derivative of a function is not unique, and each method may choose a different one. Beside it all must
    agree, and autodiff's choice at the kink must lie among the gradients beside it. This distinguishes a wrong
    derivative from a different choice at the kink. First all parameters and inputs are moved in random directions; then
    one array at a time is moved, all its entries up or all down, and the others hardly. So a bias moves all the values
    that are 0 to the same side of their kink.

    Args:
        arrays: the point, as arrays by path.
        autodiff: from a point to the gradients of all arrays.
        hand: likewise by hand; returns None if there is none.
        loss: from a point to the loss.
        generator: for the random directions.
    """

    def __init__(
        self,
        arrays: Arrays,
        autodiff: Callable[[Arrays], Arrays],
        hand: Callable[[Arrays], Arrays | None],
        loss: Callable[[Arrays], float],
        generator: np.random.Generator,
    ) -> None:
        self._arrays, self._autodiff, self._hand, self._loss = arrays, autodiff, hand, loss
        self._generator = generator

    @cached_property
    def points(self) -> list[Neighbour]:
        """The neighbours, computed on first use."""
        small = sorted(self._arrays, key=lambda path: self._arrays[path].size)[:ALONE]
        found = []
        for main, sign in [(None, 0.0)] * RANDOM + [(path, sign) for path in small for sign in (1.0, -1.0)]:
            moved = {}
            for path, array in self._arrays.items():
                away = self._generator.normal(size=array.shape)
                if main is not None:
                    away = sign * np.abs(away) if path == main else 0.01 * away
                moved[path] = array + BESIDE * (np.abs(array).max(initial=0) or 1.0) * away
            found.append(Neighbour(moved, self._autodiff(moved), self._hand(moved)))
        return found

    def among(self, path: str, gradient: np.ndarray) -> np.ndarray:
        """For each entry of an array, whether its gradient lies in the range of those at the neighbours, within 1 %."""
        near = np.stack([point.autodiff[path] for point in self.points])
        low, high = near.min(0), near.max(0)
        slack = 0.01 * (high - low)
        return (low - slack <= gradient) & (gradient <= high + slack)

    def same_by_hand(self, path: str, bound: float) -> np.ndarray:
        """For each entry of an array, whether autodiff and the gradient by hand agree at all neighbours."""
        errors = [np.abs(p.autodiff[path] - p.hand[path]) for p in self.points if p.hand is not None]
        return np.max(errors, 0) <= bound if errors else np.zeros(self._arrays[path].shape, bool)

    def same_by_differences(self, path: str, index: tuple[int, ...], bound: float) -> bool:
        """Whether autodiff and differences agree on one entry at the neighbours, up to kinks there."""
        return all(self._same(point, path, index, bound) for point in self.points[:TRIED])

    def _same(self, point: Neighbour, path: str, index: tuple[int, ...], bound: float) -> bool:
        def moved(by: float) -> float:
            array = point.arrays[path].copy()
            array[index] += by
            return self._loss({**point.arrays, path: array})

        here, up, down = moved(0.0), moved(STEP), moved(-STEP)
        exact, slope = float(point.autodiff[path][index]), (up - down) / (2 * STEP)
        # the rounding error of the loss, divided by the step
        bound += 1e-8 * max(1.0, abs(here))
        if abs(slope - exact) <= bound:
            return True
        right, left = (up - here) / STEP, (here - down) / STEP
        return between(left, right, exact, bound)


def between(left: float, right: float, exact: float, bound: float) -> bool:
    """Whether the slopes on the two sides differ, and a gradient is one of them or lies between.

    The slope of a smooth function changes by its second derivative times the step, far less than at a kink. So the jump
    must exceed ten times the bound, and a hundredth of it is allowed for curvature.
    """
    low, high = min(left, right), max(left, right)
    jump = high - low
    return jump > 10 * bound and low - 0.01 * jump <= exact <= high + 0.01 * jump


def at_kink(
    near: Neighbours,
    path: str,
    index: tuple[int, ...],
    sides: tuple[float, float],
    gradient: np.ndarray,
    bound: float,
    settled: bool,
) -> bool:
    """Whether differences are meaningless for the gradient of an entry, because a kink lies within their step.

    Args:
        near: the neighbours.
        path: the array.
        index: its entry.
        sides: the slopes on the left and on the right.
        gradient: the array's gradient by autodiff.
        bound: the allowed difference between autodiff and differences.
        settled: whether the gradient by hand agrees with autodiff. This matters because several kinks together may give
            any slopes, even equal ones on both sides.
    """
    left, right = sides
    exact = float(gradient[index])
    if settled and abs(right - left) > 10 * bound:
        return True
    if not settled and not between(left, right, exact, bound) and not near.among(path, gradient)[index]:
        return False
    return near.same_by_differences(path, index, bound)
