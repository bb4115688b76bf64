"""Plots, as matplotlib figures."""

from .images import kernels, mistakes
from .training import learning_curve

__all__ = ["kernels", "learning_curve", "mistakes"]


def __dir__() -> list[str]:
    return __all__
