"""Execution plans of networks: which layers run together, by which algorithm, in which layout."""

from .decide import planned
from .value import Plan, Segment, Step

__all__ = ["Plan", "Segment", "Step", "planned"]
