"""Training: a pure step, the loop around it, checkpoints, losses, metrics and optimizer wrappers.

``fit`` has three layers. ``core`` is pure: a frozen value that says how far a run is, and a function that takes it
through an epoch with steps from ``resident`` (data on the device) or ``streaming`` (batches from the host). ``session``
runs the epochs, with ``saving``, ``interrupt``, ``callbacks``, ``monitor``, ``progress_bar`` and ``nonfinite`` around
them. ``processes`` is the only file that knows of several processes. ``config`` checks all settings first.
"""

from . import metrics
from .arrays import order_of
from .callbacks import every
from .checkpoint import CheckpointDamagedWarning, CheckpointError, CheckpointFailedWarning, Checkpoints
from .ensemble import evaluate_ensemble, vote
from .evaluate import evaluate
from .fit import fit
from .losses import cross_entropy, label_smoothing
from .nonfinite import NonFiniteError
from .optimizers import averaged, averaged_params, decay_mask, loss_scale, loss_scaling
from .predict import predict
from .run import EpochInfo, Run
from .statistics import recompute_statistics
from .step import TrainState, make_step, start
from .trainable import Trainable, frozen, trainable

__all__ = [
    "CheckpointDamagedWarning",
    "CheckpointError",
    "CheckpointFailedWarning",
    "Checkpoints",
    "EpochInfo",
    "NonFiniteError",
    "Run",
    "TrainState",
    "Trainable",
    "averaged",
    "averaged_params",
    "cross_entropy",
    "decay_mask",
    "evaluate",
    "evaluate_ensemble",
    "every",
    "fit",
    "frozen",
    "label_smoothing",
    "loss_scale",
    "loss_scaling",
    "make_step",
    "metrics",
    "order_of",
    "predict",
    "recompute_statistics",
    "start",
    "trainable",
    "vote",
]


def __dir__() -> list[str]:
    return __all__
