"""HTML whose values are escaped by whoever fills them in: `fill`, the only way to make `Html`.

`report.py` writes templates; what comes from a disk, names of folders and classes, is a value.
"""

import html
import string
from collections.abc import Iterable
from typing import Any


class Html(str):
    """Text that is HTML already; only `fill` and `join` make it."""


def fill(template: str, **values: Any) -> Html:
    """Return a template, a literal of the program, with $name replaced.

    Args:
      template: HTML; attributes in double quotes.
      **values: escaped, unless they are `Html`.
    """
    safe = {name: escaped(value) for name, value in values.items()}
    return Html(string.Template(template).substitute(safe))


def escaped(value: Any) -> Html:
    """Return a value as HTML."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Return values one after the other, as HTML."""
    return Html(escaped(between).join(map(escaped, parts)))


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], kind: str = "") -> Html:
    """Return a table; real numbers with three digits after the point.

    `kind`: a class of the style sheet; "told": the last column is text.
    """

    def cell(value: Any) -> Html:
        return fill("<td>$x</td>", x=f"{value:z.3f}" if isinstance(value, float) else value)

    body = (fill("<tr>$cells</tr>", cells=join(map(cell, row))) for row in rows)
    return fill(
        '<div class="wide"><table$kind><thead><tr>$head</tr></thead><tbody>$body</tbody></table></div>',
        kind=fill(' class="$kind"', kind=kind) if kind else "",
        head=join(fill("<th>$x</th>", x=name) for name in head),
        body=join(body),
    )
