"""The sound and the picture of a row: an excerpt as WAV, and its spectrogram as PNG.

Both are made when they are first asked for, and kept in a temporary folder of limited size.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
import threading
from collections.abc import Callable

import numpy as np
import soundfile

from ssl_audio.data.decode import decode
from ssl_audio.explore.collection import Row
from ssl_audio.storage import atomic

RATE = 44_100  # Hz, of what is played
TOP = 16_000  # Hz, of what is shown
SECONDS = 60.0  # of a row that are played and shown, at most
FILES = 600  # kept at the same time
BOX = (
    0.105,
    0.15,
    0.765,
    0.8,
)  # of the axes in a picture: left, bottom, width, height, as in page/hits.js
THEMES = {"light": ("#1b1f24", "#ffffff"), "dark": ("#e6e9ee", "#171b21")}  # text, background


class Sounds:
    """Files of sounds and pictures of rows; to be closed."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="ssl_audio-explore-")
        self._drawing = threading.Lock()  # one picture at a time: sounds are not to wait

    def close(self) -> None:
        """Remove the files."""
        self._folder.cleanup()

    def wav(self, row: Row) -> pathlib.Path:
        """Return a WAV file (16 bit, 44.1 kHz, mono) of a row; of at most a minute.

        Raises:
          DecodeError: the file is gone or cannot be read.
        """
        return self._made(row, ".wav", _write_wav)

    def png(self, row: Row, theme: str) -> pathlib.Path:
        """Return a PNG of the mel spectrogram (s, Hz, dB) of a row.

        Raises:
          DecodeError: as `wav`.
        """

        def draw(audio: np.ndarray, path: pathlib.Path) -> None:
            with self._drawing:
                _draw(audio, path, theme)

        return self._made(row, f".{theme}.png", draw)

    def warm(self) -> None:
        """Draw a picture of noise: what draws takes seconds to import."""
        noise = np.random.default_rng(0).normal(0, 0.1, RATE // 2).astype(np.float32)
        path = pathlib.Path(self._folder.name) / ".first.partial"
        with self._drawing:
            _draw(noise, path, "light")

    def _made(
        self, row: Row, ending: str, make: Callable[[np.ndarray, pathlib.Path], None]
    ) -> pathlib.Path:
        folder = pathlib.Path(self._folder.name)
        try:
            about = os.stat(row.path)
            version = (about.st_size, about.st_mtime_ns)
        except OSError:
            version = None  # `decode` says what is wrong
        name = hashlib.sha256(repr((row, version)).encode()).hexdigest()[:24]
        path = folder / f"{name}{ending}"
        if not path.exists():
            end = row.start + SECONDS if row.end is None else min(row.end, row.start + SECONDS)
            audio = decode(row.path, RATE, row.start, end)
            with atomic.path(path, f".{threading.get_ident()}") as partial:
                make(audio, partial)
            kept = sorted(folder.glob("*.???"), key=os.path.getmtime)
            for old in kept[:-FILES]:
                old.unlink(missing_ok=True)
        return path


def _write_wav(audio: np.ndarray, path: pathlib.Path) -> None:
    peak = max(1.0, float(np.abs(audio).max()))  # beyond full scale 16 bits would clip
    soundfile.write(path, audio / peak, RATE, format="WAV", subtype="PCM_16")


def _draw(audio: np.ndarray, path: pathlib.Path, theme: str) -> None:
    import librosa
    import librosa.display
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    hop = max(256, 2 ** int(np.log2(max(1, len(audio) / 300))))  # some 400 columns
    size = max(2048, 2 * hop)
    power = librosa.feature.melspectrogram(
        y=np.pad(audio, (0, max(0, size - len(audio)))), sr=RATE, n_fft=size, hop_length=hop,
        n_mels=96, fmax=TOP, pad_mode="reflect",
    )  # fmt: skip
    level = librosa.power_to_db(power, ref=1.0, amin=1e-10)
    text, back = THEMES[theme]
    figure = Figure(figsize=(4.4, 1.75), dpi=160, facecolor=back)
    axes = figure.add_axes(BOX)
    top = float(level.max())
    image = librosa.display.specshow(
        level, sr=RATE, hop_length=hop, n_fft=size, fmax=TOP, x_axis="s", y_axis="mel", ax=axes,
        cmap="magma", vmin=max(top - 80, -100.0), vmax=max(top, -99.0),
    )  # fmt: skip
    left, bottom, width, height = BOX
    place = (left + width + 0.012, bottom, 0.016, height)
    bar = figure.colorbar(image, cax=figure.add_axes(place), ticks=MaxNLocator(4))
    axes.set(xlabel="", ylabel="")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_yticks([500, 2000, 8000], ["500", "2k", "8k"])
    units = {
        "s": (left + width + 0.04, 0.03, "left"),
        "Hz": (0.01, 0.93, "left"),
        "dB": (0.99, 0.93, "right"),
    }
    for unit, (x, y, side) in units.items():
        figure.text(
            x, y, unit, ha=side, va="center" if y > 0.5 else "bottom", color=text, fontsize=9
        )
    for some in (axes, bar.ax):
        some.tick_params(colors=text, labelsize=9, length=2, pad=2)
        for side in some.spines.values():
            side.set_visible(False)
    bar.outline.set_visible(False)
    figure.savefig(path, format="png")
