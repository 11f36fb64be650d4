"""The results as Markdown, a table for each part."""

import json
from collections.abc import Sequence
from typing import Any

HIDDEN = {"spread", "calls", "took", "begun", "part", "device", "labels", "top", "note"}
IN_GB = {"compiled_bytes": "compiled GB", "peak_bytes": "peak GB"}


def table(rows: Sequence[dict[str, Any]], parts: Sequence[str]) -> str:
    """Return the last row of every measurement, part by part, with remarks and kernels below."""
    found = []
    for part in parts:
        mine = [row for row in rows if row["part"] == part]
        shown = {
            json.dumps(row["labels"], sort_keys=True): row
            for row in mine
            if "note" not in row and row["labels"].get("pass") != "compilation"
        }
        if not mine:
            continue
        device = next((row["device"] for row in mine if row["device"]), "")
        found.append(f"### {part}{f' ({device})' if device else ''}\n")
        if shown:
            found.append(_rows(list(shown.values())))
        for row in shown.values():
            for kernel in row.get("top", ()):
                name = ", ".join(map(str, row["labels"].values()))
                text = f"* {name}: {kernel['ms']:.3g} ms in {kernel['calls']} calls, "
                found.append(f"{text}`{kernel['kernel']}`")
        found += [f"* {row['note']}" for row in mine if "note" in row]
        found.append("")
    return "\n".join(found)


def _rows(rows: Sequence[dict[str, Any]]) -> str:
    flat = [row["labels"] | {k: v for k, v in row.items() if k not in HIDDEN} for row in rows]
    columns = list(dict.fromkeys(k for row in flat for k in row))
    lines = [[IN_GB.get(c, c) for c in columns], ["---"] * len(columns)]
    lines += [[_cell(c, row.get(c)) for c in columns] for row in flat]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column in IN_GB:
        return f"{value / 1e9:.3g}"
    if isinstance(value, dict):
        value = ", ".join(f"{k} {v}" for k, v in value.items())
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text.replace("|", "/").replace("\n", " ")[:160]
