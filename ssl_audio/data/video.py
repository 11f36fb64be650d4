"""Sound with its picture, cut at the same moment: the entry `AudioVideo` of a batch.

The frames come out of a video (PyAV, extra `video`), a folder of pictures or a list of them.
"""

import contextlib
import importlib.util
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssl_audio.data import pyav
from ssl_audio.data.beside_files import every
from ssl_audio.data.containers import DecodeError
from ssl_audio.data.entries import Arrays, Audio, Shape
from ssl_audio.data.pictures import MOST, Image
from ssl_audio.data.sequence_examples import decoded
from ssl_audio.data.source import Example

INSTALL = "install ssl_audio[video]"
SAME = 1e-6  # s; times of frames nearer than this are one
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class AudioVideo(Audio):
    """`audio` and `length`, `video` float32 [T, size, size, channels] and `video_length` int32.

    Frame k is what is on screen k / fps after the first sample of `audio`: the last one that began by then.
    Times are those that the file states of each frame, so that its frame rate need not be constant. Frames
    after the end of the video are 0, and `video_length` says how many there are before; none: the clip is
    skipped. Sound played faster has its picture faster.

    Attributes:
      frames: T.
      fps: frames per second of sound.
      picture: how each frame is scaled, cut and normalised; a random cut is the same for all frames.
      column: of the source's table: a video, a folder of pictures, or a list of them, which then follow each
        other from the first sample of the recording on, those of a folder in the order of the numbers in
        their names; "": the file of the sound itself.
      root: what these paths are relative to; "": the folder of the source.
      listed: pictures per second of a folder or a list.
    """

    frames: int = field(kw_only=True)
    fps: float = field(kw_only=True)
    picture: Image = field(kw_only=True)
    column: str = field(default="", kw_only=True)
    root: str = field(default="", kw_only=True)
    listed: float = field(default=1.0, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        for name in ("frames", "fps", "listed"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: wanted more than 0, got {getattr(self, name)}")
        if self.fill != "zeros":
            raise ValueError(f"fill: got {self.fill!r}; sound with its picture is padded: 'zeros'.")

    @property
    def of_several(self) -> bool:  # noqa: D102
        return False

    def check_mix(self) -> None:  # noqa: D102
        raise ValueError("mixup: AudioVideo cannot be mixed; leave mixup 0.")

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        shape = self.picture.spec()["image"][0]
        video = {
            "video": ((self.frames, *shape), np.dtype(np.float32)),
            "video_length": ((), np.dtype(np.int32)),
        }
        return {**super().spec(), **video}

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        arrays, start, speed = self.cut(example, rng)
        places = start / example["rate"] + np.arange(self.frames) / self.fps
        times = float(example.get("start") or 0.0) + speed * places
        seed = int(rng.integers(2**31)) if self.picture.crop == "random" else None
        found = []
        for frame in self._shown(example, times):
            if frame is None:
                break
            same = None if seed is None else np.random.default_rng(seed)
            found.append(self.picture.prepared(frame, same))
        if not found:
            raise DecodeError(
                f"clip {example.get('id')}: no picture {times[0]:.3f} s after its sound begins"
            )
        shape = self.picture.spec()["image"][0]
        video = np.zeros((self.frames, *shape), np.float32)
        video[: len(found)] = found
        return {**arrays, "video": video, "video_length": np.int32(len(found))}

    def _shown(self, example: Example, times: np.ndarray) -> Iterator[Any]:
        """Yield what is on screen at some times, s in the recording's sound; None: nothing any more."""
        if self.column:
            some = every(example, self.column, self.root)
        elif (path := example.get("path")) is not None:
            some = [path]
        else:
            raise ValueError(
                f"clip {example.get('id')}: this source does not name its files; name a column of the "
                "table that does: column='video'."
            )
        if len(some) == 1 and isinstance(some[0], str):
            path = pathlib.Path(some[0])
            if path.is_dir():
                found = (p.name for p in path.iterdir() if p.suffix.lower() in PICTURES)
                names = sorted((n for n in found if not n.startswith(".")), key=_by_numbers)
                some = [str(path / name) for name in names]
                if not some:
                    raise DecodeError(f"{path}: no pictures ({', '.join(PICTURES)})")
            elif path.suffix.lower() not in PICTURES:
                yield from frames_at(path, times)
                return
        for time in times:
            number = int(time * self.listed + SAME)
            shown = some[number] if number < len(some) else None
            yield decoded(shown) if isinstance(shown, bytes) else shown


def _by_numbers(name: str) -> tuple[list[str | int], str]:
    """Return a key that sorts names by the numbers in them: frame9.png comes before frame10.png."""
    parts: list[str | int] = list(re.split("([0-9]+)", name))
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def frames_at(path: pathlib.Path, times: Sequence[float] | np.ndarray) -> Iterator[Any]:
    """Yield uint8 [Y, X, 3]: what is on screen at ascending times, s after the first sample of the sound.

    Before the first frame that is the first one; after the last one has ended, None. Only what lies between
    the key frame before the first time and the last time is decoded.

    Raises:
      DecodeError: no video that can be read.
      RuntimeError: PyAV is not installed.
    """
    if importlib.util.find_spec("av") is None:
        raise RuntimeError(f"{path}: frames of a video take PyAV: {INSTALL}.")
    import av.error

    try:
        with _opened(path) as container:
            wanted = np.asarray(times, float) + _sound_begins(container)
        with _opened(path) as container:
            if _to_key_frame(container, float(wanted[0])):
                yield from _shown_at(container, wanted)
                return
        with _opened(path) as container:  # its index misleads: from the beginning
            yield from _shown_at(container, wanted)
    except av.error.FFmpegError as error:
        raise DecodeError(f"{path}: damaged video ({error.strerror})") from error


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Any]:
    import av.error

    if not path.is_file():
        raise DecodeError(f"{path}: no such video")
    with open(path, "rb") as file:  # by an open file: a name need not be UTF-8
        try:
            container = pyav.open_file(file)
        except av.error.FFmpegError as error:
            raise DecodeError(f"{path}: no video that FFmpeg knows ({error.strerror})") from error
        with container:
            if not container.streams.video:
                raise DecodeError(f"{path}: no picture in it, only sound")
            video = container.streams.video[0]
            if video.codec_context.width * video.codec_context.height > MOST:
                raise DecodeError(f"{path}: frames of more than {MOST} pixels")
            yield container


def _sound_begins(container: Any) -> float:
    """Return the time of the first sample, s; of a file without sound, 0."""
    if not container.streams.audio:
        return 0.0
    for frame in container.decode(container.streams.audio[0]):
        return float(frame.time or 0.0)
    return 0.0


def _to_key_frame(container: Any, time: float) -> bool:
    """Go to the last key frame by a time; return whether that is where the file then begins."""
    import av.error

    video = container.streams.video[0]
    try:
        container.seek(int(max(time, 0) / video.time_base), stream=video)
        first = next(container.decode(video), None)
        if first is None or first.time is None or first.time > time + SAME:
            return False
        container.seek(int(max(time, 0) / video.time_base), stream=video)
    except av.error.FFmpegError:
        return False
    return True


def _shown_at(container: Any, times: np.ndarray) -> Iterator[Any]:
    video = container.streams.video[0]
    waiting, held, end = list(times), None, 0.0
    for frame in container.decode(video):
        if frame.time is None:
            continue
        while waiting and held is not None and waiting[0] < frame.time - SAME:
            waiting.pop(0)
            yield _picture(held)
        if not waiting:
            return
        lasts = float(frame.duration * frame.time_base) if frame.duration else 0.0
        rate = video.average_rate or video.guessed_rate
        held, end = frame, frame.time + (lasts or (float(1 / rate) if rate else 0.0))
    for time in waiting:
        yield _picture(held) if held is not None and time < end - SAME else None


def _picture(frame: Any) -> np.ndarray:
    """Return a frame as uint8 [Y, X, 3], turned as the file says that it is to be shown (as of a phone)."""
    found = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return found
    # FFmpeg's libavutil/display.h: (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32)[:9].astype(float)
    if max(abs(b), abs(c)) > max(abs(a), abs(d)):
        found, a, d = found.swapaxes(0, 1), c, b
    return np.ascontiguousarray(found[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
