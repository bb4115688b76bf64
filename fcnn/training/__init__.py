"""Learning: a pure step, and the loop around it."""

from .evaluate import evaluate
from .fit import Run, fit
from .step import TrainState, make_step, start

__all__ = ["Run", "TrainState", "evaluate", "fit", "make_step", "start"]
