"""Plots of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figure import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"": "#1f5a99", "validation_": "#c8501e"}
_LABELS = {"": "training", "validation_": "validation"}


def learning_curve(history: Mapping[str, Any] | Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Draw loss and accuracy over the epochs.

    Args:
        history: a run's ``history``, or those of several runs (seeds), drawn in the same axes. Each member of an
            ensemble is a line, all in one colour.
        title: title of the figure.

    Returns:
        A matplotlib figure, with a panel for the loss and, if a history has one, a panel for the accuracy.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: if there is no history, or it has no loss.

    Example:
        >>> figure = learning_curve({"loss": [2.3, 0.4], "accuracy": [0.1, 0.9]})
        >>> [axis.get_ylabel() for axis in figure.axes]
        ['loss', 'accuracy (%)']
    """
    histories = [history] if isinstance(history, Mapping) else list(history)
    if not histories or "loss" not in histories[0]:
        raise ValueError("history has no 'loss'; give the history of a run, or a list of them")
    # with mixed labels there may be an accuracy in validation but none in training
    panels = [name for name in ("loss", "accuracy") if any(p + name in h for p in _COLOURS for h in histories)]
    figure = new_figure(4.4 * len(panels), 3.3)
    for axis, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        factor = 100 if name == "accuracy" else 1
        for prefix, colour in _COLOURS.items():
            # (epochs,) for a run, (epochs, members) for an ensemble
            curves = [np.asarray(h[prefix + name]) for h in histories if prefix + name in h]
            lines = [line for curve in curves for line in np.atleast_2d(curve.T)]
            members = any(curve.ndim > 1 for curve in curves)
            for i, values in enumerate(lines):
                style = {"lw": 0.8, "alpha": 0.6} if members else {"lw": 1.4, "alpha": 0.85}
                style |= {"color": colour, "marker": "o" if len(values) < 2 else ""}
                label = _LABELS[prefix] if i == 0 else None  # a single entry in the legend
                axis.plot(np.arange(1, len(values) + 1), factor * values, label=label, **style)
        axis.set_xlabel("epoch")
        axis.set_ylabel("accuracy (%)" if name == "accuracy" else name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if name == "loss":
            axis.set_yscale("log")
        axis.legend(frameon=False)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure
