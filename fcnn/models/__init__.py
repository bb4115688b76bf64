"""Whole networks, one paper in one file, built of the library's parts only."""

from .alexnet import alexnet
from .lenet import lenet5

__all__ = ["alexnet", "lenet5"]


def __dir__() -> list[str]:
    return __all__
