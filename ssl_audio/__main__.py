"""The command line: `ssl-audio VERB …`, the same as `python -m ssl_audio VERB …`.

Every verb goes through `main`: one preamble (CPU settings, logs, compilation cache, errors) for all.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from ssl_audio import startup

# verb: (module whose `main` it is, what it does)
VERBS = {
    "train": ("train.loop", "train what a config describes: pretraining, fine-tuning"),
    "preview": ("train.preview", "what a run will need: parameters, memory, FLOPs, collectives"),
    "stages": ("train.stages", "train in turns: runs that need one another's results"),
    "folds": ("eval.folds", "train and test on the folds of a data set"),
    "prepare": ("data.prepare", "decode and resample a data set once, into shards"),
    "embed": ("inference.embed", "features of files of any length"),
    "search": ("inference.search", "find sounds by words or by example"),
    "kmeans": ("inference.kmeans", "codes to predict, by k-means (HuBERT)"),
    "evaluate": ("eval.evaluate", "linear probe and kNN of frozen features"),
    "zero-shot": (
        "eval.audio_text",
        "labels in words, retrieval and order, of an audio-text model",
    ),
    "report": ("eval.report", "a run, or several side by side, as one HTML page"),
    "convert": ("convert.command", "published weights of another library to ours"),
    "export": ("convert.export", "a run as config.json and safetensors"),
    "bench": ("bench.command", "measure speed and memory here"),
    "compile-scan": ("layers.scan.cpp", "compile the selective scan in C++ for this CPU"),
}
RENAMED = {"cluster": "kmeans", "iterate": "stages", "zero_shot": "zero-shot"}  # since 0.1
AS_IS = ("preview", "search", "convert", "export", "compile-scan")  # gain nothing by `tune_cpu`


def main(argv: Sequence[str] | None = None) -> None:
    """Run a verb with its arguments; default: those of the program.

    Raises:
      SystemExit: on --help, on an error, on an unknown verb.
    """
    verb, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help"):
        print(usage())
        return
    if verb not in VERBS:
        close = [RENAMED[verb]] if verb in RENAMED else difflib.get_close_matches(verb, VERBS, 1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise SystemExit(f"ssl-audio: no verb '{verb}'.{hint} There are {', '.join(VERBS)}.")
    asks = {"-h", "--help"} & set(rest)
    if argv is None and verb not in AS_IS and not asks:
        startup.tune_cpu()
    startup.logs()
    if not asks:
        startup.use_compilation_cache()
    module = importlib.import_module(f"ssl_audio.{VERBS[verb][0]}")
    startup.run(lambda: module.main(rest))


def usage() -> str:
    """Return the verbs, a line each."""
    wide = max(map(len, VERBS))
    lines = [f"  {verb:{wide}}  {what}" for verb, (_, what) in VERBS.items()]
    return "\n".join(
        [
            "usage: ssl-audio VERB …",
            "",
            "Pretrain, adapt and use self-supervised audio encoders.",
            "",
            *lines,
            "",
            "ssl-audio VERB --help lists a verb's options.",
        ]
    )


if __name__ == "__main__":
    main()
