"""What a network is, and what it makes of its inputs."""

from .capture import capture
from .summary import Row, Summary, summary

__all__ = ["Row", "Summary", "capture", "summary"]
