"""The head of a run's page: what it learned from, how long, how large it is, and its last numbers.

All of it is read from the workdir; no data is opened, and nothing is computed.
"""

import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ssl_audio import config
from ssl_audio.eval.page import Html, fill, join, table
from ssl_audio.storage import checkpoint, items, opened, written
from ssl_audio.train import goodput, loggers, words

RECORDS = "the records that `ssl-audio train` writes"


def head(workdir: pathlib.Path, run: pathlib.Path, options: Mapping[str, Any], runs: int) -> Html:
    """Return the heading, the facts about a run, and its config to unfold; `runs`: how many there are."""
    path = run / "versions.json"
    versions = opened.json_file(path, "the versions that a run writes") if path.exists() else {}
    path = run / "config.txt"
    text = opened.text(path, "a config as text") if path.exists() else config.text(options)
    listed = (
        fill("<tr><th>$name</th><td>$value</td><td>$why</td></tr>", name=name, value=value, why=why)
        for name, value, why in facts(run, options)
        if value
    )
    several = f"{runs} runs; the facts are those of {run.name}" if runs > 1 else ""
    return fill(
        '<h1>$name</h1><p class="sub">$kind$several</p>'
        '<div class="wide"><table class="facts"><tbody>$facts</tbody></table></div>'
        "<details><summary>Configuration</summary><pre>$text</pre></details>"
        "<details><summary>Versions</summary><p>$versions</p></details>",
        name=workdir.name,
        kind=written.trained(str(run), "kind"),
        several=f"; {several}" if several else "",
        facts=join(listed),
        versions=", ".join(f"{name} {value}" for name, value in versions.items()),
        text=text,
    )


def facts(run: pathlib.Path, options: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (name, value, a word about it) of a run; "" is not known."""
    meta = checkpoint.meta(run)
    last = _last(run)
    step = int(last.get("step", 0)) or max(checkpoint.steps(run), default=0)
    batch = options.get("data", {}).get("batch_size", 0)
    sound = written.entry(options, "audio")
    rate = _rate(options)
    clips = f"{step * batch:,} clips" if step and batch else ""
    if clips and rate and isinstance(sound.get("samples"), int):
        each = sound["samples"] / rate
        clips += f" of {each:.3g} s: {step * batch * each / 3600:.3g} h"
    total = options.get("steps", "")
    steps = f"{step:,} of {total}" if step else str(total)
    count, learned = _parameters(run, options)
    size = f"{count / 1e6:.2f} million" if count else ""
    if count and learned < count:
        size += f", of which {learned / 1e6:.3f} million learned (adapters and head)"
    seconds = float(last.get("elapsed", 0.0))
    names = written.labels(options)
    ways = loggers.look(run)
    return [
        ("data", _data(meta, options), "what it was trained on, as the run found it"),
        ("classes", _few(names), "what the classifier tells apart"),
        ("heard", clips, "clips drawn over all steps, cut or padded to one length; repeats count"),
        ("steps", steps, "updates of the parameters; ep: epochs, each clip once"),
        ("parameters", size, "numbers that the model consists of"),
        ("time", duration(seconds), "over all starts, with compilation and evaluation"),
        ("device", str(meta.get("devices", "")), "number and kind of what computed it"),
        ("more", "; ".join(ways.values()), "commands that show its curves"),
    ]


def numbers(run: pathlib.Path, which: str) -> Iterator[Html]:
    """Yield a table of the newest value of everything that metrics.jsonl holds but times."""
    found: dict[str, tuple[int, float]] = {}
    for record in _records(run):
        for name, value in record.items():
            if name not in ("step", "elapsed", *goodput.NAMES):
                found[name] = int(record["step"]), value
    if found:
        evaluations = sorted(name for name in found if "/" in name)
        order = [*evaluations, *sorted(found.keys() - set(evaluations))]
        rows = [
            (name, _said(found[name][1]), found[name][0], words.meaning(name)) for name in order
        ]
        yield fill(
            "<h2>Last numbers$which</h2>$table",
            which=which,
            table=table(("name", "value", "at step", "meaning"), rows, "told"),
        )


def times(run: pathlib.Path) -> Iterator[Html]:
    """Yield which share of the run's time went where, by its last record that says so."""
    told = [record for record in _records(run) if all(n in record for n in goodput.NAMES)]
    if told:
        yield fill(
            "<h3>Where the time went</h3><p>$all in all.</p>", all=duration(told[-1]["elapsed"])
        )
        rows = [
            (kind, f"{told[-1][goodput.PREFIX + kind]:.1%}", words.meaning(goodput.PREFIX + kind))
            for kind in goodput.KINDS
        ]
        yield table(("kind", "share", "meaning"), rows, "told")


def duration(seconds: float) -> str:
    """Return a time for people; "": none."""
    if not seconds:
        return ""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


def _records(run: pathlib.Path) -> list[dict[str, float]]:
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    found = []
    for record in opened.json_lines(path, RECORDS):
        with opened.reading(path, f"{RECORDS}, names and numbers"):
            found.append({str(name): float(value) for name, value in record.items()})
            float(record["step"])
    return found


def _last(run: pathlib.Path) -> dict[str, float]:
    """Return the newest value of everything; a run without records: {}."""
    last: dict[str, float] = {}
    for record in _records(run):
        last |= record
    return last


def _said(value: float) -> str:
    if abs(value) < 1e9 and value == int(value):  # not where it is none, or without end
        return f"{value:.0f}"
    return f"{value:.3g}" if not 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"


def _data(meta: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Return name, clips, classes, hours and licence of each source, as far as they are known."""
    data, about = meta.get("data", {}), meta.get("sources", {})
    found = []
    for name in sorted(written.sources(options.get("data", {}))):
        known = about.get(name, {})
        said = [f"{known.get('title') or name}:"]
        if "clips" in data.get(name, {}):
            said.append(f"{data[name]['clips']:,} clips")
        if known.get("hours"):
            said.append(f"({known['hours']:.3g} h)")
        if known.get("classes"):
            said.append(f"of {known['classes']} classes")
        if known.get("licence", "unknown") != "unknown":
            said.append(f"({known['licence']})")
        found.append(" ".join(said) if len(said) > 1 else said[0].rstrip(":"))
    return "; ".join(found)


def _rate(options: Mapping[str, Any]) -> int:
    """Return the sample rate of the batches, Hz; 16 kHz is what a config need not say."""
    rate = options.get("data", {}).get("rate", 16_000)
    return rate if isinstance(rate, int) and rate > 0 else 0


def _few(names: tuple[str, ...], most: int = 12) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)}: {', '.join(names[:most])}{more}"


def _parameters(run: pathlib.Path, options: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many parameters there are, and how many of them learn; (0, 0): not known."""
    found = checkpoint.steps(run)
    sizes = items.sizes(run / "checkpoints" / str(found[-1]) / "params") if found else {}
    adapt, learns = options.get("adapt"), ".*"
    if adapt:
        learns = config.build(adapt, "layers", path="config.adapt").trains(learns)
    return sum(sizes.values()), sum(n for name, n in sizes.items() if re.search(learns, name))
