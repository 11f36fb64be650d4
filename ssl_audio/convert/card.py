"""The model card that `export --to hub` writes: README.md with the metadata that the Hub reads.

What is not known is called unknown. Values are written as JSON, which YAML reads, so a name such as "no"
stays text and numbers are plain floats.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ssl_audio import config as configs
from ssl_audio.storage import checkpoint, hub, opened, written
from ssl_audio.train import record
from ssl_audio.versions import __version__

UNKNOWN = "unknown"
SPEED = (*record.SPEED, "lr", "skipped", "gradient_norm")  # say nothing about the model


@dataclasses.dataclass(frozen=True)
class Data:
    """A collection that a model was trained on; what is not known of it is None or UNKNOWN."""

    name: str
    clips: int | None
    licence: str = UNKNOWN
    citation: str = ""
    url: str = ""
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a card says.

    Attributes:
      name: of the model.
      config: of the run.
      parameters: their number.
      step: of the checkpoint; None: not known, as of converted weights.
      data: collections of the training, in the order of their names.
      metrics: of the run at that step, by name.
      probes: (file, metric, value) of what `evaluate` and `zero-shot` wrote into the run.
      licence: of the model.
      published: (folder, class of transformers) of the same parameters under their names; None: none.
    """

    name: str
    config: Mapping[str, Any]
    parameters: int
    step: int | None = None
    data: tuple[Data, ...] = ()
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    probes: tuple[tuple[str, str, float], ...] = ()
    licence: str = UNKNOWN
    published: tuple[str, str] | None = None


def facts(
    where: pathlib.Path,
    params: Any,
    config: Mapping[str, Any],
    step: int | str | None,
    *,
    name: str,
    licence: str = UNKNOWN,
    published: tuple[str, str] | None = None,
) -> Facts:
    """Return what is known about a run, or about an exported folder.

    Args:
      where: its folder.
      params: of the model.
      config: of the run.
      step: which checkpoint was taken; see `checkpoint.load_params`.
      name: of the model.
      licence: of the model, as its author says.
      published: see `Facts`.
    """
    found = checkpoint.steps(where, "best" if step == "best" else "checkpoints")
    number = step if isinstance(step, int) else (found[-1] if found else None)
    meta = checkpoint.meta(where, number) or checkpoint.meta(where)
    metrics = {} if number is None else record.at(where / "metrics.jsonl", number)
    return Facts(
        name=name,
        config=config,
        parameters=sum(int(np.size(x)) for x in jax.tree.leaves(params)),
        step=number,
        data=tuple(_data(config, meta)),
        metrics=_plain(metrics),
        probes=tuple(_probes(where)),
        licence=licence,
        published=published,
    )


def _plain(metrics: Mapping[str, Any]) -> dict[str, float]:
    found = {k: v for k, v in metrics.items() if isinstance(v, (int, float)) and k not in SPEED}
    return {k: float(v) for k, v in found.items() if math.isfinite(v)}


def _data(config: Mapping[str, Any], meta: Mapping[str, Any]) -> list[Data]:
    """Return the collections of a run's config; those whose files are not here with their names alone."""
    counts = meta.get("data", {})
    found = []
    for name, options in sorted(written.sources(config.get("data", {})).items()):
        clips = counts.get(name, {}).get("clips")
        try:
            source = configs.build(dict(options), "data")
            info = source.info
            clips = len(source) if clips is None else clips
        except Exception:  # whatever its files being elsewhere makes a source raise
            found.append(Data(name, clips))
            continue
        found.append(
            Data(info.name or name, clips, info.licence, info.citation, info.url, info.labels)
        )
    return found


def _probes(where: pathlib.Path) -> list[tuple[str, str, float]]:
    """Return the means that evaluators wrote into a run's folder `evals`."""
    found = []
    for path in sorted((where / "evals").glob("*.jsonl")):
        for row in opened.json_lines(path, "the records that `ssl-audio evaluate` writes"):
            if row.get("fold", "mean") != "mean":
                continue
            about = [str(row[k]) for k in ("features", "classifier", "layer") if k in row]
            said = {k: v for k, v in _plain(row).items() if k not in ("layer", "clips", "choice")}
            found += [(path.stem, ", ".join([key, *about]), value) for key, value in said.items()]
    return found


def text(facts: Facts) -> str:
    """Return the card: YAML between lines of dashes, then Markdown."""
    sections = [
        f"---\n{yaml(_metadata(facts))}---\n",
        f"# {_line(facts.name)}\n",
        _what(facts),
        _how(facts),
        _trained(facts),
        _results(facts),
        _classes(labels(facts)),
        f"Written by ssl_audio {__version__}.\n",
    ]
    return "\n".join(section for section in sections if section)


def _metadata(facts: Facts) -> dict[str, Any]:
    classes = labels(facts)
    objective = facts.config["objective"]
    task = "audio-classification" if classes or "head" in objective else "feature-extraction"
    found: dict[str, Any] = {
        "library_name": "ssl_audio",
        "license": facts.licence,
        "pipeline_tag": task,
        "tags": ["audio", "jax", "ssl_audio", str(objective["kind"])],
    }
    if base := _base(facts.config):
        found["base_model"] = base
    measured = [(n, v) for n, v in facts.metrics.items() if "/" in n]  # of evaluators
    if measured:
        found["model-index"] = [
            {
                "name": facts.name,
                "results": [
                    {
                        "task": {"type": task},
                        "dataset": {
                            "name": (name := _set(facts.config, set_name)),
                            "type": _slug(name),
                        },
                        "metrics": [
                            {"type": _slug(n.partition("/")[2]), "name": n, "value": value}
                            for n, value in measured
                            if n.partition("/")[0] == set_name
                        ],
                    }
                    for set_name in dict.fromkeys(n.partition("/")[0] for n, _ in measured)
                ],
            }
        ]
    return found


def _set(config: Mapping[str, Any], evaluator: str) -> str:
    """Return what an evaluator's clips are called: their collection, where its files are here."""
    options = config.get("evals", {}).get(evaluator, {})
    try:
        return f"{configs.build(dict(options['source']), 'data').info.name} ({evaluator})"
    except Exception:  # as in `_data`
        return evaluator


def labels(facts: Facts) -> tuple[str, ...]:
    """Return the names of the classes: the config's, else those that all collections agree on."""
    if known := written.labels(facts.config):
        return known
    classes = written.entry(facts.config, "label").get("classes")
    found = {data.labels for data in facts.data}
    names = found.pop() if len(found) == 1 else ()
    return names if len(names) == classes else ()


def _base(config: Mapping[str, Any]) -> list[str]:
    starts = config.get("warm_start", {}).values()
    places = [str(start.get("path")) for start in starts if isinstance(start, dict)]
    return sorted({hub.parse(place).name for place in places if hub.is_address(place)})


def _what(facts: Facts) -> str:
    objective = facts.config["objective"]
    frontend = objective.get("frontend", {})
    rate = frontend.get("rate") or facts.config.get("data", {}).get("rate", 16_000)
    samples = written.entry(facts.config, "audio").get("samples")
    rows = [("Objective", f"`{objective['kind']}`"), ("Parameters", f"{facts.parameters:,}")]
    rows += [("Sampling rate", f"{rate} Hz")] if samples else []
    rows += [("Length of a clip", f"{samples / rate:g} s")] if samples else []
    if classes := len(labels(facts)):
        several = objective.get("criterion", "softmax") != "softmax"
        rows.append(("Classes", f"{classes}, {'several' if several else 'one'} per clip"))
    return _table(("", ""), rows)


def _how(facts: Facts) -> str:
    words = "pip install 'ssl_audio[hub]'"
    use = "vector = model.embed(waveform, sample_rate=44_100)  # mono, in [-1, 1] → [D]"
    if labels(facts):
        use = 'table = model.predict("sound.wav")  # names and probabilities of classes'
    elif written.entry(facts.config, "text"):
        use = "vectors = model.embed_audio(waveform, sample_rate=44_100)"
    lines = [
        "## How to load it\n",
        f"```bash\n{words}\n```\n",
        "```python\nimport ssl_audio\n\n"
        f'model = ssl_audio.load("hf://OWNER/NAME")  # or the folder\n{use}\n```\n',
    ]
    if facts.published:
        folder, kind = facts.published
        lines.append(
            "The same parameters under the names of transformers:\n\n"
            "```python\nfrom transformers import AutoFeatureExtractor, "
            f"{kind}\n\nmodel = {kind}.from_pretrained("
            f'"OWNER/NAME", subfolder="{folder}")\n'
            f'extractor = AutoFeatureExtractor.from_pretrained("OWNER/NAME", subfolder="{folder}")\n```\n'
        )
    return "\n".join(lines)


def _trained(facts: Facts) -> str:
    optim, data = facts.config.get("optim", {}), facts.config.get("data", {})
    lines = ["## What it was trained on\n"]
    if not facts.data:
        lines.append(f"{UNKNOWN.capitalize()}: its config names no data.\n")
    else:
        rows = [
            (f"[{_line(d.name)}]({d.url})" if d.url else _line(d.name),
             UNKNOWN if d.clips is None else f"{d.clips:,}", _line(d.licence))
            for d in facts.data
        ]  # fmt: skip
        lines.append(_table(("collection", "clips", "licence"), rows))
        lines += [f"{_line(d.citation)}\n" for d in facts.data if d.citation]
    if facts.step is not None:
        batch = data.get("batch_size")
        each = f" of {batch} clips, {facts.step * batch:,} in all" if batch else ""
        rule = f"; learning rate {optim['lr']:g} at most" if _number(optim.get("lr")) else ""
        lines.append(f"{facts.step:,} steps{each}{rule}.\n")
    lines += [f"It began from {', '.join(base)}.\n"] if (base := _base(facts.config)) else []
    lines.append(f"Licence of the model: {facts.licence}.\n")
    return "\n".join(lines)


def _results(facts: Facts) -> str:
    rows = [(f"`{name}`", f"{value:.4g}") for name, value in sorted(facts.metrics.items())]
    rows += [(f"{_line(file)}: {_line(metric)}", f"{v:.4g}") for file, metric, v in facts.probes]
    if not rows:
        return ""
    about = (
        "Measured by the run itself at the step of this checkpoint: names with a slash are of an evaluator "
        "on clips kept back, the others means over training batches. Names with a colon are of files that "
        "`ssl-audio evaluate` wrote.\n"
    )
    return f"## Results\n\n{about}\n{_table(('metric', 'value'), rows)}"


def _classes(names: Sequence[str]) -> str:
    if not names:
        return ""
    return "## Classes\n\n" + "".join(f"{i}. {_line(n)}\n" for i, n in enumerate(names))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _line(value: str) -> str:
    """Return a name from disk as text that Markdown takes for nothing else."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(str(value).split()))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "unnamed"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def yaml(value: Any, indent: int = 0) -> str:
    """Return objects, lists, texts and numbers as YAML that every version of it reads alike."""
    lead, lines = "  " * indent, []
    if isinstance(value, Mapping):
        entries = [(f"{key}:", entry) for key, entry in value.items()]
    else:
        entries = [("-", entry) for entry in value]
    for mark, entry in entries:
        if isinstance(entry, (Mapping, list, tuple)) and entry:
            lines.append(f"{lead}{mark}\n{yaml(entry, indent + 1)}")
        else:
            lines.append(f"{lead}{mark} {_scalar(entry)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    if isinstance(value, (bool, int, str)) or value is None:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and math.isfinite(value):
        # YAML 1.1 takes "1e-05" for text: it wants a point before the exponent.
        mantissa, exponent, rest = repr(value).partition("e")
        return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}{exponent}{rest}"
    raise TypeError(f"metadata of the card: got {type(value).__name__}, wanted text or a number.")
