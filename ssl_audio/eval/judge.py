"""How good generated sound is: ssl-audio judge --generated DIR --recorded DIR --embedding RUN --output FILE

Fréchet distance of embeddings (of all clips, and of each clip's frames), what a classifier hears in clips and
in those of the same name, cosine with a clip's text, log-mel distance, codes in use. DIR is a folder, whose
sub-folders are classes, or a table with columns path, text, label. Results: JSON.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio import config, startup
from ssl_audio.eval import generated as measures
from ssl_audio.inference import kinds
from ssl_audio.storage import atomic

LOG_MEL = "logmel"  # an embedding that needs no model
WORST = 5  # clips that are named


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio judge`."""
    made = startup.parser("judge", __doc__)
    made.add_argument("--generated", required=True, metavar="DIR", help="a folder, or a table")
    made.add_argument("--recorded", required=True, metavar="DIR", help="likewise")
    made.add_argument(
        "--embedding", default=LOG_MEL, metavar="RUN",
        help=f"an encoder; default: {LOG_MEL}, mean and deviation over time of log-mel bands",
    )  # fmt: skip
    made.add_argument("--classifier", metavar="RUN", help="that hears the classes, as a tagger")
    made.add_argument("--words", metavar="RUN", help="a model of audio and text: the CLAP score")
    made.add_argument("--codec", metavar="RUN", help="whose codes of recorded clips are counted")
    made.add_argument("--rate", type=int, default=16_000, help="of log-mels, Hz; default: 16000")
    made.add_argument("--output", required=True, metavar="FILE", help="JSON")
    startup.add_trust(made)
    return made


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse the command line, measure, print and write."""
    args = parser().parse_args(argv)
    from ssl_audio.inference.load import load

    def model(option: str, kind: str) -> Any:
        path = getattr(args, option)
        if path is None:
            return None
        return kinds.check(load(path, trust=args.trust), kind, f"--{option} {path}")

    atomic.check(pathlib.Path(args.output))
    found = judge(
        args.generated,
        args.recorded,
        rate=args.rate,
        encoder=None
        if args.embedding == LOG_MEL
        else load(args.embedding, trust=args.trust).encoder,
        classifier=model("classifier", "classifier"),
        words=model("words", "sound and words"),
        codec=model("codec", "codec"),
    )
    found |= {"embedding": args.embedding}
    atomic.write(pathlib.Path(args.output), json.dumps(found, indent=1) + "\n")
    wide = max(map(len, found))
    print("\n".join(f"{name:{wide}}  {_shown(value)}" for name, value in found.items()))
    print(args.output)
    return found


def judge(
    generated: str,
    recorded: str,
    *,
    rate: int = 16_000,
    encoder: Any = None,
    classifier: Any = None,
    words: Any = None,
    codec: Any = None,
) -> dict[str, Any]:
    """Return what can be measured of generated clips; see `measures` for each.

    Args:
      generated, recorded: folders or tables.
      rate: of the log-mels, Hz.
      encoder: an `Encoder`, of whose vectors the Fréchet distance is; None: of log-mel statistics.
      classifier: a `Classifier`. "heard": the share of generated clips in which it hears their label;
        "divergence": of the probabilities of pairs. None: not measured.
      words: an `AudioTextModel`; the generated clips need texts. None: not measured.
      codec: a `CodecModel`, whose codes of recorded clips are counted. None: not measured.

    Raises:
      ValueError: no clips, texts or labels that are asked for are missing; see `measures`.
    """
    ours, theirs = (
        _source(place, encoder.rate if encoder else rate) for place in (generated, recorded)
    )
    found: dict[str, Any] = {"generated": len(ours), "recorded": len(theirs)}
    x, y = (_vectors(source, encoder) for source in (ours, theirs))
    found["frechet"] = measures.frechet(x, y)
    if encoder is not None:
        wanted = measures.gaussian(np.concatenate([f for _, f in _frames(theirs, encoder)]))
        names, clips = zip(*_frames(ours, encoder), strict=True)
        each = measures.each_frechet(clips, wanted)
        found["frechet of a clip's frames, median"] = float(np.nanmedian(each))
        order = [i for i in np.argsort(-each) if np.isfinite(each[i])][:WORST]
        found["farthest clips"] = {names[i]: float(each[i]) for i in order}
    pairs = _pairs(ours, theirs)
    if pairs:
        apart = [
            measures.log_mel_distance(ours[i]["audio"], theirs[k]["audio"], ours.rate)
            for i, k in pairs
        ]
        found |= {"pairs": len(pairs), "log-mel distance": float(np.mean(apart))}
    if classifier is not None:
        found |= _heard(classifier, generated, recorded)
    if words is not None:
        found["text agreement"] = _agreement(words, _source(generated, words.rate))
    if codec is not None:
        found |= _codes(codec, _source(recorded, codec.rate))
    return found


def _source(place: str, rate: int) -> Any:
    """Return the clips of a folder or of a table, at a rate, Hz."""
    if pathlib.Path(place).expanduser().is_file():
        options = dict(kind="source:Manifest", path=place, rate=rate)
    else:
        options = dict(kind="source:Folder", root=place, rate=rate)
    made: Any = config.build(options, "data")
    if len(made) < 2:
        raise ValueError(f"{place}: {len(made)} clips; wanted at least two, for their covariance.")
    return made


def _vectors(source: Any, encoder: Any) -> np.ndarray:
    """Return a vector [n, D] for each clip."""
    from ssl_audio.eval import features

    extract = (
        features.log_mel(source.rate, 64)
        if encoder is None
        else features.encoded(encoder, [-1], "mean")
    )
    _, found = features.matrix(source, extract)
    return found[:, 0]


def _frames(source: Any, encoder: Any) -> list[tuple[str, np.ndarray]]:
    """Return the name and the frames [T, D] of each clip."""
    found = []
    for i in range(len(source)):
        frames, _ = encoder.frames(source[i]["audio"], encoder.rate)
        rows = frames.reshape(len(frames), encoder.rows, -1)
        found.append((source.meta(i)["id"], rows.mean(1)))
    return found


def _pairs(ours: Any, theirs: Any) -> list[tuple[int, int]]:
    """Return the numbers of clips whose ids are the same but for the ending."""

    def names(source: Any) -> dict[str, int]:
        ids = (source.meta(i)["id"] for i in range(len(source)))
        return {str(pathlib.PurePath(name).with_suffix("")): i for i, name in enumerate(ids)}

    known = names(theirs)
    return [(i, known[name]) for name, i in names(ours).items() if name in known]


def _heard(classifier: Any, generated: str, recorded: str) -> dict[str, Any]:
    ours, theirs = (_source(place, classifier.rate) for place in (generated, recorded))
    found: dict[str, Any] = {}

    def probabilities(source: Any, numbers: Sequence[int]) -> np.ndarray:
        rate = classifier.rate
        return np.stack([classifier.scores(source[i]["audio"], rate).values[0] for i in numbers])

    labels = [ours.meta(i).get("label") for i in range(len(ours))]
    said = probabilities(ours, range(len(ours)))
    if all(isinstance(label, int) for label in labels):
        names = [ours.info.labels[label] for label in labels]
        if missing := sorted(set(names) - set(classifier.labels)):
            raise ValueError(
                f"{generated}: label {missing[0]!r} is none of the classifier's: "
                f"{', '.join(classifier.labels)}."
            )
        wanted = np.array([classifier.labels.index(name) for name in names])
        found["heard"] = float(np.mean(said.argmax(1) == wanted))
    if pairs := _pairs(ours, theirs):
        wanted = probabilities(theirs, [k for _, k in pairs])
        found["divergence"] = measures.divergence(wanted, said[[i for i, _ in pairs]])
    return found


def _agreement(words: Any, source: Any) -> float:
    texts = [source.meta(i).get("text") for i in range(len(source))]
    texts = [text[0] if isinstance(text, tuple) and text else text for text in texts]
    if missing := [i for i, text in enumerate(texts) if not text]:
        raise ValueError(
            f"{source.info.name}: clip {source.meta(missing[0])['id']} has no text; wanted a table with a "
            "column text, which was asked for."
        )
    clips = [source[i]["audio"] for i in range(len(source))]
    return measures.agreement(words.embed_audio(clips, words.rate), words.embed_text(texts))


def _codes(codec: Any, source: Any) -> dict[str, Any]:
    rows, apart = [], []
    for i in range(len(source)):
        audio = source[i]["audio"]
        codes = codec.encode(audio, codec.rate)
        decoded = codec.decode(codes, samples=len(audio))
        rows += list(codes.chunks)
        apart.append(measures.log_mel_distance(decoded, audio, codec.rate))
    used = measures.code_usage(np.concatenate(rows), codec.objective.quantizer.codes)
    return {
        "codes in use, share of each book": [round(book["share"], 4) for book in used],
        "codes in use, perplexity": [round(book["perplexity"], 2) for book in used],
        "codec, log-mel distance": float(np.mean(apart)),
    }


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
