"""The command line: `ssl-audio VERB …`, the same as `python -m ssl_audio VERB …`.

Every verb goes through `main`: one preamble (CPU settings, logs, compilation cache, errors) for all.
A verb is a module with `parser()` and `main(argv)`, which parses first and then imports what it needs.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from ssl_audio import startup
from ssl_audio.versions import __version__

# verb: (module, what it does)
VERBS = {
    "train": ("train.command", "train what a config describes: pretraining, fine-tuning"),
    "finetune": ("eval.finetune", "train a classifier of your own labels"),
    "preview": ("train.preview", "what a run will need: parameters, memory, FLOPs, collectives"),
    "stages": ("train.stages", "train stages in turn, each on results of the one before"),
    "folds": ("eval.folds", "train and test on the folds of a data set"),
    "configs": ("config_files", "the configs of this package: list, show, copy"),
    "prepare": ("data.prepare", "decode and resample a data set once, into shards"),
    "embed": ("inference.embed", "features of files of any length"),
    "predict": ("inference.predict", "classes of files or of windows of them, as a table"),
    "caption": ("eval.caption_verb", "what is heard in files, in words: a table"),
    "generate": ("inference.generate", "sound from words: files and a manifest"),
    "search": ("inference.search", "find sounds by words or by example"),
    "label": ("explore.label", "label sounds where it helps most: a page that learns"),
    "explore": ("explore.command", "look at, listen to and label sounds in a browser"),
    "kmeans": ("inference.kmeans", "codes to predict, by k-means (HuBERT)"),
    "separate": ("inference.separate", "get sounds out of a mixture: by class, example or words"),
    "events": ("eval.events", "onsets and offsets of what is heard: tables, Raven, Audacity"),
    "evaluate": ("eval.evaluate", "linear probe and kNN of frozen features"),
    "benchmark": (
        "eval.benchmark",
        "every task whose data are there, of several models, as one table",
    ),
    "zero-shot": ("eval.audio_text", "labels in words, retrieval and order: audio-text models"),
    "gallery": ("eval.gallery_verb", "clips by video, words or both: recall, rank, precision"),
    "judge": ("eval.judge", "how good generated sound is: Fréchet distance, classes, words"),
    "report": ("eval.report", "a run, or several side by side, as one HTML page"),
    "convert": ("convert.command", "published weights of another library to ours"),
    "export": ("convert.export", "a run as config.json and safetensors"),
    "push": ("convert.push", "an exported folder to the Hugging Face Hub"),
    "bench": ("bench.command", "measure speed and memory here"),
    "compile-scan": ("bench.compile_scan", "compile the selective scan in C++ for this CPU"),
}
RENAMED = {"cluster": "kmeans", "iterate": "stages", "zero_shot": "zero-shot"}  # since 0.1
TRAINING = (
    "train",
    "finetune",
    "stages",
    "folds",
    "bench",
)  # steps, long enough to start again for
# They gain nothing by `tune_cpu`.
AS_IS = (
    "configs", "preview", "search", "explore", "label", "convert", "export", "push", "compile-scan",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run a verb with its arguments; default: those of the program.

    Raises:
      SystemExit: on --help, on an error, on an unknown verb.
    """
    verb, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help", "--version"):
        print(f"ssl_audio {__version__}" if verb == "--version" else usage())
        return
    if verb not in VERBS:
        close = [RENAMED[verb]] if verb in RENAMED else difflib.get_close_matches(verb, VERBS, 1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        print(f"ssl-audio: no verb '{verb}'.{hint} There are {', '.join(VERBS)}.", file=sys.stderr)
        raise SystemExit(2)
    # `preview --save` compiles for `train`, so with the same settings.
    as_is = verb in AS_IS and not any(word.startswith("--save") for word in rest)
    if argv is None and not as_is and not {"-h", "--help"} & set(rest):
        startup.tune_cpu(restart=verb in TRAINING)
    startup.logs()
    startup.use_compilation_cache()
    startup.run(lambda: module(verb).main(rest), [verb, *rest])


def module(verb: str) -> Any:
    """Import the module of a verb."""
    return importlib.import_module(f"ssl_audio.{VERBS[verb][0]}")


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
            "ssl-audio VERB --help lists a verb's options; ssl-audio --version says which this is.",
        ]
    )


if __name__ == "__main__":
    main()
