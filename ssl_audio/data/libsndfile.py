"""Reading sound through libsndfile, in bounded pieces and from any sample on; `decode.py` calls it.

What libsndfile says of a length is checked by what the container holds (`containers.py`).
"""

import contextlib
import io
import mmap
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from ssl_audio.data.containers import (
    STREAMED,
    DecodeError,
    Part,
    led_in,
    mpeg_parts,
    nist_samples,
    ogg_parts,
    voc_blocks,
)

BLOCK = 1 << 17  # samples of all channels that are read at once
_NO_LENGTH = 1 << 60  # libsndfile states more frames than this where a header has none
_READ = 1 << 24  # bytes of a file up to which it is read, not mapped, to be looked through
_SHORTER = re.compile(r"(?:data|SSND|BODY|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)")
_FACT = re.compile(r"fact\s*: 4\s+frames\s*: (\d+)")
_SYSTEM = 2  # libsndfile's number of an error that the system knows more about
_FORK = re.compile("resource fork|data offset")
_SLACK = 64  # samples by which encoders may overstate a length
_BLOCK = 4096  # samples at most of a block of ADPCM or GSM
# Each sample has a place of its own (or, in FLAC, each frame a number): seeking gives the same bits.
_EXACT = re.compile(r"PCM_|FLOAT|DOUBLE|ULAW|ALAW")
# s that a decoder runs before its samples are those of a decoding from the start: Vorbis needs two
# blocks (Vorbis I, 1.3.2), Opus asks for 80 ms (RFC 7845, 4.6) and forgets the rest of its state later.
_RUN_UP = {"VORBIS": 2.0, "OPUS": 10.0}


class Short(DecodeError):
    """libsndfile gave less than the container holds: another library may read all of it."""

    def __init__(self, given: int, wanted: int):
        super().__init__(f"libsndfile gives {given} of {wanted} samples")
        self.wanted = wanted
        self.nearly = given >= 0.99 * wanted  # better than nothing


class Unsupported(DecodeError):
    """A variety of a format that libsndfile opens and then misreads."""


class SndfileReader:
    """The sound of one file.

    Attributes:
      kind: container and codec, for messages.
      rate: Hz.
      channels: number of them.
      frames: samples per channel; None: only reading to the end can tell.
      stated: as `frames`, or a guess where that is None.
      seeks: `read` can begin anywhere at the cost of what it reads from there; else it decodes from the
        start and drops what is before.
      lenient: the last hundredth may be missing.

    Raises:
      soundfile.LibsndfileError, Unsupported: not a format that libsndfile knows.
      DecodeError: truncated.
    """

    def __init__(self, source: str | os.PathLike | bytes):
        self._source, self.lenient = source, False
        with self._open() as file:
            self.rate, self.channels = file.samplerate, file.channels
            self._format, self._subtype = file.format, file.subtype
            self.kind = f"{file.format} {file.subtype}"
            stated = None if file.frames > _NO_LENGTH else file.frames
            if (fact := _FACT.search(file.extra_info)) and stated:
                # The last block of ADPCM and GSM is filled up.
                stated = int(fact[1]) if stated - _BLOCK < int(fact[1]) < stated else stated
            _check_size(file.extra_info)
        if self._format == "VOC":
            with content_of(self._source) as content:
                if (count := voc_blocks(content)) > 1:
                    raise Unsupported(f"{count} blocks in a VOC file: libsndfile reads one.")
        if self._format == "NIST":
            with content_of(self._source) as content:
                stated = nist_samples(content) or stated
        self._parts: list[Part] = []
        self._apart = False
        if self._format in ("OGG", "MP3"):
            with content_of(self._source) as content:
                self._parts = (ogg_parts if self._format == "OGG" else mpeg_parts)(content)
            samples = [self._samples(part) for part in self._parts]
            self.frames = None if None in samples or not samples else sum(filter(None, samples))
            # A single stream is read as a file, unless libsndfile guesses too short a length for it.
            guess = not all(part.counted for part in self._parts) and (stated or 0) < (
                self.frames or 0
            )
            self._apart = guess or len(self._parts) > 1
            self.stated = self.frames or stated or 0
            if self._format == "MP3" or len(self._parts) > 1:
                # A decoder's sums depend on where it began (6e-8); several streams have no common seek.
                self.frames, self.seeks = None, False
            else:
                self.seeks = self.frames is not None and self._subtype in _RUN_UP
        else:
            self.frames, self.stated = stated, stated or 0
            self.seeks = stated is not None and (
                self._format == "FLAC" or bool(_EXACT.match(self._subtype))
            )

    def read(self, first: int = 0) -> Iterator[np.ndarray]:
        """Yield float32 [n, channels] from sample `first` on, to the end.

        Raises:
          DecodeError: it ends too early; `Short` where the container holds more.
        """
        if self._apart:
            yield from drop(self._read_parts(), first)
            return
        with self._open() as file:
            if not self.seeks:
                yield from drop(self._read_on(file, 0, self._wanted()), first)
                return
            at = first
            if self._subtype in _RUN_UP:
                part = self._parts[0]
                tail = first if part.tail is None or part.rate is None else part.tail
                # The place of a sample in the last page is not always found.
                at = min(first, tail) - round(_RUN_UP[self._subtype] * self.rate)
                at = max(0, at)
            if at and at >= self.stated:
                return
            if at:
                file.seek(at)
            yield from drop(self._read_on(file, at, self._wanted()), first - at)

    def _samples(self, part: Part) -> int | None:
        if part.samples is None or not part.rate:
            return None
        return round(part.samples * self.rate / part.rate)

    def _wanted(self) -> int | None:
        """Return the samples of a single stream."""
        return self._samples(self._parts[0]) if self._parts else self.frames

    def _read_on(self, file: soundfile.SoundFile, at: int, wanted: int | None) -> Iterator:
        """Yield from where the file stands, sample `at`, to the end, and judge where that is."""
        step = max(1, BLOCK // self.channels)
        while True:
            left = step if wanted is None or self._parts else min(step, wanted - at)
            audio = file.read(left, dtype="float32", always_2d=True)
            at += len(audio)
            if len(audio):
                yield audio
            if len(audio) < left or not left:
                break
        if wanted is None:
            return
        if self._parts and at < wanted - _SLACK and not (self.lenient and at >= 0.99 * wanted):
            raise Short(at, wanted)
        if at < 0.99 * wanted:
            raise DecodeError(f"truncated: {at} of {wanted} samples")

    def _read_parts(self) -> Iterator[np.ndarray]:
        for part in self._parts:
            with content_of(self._source) as content:
                own, lead = content[part.start : part.stop], 0
                if not part.counted:
                    own, lead = led_in(content, part)
                own = bytes(own)
            with _opened(own) as file:
                if (file.samplerate, file.channels) != (self.rate, self.channels):
                    raise DecodeError(
                        f"several streams one after the other, of {self.rate} Hz x {self.channels} and "
                        f"{file.samplerate} Hz x {file.channels} channels: split the file"
                    )
                samples = self._samples(part)
                wanted = None if samples is None else samples + lead
                yield from drop(self._read_on(file, 0, wanted), lead)

    def _open(self) -> "_File":
        return _opened(self._source)


@contextlib.contextmanager
def content_of(source: str | os.PathLike | bytes) -> Iterator[memoryview]:
    """Give the bytes of a file, mapped if it is large."""
    if isinstance(source, bytes):
        yield memoryview(source)
        return
    with open(source, "rb") as file:
        if os.path.getsize(source) <= _READ:
            yield memoryview(file.read())
            return
        with (
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as content,
        ):
            yield content


def _opened(source: str | os.PathLike | bytes) -> "_File":
    """Open a file, or its content, whatever lies beside it."""
    if isinstance(source, bytes):
        made: Any = io.BytesIO(source)
    else:
        made = os.fsencode(source)  # it need not be UTF-8
    try:
        return _File(made)
    except soundfile.LibsndfileError as error:
        if error.code == _SYSTEM and not isinstance(source, bytes):
            with open(source, "rb"):  # raises the cause, as that no more files can be opened
                return _File(made)
        if not _FORK.search(error.error_string):
            raise
        with contextlib.ExitStack() as stack:
            stream = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")
            stack.enter_context(stream)
            tagged: Any = _Tagged(stream)
            found = _File(tagged)
            found.closes = stack.pop_all()
            return found


class _Tagged:
    """A stream behind an empty ID3 tag.

    For an MP3 that begins without a tag, libsndfile first looks for "._NAME" beside it (in memory: for "._"
    in the working directory) as if it were Sound Designer II. macOS leaves such files on foreign disks.
    """

    _tag = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)

    def __init__(self, stream: Any):
        self._stream, self._at = stream, 0
        self._size = len(self._tag) + stream.seek(0, os.SEEK_END)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        found = self._tag[self._at : self._at + count]
        self._stream.seek(max(0, self._at - len(self._tag)))
        found += self._stream.read(count - len(found))
        self._at += len(found)
        return found


class _File(soundfile.SoundFile):
    """A file that is read on and on: `read` does not seek, which fails in a FLAC without a length."""

    closes: contextlib.ExitStack | None = None  # what is closed with it

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        super().close()
        if self.closes is not None:
            self.closes.close()


def _check_size(log: str) -> None:
    if "Seems to be a truncated file" in log:
        raise DecodeError("truncated: a block is longer than the file")
    for stated, found in _SHORTER.findall(log):
        if int(found) < 0.99 * int(stated) < 0.99 * STREAMED:
            raise DecodeError(f"truncated: {found} of {stated} bytes")


# What people call these files.
ENDINGS = frozenset(
    ".wav .wave .bwf .rf64 .w64 .aif .aiff .aifc .au .snd .flac .ogg .oga .opus .mp3 .mp2 .mpga .caf "
    ".sph .nist .voc .paf .fap .sf .ircam .avr .xi .htk .pvf .sds .svx .8svx .iff .sd2 .mat .mat4 "
    ".mat5 .wve .mpc2k".split()
)


def drop(pieces: Iterator[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Yield pieces [n, …] without the first `count` rows."""
    for piece in pieces:
        if count < len(piece):
            yield piece[count:] if count else piece
        count = max(0, count - len(piece))
