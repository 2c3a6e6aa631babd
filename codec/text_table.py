"""Tables of text, the same on a terminal and in a pipe: no colours, no lines, as wide as they are."""

import io
import sys
from collections.abc import Container, Iterable, Sequence


def text_table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Container[str]) -> str:
    """A line of `heads`, then a line a row; columns whose head is in `right` end flush, the others begin so."""
    from rich.console import Console  # as long as all else that `codec models` imports
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=sys.maxsize, color_system=None, markup=False, emoji=False)
    console.print(table, highlight=False)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())
