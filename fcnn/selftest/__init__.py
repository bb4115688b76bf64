"""A test of the user's compiler and device: ``python -m fcnn.selftest``.

Values and gradients under ``jit`` in float32 are compared with known results and, in a quick random sweep of every
operation, with the NumPy reference in float64. A fault of a compiler, a driver or a chip shows as ``WRONG``.
"""

from .command import main

__all__ = ["main"]


def __dir__() -> list[str]:
    return __all__
