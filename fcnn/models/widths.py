"""Numbers of features that hardware likes."""

from __future__ import annotations


def divisible(features: float, by: int = 8) -> int:
    """The nearest multiple of a number, at least that number and no less than nine tenths of the features.

    Args:
        features: what is wanted.
        by: the number.

    Source:
        The authors' implementation of MobileNet.

    Example:
        >>> divisible(32 * 0.75), divisible(16 * 0.35), divisible(12 * 1.1)
        (24, 8, 16)
    """
    found = max(by, int(features + by / 2) // by * by)
    return found if found >= 0.9 * features else found + by
