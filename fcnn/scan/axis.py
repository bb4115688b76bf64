"""The receptive field of the values at one place of a network along one axis, as integers and fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from ..errors import format_shape


@dataclass(frozen=True)
class Axis:
    """The receptive field of the values at one place in a network, along one axis of the input.

    Value i sees nothing outside low + step i to high + step i. Values that a layer does not compute, before its first
    and after its last, are assigned fields that cross the border of the input. So no field that lies within the input
    depends on padding, at whatever depth the padding is added.

    Attributes:
        step: samples between the fields of neighbouring values.
        low: where the field of value 0 begins, at most 0.
        high: where the field of value 0 ends.
        period: the shortest shift of the input that moves these values, and all earlier ones, by whole places.
    """

    step: Fraction = Fraction(1)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)
    period: Fraction = Fraction(1)

    def through(self, step: int | Fraction, low: int | Fraction, high: int | Fraction) -> Axis:
        """The field of a layer whose value i sees the values low + step i to high + step i of this axis."""
        new = self.step * step
        return replace(
            self,
            step=new,
            low=self.low + self.step * low,
            high=self.high + self.step * high,
            period=_multiple(self.period, new),
        )

    def repeating(self, places: int) -> Axis:
        """The same field, for a layer that repeats itself only after ``places`` of these values."""
        return replace(self, period=_multiple(self.period, self.step * places))

    def then(self, other: Axis) -> Axis:
        """The field of values that see these values as described by ``other``."""
        return replace(
            self.through(other.step, other.low, other.high), period=_multiple(self.period, self.step * other.period)
        )


Axes = tuple[Axis, ...]


def meet(paths: Sequence[Axes]) -> Axes:
    """The fields of values computed from several values at one position: the union of their fields.

    Raises:
        ValueError: if the steps of the paths differ.
    """
    met = []
    for along in zip(*paths, strict=True):
        if len({axis.step for axis in along}) > 1:
            steps = " and ".join(format_shape(tuple(axis.step for axis in path)) for path in paths)  # type: ignore[arg-type]
            raise ValueError(
                f"joins paths that move over the input in steps of {steps} samples, so values of different "
                "positions would be combined; give all paths equal strides"
            )
        one = along[0]
        for other in along[1:]:
            one = replace(
                one,
                low=min(one.low, other.low),
                high=max(one.high, other.high),
                period=_multiple(one.period, other.period),
            )
        met.append(one)
    return tuple(met)


def _multiple(a: Fraction, b: Fraction) -> Fraction:
    """The least common multiple of two fractions in lowest terms."""
    return Fraction(math.lcm(a.numerator, b.numerator), math.gcd(a.denominator, b.denominator))
