"""Figures without pyplot's global state: shown in a notebook, or saved by ``savefig``."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure of a given size in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    return _figure_class()(figsize=(width, height), layout="constrained")


@functools.cache
def _figure_class() -> type[Figure]:
    """Matplotlib's figure class, extended so that a notebook displays it even if pyplot has not been used."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'fcnn[pictures]'") from None

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, dpi=100)
            return file.getvalue()

    return Shown


def tiles(
    count: int, columns: int, *, size: float = 0.9, caption: float = 0.0, title: str = ""
) -> tuple[Any, list[Any]]:
    """Create a figure with ``count`` square axes without ticks, in rows of ``columns``.

    Args:
        count: number of axes.
        columns: the most axes in a row.
        size: side length of each, in inches.
        caption: height above each for its title, in inches.
        title: title of the figure, which is made wide enough for it.

    Returns:
        The figure and its axes.
    """
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    width = max(columns * size, 0.095 * len(title), 2.4)
    figure = new_figure(width, rows * (size + caption) + (0.5 if title else 0.0))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=11)
    return figure, list(axes[:count])
