"""A test of the compiler and the device at hand, for users: ``python -m fcnn.selftest``.

Known results and a quick random sweep of every operation, value and gradients under ``jit`` in float32, are compared
with the reference in NumPy in float64. A fault of a compiler, of a driver or of a chip shows as ``WRONG``.
"""

from .command import main

__all__ = ["main"]


def __dir__() -> list[str]:
    return __all__
