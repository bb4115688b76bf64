"""The work of a scan by patches and by layers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..errors import format_shape
from ..geometry import Shape
from ..tables import Table, Tabular


@dataclass(frozen=True, repr=False)
class ScanReport(Tabular):
    """The result of ``Scan.report``; prints as a table.

    Attributes:
        positions: windows along each axis.
        fragments: interleaved fragments along each axis at the output, produced by strides inside the window.
        by_patches: multiply-adds for one input, with every window computed separately.
        by_layers: multiply-adds for one input, with windows sharing their work.
    """

    positions: Shape
    fragments: Shape
    by_patches: int
    by_layers: int

    @property
    def ratio(self) -> float:
        """How many times fewer multiply-adds "layers" needs."""
        return self.by_patches / self.by_layers if self.by_layers else float("nan")

    def table(self) -> Table:
        rows = (
            ("positions", f"{format_shape(self.positions)}, {prod(self.positions):,} in all"),
            ("fragments", f"{format_shape(self.fragments)}, {prod(self.fragments):,} in all"),
            ("multiply-adds by patches", f"{self.by_patches:,}"),
            ("multiply-adds by layers", f"{self.by_layers:,}"),
            ("ratio", f"{self.ratio:,.1f}"),
        )
        return Table((), rows)
