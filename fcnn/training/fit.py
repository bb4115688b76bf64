"""Training from data to parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jax

from ..errors import at
from ..geometry import integer
from ..given import Params, State, check_key, check_mapping
from ..layer import Layer
from ..layers.norm import check_number
from .loop import Loop
from .objective import Loss, Metric, check_data, check_metrics, check_net, cross_entropy
from .optimizers import averaged, scaled
from .precision import check_precision
from .run import Moment, Options, Run
from .source import Batches, are_batches
from .spread import Spread
from .step import Augment, make_step
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
    loss: Loss | None = None,
    validation: tuple[Any, Any] | None = None,
    augment: Augment | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoints | None = None,
    resume: bool = False,
    progress: bool = True,
    mesh: jax.sharding.Mesh | None = None,
    params: Params | None = None,
    state: State | None = None,
    metrics: dict[str, Metric] | None = None,
    callbacks: Sequence[Callable[[Moment], Any]] = (),
    monitor: str | None = None,
    patience: int | None = None,
    keep_best: bool = False,
    average: float | None = None,
    accumulate: int = 1,
    precision: str | None = None,
    non_finite: str = "stop",
    trainable: Trainable | str | Sequence[str] | None = None,
) -> Run:
    """Train a network.

    Every epoch goes through the examples in a new random order, in batches of equal size; the examples left
    over, fewer than a batch, wait for an epoch whose order puts them elsewhere. The same key gives the same run.
    Data that fit stay on the device, and many steps are one call of a compiled program.

    Args:
        net: the network.
        data: (x, y), x an array (examples, *space, channels), or a tuple of arrays for several inputs. Or batches
            (x, y): a list, a loader of PyTorch or Grain, any iterable; or a function from the epoch, 0, 1, ..., to
            one, for data that are read or made on the way. The next batches are fetched while one computes.
        optimizer: an optax optimizer, such as ``optax.adam(1e-3)``. Schedules, clipping and weight decay are
            optax's: ``optax.adamw(schedule, weight_decay=0.05, mask=fcnn.training.weights_only)``.
        epochs: times through the data.
        key: random key, for initial parameters, order, dropout and augmentation.
        batch_size: examples in a step; all of them where there are fewer. Batches that are given keep their size.
        loss: (outputs, targets) to one number for each example, or one for the batch, such as a function of
            ``optax.losses``, or ``training.smoothed(0.1)``; None: softmax cross-entropy with integer labels.
        validation: (x, y) to evaluate on after every epoch.
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
        state: state to begin with; None: ``net.init_state``.
        metrics: further numbers by name: functions (outputs, targets) to one for each example, or one for the batch.
        callbacks: functions that are called after every epoch with a ``training.Moment``; one that returns True ends
            the training.
        monitor: name in the history that ``patience`` and ``keep_best`` go by; highest is best for names that end in
            "accuracy", lowest for others. None: "validation_loss", "loss" where there are no validation data.
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
        with options.spread.together():  # what is wrong in one process alone is said in all
            data = _check_source(net, data, loss, options)
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
    loss: Loss | None = None,
    validation: tuple[Any, Any] | None = None,
    augment: Augment | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoints | None = None,
    resume: bool = False,
    progress: bool = True,
    metrics: dict[str, Metric] | None = None,
    callbacks: Sequence[Callable[[Moment], Any]] = (),
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
        validation: as for ``fit``.
        augment: as for ``fit``.
        checkpoint: as for ``fit``.
        resume: as for ``fit``.
        progress: as for ``fit``; it shows means over the members.
        metrics: as for ``fit``.
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
            {**locals(), "mesh": None, "monitor": None, "patience": None, "keep_best": False, "accumulate": 1},
            members=integer(members, "members"),
        )
        if are_batches(data):
            raise TypeError("data must be a pair (x, y) of arrays: every member goes through them in its own order")
        data = _check_source(net, data, loss, options)
    return Loop(net, data, key, None, None, options).run()


def _options(given: dict[str, Any], members: int | None) -> Options:
    """The settings of a run, checked."""
    # given is locals() of fit or fit_ensemble: as parameters, two dozen names would be spelt out here and in both calls
    # once more, with nothing gained, since every value is checked below; a name that is wrong fails in every run
    optimizer, loss, validation, monitor = (given[n] for n in ("optimizer", "loss", "validation", "monitor"))
    if not hasattr(optimizer, "init") or not hasattr(optimizer, "update"):
        raise TypeError(f"optimizer must be an optax optimizer such as optax.adam(1e-3), not {optimizer!r}")
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
        raise TypeError(f"callbacks must be a list of functions of a Moment, not {given['callbacks']!r}")
    callbacks = tuple(given["callbacks"])
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks must be functions of a Moment, not {callback!r}")
    for name in ("loss", "augment"):
        _check_function(name, given[name])
    for name in ("params", "state"):
        if given.get(name) is not None:
            check_mapping(name, given[name])
    if validation is not None:
        validation = check_data(given["net"], validation, "validation", loss)
    named = check_metrics(given["metrics"])
    known = ["loss", "accuracy", *dict(named)]
    known += [f"validation_{name}" for name in known] if validation is not None else []
    if monitor is not None and monitor not in known:
        raise ValueError(f"monitor is {monitor!r}, expected one of {', '.join(known)}")
    return Options(
        optimizer=optimizer,
        epochs=integer(given["epochs"], "epochs"),
        batch_size=integer(given["batch_size"], "batch_size"),
        loss=loss,
        minimised=loss or cross_entropy,
        validation=validation,
        augment=given["augment"],
        checkpoint=_checkpoints(given["checkpoint"], given["resume"]),
        resume=bool(given["resume"]),
        progress=bool(given["progress"]),
        spread=Spread.over(given["mesh"]),
        metrics=named,
        callbacks=callbacks,
        monitor=monitor or ("loss" if validation is None else "validation_loss"),
        patience=None if patience is None else integer(patience, "patience"),
        keep_best=bool(given["keep_best"]),
        averaging=average is not None,
        precision=precision,
        skip=given["non_finite"] == "skip",
        accumulate=accumulate,
        members=members,
        trainable=trainable,
        step=make_step(
            given["net"],
            optimizer,
            loss or cross_entropy,
            given["augment"],
            metrics=named,
            accumulate=accumulate,
            precision=precision,
            trainable=trainable,
        ),
    )


def _check_function(name: str, given: Any) -> None:
    """Raise unless it is None or a function, and one by which the compiled step is found again."""
    if given is None:
        return
    if not callable(given):
        way_out = "; put several into one by data.augment.compose" if isinstance(given, (tuple, list)) else ""
        raise TypeError(f"{name} must be a function, not {given!r}{way_out}")
    try:
        hash(given)
    except TypeError:
        raise TypeError(
            f"{name} is a {type(given).__name__} that cannot be hashed, and the compiled step is found by it; "
            "make the class a dataclass(frozen=True), or give a function"
        ) from None


@lru_cache(maxsize=8)
def _wrapped(optimizer: Any, average: float | None, half: bool) -> Any:
    """The optimizer with what is kept beside it; the same for the same, so that a second run compiles nothing."""
    optimizer = optimizer if average is None else averaged(optimizer, average)
    return scaled(optimizer) if half else optimizer


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


def _check_source(net: Layer, data: Any, loss: Loss | None, options: Options) -> Any:
    """Data as arrays, ((x, ...), y), or as Batches; raises unless they suit the network."""
    if are_batches(data):
        return Batches(data, options.epochs)
    inputs, targets = check_data(net, data, "data", loss)
    options.spread.check_batch(min(options.batch_size, targets.shape[0] * options.spread.processes))
    return inputs, targets
