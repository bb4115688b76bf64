"""Checks of integer labels against the scores of a network, with advice for labels in other forms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .errors import format_shape
from .geometry import Shape


def check_labels(
    y: Any, out: Shape, where: str = "", name: str = "y", *, ignore: int | None = None, parts: Iterable[np.ndarray] = ()
) -> bool:
    """Raise unless y holds labels of classes that a network scores.

    Args:
        y: an array of labels, (examples, *positions); its dtype and shape are checked.
        out: the network's output shape for one example, (*positions, classes).
        where: prefix of every message.
        name: the name of y in messages.
        ignore: the label of positions to ignore.
        parts: the values of y, in one or several arrays; () where they are not known.

    Returns:
        Whether there is any label that is not ignored.

    Raises:
        ValueError: the labels do not have the shape that the scores require, or are out of the range of classes.
        TypeError: the labels are not integers.

    Example:
        >>> labels = np.array([0, 3])
        >>> check_labels(labels, (3,), parts=[labels])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: labels run from 0 to 3, but the network scores classes 0 to 2; give the last layer 4 features, ...
    """
    given, wanted, classes = tuple(y.shape), tuple(out[:-1]), out[-1] if out else 1
    if classes == 1 and (y.dtype == bool or given[1:] in (wanted, out)):
        raise (ValueError if jnp.issubdtype(y.dtype, jnp.integer) else TypeError)(
            f"{where}the network gives one score for each label, but the default loss needs one for each class; for "
            f"two classes use loss=optax.losses.sigmoid_binary_cross_entropy with {name}.reshape"
            f"{format_shape((-1, *out))}.astype('float32'), or end the network in two scores"
        )
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(
            f"{where}{name} has dtype {y.dtype}, but the default loss needs integer labels; "
            f"use {_as_integers(y, wanted, classes, name)}, or give a loss such as optax.losses.squared_error"
        )
    if given[1:] != wanted:
        raise ValueError(
            f"{where}{name} has shape {format_shape(given)}, but the network gives {format_shape(out)} for one "
            "example; the default loss needs a score for each class on the last axis and one label for every position: "
            + _in_shape(y, wanted, classes, name)
        )
    counted = False
    for part in parts:
        labels = part if ignore is None else part[part != ignore]
        if not labels.size:
            continue
        counted = True
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"{where}labels run from {low} to {high}, but the network scores classes 0 to {classes - 1}; "
                + _advice(labels, classes)
            )
    return counted


def _as_integers(y: Any, wanted: Shape, classes: int, name: str) -> str:
    """How to convert targets that are not integers to labels."""
    given = tuple(y.shape)[1:]
    if y.dtype == bool:
        return f"{name}.astype('int32')"
    if given == (*wanted, classes):
        return f"{name}.argmax(-1) for one-hot targets, loss=training.cross_entropy() for class probabilities"
    if given in (wanted, (*wanted, 1)) and _whole(y):
        return f"{name}.reshape{format_shape((-1, *wanted))}.astype('int32') for labels"
    return f"{name}.argmax(-1) for one-hot targets"


def _in_shape(y: Any, wanted: Shape, classes: int, name: str) -> str:
    """How to convert integers of another shape to labels."""
    given = tuple(y.shape)[1:]
    if given == (*wanted, classes) and _one_hot(y):
        return f"these are one-hot: use {name}.argmax(-1)"
    if given == (*wanted, 1):
        return f"leave out the last axis: {name}[..., 0]"
    return "end the network in Flatten or global pooling and Dense(classes), or give a loss"


def _whole(y: Any) -> bool:
    """Whether the first 1024 targets are whole numbers; False for traced values."""
    if isinstance(y, Tracer):
        return False
    host = np.asarray(y[:1024], np.float64)
    return bool((host == np.round(host)).all())


def _one_hot(y: Any) -> bool:
    """Whether the first 1024 rows are one-hot; False for traced values."""
    if isinstance(y, Tracer):
        return False
    host = np.asarray(y[:1024])
    return bool(((host == 0) | (host == 1)).all() and (host.sum(-1) == 1).all())


def _advice(labels: np.ndarray, classes: int) -> str:
    outside = np.unique(labels[(labels < 0) | (labels >= classes)])
    codes = [int(label) for label in outside if label < 0 or label in (255, 65535)]
    if len(codes) == 1 and len(outside) == 1:
        return f"if {codes[0]} marks labels to leave out, give ignore_label={codes[0]}; else count labels from 0"
    if codes and len(outside) == len(codes):
        listed = " and ".join(map(str, codes))
        return f"if {listed} mark labels to leave out, replace them by one, and give it as ignore_label"
    return f"give the last layer {int(labels.max()) + 1} features, or count labels from 0"
