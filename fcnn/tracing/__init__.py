"""A network as data: its uses of layers and its single operations, in the order of computation."""

from .api import trace
from .node import Node, Trace

__all__ = ["Node", "Trace", "trace"]
