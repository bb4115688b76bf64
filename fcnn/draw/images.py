"""Plots of kernels, and of examples with the network's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figure import tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def kernels(kernel: Any, *, columns: int = 8, title: str = "") -> Figure:
    """Draw the kernels of a two-dimensional convolution.

    Kernels with three channels are drawn in colour, with grey for zero. All others have one tile per pair of channel
    and feature, with blue for negative values, white for zero and red for positive values, on a common scale.

    Args:
        kernel: (height, width, channels, features), such as ``params["conv1"]["kernel"]``.
        columns: the most tiles in a row; kernels with several channels (but not three) have one row per channel.
        title: title of the figure.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: if it is not the kernel of a two-dimensional convolution.

    Example:
        >>> len(kernels(np.zeros((5, 5, 1, 6))).axes)    # six tiles and their scale
        7
    """
    values = np.asarray(kernel, np.float32)
    if values.ndim != 4:
        raise ValueError(
            f"kernel has shape {values.shape}; kernels of two space dimensions, (height, width, channels, features), "
            "can be drawn"
        )
    channels, features = values.shape[2:]
    bound = float(np.abs(values).max()) or 1.0
    if channels == 3:
        figure, axes = tiles(features, columns, title=title)
        for axis, picture in zip(axes, np.moveaxis(values, -1, 0), strict=True):
            axis.imshow(0.5 + 0.5 * picture / bound, interpolation="nearest")
    else:
        if channels > 1:
            columns = features
        figure, axes = tiles(channels * features, columns, title=title)
        pictures = values.transpose(2, 3, 0, 1).reshape(-1, *values.shape[:2])
        drawn = [
            axis.imshow(picture, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
            for axis, picture in zip(axes, pictures, strict=True)
        ]
        figure.colorbar(drawn[0], ax=figure.axes, shrink=0.9, aspect=25, pad=0.02)
    return figure


def mistakes(
    x: Any, labels: Any, predicted: Any, classes: Sequence[str], *, limit: int = 24, columns: int = 8, title: str = ""
) -> Figure:
    """Draw the examples that a network got wrong, each with its label and the prediction.

    Args:
        x: images (examples, height, width, channels) in [0, 1], with 1 or 3 channels.
        labels: the true classes, (examples,).
        predicted: the network's classes, (examples,).
        classes: the names of the classes.
        limit: the most examples drawn.
        columns: the most examples in a row.
        title: title of the figure.

    Returns:
        A matplotlib figure; it contains only a line of text if there are no mistakes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: if the numbers of images, labels and predictions differ.

    Example:
        >>> figure = mistakes(np.zeros((2, 8, 8, 1)), [3, 5], [3, 6], "0123456789")
        >>> [axis.get_title() for axis in figure.axes]
        ['5, said 6']
    """
    x, labels, predicted = np.asarray(x, np.float32), np.asarray(labels), np.asarray(predicted)
    if not len(x) == len(labels) == len(predicted):
        raise ValueError(f"{len(x)} images, {len(labels)} labels and {len(predicted)} predictions; give one of each")
    wrong = np.flatnonzero(labels != predicted)
    if not len(wrong):
        figure, axes = tiles(1, 1, size=1.5, title=title)
        axes[0].text(0.5, 0.5, "no mistakes", ha="center", va="center")
    else:
        shown = wrong[:limit]
        longest = max(len(f"{classes[labels[i]]}, said {classes[predicted[i]]}") for i in shown)
        figure, axes = tiles(len(shown), columns, size=max(0.9, 0.085 * longest), caption=0.25, title=title)
        for axis, i in zip(axes, shown, strict=True):
            picture = x[i, ..., 0] if x.shape[-1] == 1 else x[i]
            axis.imshow(picture, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(f"{classes[labels[i]]}, said {classes[predicted[i]]}", fontsize=9, pad=3)
    return figure
