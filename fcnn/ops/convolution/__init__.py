"""Convolution with its own derivatives and choice of algorithm."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .conv_geometry import Geometry

if TYPE_CHECKING:
    from .choice import ALGORITHMS, Choice, Problem, choose, explain, refusal, usable, use_algorithm
    from .primitive import convolve

__all__ = ["ALGORITHMS", "Choice", "Geometry", "Problem", "choose", "convolve", "explain", "refusal"]
__all__ += ["usable", "use_algorithm"]

#: loaded with the first convolution: the primitives import a part of JAX that is slow to import
_LATER = {
    **dict.fromkeys(("ALGORITHMS", "Choice", "Problem", "choose", "explain"), ".choice"),
    **dict.fromkeys(("refusal", "usable", "use_algorithm"), ".choice"),
    "convolve": ".primitive",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name], __name__), name)
