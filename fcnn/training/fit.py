"""Training from data to parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax

from ..errors import layer_path
from ..layer import Layer
from ..types import Params, State
from .augmentation import Augment
from .config import FitConfig
from .run import EpochInfo, Run
from .session import Session
from .trainable import Trainable
from .training_data import check_source

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
    members: int | None = None,
) -> Run:
    """Train a network, or an ensemble of networks.

    Every epoch visits the examples in a new random order, in batches of equal size. The incomplete final batch is
    dropped; reshuffling brings those examples back in later epochs. The same key gives the same run. Data that fit stay
    on the device, and one call of a compiled program takes many steps.

    Args:
        net: the network.
        data: the training data, in one of three forms. Arrays (x, y): x is an array (examples, *space, channels), or a
            tuple of arrays for several inputs; y is an array, or a tuple or dict of arrays for several targets. Arrays
            (x, y, w) with weights: w has one number for each example or each label, 0 for those that do not count.
            Weights mean the same in the loss, the metrics, the history and ``evaluate``: a mean is the sum of weight
            times value over the sum of weights. An example of weight 0 is still seen by ``BatchNorm`` in training, and
            has to be finite. Batches of such arrays: a list, a loader of PyTorch or Grain, any other iterable, or a
            function from the epoch, 0, 1, ..., to one, for data that are read or made on the way. The next batches are
            fetched while the device computes. Arrays in files, ``np.load(..., mmap_mode="r")`` or those of h5py and
            zarr, are read batch by batch. A batch whose size the step cannot take (a single example under
            ``BatchNorm``, a size that ``accumulate`` or ``mesh`` does not divide) is refused before the first step if
            sizes are known, as they are for lists and PyTorch's loaders.
        optimizer: an optax optimizer, such as ``optax.adam(1e-3)``. Schedules, clipping and weight decay are
            optax's: ``optax.adamw(schedule, weight_decay=0.05, mask=fcnn.training.decay_mask)``.
        epochs: number of passes through the data.
        key: random key for initial parameters, order of the examples, dropout and augmentation.
        batch_size: examples in a step; if there are fewer, all of them. Batches that are handed in keep their size.
        loss: a function (outputs, targets) that returns one number for each example or label, or one for the batch.
            For example a function of ``optax.losses``, ``training.label_smoothing(0.1)`` or
            ``training.cross_entropy(class_weights=(1, 5))``. None: softmax cross-entropy with integer labels. For
            several outputs, one function of all of them, or a dict or tuple of functions, one for each entry of outputs
            and targets, ``{"class": f, "box": g}``: their sum is minimised, and the history has each as "loss/class".
        loss_weights: factors of several losses in the sum, ``{"box": 0.1}``; the others have 1.
        validation: data to evaluate on after every epoch, in any form that ``data`` has.
        augment: a function (key, batch) to batch, compiled into the step; the batch is ((x, ...), y). See
            ``data.augment``.
        checkpoint: a folder for checkpoints, or ``training.Checkpoints(folder, every_seconds=..., keep=...)``. They
            are written in the background, once a minute by default, and at the end. Ctrl-C and SIGTERM write one and
            end the program.
        resume: whether to continue from the newest whole checkpoint in the folder, bit for bit as if the run had never
            stopped. Without a checkpoint the run starts from the beginning. Batches that are handed in have to come in
            the same order again: those of a function of the epoch do, those of a loader that reshuffles do not. A run
            that a callback ended continues as well.
        progress: whether to show a progress bar.
        mesh: devices that share each batch, such as ``jax.make_mesh((8,), ("batch",))``. If it has devices of several
            processes, each process gives its own part of the data.
        params: initial parameters; None: ``net.init``.
        state: initial state; None: ``net.init_state``. Running statistics belong to their parameters: if the network
            has any, give ``state`` together with ``params``.
        metrics: a dict of further metrics by name: those of ``training.metrics``, such as
            ``{"iou": training.metrics.iou()}``, which are computed over the whole epoch; functions (outputs, targets)
            that return one number for each example, of which the mean is taken; or (start, update, result) of an
            accumulator, ``update(accumulator, outputs, targets)``, with weights as a fourth argument if there are any.
            A dict in the dict is for one of several outputs: ``{"class": {"f1": training.metrics.f1()}}`` is reported
            as "f1/class".
        ignore_label: a label that does not count, such as 255 or -1, in the loss, the accuracy and the metrics.
        callbacks: functions that are called with a ``training.EpochInfo`` after every epoch, or after some steps:
            ``training.every(100, write)``. One that returns True ends the training.
        monitor: the name in the history that ``patience`` and ``keep_best`` depend on. None: "validation_loss", or
            "loss" without validation data.
        mode: whether the highest ("max") or the lowest ("min") value of ``monitor`` is best. None: the lowest for
            losses, the highest for names that end in "accuracy", and what ``training.metrics`` say for theirs; for
            others it has to be given.
        patience: epochs without a new best value after which training ends. None: never.
        keep_best: whether the run's parameters and state are those of the best epoch instead of the last.
        average: decay of a moving average of the parameters, such as 0.999. The average is validated and returned as
            ``run.params``, in float32 or wider; ``run.train.params`` are the last parameters. For networks with running
            statistics, ``training.recompute_statistics`` measures those of the average.
        accumulate: number of parts that each batch is computed in, one after another, to save memory.
        precision: "bfloat16" or "float16" to compute in it. Parameters, optimizer state and statistics keep their own
            precision, and for float16 the loss is scaled. None: the precision of the parameters.
        non_finite: what to do when the loss or a parameter becomes NaN or infinite. "stop" raises
            ``training.NonFiniteError``, which names the first layer with such a value and holds the run up to there;
            "skip" leaves the step out.
        trainable: the parts to train, by path, such as "head" or ("head", "stage4/*"), or
            ``training.frozen("trunk")`` for all but some. Frozen parts run as in ``net.apply``. None: all are trained.
        steps: batches in an epoch. None: all batches. Data that never end need it, such as a loader of Grain; the next
            epoch continues where one ended, and data that end start again. A function of the epoch gives the batches of
            each epoch. For arrays, an epoch takes that many of its batches, in random order.
        members: number of networks to train at once as an ensemble, by ``vmap`` over their parameters. Each has its own
            key, and so its own initial parameters, order of the data, dropout and augmentation; the data have to be
            arrays. The run's params and state have a first axis of members, and its history arrays (epochs, members).
            The bar shows means over the members, and a value that is not finite counts for all of them. None: a single
            network. See ``training.evaluate_ensemble``.

    Returns:
        A run with ``params``, ``state`` and ``history``.

    Raises:
        ValueError: data that do not suit the network, labels outside the classes, a number out of range.
        TypeError: arguments of the wrong kind.
        NonFiniteError: see ``non_finite``.
        CheckpointError: the folder has checkpoints of another run, or none that is whole. A checkpoint that cannot be
            written is a ``CheckpointFailedWarning``, and training goes on.

    Example:
        >>> import fcnn, optax
        >>> x = jnp.linspace(-1, 1, 64).reshape(64, 1)
        >>> data, settings = (x, (x[:, 0] > 0).astype("int32")), {"optimizer": optax.adam(0.1), "progress": False}
        >>> run = fit(fcnn.Dense(2), data, epochs=30, key=jax.random.key(0), batch_size=16, **settings)
        >>> bool(run.history["accuracy"][-1] > 0.9)
        True
        >>> run = fit(fcnn.Dense(2), data, members=3, epochs=2, key=jax.random.key(0), **settings)
        >>> run.params["kernel"].shape, run.history["loss"].shape
        ((3, 1, 2), (2, 3))
    """
    with layer_path("fit"):
        config = FitConfig(
            net=net,
            optimizer=optimizer,
            epochs=epochs,
            key=key,
            batch_size=batch_size,
            loss=loss,
            loss_weights=loss_weights,
            validation=validation,
            augment=augment,
            checkpoint=checkpoint,
            resume=resume,
            progress=progress,
            mesh=mesh,
            params=params,
            state=state,
            metrics=metrics,
            ignore_label=ignore_label,
            callbacks=callbacks,
            monitor=monitor,
            mode=mode,
            patience=patience,
            keep_best=keep_best,
            average=average,
            accumulate=accumulate,
            precision=precision,
            non_finite=non_finite,
            trainable=trainable,
            steps=steps,
            members=members,
        )
        with config.sharding.processes.share_errors():  # an error in one process ends all of them
            source = check_source(config, data)
    return Session(config, source).run()
