"""Memory of `predict --window 1 --hop 0.5` for one minute of sound, and then for three hours of it.

    python experiments/predict/long.py FOLDER

FOLDER: the one in which killed.py left its model.
"""

import pathlib
import resource
import sys

import numpy as np
import soundfile

from ssl_audio import startup
from ssl_audio.inference import predict

RATE = 16_000


def main() -> None:
    """Write both files, classify them in this process, print its peak memory after each."""
    startup.tune_cpu()
    folder = pathlib.Path(sys.argv[1])
    rng = np.random.default_rng(0)
    minute = (3000 * rng.standard_normal(60 * RATE)).astype(np.int16)
    peaks = []
    for minutes in (1, 180):
        path = folder / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
            for i in range(minutes):
                file.write(np.roll(minute, i))
        given = ["--checkpoint", folder / "model", "--output", path.with_suffix(".csv"), path]
        predict.main([*map(str, given), "--window", "1", "--hop", "0.5"])
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    print(f"peak memory: {peaks[0]} MiB after a minute, {peaks[1]} MiB after three hours")


if __name__ == "__main__":
    main()
