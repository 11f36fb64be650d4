"""A published model against its conversion, from waveform to vector: ssl-audio convert --check DIR

Both run in this process on the same sound: clips of several lengths, alone and in a batch.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from ssl_audio import convert
from ssl_audio.convert.files import read
from ssl_audio.convert.references import Found, Reference, load

LIMIT = 1e-4  # most relative difference where both define the same


@dataclasses.dataclass(frozen=True)
class Row:
    """How features of a clip differ, as |ours - theirs| / |theirs|.

    Attributes:
      clip, seconds: its name and length.
      company: "alone", or "in a batch" with all others.
      frames: of the features along time; infinite where there is another number of them; None:
        there are none.
      vector: of the clip's vector.
      why: what ours is where it is defined in another way; "": it is defined alike.
    """

    clip: str
    seconds: float
    company: str
    frames: float | None
    vector: float
    why: str

    @property
    def wrong(self) -> bool:
        """Whether the difference is too large for what is defined alike; not a number is, too."""
        values = [v for v in (self.frames, self.vector) if v is not None]
        return not self.why and not all(value <= LIMIT for value in values)


def compare(
    folder: pathlib.Path,
    audio: Sequence[str] = (),
    more: Mapping[str, Any] = MappingProxyType({}),
    *,
    strict: bool = False,
) -> tuple[str, list[Row], list[str]]:
    """Return a title, a row for each clip alone and in a batch, and the names of what was left out.

    Args:
      folder: of transformers: weights, config and feature extractor.
      audio: files, one after the other, again until they suffice; none: tones and noise.
      more: options of the conversion.
      strict: refuse a head that has no place.

    Raises:
      FileNotFoundError, ValueError, RuntimeError: see `references.load`, `files.read`,
        `convert.from_state_dict`.
    """
    from ssl_audio.inference.load import load as open_model
    from ssl_audio.storage import exported

    family, reference = load(folder)
    import torch  # it is there, or there were no reference

    state, options = read(folder)
    if (
        options.get("preprocessor", {}).get("sampling_rate", 16_000) != 16_000
        and family == "hf_ast"
    ):
        from transformers.utils import is_speech_available

        options["torchaudio"] = is_speech_available()
    converted = convert.from_state_dict(family, state, strict=strict, **options | dict(more))
    lengths = {name: round(s * reference.rate) for name, s in reference.lengths.items()}
    sound = voice(audio, reference.rate, max(lengths.values()))
    clips = {name: sound[:count] for name, count in lengths.items()}
    with tempfile.TemporaryDirectory() as out:
        exported.write(out, converted.params, converted.config)
        model = dataclasses.replace(open_model(out), batch_size=2)
    rows = []
    with torch.no_grad(), jax.default_matmul_precision("highest"):
        for together in (False, True):
            groups = [list(clips)] if together else [[name] for name in clips]
            for names in groups:
                group = [clips[name] for name in names]
                theirs = reference.run(group)
                for name, got, wanted in zip(
                    names, ours(model, group, reference), theirs, strict=True
                ):
                    frames = None if wanted[0] is None else difference(got[0], wanted[0])
                    rows.append(
                        Row(
                            name,
                            len(clips[name]) / reference.rate,
                            "in a batch" if together else "alone",
                            frames,
                            difference(got[1], wanted[1]),
                            reference.differs(name, together),
                        )
                    )
    sizes = f"{len(state)} arrays, {sum(v.size for v in state.values()):,} values"
    return f"{reference.model.config.model_type} ({sizes})", rows, list(converted.left)


def ours(model: Any, clips: Sequence[np.ndarray], reference: Reference) -> list[Found]:
    """Return our features of clips that are given at once."""
    if hasattr(model, "embed_audio"):
        vectors = model.embed_audio(list(clips), reference.rate)
        return [(None, vector) for vector in vectors]
    vectors = model.embed(list(clips), reference.rate, pool=reference.pool)
    frames = dict(model.stream(model.clips(list(clips), reference.rate)))
    return [(frames[i][0], vector) for i, vector in enumerate(vectors)]


def difference(got: np.ndarray | None, wanted: np.ndarray) -> float:
    """Return |got - wanted| / |wanted|; infinite where shapes differ."""
    if got is None or got.shape != wanted.shape:
        return float("inf")
    apart = np.linalg.norm(np.asarray(got, np.float64) - wanted)
    return float(apart / np.linalg.norm(np.asarray(wanted, np.float64)))


def table(title: str, rows: Sequence[Row], left: Sequence[str]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [
        f"{title}: |ours - theirs| / |theirs|; wanted at most {LIMIT:g} where both define the same",
        "",
        "| clip | given | frames | clip vector | |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        frames = "none" if row.frames is None else f"{row.frames:.1e}"
        frames = "another number" if row.frames == float("inf") else frames
        end = row.why or ("**above the limit**" if row.wrong else "same definition")
        lines.append(
            f"| {row.clip}, {row.seconds:g} s | {row.company} | {frames} | {row.vector:.1e} | {end} |"
        )
    if left:
        lines += ["", f"no place for a head, left out: {', '.join(left)}"]
    return "\n".join(lines)


def voice(files: Sequence[str], rate: int, samples: int) -> np.ndarray:
    """Return sound [samples] at a rate: of files, or a synthetic voice in noise."""
    if files:
        from ssl_audio.data.decode import decode

        found = np.concatenate([decode(file, rate) for file in files])
        return np.tile(found, -(-samples // len(found)))[:samples]
    time = np.arange(samples) / rate
    rng = np.random.default_rng(0)
    glide = 2 * np.pi * np.cumsum(150 + 50 * np.sin(2 * np.pi * 0.7 * time)) / rate
    voice = sum(np.sin(n * glide) / n for n in range(1, 30)) * (1 + np.sin(2 * np.pi * 3 * time))
    return (0.05 * voice + 0.01 * rng.standard_normal(samples)).astype(np.float32)
