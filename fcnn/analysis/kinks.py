"""Whether a gradient on which two ways disagree lies at a kink, where it is not unique."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np

#: how far beside a point its neighbours lie, relative to the largest entry of each array
BESIDE = 1e-3
#: the step of the differences there, which is small beside that, so that few kinks lie within it
STEP = 1e-6
#: how many points are random ones, how many arrays are moved by themselves up and down, and at how many of all points
#: differences are taken
RANDOM, ALONE, TRIED = 2, 8, 6

Arrays = dict[str, np.ndarray]


class Neighbour(NamedTuple):
    """A point beside another, and the gradients there; by hand, or None."""

    arrays: Arrays
    autodiff: Arrays
    hand: Arrays | None


class Neighbours:
    """Points beside one at which ways to a gradient disagree.

    At a kink the derivative of a function is not unique, and each way may take another. Beside it all have to agree,
    and what autodiff takes at the kink has to lie among the gradients beside it. So a wrong derivative is told from
    another choice at the kink. All parameters and inputs are moved, in random directions, and then by turns one array
    alone, all its entries up or all down: so a bias takes all values that are 0 with it to the same side of their kink.

    Args:
        arrays: the point, as arrays by path.
        autodiff: from a point to the gradients of all arrays.
        hand: likewise by hand; gives None where there is none.
        loss: from a point to the loss.
        generator: the random directions.
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
        """The neighbours; found when first asked for."""
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
        """For each entry of an array, whether its gradient lies among those beside it, to a hundredth."""
        near = np.stack([point.autodiff[path] for point in self.points])
        low, high = near.min(0), near.max(0)
        slack = 0.01 * (high - low)
        return (low - slack <= gradient) & (gradient <= high + slack)

    def same_by_hand(self, path: str, bound: float) -> np.ndarray:
        """For each entry of an array, whether autodiff and the gradient by hand agree at all neighbours."""
        errors = [np.abs(p.autodiff[path] - p.hand[path]) for p in self.points if p.hand is not None]
        return np.max(errors, 0) <= bound if errors else np.zeros(self._arrays[path].shape, bool)

    def same_by_differences(self, path: str, index: tuple[int, ...], bound: float) -> bool:
        """Whether autodiff and differences agree on one entry beside the point, or a kink lies between once more."""
        return all(self._same(point, path, index, bound) for point in self.points[:TRIED])

    def _same(self, point: Neighbour, path: str, index: tuple[int, ...], bound: float) -> bool:
        def moved(by: float) -> float:
            array = point.arrays[path].copy()
            array[index] += by
            return self._loss({**point.arrays, path: array})

        here, up, down = moved(0.0), moved(STEP), moved(-STEP)
        exact, slope = float(point.autodiff[path][index]), (up - down) / (2 * STEP)
        # the rounding of the loss, divided by the step
        bound += 1e-8 * max(1.0, abs(here))
        if abs(slope - exact) <= bound:
            return True
        right, left = (up - here) / STEP, (here - down) / STEP
        return between(left, right, exact, bound)


def between(left: float, right: float, exact: float, bound: float) -> bool:
    """Whether the slopes on the two sides differ, and a gradient is one of them or lies between.

    A smooth function bends by its second derivative times the step, which is far less than a kink does: the jump
    has to be ten times what is allowed, and a hundredth of it is left for the bending.
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
    """Whether differences say nothing about the gradient of an entry, because a kink lies within their step.

    Args:
        near: the neighbours.
        path: the array.
        index: its entry.
        sides: the slopes on the left and on the right.
        gradient: the array's gradient by autodiff.
        bound: what autodiff and differences may differ by.
        settled: whether the gradient by hand agrees with autodiff: several kinks together may put the slopes anywhere,
            even to the same place on both sides.
    """
    left, right = sides
    exact = float(gradient[index])
    if settled and abs(right - left) > 10 * bound:
        return True
    if not settled and not between(left, right, exact, bound) and not near.among(path, gradient)[index]:
        return False
    return near.same_by_differences(path, index, bound)
