"""What a network is, what it makes of its inputs, and whether its gradients are right."""

from .bridge import Unwritten, to_reference
from .capture import capture
from .gradients import GradientReport, check_gradients
from .summary import Row, Summary, summary

__all__ = ["GradientReport", "Row", "Summary", "Unwritten", "capture", "check_gradients", "summary", "to_reference"]
