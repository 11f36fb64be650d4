"""Which encoders export to StableHLO and ONNX: python experiments/share/table.py [CONFIG…]

Small models of the configs (`runlocal`) with random parameters; needs the extras stablehlo and onnx. Prints
a row per config: the largest relative difference from ours in batches of one and three, or why not.
"""

import pathlib
import sys
import tempfile

import jax
import numpy as np

from ssl_audio import config as configs
from ssl_audio import config_files
from ssl_audio.convert import onnx_file, stablehlo
from ssl_audio.inference.load import load
from ssl_audio.storage import exported

SECONDS = {"wav2vec2": 1.0, "hubert": 1.0, "data2vec": 1.0}


def model(folder: pathlib.Path, name: str) -> None:
    """Write a config's small model with random parameters."""
    options = configs.plain(config_files.load(f"{name}:runlocal"))
    objective = configs.build(options["objective"], "objectives")
    entries = options["data"]["entries"]
    batch = {
        "audio": np.zeros((1, entries["audio"]["samples"]), np.float32),
        "length": np.full(1, entries["audio"]["samples"], np.int32),
        "text": np.zeros((1, 8), np.int32),
        "text_length": np.ones(1, np.int32),
    }
    shapes = jax.eval_shape(objective.init, jax.random.key(0), batch)[0]
    rng = np.random.default_rng(0)

    def draw(path, shape):
        value = rng.normal(0, 0.1, shape.shape).astype(np.float32)
        return np.abs(value) + 0.5 if "var" in str(path[-1]) else value

    exported.write(folder, jax.tree_util.tree_map_with_path(draw, shapes), options)


def main() -> None:
    """Print the table."""
    names = sys.argv[1:] or sorted(config_files.packaged().keys() - {"finetune"})
    print("| config | StableHLO | ONNX |\n|---|---|---|")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            out, cells = pathlib.Path(folder), []
            try:
                model(out, name)
                load(out)
            except Exception as error:
                print(f"| {name} | not made: {str(error)[:150]} | |", flush=True)
                continue
            for writer in (stablehlo, onnx_file):
                try:
                    lines = list(writer.write(out, seconds=SECONDS.get(name)))
                    cells.append(
                        lines[-1 - (writer is stablehlo)].rpartition("off by ")[2].split()[0]
                    )
                except Exception as error:
                    cells.append(" ".join(str(error).replace(str(out), "…").split())[:220])
            print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
