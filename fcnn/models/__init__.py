"""Whole networks, one file per paper, built only from the library's parts."""

from .alexnet import alexnet
from .lenet import lenet5

__all__ = ["alexnet", "lenet5"]


def __dir__() -> list[str]:
    return __all__
