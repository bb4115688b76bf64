"""Learning: a pure step, the loop around it, checkpoints, and what helps a network to learn."""

from . import metrics
from .callbacks import every
from .checkpoint import CheckpointDamagedWarning, CheckpointError, CheckpointFailedWarning, Checkpoints
from .ensemble import evaluate_ensemble, vote
from .evaluate import evaluate
from .fit import fit, fit_ensemble
from .losses import cross_entropy, smoothed
from .nonfinite import NonFiniteError
from .optimizers import averaged, averaged_params, loss_scale, scaled, weights_only
from .predict import predict
from .run import Moment, Run
from .source import order_of
from .statistics import recompute_statistics
from .step import TrainState, make_step, start
from .trainable import Trainable, frozen, trainable

__all__ = [
    "CheckpointDamagedWarning",
    "CheckpointError",
    "CheckpointFailedWarning",
    "Checkpoints",
    "Moment",
    "NonFiniteError",
    "Run",
    "TrainState",
    "Trainable",
    "averaged",
    "averaged_params",
    "cross_entropy",
    "evaluate",
    "evaluate_ensemble",
    "every",
    "fit",
    "fit_ensemble",
    "frozen",
    "loss_scale",
    "make_step",
    "metrics",
    "order_of",
    "predict",
    "recompute_statistics",
    "scaled",
    "smoothed",
    "start",
    "trainable",
    "vote",
    "weights_only",
]


def __dir__() -> list[str]:
    return __all__
