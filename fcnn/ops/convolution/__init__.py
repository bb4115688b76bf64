"""Convolution with derivatives and a choice of algorithm of its own."""

from .choice import ALGORITHMS, Choice, Problem, choose, refusal, use_algorithm
from .geometry import Geometry
from .primitive import convolve, explain

__all__ = ["ALGORITHMS", "Choice", "Geometry", "Problem", "choose", "convolve", "explain", "refusal", "use_algorithm"]
