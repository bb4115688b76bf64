"""The arguments ``loss``, ``loss_weights``, ``metrics`` and ``ignore_label``, checked, as :class:`Measures`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .losses import CrossEntropy, cross_entropy
from .measures import LossTerm, Measures
from .metric import Accumulator, Mean, Metric, check_ignore
from .metrics import READY

#: names that other values of an epoch have
_TAKEN = ("loss", "seconds", "skipped", "learning_rate", "gradient_norm")


def check_measures(loss: Any, loss_weights: Any = None, metrics: Any = None, ignore_label: Any = None) -> Measures:
    """The arguments as :class:`Measures`, checked.

    Raises:
        TypeError: losses or metrics of the wrong kind.
        ValueError: names that are taken, or factors without a loss.
    """
    ignored = check_ignore(ignore_label)
    if isinstance(loss, Mapping):
        named: list[tuple[Any, Any]] = list(loss.items())
    elif isinstance(loss, (tuple, list)):
        named = list(enumerate(loss))
    else:
        named = [(None, loss)]
    if not named:
        raise ValueError("loss is empty; give a function, or a dict of them by the names of the outputs")
    weights = _loss_weights(loss_weights, [place for place, _ in named])
    terms = []
    for place, function in named:
        what = "loss" if place is None else f"loss[{place!r}]"
        check_function(what, function)
        terms.append(LossTerm(place, cross_entropy if function is None else function, weights.get(place, 1.0)))
        own = function.ignore_label if isinstance(function, CrossEntropy) else None
        if None not in (ignored, own) and ignored != own:
            raise ValueError(f"ignore_label is {ignored}, but the loss ignores {own}; give only one of them")
    own = {p.loss.ignore_label for p in terms if isinstance(p.loss, CrossEntropy)} - {None}
    if ignored is None and len(own) == 1:
        ignored = own.pop()
    return Measures(tuple(terms), check_metrics(metrics), ignored, all(given is not None for _, given in named))


def _loss_weights(given: Any, places: list[Any]) -> dict[Any, float]:
    if given is None:
        return {}
    if places == [None]:
        raise ValueError(
            "loss_weights are factors of several losses, but loss is one; give a dict or tuple of functions"
        )
    if isinstance(given, (tuple, list)) and len(given) == len(places):
        given = dict(zip(places, given, strict=True))
    if not isinstance(given, Mapping):
        raise TypeError(
            f"loss_weights must be a dict from losses to numbers, such as {{{places[0]!r}: 0.1}}, not {given!r}"
        )
    for place, value in given.items():
        if place not in places:
            raise ValueError(
                f"loss_weights has {place!r}, but the losses are {', '.join(map(repr, places))}; use one of these"
            )
        if isinstance(value, (bool, str)) or not np.isscalar(value) or not np.isfinite(float(value)):  # type: ignore
            raise TypeError(f"loss_weights[{place!r}] must be a finite number, not {value!r}")
    return {place: float(value) for place, value in given.items()}


def check_function(name: str, given: Any) -> None:
    """Raise unless it is None or a hashable function.

    Raises:
        TypeError: it is neither.
    """
    if given is None:
        return
    if not callable(given):
        way_out = "; combine several by data.augment.compose" if isinstance(given, (tuple, list)) else ""
        way_out = '; such as optax.losses.squared_error for "mse"' if isinstance(given, str) else way_out
        raise TypeError(f"{name} must be a function, not {given!r}{way_out}")
    check_hashable(name, given)


def check_hashable(name: str, given: Any) -> None:
    """Raise unless it is hashable, so that the compiled step is found again.

    Raises:
        TypeError: it is not.
    """
    try:
        hash(given)
    except TypeError:
        raise TypeError(
            f"{name} is a {type(given).__name__} that is not hashable, but the compiled step is cached by it; "
            "make the class a dataclass(frozen=True), or give a function"
        ) from None


def check_metrics(metrics: Any) -> tuple[tuple[str, Any, Any], ...]:
    """The metrics as triples of a name, a key or index among the outputs, and a metric.

    Raises:
        TypeError: not a dict, or a value that is no metric.
        ValueError: a name that is taken.
    """
    if metrics is None:
        return ()
    if not isinstance(metrics, Mapping) or not all(
        isinstance(name, str) or isinstance(metric, Mapping) for name, metric in metrics.items()
    ):
        raise TypeError(
            "metrics must be a dict from names to functions (outputs, targets) or to metrics of training.metrics, such "
            f"as {{'f1': training.metrics.f1()}}, not {metrics!r}"
        )
    found: list[tuple[str, Any, Any]] = []
    for name, given in metrics.items():
        if isinstance(given, Mapping):  # for one of several outputs
            found += [_metric(f"{own}/{name}", name, metric) for own, metric in given.items()]
        else:
            found.append(_metric(name, None, given))
    return tuple(found)


def _metric(name: str, place: Any, given: Any) -> tuple[str, Any, Any]:
    if name in _TAKEN or name.startswith(("validation_", "loss/")):
        raise ValueError(f"metrics: the name {name!r} is reserved for another value of the history; use another name")
    if any(given is ready for ready in READY):
        raise TypeError(f"metrics: {name} is a function that makes a metric; call it: {given.__name__}(...)")
    if isinstance(given, Metric):
        metric: Any = given
    elif isinstance(given, (tuple, list)):
        if len(given) not in (3, 4) or not all(map(callable, given[1:])):
            raise TypeError(
                f"metrics: {name} must be (start, update, result): the initial accumulator, a function (accumulator, "
                f"outputs, targets) that returns the next one, and a function from it to the metric; not {given!r}"
            )
        metric = Accumulator(*given, name=f"the metric {name}")
        for value in given:
            check_hashable(f"metrics: {name}", value)
    elif callable(given) and not isinstance(given, type):
        metric = Mean(given, f"the metric {name}", _stated(name, getattr(given, "mode", None)))
        check_hashable(f"metrics: {name}", given)
    else:
        raise TypeError(
            f"metrics: {name} must be a function (outputs, targets), (start, update, result), or a metric of "
            f"training.metrics, not {given!r}"
        )
    return name, place, metric


def _stated(name: str, mode: Any) -> str | None:
    if mode not in (None, "max", "min"):
        raise ValueError(f"metrics: the mode of {name} is {mode!r}, expected 'max' or 'min'")
    return mode
