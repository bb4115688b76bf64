"""Printing of reports: as a text table in a terminal, and as an HTML table in a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of text, with optional lines above and below.

    Args:
        header: the names of the columns; () for none.
        rows: the cells of each row, one for each column.
        above: a line above the table.
        below: lines below it.
        right: the right-aligned columns, such as numbers.
        marked: the rows that are highlighted in a notebook.

    Example:
        >>> print(Table(("layer", "parameters"), [("conv1", "156"), ("dense1", "1,290")], right=(1,), below="1,446"))
        layer   parameters
        ------------------
        conv1          156
        dense1       1,290
        ------------------
        1,446
    """

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    above: str = ""
    below: str = ""
    right: tuple[int, ...] = ()
    marked: tuple[int, ...] = ()

    def __str__(self) -> str:
        lines = [self.header, *self.rows] if self.header else list(self.rows)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [self._line(line, widths) for line in lines]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        found = [self.above] if self.above else []
        found += [text[0], rule, *text[1:]] if self.header else text
        return "\n".join([*found, *((rule, self.below) if self.below else ())])

    def _line(self, cells: tuple[str, ...], widths: list[int]) -> str:
        placed = zip(cells, widths, range(len(widths)), strict=True)
        return "  ".join(cell.rjust(n) if i in self.right else cell.ljust(n) for cell, n, i in placed).rstrip()

    def html(self) -> str:
        """The table as HTML, for a notebook."""

        def row(cells: tuple[str, ...], tag: str, style: str = "") -> str:
            return f"<tr{style}>" + "".join(self._cell(i, cell, tag) for i, cell in enumerate(cells)) + "</tr>"

        colour = ' style="background:#f6c6c0"'
        body = "".join(row(cells, "td", colour if i in self.marked else "") for i, cells in enumerate(self.rows))
        caption = f"<caption>{_escaped(self.above)}</caption>" if self.above else ""
        head = f"<thead>{row(self.header, 'th')}</thead>" if self.header else ""
        below = f"<p>{_escaped(self.below)}</p>" if self.below else ""
        return f"<table>{caption}{head}<tbody>{body}</tbody></table>{below}"

    def _cell(self, column: int, text: str, tag: str) -> str:
        side = "right" if column in self.right else "left"
        return f'<{tag} style="text-align:{side}">{_escaped(text)}</{tag}>'


class Tabular:
    """Base class of a report that prints as a table; subclasses define ``table``."""

    def table(self) -> Table:
        """The report as a table."""
        raise NotImplementedError

    def __str__(self) -> str:
        return str(self.table())

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


def _escaped(text: str) -> str:
    """Text as HTML; indentation and line breaks are preserved."""
    return html.escape(text).replace("  ", "&nbsp;&nbsp;").replace("\n", "<br>")
