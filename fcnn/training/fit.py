"""Training from data to parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..errors import at
from ..geometry import integer
from ..given import Params, State, check_key, check_mapping
from ..identity import cached
from ..layer import Layer
from ..layers.checks import check_number
from .batches import Batches, are_batches
from .examples import check_data, check_net, count_of
from .loop import Loop
from .objective import Objective, check_function, check_objective
from .optimizers import averaged, loss_scaling
from .precision import check_precision
from .run import EpochInfo, Options, Run
from .sharding import Sharding
from .step import BY_EXAMPLE, Augment, make_measured
from .trainable import Trainable, check_trainable

if TYPE_CHECKING:
    import optax

    from .checkpoint import Checkpoints


def fit(
    net: Layer,
    data: Any,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    key: jax.Array,
    batch_size: int = 128,
    loss: Any = None,
    loss_weights: Any = None,
    validation: Any = None,
    augment: Augment | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoints | None = None,
    resume: bool = False,
    progress: bool = True,
    mesh: jax.sharding.Mesh | None = None,
    params: Params | None = None,
    state: State | None = None,
    metrics: Any = None,
    ignore_label: int | None = None,
    callbacks: Sequence[Callable[[EpochInfo], Any]] = (),
    monitor: str | None = None,
    mode: str | None = None,
    patience: int | None = None,
    keep_best: bool = False,
    average: float | None = None,
    accumulate: int = 1,
    precision: str | None = None,
    non_finite: str = "stop",
    trainable: Trainable | str | Sequence[str] | None = None,
    steps: int | None = None,
) -> Run:
    """Train a network.

    Every epoch goes through the examples in a new random order, in batches of equal size; the examples left
    over, fewer than a batch, wait for an epoch whose order puts them elsewhere. The same key gives the same run.
    Data that fit stay on the device, and many steps are one call of a compiled program.

    Args:
        net: the network.
        data: (x, y), x an array (examples, *space, channels), or a tuple of arrays for several inputs; y an array, or
            a tuple or dict of arrays for several targets. With weights (x, y, w): w is one number for each example or
            each of its labels, 0 for what does not count, and means the same in the loss, the accuracy, the metrics,
            the history and in ``evaluate``: a mean is the sum of weight times value over the sum of weights. What
            weighs 0 is still in the batch that ``BatchNorm`` sees in training, and has to be finite. Or batches of
            such: a list, a loader of PyTorch or Grain, any iterable; or a function from the epoch, 0, 1, ..., to one,
            for data that are read or made on the way. The next batches are fetched while one computes. Arrays that lie
            in files, ``np.load(..., mmap_mode="r")`` or those of h5py and zarr, are read batch by batch. A batch of
            another size that the step will not take (one example under ``BatchNorm``, a number that ``accumulate`` or
            ``mesh`` does not divide) is refused before the first step where sizes are known: in lists and PyTorch's
            loaders.
        optimizer: an optax optimizer, such as ``optax.adam(1e-3)``. Schedules, clipping and weight decay are
            optax's: ``optax.adamw(schedule, weight_decay=0.05, mask=fcnn.training.decay_mask)``.
        epochs: times through the data.
        key: random key, for initial parameters, order, dropout and augmentation.
        batch_size: examples in a step; all of them where there are fewer. Batches that are given keep their size.
        loss: (outputs, targets) to one number for each example or label, or one for the batch, such as a function of
            ``optax.losses``, ``training.label_smoothing(0.1)`` or ``training.cross_entropy(class_weights=(1, 5))``;
            None: softmax cross-entropy with integer labels. For several outputs one function of them all, or a dict or
            tuple of functions, one for each entry of outputs and targets, ``{"class": f, "box": g}``; their sum is
            minimised, and the history has each, "loss/class".
        loss_weights: what each of several losses counts in the sum, ``{"box": 0.1}``; others count 1.
        validation: data to evaluate on after every epoch, in any form that ``data`` has.
        augment: (key, batch) to batch, compiled into the step; the batch is ((x, ...), y). See ``data.augment``.
        checkpoint: a folder for checkpoints, or ``training.Checkpoints(folder, every_seconds=..., keep=...)``. They
            are written beside the run, every minute by default and at the end. Ctrl-C and SIGTERM write one and end
            the program.
        resume: go on from the newest whole checkpoint in the folder, bit for bit as if the run had never stopped;
            from the beginning where there is none yet. Batches that are handed in have to come in the same order again:
            a function of the epoch does it, a loader that shuffles anew does not. What a callback ended goes on too.
        progress: whether to show a bar for each epoch.
        mesh: devices that share each batch, such as ``jax.make_mesh((8,), ("batch",))``. Where it has the devices of
            several processes, each gives its own part of the data.
        params: parameters to begin with; None: ``net.init``.
        state: state to begin with; None: ``net.init_state``. Running statistics belong to their parameters: where
            ``params`` are given to a network that has any, so is ``state``.
        metrics: further numbers by name: those of ``training.metrics``, such as ``{"iou": training.metrics.iou()}``,
            which are computed over the whole epoch; functions (outputs, targets) to one number for each example,
            whose mean is taken; or (start, update, result) of an accumulator, ``update(accumulator, outputs,
            targets)``, with weights as a fourth argument where there are any. A dict in the dict is for one of
            several outputs: ``{"class": {"f1": training.metrics.f1()}}`` is "f1/class".
        ignore_label: a label that does not count, such as 255 or -1: not in the loss, nor in accuracy and metrics.
        callbacks: functions that are called after every epoch with a ``training.EpochInfo``, or after some steps:
            ``training.every(100, write)``; one that returns True ends the training.
        monitor: name in the history that ``patience`` and ``keep_best`` go by. None: "validation_loss", "loss" where
            there are no validation data.
        mode: whether the highest ("max") or the lowest ("min") number of ``monitor`` is best; None: losses are best
            low, names that end in "accuracy" high, those of ``training.metrics`` as they say; others have to be told.
        patience: epochs without a new best after which training ends; None: all epochs are done.
        keep_best: whether the run's parameters and state are those of the best epoch instead of the last.
        average: decay of a moving average of the parameters, such as 0.999; it is validated, and the run's ``params``
            are it, in float32 or wider. ``run.train.params`` are the last ones. Networks with running statistics want
            ``training.recompute_statistics`` for it.
        accumulate: parts that each batch is computed in, one after another, to save memory.
        precision: "bfloat16" or "float16" to compute in it, with parameters, optimizer and statistics in their own
            precision, and the loss scaled for float16. None: the precision of the parameters.
        non_finite: what a loss or a parameter that is not finite does: "stop" raises ``training.NonFiniteError``, which
            names the first layer with such a value and has the last good run; "skip" leaves the step out.
        trainable: parts that are trained, by path, such as "head" or ("head", "stage4/*"), or
            ``training.frozen("trunk")`` for all but some. What is frozen runs as it is used: see there. None: all.
        steps: batches in an epoch; None: all that the data give. What never ends needs it, such as a loader of Grain.
            The next epoch goes on where one ended, and what ends begins anew; a function of the epoch gives the
            batches of each. Of arrays an epoch takes so many of its batches, in their random order.

    Returns:
        A run with ``params``, ``state`` and ``history``.

    Raises:
        ValueError: data that do not suit the network, labels outside the classes, a number out of range.
        TypeError: arguments of the wrong kind.
        NonFiniteError: as above.
        CheckpointError: the folder has checkpoints of another run, or none that is whole. One that cannot be written is
            a ``CheckpointFailedWarning``, and training goes on.

    Example:
        >>> import fcnn, optax
        >>> x = jnp.linspace(-1, 1, 64).reshape(64, 1)
        >>> run = fit(fcnn.Dense(2), (x, (x[:, 0] > 0).astype("int32")), optimizer=optax.adam(0.1), epochs=30,
        ...           key=jax.random.key(0), batch_size=16, progress=False)
        >>> bool(run.history["accuracy"][-1] > 0.9)
        True
    """
    with at("fit"):
        check_net(net)
        key = check_key(key)
        options = _options(locals(), members=None)
        with options.sharding.together():  # what is wrong in one process alone is said in all
            data = _check_source(net, data, options)
    return Loop(net, data, key, params, state, options).run()


def fit_ensemble(
    net: Layer,
    data: tuple[Any, Any],
    *,
    members: int,
    optimizer: optax.GradientTransformation,
    epochs: int,
    key: jax.Array,
    batch_size: int = 128,
    loss: Any = None,
    loss_weights: Any = None,
    validation: Any = None,
    augment: Augment | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoints | None = None,
    resume: bool = False,
    progress: bool = True,
    metrics: Any = None,
    ignore_label: int | None = None,
    callbacks: Sequence[Callable[[EpochInfo], Any]] = (),
    average: float | None = None,
    precision: str | None = None,
    non_finite: str = "stop",
    trainable: Trainable | str | Sequence[str] | None = None,
) -> Run:
    """Train several networks of one form at once, by ``vmap`` over their parameters.

    Each member has its own key, and so its own first parameters, order of the data, dropout and augmentation.

    Args:
        net: the network.
        data: as for ``fit``; arrays.
        members: number of networks.
        optimizer: as for ``fit``, and so are the others.
        epochs: times through the data.
        key: random key; the members' are split from it.
        batch_size: examples in a step of each member.
        loss: as for ``fit``.
        loss_weights: as for ``fit``.
        validation: as for ``fit``.
        augment: as for ``fit``.
        checkpoint: as for ``fit``.
        resume: as for ``fit``.
        progress: as for ``fit``; it shows means over the members.
        metrics: as for ``fit``.
        ignore_label: as for ``fit``.
        callbacks: as for ``fit``.
        average: as for ``fit``.
        precision: as for ``fit``.
        non_finite: as for ``fit``; one member's value counts for all.
        trainable: as for ``fit``.

    Returns:
        A run whose params and state have a first axis of members, and whose history has arrays (epochs, members).
        ``training.evaluate_ensemble`` tells what their vote is worth.

    Raises:
        ValueError: as for ``fit``.
        TypeError: as for ``fit``.

    Example:
        >>> import fcnn, optax
        >>> x = jnp.linspace(-1, 1, 64).reshape(64, 1)
        >>> run = fit_ensemble(fcnn.Dense(2), (x, (x[:, 0] > 0).astype("int32")), members=3, epochs=2,
        ...                    optimizer=optax.adam(0.1), key=jax.random.key(0), progress=False)
        >>> run.params["kernel"].shape, run.history["loss"].shape
        ((3, 1, 2), (2, 3))
    """
    with at("fit_ensemble"):
        check_net(net)
        key = check_key(key)
        options = _options(
            {
                **locals(),
                "mesh": None,
                "steps": None,
                "monitor": None,
                "mode": None,
                "patience": None,
                "keep_best": False,
                "accumulate": 1,
            },
            members=integer(members, "members"),
        )
        if are_batches(data):
            raise TypeError("data must be a pair (x, y) of arrays: every member goes through them in its own order")
        data = _check_source(net, data, options)
    return Loop(net, data, key, None, None, options).run()


def _options(given: dict[str, Any], members: int | None) -> Options:
    """The settings of a run, checked."""
    # given is locals() of fit or fit_ensemble: as parameters, two dozen names would be spelt out here and in both calls
    # once more, with nothing gained, since every value is checked below; a name that is wrong fails in every run
    optimizer, validation, monitor = (given[n] for n in ("optimizer", "validation", "monitor"))
    _check_optimizer(optimizer)
    objective = check_objective(given["loss"], given["loss_weights"], given["metrics"], given["ignore_label"])
    precision, accumulate = check_precision(given["precision"]), integer(given["accumulate"], "accumulate")
    average = None if given["average"] is None else check_number(given["average"], "average")
    if average is not None and not 0 < average < 1:
        raise ValueError(f"average is {average!r}, expected a decay between 0 and 1, such as 0.999")
    optimizer = _wrapped(optimizer, average, precision == "float16")
    trainable = check_trainable(given["trainable"])
    if given["non_finite"] not in ("stop", "skip"):
        raise ValueError(f"non_finite is {given['non_finite']!r}, expected 'stop' or 'skip'")
    patience = given["patience"]
    if not isinstance(given["callbacks"], Sequence):
        raise TypeError(f"callbacks must be a list of functions of an EpochInfo, not {given['callbacks']!r}")
    callbacks = tuple(given["callbacks"])
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks must be functions of an EpochInfo, not {callback!r}")
    check_function("augment", given["augment"])
    for name in ("params", "state"):
        if given.get(name) is not None:
            check_mapping(name, given[name])
    if validation is not None:
        if are_batches(validation):
            validation = Batches(validation, integer(given["epochs"], "epochs"), "fit: validation")
        else:
            validation = check_data(given["net"], validation, "validation", objective)
    return Options(
        optimizer=optimizer,
        epochs=integer(given["epochs"], "epochs"),
        batch_size=integer(given["batch_size"], "batch_size"),
        objective=objective,
        validation=validation,
        augment=given["augment"],
        checkpoint=_checkpoints(given["checkpoint"], given["resume"]),
        resume=bool(given["resume"]),
        progress=bool(given["progress"]),
        sharding=Sharding.over(given["mesh"]),
        callbacks=callbacks,
        monitor=monitor or ("loss" if validation is None else "validation_loss"),
        mode=_mode(objective, monitor, given["mode"], validation is not None),
        patience=None if patience is None else integer(patience, "patience"),
        keep_best=bool(given["keep_best"]),
        averaging=average is not None,
        precision=precision,
        skip=given["non_finite"] == "skip",
        accumulate=accumulate,
        members=members,
        trainable=trainable,
        steps=None if given["steps"] is None else integer(given["steps"], "steps"),
        step=make_measured(given["net"], optimizer, objective, given["augment"], accumulate, precision, trainable),
    )


def _check_optimizer(optimizer: Any) -> None:
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


def _mode(objective: Objective, monitor: Any, mode: Any, validates: bool) -> str:
    """Whether the monitored number is best high or low."""
    if mode not in (None, "max", "min"):
        raise ValueError(f"mode is {mode!r}, expected 'max', 'min' or None")
    known = objective.names
    known += [f"validation_{name}" for name in known] if validates else []
    if monitor is None:
        if mode is not None:
            raise ValueError(f"mode is {mode!r}, and belongs to a number: say which, monitor='validation_loss'")
        return "min"
    if monitor not in known:
        raise ValueError(f"monitor is {monitor!r}, expected one of {', '.join(known)}")
    found = mode or objective.mode_of(monitor)
    if found is None:
        raise ValueError(
            f"monitor is {monitor!r}, and nothing says whether it is best high or low; give mode='max' or mode='min'"
        )
    return found


@cached(maxsize=8)
def _wrapped(optimizer: Any, average: float | None, half: bool) -> Any:
    """The optimizer with what is kept beside it; the same for the same, so that a second run compiles nothing."""
    optimizer = optimizer if average is None else averaged(optimizer, average)
    return loss_scaling(optimizer) if half else optimizer


def _checkpoints(given: Any, resume: Any) -> Checkpoints | None:
    """Where and when checkpoints are written."""
    from .checkpoint import Checkpoints

    if given is None:
        if resume:
            raise ValueError("resume=True goes on from a checkpoint; say where they are: checkpoint='folder'")
        return None
    if isinstance(given, Checkpoints):
        return given
    if isinstance(given, (str, os.PathLike)):
        return Checkpoints(given)
    raise TypeError(f"checkpoint must be a folder, or training.Checkpoints(folder, ...), not {given!r}")


def _check_source(net: Layer, data: Any, options: Options) -> Any:
    """Data as arrays, ((x, ...), y), or as Batches; raises unless they suit the network."""
    if are_batches(data):
        if getattr(options.augment, "by_example", False):
            raise ValueError(BY_EXAMPLE)
        return Batches(data, options.epochs, limit=options.steps)
    inputs, targets = check_data(net, data, "data", options.objective)
    options.sharding.check_batch(min(options.batch_size, count_of(inputs) * options.sharding.processes))
    return inputs, targets
