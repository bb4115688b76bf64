"""Compositions: networks made of layers and functions."""

from .graph import graph
from .parallel import branches, residual
from .remat import remat
from .repeat import repeat
from .serial import serial

__all__ = ["branches", "graph", "remat", "repeat", "residual", "serial"]


def __dir__() -> list[str]:
    return __all__
