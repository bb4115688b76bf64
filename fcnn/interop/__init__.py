"""File formats of other frameworks."""

from .weights import load_weights, save_weights

__all__ = ["load_weights", "save_weights"]


def __dir__() -> list[str]:
    return __all__
