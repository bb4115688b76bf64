"""How a network is executed: what runs together, by which algorithm, in which order of axes."""

from .decide import planned
from .value import Plan, Segment, Step

__all__ = ["Plan", "Segment", "Step", "planned"]
