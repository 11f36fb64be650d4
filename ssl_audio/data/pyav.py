"""Reading sound through PyAV (FFmpeg's libraries, extra `av`): what libsndfile does not know, and videos.

`decode.py` calls it. It always decodes from the start: few of these formats seek exactly.
"""

import importlib.util
import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ssl_audio.data.containers import DecodeError, check_whole
from ssl_audio.data.libsndfile import BLOCK, content_of, drop

INSTALL = "install ssl_audio[av]"
# Formats whose stated length is one, not a guess from the bit rate.
_STATED = {"mov", "matroska", "asf", "avi", "flv", "tta", "wv", "ape", "tak", "ogg", "flac"}
_PADDING = 8192  # samples at most that an encoder adds at the end


ENDINGS = frozenset(
    ".m4a .m4b .m4r .mp4 .m4v .aac .adts .webm .weba .wma .wmv .asf .mka .mkv .ac3 .eac3 .dts .amr .awb "
    ".3gp .3g2 .mov .qt .avi .ape .wv .tta .tak .mpc .mpp .ra .rm .mpg .mpeg .m2ts .flv .f4v .f4a .vob "
    ".ogv .ogx .ogm .spx .shn .dsf .dff .gsm .oma .at3 .aa3 .adx .mlp .thd .mxf .vqf .xwma "
    ".nut .wtv .g722 .sbc .aptx".split()
)


class Unknown(DecodeError):
    """FFmpeg does not know the format either."""


def installed() -> bool:
    """Tell whether PyAV is there."""
    return importlib.util.find_spec("av") is not None


class AvReader:
    """The first audio track of one file; see `SndfileReader` for the attributes.

    Args:
      source: a path, or the content of a file.
      wanted: samples that must come, at least.

    Raises:
      Unknown: no format that FFmpeg knows.
      DecodeError: no audio track, or nothing of it can be decoded.
    """

    seeks = False
    frames = None

    def __init__(self, source: str | os.PathLike | bytes, wanted: int = 0):
        self._source, self._wanted = source, wanted
        with content_of(source) as content:
            check_whole(content)
        first = next(self._frames(), None)
        if first is None:
            raise DecodeError("its audio track is empty")
        self.rate, self.channels = first.sample_rate, first.layout.nb_channels
        with self._file() as file, self._container(file) as container:
            track = container.streams.audio[0]
            self.kind = f"{container.format.name} {track.codec_context.name}"
            self.stated = round((container.duration or 0) / 1e6 * self.rate)
            self._end: int | None = None  # the sample at which padding begins
            if container.format.name.startswith("mov") and track.duration:
                self._end = round(track.duration * track.time_base * self.rate)

    def read(self, first: int = 0) -> Iterator[np.ndarray]:
        """Yield float32 [n, channels] from sample `first` on, to the end.

        Raises:
          DecodeError: damaged, or it ends before the length that its container states.
        """
        return drop(self._blocks(), first)

    def _blocks(self) -> Iterator[np.ndarray]:
        held: list[np.ndarray] = []
        count, end = 0, self._end
        for frame in self._frames():
            if (frame.sample_rate, frame.layout.nb_channels) != (self.rate, self.channels):
                raise DecodeError(
                    f"changes from {self.rate} Hz x {self.channels} to {frame.sample_rate} Hz x "
                    f"{frame.layout.nb_channels} channels: split the file"
                )
            held.append(_samples(frame))
            count += len(held[-1])
            if (
                end is not None and count > end + _PADDING
            ):  # too much for padding: the length is wrong
                end = None
            if (end is None or count < end) and sum(map(len, held)) * self.channels >= BLOCK:
                yield np.concatenate(held)
                held = []
        if held:
            more = 0 if end is None else max(0, count - end)
            last = np.concatenate(held)
            yield last[: len(last) - more]
        if count < self._wanted:
            raise DecodeError(f"truncated: {count} of {self._wanted} samples")

    def _frames(self) -> Iterator[Any]:
        """Yield the decoded frames."""
        import av
        import av.error

        with self._file() as file, self._container(file) as container:
            tracks = container.streams.audio
            if not tracks:
                raise DecodeError("no audio track")
            track = tracks[0]
            stated = _stated(container, track)
            last = samples = 0.0
            for packet in container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    last = max(
                        last, float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    )
                if packet.stream is not track:
                    continue
                try:
                    frames = packet.decode()
                except av.error.EOFError:
                    continue
                except av.error.FFmpegError as error:
                    if not samples:  # a recording that begins within a frame
                        continue
                    raise DecodeError(f"damaged after {samples:.3f} s: {error.strerror}") from error
                for frame in frames:
                    if not isinstance(frame, av.AudioFrame) or not frame.samples:
                        continue
                    samples += frame.samples / frame.sample_rate
                    yield frame
            # Of several tracks another may be the longer one.
            several = len(container.streams) > 1
            reached = max(samples, last) if several else samples
            if stated and reached < 0.99 * stated - (1.0 if several else 0.1):
                raise DecodeError(f"truncated: {reached:.3f} of {stated:.3f} s")

    def _file(self) -> Any:
        # By an open file: a name need not be UTF-8.
        return (
            io.BytesIO(self._source)
            if isinstance(self._source, bytes)
            else open(self._source, "rb")
        )

    def _container(self, file: Any) -> Any:
        import av.error

        try:
            return open_file(file)
        except av.error.FFmpegError as error:
            raise Unknown(f"FFmpeg: {error.strerror}.") from error


def open_file(file: Any) -> Any:
    """Return the container of an open file, whatever the encoding of its metadata."""
    import av

    # Version 19 has no such option, and keeps bytes that are not UTF-8 as surrogates.
    old = int(av.__version__.split(".")[0]) < 19
    options: dict[str, Any] = dict(metadata_errors="ignore") if old else {}
    return av.open(file, **options)


def _stated(container: Any, track: Any) -> float:
    """Return the length that a container states, s; 0: none, or a guess."""
    if not _STATED & set(container.format.name.split(",")):
        return 0.0
    if len(container.streams) == 1 and track.duration:
        return float(track.duration * track.time_base)
    return (container.duration or 0) / 1e6


def _samples(frame: Any) -> np.ndarray:
    """Return a frame as float32 [n, channels] in [-1, 1]."""
    audio = frame.to_ndarray()
    audio = audio.T if frame.format.is_planar else audio.reshape(-1, frame.layout.nb_channels)
    if audio.dtype.kind == "f":
        return audio.astype(np.float32)
    bits = 8 * audio.dtype.itemsize
    middle = 1 << (bits - 1) if audio.dtype.kind == "u" else 0
    return ((audio.astype(np.float64) - middle) / (1 << (bits - 1))).astype(np.float32)
