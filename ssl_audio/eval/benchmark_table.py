"""The table and the figure of `ssl-audio benchmark`, from its records."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_audio.storage import atomic

Record = Mapping[str, Any]


def text(records: Sequence[Record]) -> str:
    """Return a page in Markdown: scores, means, what is missing, what failed, how it was asked."""
    names = list(dict.fromkeys(r["name"] for r in records))
    scored = [r for r in records if "value" in r]
    rows = {(r["task"], r["name"]): r for r in records}
    head = ["task", "group", "metric", "chance", "n", *names]
    lines = [head, ["---"] * len(head)]
    for task in dict.fromkeys(r["task"] for r in scored):
        first = next(r for r in scored if r["task"] == task)
        lines.append([
            f"`{task}`", first["group"], first["metric"], f"{first['chance']:z.3f}",
            str(first["count"]), *(_cell(rows.get((task, name))) for name in names),
        ])  # fmt: skip
    means = mean_above_chance(records)
    if means and len(names) > 0:
        count = next(iter(means.values()))[1]
        said = [f"{means[name][0]:z.3f}" if name in means else "" for name in names]
        lines.append([f"mean over {count} tasks that all have", "", "above chance", "0", "", *said])
    parts = [_markdown(lines)] if scored else ["No task was scored."]
    seeds = ", ".join(sorted({str(r["seed"]) for r in records}))
    most = sorted({r["most"] for r in records if r["most"]})
    limit = f", at most {', '.join(map(str, most))} clips of each set" if most else ""
    parts.append(
        f"In brackets 95 % confidence; seed {seeds}{limit}. "
        "Above chance: (score - chance) / (best - chance). -: does not apply."
    )
    asked = {r["task"]: r["how"] for r in scored if r["how"]}
    if asked:
        parts.append("\n".join(f"* `{task}`: {how}" for task, how in asked.items()))
    titles = dict(
        not_offered="Does not apply", absent="Data that are not there", failed="Not scored"
    )
    for key, title in titles.items():
        found: dict[tuple[str, str], list[str]] = {}
        for r in records:
            # Data are missing for all models alike; the others are a matter of one.
            place = (
                found.setdefault((r["name"] if key != "absent" else "", r[key]), [])
                if key in r
                else []
            )
            if r["task"] not in place:
                place.append(r["task"])
        if found:
            told = (
                f"* {name and f'{name}: '}{_listed(t)}: {why}" for (name, why), t in found.items()
            )
            parts.append(f"{title}:\n\n" + "\n".join(told))
    return "\n\n".join(parts) + "\n"


def mean_above_chance(records: Sequence[Record]) -> dict[str, tuple[float, int]]:
    """Return of each model the mean of (score - chance) / (best - chance) over the tasks that all have.

    Models without any score, and tasks without a best one (dB), do not count.
    """
    names = list(dict.fromkeys(r["name"] for r in records if "value" in r))
    by: dict[str, dict[str, float]] = {}
    for r in records:
        best = r.get("best", 1.0)
        if "value" in r and best is not None and r["chance"] != best:
            above = (r["value"] - r["chance"]) / (best - r["chance"])
            by.setdefault(r["task"], {})[r["name"]] = above
    shared = [found for found in by.values() if len(found) == len(names)]
    if not shared:
        return {}
    return {n: (sum(found[n] for found in shared) / len(shared), len(shared)) for n in names}


def figure(records: Sequence[Record], path: pathlib.Path) -> None:
    """Draw every score whose best is 1 with its interval, and chance, a row for each task."""
    import io

    from matplotlib.figure import Figure

    scored = [r for r in records if is_share(r)]
    tasks = list(dict.fromkeys(r["task"] for r in scored))
    names = list(dict.fromkeys(r["name"] for r in scored))
    drawn = Figure(figsize=(8, 1.2 + 0.32 * len(tasks)), layout="constrained")
    axis = drawn.subplots()
    for row in range(0, len(tasks), 2):
        axis.axhspan(row - 0.5, row + 0.5, color="0.95", zorder=0)
    for number, name in enumerate(names):
        own = [r for r in scored if r["name"] == name]
        spread = 0.6 * ((number + 0.5) / len(names) - 0.5)
        y = [tasks.index(r["task"]) + spread for r in own]
        x = [r["value"] for r in own]
        low = [max(0.0, r["value"] - r["low"]) for r in own]
        high = [max(0.0, r["high"] - r["value"]) for r in own]
        axis.errorbar(x, y, xerr=(low, high), fmt="o", ms=3.5, lw=1, label=name)
    chance = {r["task"]: r["chance"] for r in scored}
    axis.scatter(
        [chance[t] for t in tasks], range(len(tasks)), marker="|", s=120, color="black",
        label="chance", zorder=3,
    )  # fmt: skip
    axis.set_yticks(range(len(tasks)), tasks)
    axis.set(
        xlim=(min(0.0, *(r["low"] for r in scored)) - 0.02, 1.02), xlabel="score, 1 is perfect"
    )
    axis.set_ylim(len(tasks) - 0.5, -0.5)
    drawn.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=110)
    atomic.write(path, buffer.getvalue())


def is_share(record: Record) -> bool:
    """Tell whether a record is of a score from 0 to 1, and not of dB or a distance."""
    return "value" in record and record.get("best", 1.0) == 1


def _listed(tasks: Sequence[str], most: int = 6) -> str:
    more = f" and {len(tasks) - most} more" if len(tasks) > most else ""
    return ", ".join(f"`{task}`" for task in tasks[:most]) + more


def _cell(record: Record | None) -> str:
    if record is None or "not_offered" in record:
        return "-"
    if "value" not in record:
        return "failed" if "failed" in record else ""
    return f"{record['value']:z.3f} ({record['low']:z.2f} to {record['high']:z.2f})"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
