"""The settings of a run, checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ..checks import check_key, check_mapping
from ..geometry import integer
from ..identity import cached
from ..layer import Layer
from ..layers.hyperparameters import check_number
from ..types import Params, State
from .batches import Batches, are_batches
from .checkpoint import Checkpoints
from .examples import check_data, check_net
from .measure_arguments import check_function, check_measures
from .measures import Measures
from .optimizers import averaged, loss_scaling
from .precision import check_precision
from .sharding import Sharding
from .step import make_measured
from .trainable import check_trainable

#: the fields that an ensemble cannot have: every member begins from its own key, and all of them end together
_SINGLE = ("mesh", "params", "state", "monitor", "mode", "patience", "keep_best")


@dataclass(frozen=True, eq=False, kw_only=True)
class FitConfig:
    """The settings of a run. Construction checks every field; an error begins with the name of the field.

    The fields are the arguments of ``fit``, which says what they mean; ``loss``, ``metrics`` and the like are found
    again in ``measures``, ``mesh`` in ``sharding``.

    Attributes:
        measures: losses and metrics.
        sharding: where arrays live.
        step: the step of ``make_measured``.
        averages: whether a moving average of the parameters is kept.
        skips: whether steps with values that are not finite are left out.

    Raises:
        ValueError: a value out of range, or fields that exclude each other.
        TypeError: a value of the wrong kind.

    Example:
        >>> import fcnn, optax
        >>> config = FitConfig(net=fcnn.Dense(2), optimizer=optax.sgd(0.1), epochs=3, key=jax.random.key(0))
        >>> config.epochs, config.monitor, config.mode
        (3, 'loss', 'min')
        >>> FitConfig(net=fcnn.Dense(2), optimizer=optax.sgd(0.1), epochs=0, key=jax.random.key(0))
        Traceback (most recent call last):
        ValueError: epochs is 0, it must be at least 1
    """

    net: Layer
    optimizer: Any
    epochs: int
    key: jax.Array
    batch_size: int = 128
    loss: Any = None
    loss_weights: Any = None
    validation: Any = None
    augment: Callable[..., Any] | None = None
    checkpoint: Any = None
    resume: bool = False
    progress: bool = True
    mesh: Any = None
    params: Params | None = None
    state: State | None = None
    metrics: Any = None
    ignore_label: int | None = None
    callbacks: Sequence[Callable[..., Any]] = ()
    monitor: Any = None
    mode: Any = None
    patience: int | None = None
    keep_best: bool = False
    average: float | None = None
    accumulate: int = 1
    precision: str | None = None
    non_finite: str = "stop"
    trainable: Any = None
    steps: int | None = None
    members: int | None = None

    measures: Measures = field(init=False)
    sharding: Sharding = field(init=False)
    step: Callable[..., Any] = field(init=False)
    averages: bool = field(init=False)
    skips: bool = field(init=False)

    def __post_init__(self) -> None:
        check_net(self.net)
        check_optimizer(self.optimizer)
        self._set(key=check_key(self.key))
        for name in ("epochs", "batch_size", "accumulate"):
            self._set(**{name: integer(getattr(self, name), name)})
        for name in ("patience", "steps", "members"):
            if getattr(self, name) is not None:
                self._set(**{name: integer(getattr(self, name), name)})
        for name in ("resume", "progress", "keep_best"):
            self._set(**{name: _flag(getattr(self, name), name)})
        self._set(measures=check_measures(self.loss, self.loss_weights, self.metrics, self.ignore_label))
        self._set(precision=check_precision(self.precision), average=_decay(self.average))
        self._set(trainable=check_trainable(self.trainable))
        if self.non_finite not in ("stop", "skip"):
            raise ValueError(f"non_finite is {self.non_finite!r}, expected 'stop' or 'skip'")
        self._set(callbacks=_callbacks(self.callbacks))
        check_function("augment", self.augment)
        for name in ("params", "state"):
            if getattr(self, name) is not None:
                check_mapping(name, getattr(self, name))
        self._check_members()
        validates = self.validation is not None
        if validates:
            self._set(validation=self._check_validation())
        self._set(checkpoint=_checkpoints(self.checkpoint, self.resume), sharding=Sharding.over(self.mesh))
        self._set(mode=_mode(self.measures, self.monitor, self.mode, validates))
        self._set(monitor=self.monitor or ("validation_loss" if validates else "loss"))
        self._set(averages=self.average is not None, skips=self.non_finite == "skip")
        self._set(optimizer=_wrapped(self.optimizer, self.average, self.precision == "float16"))
        what = (self.net, self.optimizer, self.measures, self.augment, self.accumulate, self.precision, self.trainable)
        self._set(step=make_measured(*what))

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_members(self) -> None:
        if self.members is None:
            return
        for name in _SINGLE:
            if getattr(self, name) not in (None, False):
                raise ValueError(
                    f"{name} is for a single network, but members is {self.members}; leave one of them out"
                )

    def _check_validation(self) -> Any:
        if are_batches(self.validation):
            return Batches(self.validation, self.epochs, "fit: validation")
        return check_data(self.net, self.validation, "validation", self.measures)


def check_optimizer(optimizer: Any) -> None:
    """Raise unless it is an optimizer of optax.

    Raises:
        TypeError: something else; the message says what to write.
    """
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        return
    if isinstance(optimizer, (int, float)) or (hasattr(optimizer, "dtype") and not np.ndim(optimizer)):
        way_out = f"a number is a learning rate, and belongs to one: optax.adam({optimizer})"
    elif isinstance(optimizer, str):
        known = {"adam", "adamw", "sgd", "rmsprop", "adagrad", "lion", "lamb", "lars", "nadam", "adadelta", "adamax"}
        name = optimizer.lower() if optimizer.lower() in known else "adam"
        way_out = f"optimizers are optax's: optax.{name}(1e-3)"
    elif type(optimizer).__module__.startswith("torch"):
        name = type(optimizer).__name__.lower()
        way_out = f"those of PyTorch change tensors in place; the one of optax is optax.{name}(1e-3)"
    elif getattr(optimizer, "__module__", "").startswith("optax.") and "<locals>" not in optimizer.__qualname__:
        way_out = "that is a function that makes something; call it, such as optax.adam(1e-3)"
    elif callable(optimizer):
        way_out = "a schedule is a learning rate, and belongs to one: optax.adam(schedule)"
    else:
        way_out = "make one by optax"
    raise TypeError(f"optimizer must be an optax optimizer such as optax.adam(1e-3), not {optimizer!r}; {way_out}")


def _flag(given: Any, name: str) -> bool:
    if not isinstance(given, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, not {given!r}")
    return bool(given)


def _decay(average: Any) -> float | None:
    if average is None:
        return None
    average = check_number(average, "average")
    if not 0 < average < 1:
        raise ValueError(f"average is {average!r}, expected a decay between 0 and 1, such as 0.999")
    return average


def _callbacks(given: Any) -> tuple[Callable[..., Any], ...]:
    if not isinstance(given, Sequence):
        raise TypeError(f"callbacks must be a list of functions of an EpochInfo, not {given!r}")
    for callback in given:
        if not callable(callback):
            raise TypeError(f"callbacks must be functions of an EpochInfo, not {callback!r}")
    return tuple(given)


def _mode(measures: Measures, monitor: Any, mode: Any, validates: bool) -> str:
    """Whether the highest or the lowest value of the monitored number is best."""
    if mode not in (None, "max", "min"):
        raise ValueError(f"mode is {mode!r}, expected 'max', 'min' or None")
    known = measures.names
    known += [f"validation_{name}" for name in known] if validates else []
    if monitor is None:
        if mode is not None:
            raise ValueError(f"mode is {mode!r}, but monitor is not given; name the number: monitor='validation_loss'")
        return "min"
    if monitor not in known:
        raise ValueError(f"monitor is {monitor!r}, expected one of {', '.join(known)}")
    found = mode or measures.mode_of(monitor)
    if found is None:
        raise ValueError(
            f"monitor is {monitor!r}, and it is unknown whether a high or a low value is best; give mode='max' or "
            "mode='min'"
        )
    return found


@cached(maxsize=8)
def _wrapped(optimizer: Any, average: float | None, half: bool) -> Any:
    """The optimizer with averaging and loss scaling around it; cached, so that a second run compiles nothing."""
    optimizer = optimizer if average is None else averaged(optimizer, average)
    return loss_scaling(optimizer) if half else optimizer


def _checkpoints(given: Any, resume: bool) -> Checkpoints | None:
    """Where and when checkpoints are written."""
    if given is None:
        if resume:
            raise ValueError("resume=True goes on from a checkpoint; say where they are: checkpoint='folder'")
        return None
    if isinstance(given, Checkpoints):
        return given
    if isinstance(given, (str, os.PathLike)):
        return Checkpoints(given)
    raise TypeError(f"checkpoint must be a folder, or training.Checkpoints(folder, ...), not {given!r}")
