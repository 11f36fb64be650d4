"""Classify ESC-10 clips with an AST: transformers' audio-classification pipeline beside `Classifier.predict`.

    taskset -c 1 python experiments/predict/throughput.py --size base --rounds 7

One model with random weights, converted from the one that is timed beside it; both take the same waveforms
of 5 s at 16 kHz. Processor time of this process, the sides alternated, medians. Needs torch, transformers.
"""

import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ssl_audio import startup

startup.tune_cpu()  # as every command does, before JAX begins

from ssl_audio.convert import command  # noqa: E402
from ssl_audio.data.decode import decode  # noqa: E402
from ssl_audio.inference.load import load  # noqa: E402
from ssl_audio.presets.patch_encoders import SIZES  # noqa: E402

RATE = 16_000
CLASSES = 527
KINDS = ("transformers", "predict", "predict, pad=columns")


def main() -> None:
    """Measure and print a table; all times go into --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="base")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clips", type=int, default=2, help="in each round, on each side")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    folder = pathlib.Path(os.environ["SSL_AUDIO_SHARED"], "data/esc10/audio")
    files = sorted(folder.iterdir())[:: 400 // args.clips][: args.clips]
    clips = [decode(path, RATE) for path in files]
    with tempfile.TemporaryDirectory() as scratch:
        theirs, ours = models(args.size, pathlib.Path(scratch))
    calls: dict[str, Callable[[], Any]] = {
        # The pipeline takes what it is given apart, so it gets a new dictionary each time.
        KINDS[0]: lambda: theirs(
            [{"raw": clip, "sampling_rate": RATE} for clip in clips], top_k=CLASSES
        ),
        KINDS[1]: lambda: ours.predict(clips, RATE),
        KINDS[2]: lambda: ours.predict(clips, RATE, pad="columns"),
    }
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    results = {kind: call() for kind, call in calls.items()}  # compiles
    differences(results, clips, ours)
    for number in range(args.rounds):
        for kind in KINDS if number % 2 else KINDS[::-1]:
            begin = time.process_time()
            calls[kind]()
            times[kind].append((time.process_time() - begin) / len(clips))
    print(
        f"AST-{args.size}, {args.rounds} rounds of {args.clips} clips; load {os.getloadavg()[0]:.0f}"
    )
    theirs_cpu = statistics.median(times[KINDS[0]])
    for kind, some in times.items():
        median = statistics.median(some)
        spread = f"{min(some):.3f} to {max(some):.3f}"
        print(f"{kind:22} {median:7.3f} s a clip ({spread}), {theirs_cpu / median:5.2f} x")
    if args.json:
        args.json.write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")


def models(size: str, scratch: pathlib.Path) -> tuple[Any, Any]:
    """Return transformers' pipeline of an AST with random weights, and the same converted."""
    import torch
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, pipeline

    width, depth, heads, _ = SIZES[size]
    sizes: dict[str, Any] = dict(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        num_labels=CLASSES,
        problem_type="single_label_classification",
    )
    torch.manual_seed(0)
    model = ASTForAudioClassification(ASTConfig(**sizes)).eval()
    extractor = ASTFeatureExtractor()
    model.save_pretrained(scratch / "theirs")
    extractor.save_pretrained(scratch / "theirs")
    command.main(
        ["--from", "hf_ast", "--checkpoint", f"{scratch}/theirs", "--out", f"{scratch}/ours"]
    )
    pipe: Any = pipeline
    found = pipe("audio-classification", model=model, feature_extractor=extractor, device="cpu")
    return found, load(scratch / "ours")


def differences(results: dict[str, Any], clips: list[np.ndarray], ours: Any) -> None:
    """Print how far the probabilities of the sides are apart, relative to the largest."""
    found = []
    for answers in results[KINDS[0]]:
        scores = {answer["label"].removeprefix("LABEL_"): answer["score"] for answer in answers}
        found.append([scores[name] for name in map(str, range(CLASSES))])
    for pad in (None, "columns"):
        mine = [ours.scores(clip, RATE, pad=pad).values[0] for clip in clips]
        far = np.abs(np.array(mine) - np.array(found)).max() / np.max(found)
        print(f"pad={pad}: probabilities differ by {far:.1e} of the largest")


if __name__ == "__main__":
    main()
