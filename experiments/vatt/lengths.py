"""Count programs and processor seconds of embedding clips of many lengths with the toy's tower, untrained.

python experiments/vatt/lengths.py --fsdd RECORDINGS
"""

import argparse
import dataclasses
import pathlib
import random
import time
from typing import Any

import jax
import numpy as np
import soundfile

from ssl_audio import config, config_files
from ssl_audio.inference.encoder import Encoder


def main() -> None:
    """Print both."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--fsdd", required=True, help="folder of Free Spoken Digit's recordings")
    made.add_argument("--clips", type=int, default=50)
    args = made.parse_args()
    paths = sorted(pathlib.Path(args.fsdd).glob("*.wav"))
    paths = random.Random(0).sample(paths, args.clips)
    clips = [np.asarray(soundfile.read(path, dtype="float32")[0]) for path in paths]
    options = config.plain(config_files.load("vatt:laptop"))
    tower = options["objective"]["towers"]["audio"]
    parts = {name: tower[name] for name in ("frontend", "tokenizer", "encoder")}
    built: Any = config.build({"kind": "features", **parts}, "objectives")
    empty = Encoder(built, {}, {**options, "objective": {"kind": "features", **parts}})
    params, _ = jax.jit(built.init)(jax.random.key(0), empty.blank())
    encoder = dataclasses.replace(empty, params=jax.tree.map(np.asarray, params))
    before = time.process_time()
    encoder.embed(clips, encoder.rate)
    spent = time.process_time() - before
    print(f"{len(encoder._compiled)} programs, {spent:.1f} s")


if __name__ == "__main__":
    main()
