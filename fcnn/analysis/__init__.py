"""Inspect a network: its structure, its activations, its algorithms, and the correctness of its gradients."""

from typing import TYPE_CHECKING, Any

from ..context import LayerOutput, Observed
from ..plan.decide import plan
from ..scan.receptive_field import ReceptiveField, receptive_field
from ..tracing.work import multiply_adds
from .algorithms import Algorithms, Operation, algorithms
from .capture import capture
from .folding import fold
from .gradients import GradientReport, check_gradients
from .observe import Observation, observe
from .summary import Row, Summary, summary
from .weight_sharing import gradient_by_use

if TYPE_CHECKING:
    from .bridge import Unwritten, to_reference

__all__ = [
    "Algorithms",
    "GradientReport",
    "LayerOutput",
    "Observation",
    "Observed",
    "Operation",
    "ReceptiveField",
    "Row",
    "Summary",
    "Unwritten",
    "algorithms",
    "capture",
    "check_gradients",
    "fold",
    "gradient_by_use",
    "multiply_adds",
    "observe",
    "plan",
    "receptive_field",
    "summary",
    "to_reference",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Load the bridge, and with it the reference, on first use."""
    if name in ("Unwritten", "to_reference"):
        from . import bridge

        return getattr(bridge, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
