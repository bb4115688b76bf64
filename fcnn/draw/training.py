"""Pictures of a training run."""

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
        history: a run's ``history``, or those of several runs (seeds), which share the axes.
        title: text above.

    Returns:
        A matplotlib figure, with a panel for each of loss and accuracy that the history has.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no history, or one without a loss.

    Example:
        >>> figure = learning_curve({"loss": [2.3, 0.4], "accuracy": [0.1, 0.9]})
        >>> [axis.get_ylabel() for axis in figure.axes]
        ['loss', 'accuracy (%)']
    """
    histories = [history] if isinstance(history, Mapping) else list(history)
    if not histories or "loss" not in histories[0]:
        raise ValueError("history has no 'loss'; give the history of a run, or a list of them")
    panels = [name for name in ("loss", "accuracy") if name in histories[0]]
    figure = new_figure(4.4 * len(panels), 3.3)
    for axis, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        factor = 100 if name == "accuracy" else 1
        for prefix, colour in _COLOURS.items():
            lines = [h[prefix + name] for h in histories if prefix + name in h]
            for i, values in enumerate(lines):
                epochs = np.arange(1, len(values) + 1)
                label = _LABELS[prefix] if i == 0 else None
                marker = "o" if len(values) < 2 else ""
                style = {"color": colour, "lw": 1.4, "alpha": 0.85, "marker": marker, "label": label}
                axis.plot(epochs, factor * np.asarray(values), **style)
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
