"""What a file's own container says of the sound in it: the streams of an Ogg file, the frames of an MP3.

Libraries read the first stream of several and believe guesses; `libsndfile.py` asks here first.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

# Sizes that streaming writers leave in a header they could not go back to.
STREAMED = 0x7FFF_0000
Content = bytes | memoryview  # of a file, perhaps mapped into memory


class DecodeError(ValueError):
    """A file that cannot be used as audio; readers of many files skip it and say so."""


class Part(NamedTuple):
    """One stream of a file that may hold several, one after the other."""

    start: int  # its first byte
    stop: int  # the byte after its last
    samples: int | None = None  # that it states to hold, at `rate`; None: it does not say
    rate: int | None = None  # Hz
    tail: int | None = None  # sample at which its last page begins
    counted: bool = True  # MPEG audio: a Xing header says how many frames there are


class _Page(NamedTuple):
    start: int
    stop: int
    kind: int  # 1: goes on from the page before, 2: first of its stream, 4: last
    granule: int
    serial: int
    packets: int  # that end on it
    body: int  # its first byte


def ogg_parts(content: Content) -> list[Part]:
    """Return the streams of an Ogg file: several where files were joined end to end (a chain).

    Raises:
      DecodeError: the file is cut: its last page is not whole, or not marked as the last.
    """
    pages = list(_pages(content))
    if not pages:
        raise DecodeError("truncated: the Ogg stream has no whole page")
    # Streams side by side (sound and picture) all begin before the first page of content.
    begins = [i for i, page in enumerate(pages) if page.kind & 2]
    links = [i for i in begins if not i or not pages[i - 1].kind & 2]
    if links[:1] != [0]:
        links = [0, *links]
    parts = []
    for first, last in zip(links, [*links[1:], len(pages)], strict=True):
        some = pages[first:last]
        sound = [page.serial for page in some if page.kind & 2 and _ogg_sound(content, page)]
        own = [page for page in some if not sound or page.serial == sound[0]]
        if not own[-1].kind & 4:
            raise DecodeError("truncated: the Ogg stream has no last page")
        stop = pages[last].start if last < len(pages) else len(content)
        parts.append(Part(some[0].start, stop, *_ogg_length(content, own)))
    return parts


def _pages(content: Content) -> Iterator[_Page]:
    """Yield the whole pages; raise DecodeError where the file ends inside one (RFC 3533)."""
    at = 0
    while len(content) - at >= 27:
        if bytes(content[at : at + 4]) != b"OggS":
            at = _find(content, b"OggS", at + 1)
            if at < 0:
                return
            continue
        head = bytes(content[at : at + 27 + content[at + 26]])
        lacing = head[27:]
        stop = at + len(head) + sum(lacing)
        if len(head) < 27 + head[26] or stop > len(content):
            raise DecodeError("truncated: the last Ogg page is not whole")
        granule = int.from_bytes(head[6:14], "little", signed=True)
        serial = int.from_bytes(head[14:18], "little")
        packets = sum(length < 255 for length in lacing)
        yield _Page(at, stop, head[5], granule, serial, packets, at + len(head))
        at = stop
    if 0 < len(content) - at < 27 and bytes(content[at : at + 4]) == b"OggS":
        raise DecodeError("truncated: the last Ogg page is not whole")


def _ogg_sound(content: Content, page: _Page) -> bool:
    magic = bytes(content[page.body : page.body + 8])
    return magic.startswith((b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   "))


def _ogg_length(content: Content, pages: list[_Page]) -> tuple[int | None, int | None, int | None]:
    """Return (samples, rate, first sample of the last page) of one stream, as far as it says."""
    head = bytes(content[pages[0].body : pages[0].body + 64])
    ends = [page.granule for page in pages if page.granule > 0 and page.packets]
    if not ends:
        return None, None, None
    if head.startswith(b"\x01vorbis"):
        rate, skip = int.from_bytes(head[12:16], "little"), 0
        longest = 1 << (head[28] >> 4)  # samples of its longer blocks
    elif head.startswith(b"OpusHead"):
        rate, skip = 48_000, int.from_bytes(head[10:12], "little")
        longest = 5760  # 120 ms
    else:
        return None, None, None
    tail = ends[-2] - skip if len(ends) > 1 else 0
    first = next(page for page in pages if page.granule > 0 and page.packets)
    if first.granule - skip > longest * first.packets:  # cut out of a longer stream: begins later
        return None, rate, None
    return ends[-1] - skip, rate, max(0, tail)


def nist_samples(content: Content) -> int | None:
    """Return how many samples per channel the header of a NIST SPHERE file states; None: not stated."""
    found = re.search(rb"\nsample_count -i (\d+)", bytes(content[:4096]))
    return int(found[1]) if found else None


def check_whole(content: Content) -> None:
    """Raise DecodeError where an Ogg, RIFF or Core Audio file ends before what its container states."""
    if bytes(content[:4]) == b"OggS":
        ogg_parts(content)
    if bytes(content[:4]) == b"RIFF" and bytes(content[8:12]) in (b"WAVE", b"AVI "):
        size = int.from_bytes(bytes(content[4:8]), "little")
        if len(content) < 0.99 * size < 0.99 * STREAMED:
            raise DecodeError(f"truncated: {len(content)} of {size} bytes")
    at = 8 if bytes(content[:4]) == b"caff" else len(content)
    while at + 12 <= len(content):
        size = int.from_bytes(bytes(content[at + 4 : at + 12]), "big", signed=True)
        if size < 0:  # up to the end
            return
        at += 12 + size
    if at > len(content):
        raise DecodeError(f"truncated: {at - len(content)} bytes of a chunk are missing")


def voc_blocks(content: Content) -> int:
    """Return how many blocks of sound or silence a Creative Voice file has."""
    at, found = int.from_bytes(bytes(content[20:22]), "little"), 0
    while at + 4 <= len(content) and (kind := content[at]):
        found += kind in (1, 2, 3, 9)
        at += 4 + int.from_bytes(bytes(content[at + 1 : at + 4]), "little")
    return found


# ISO 11172-3 and 13818-3: kbit/s by (version 1?, layer) and index.
_BITRATES = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_LEAD = 3  # silent frames
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


class _Frame(NamedTuple):
    size: int  # bytes
    samples: int
    rate: int
    side: int  # bytes between the header and what may be a Xing header


def mpeg_parts(content: Content) -> list[Part]:
    """Return the streams of an MPEG audio file: several where MP3 files were joined end to end.

    A stream begins at a Xing or Info header, and behind the frames that such a header counts.
    No streams: the frames have no stated size ("free format"), or there are none.

    Raises:
      DecodeError: the frames that a header counts are not all there.
    """
    parts: list[Part] = []
    at = frames = samples = rate = 0
    start = -1
    stated: int | None = None
    trim = 0

    def close(stop: int) -> None:
        if frames:
            if stated is not None and frames < 0.99 * stated:
                raise DecodeError(f"truncated: {frames} of {stated} MPEG frames")
            counted = stated is not None
            parts.append(Part(start, stop, max(0, samples - trim), rate, counted=counted))

    while at < len(content):
        frame = _frame(content, at)
        if frame is None or at + frame.size > len(content):
            at = _next_frame(content, at)
            continue
        if (
            bytes(content[at + 36 : at + 40]) == b"VBRI"
        ):  # Fraunhofer's header, a frame without sound
            close(at)
            at += frame.size
            start, frames, samples, stated, trim = at, 0, 0, None, 0
            continue
        xing = _xing(content, at, frame)
        full = stated is not None and frames >= stated and _more(content, at, 3)
        if xing or full:
            close(at)
        if xing or full or start < 0:
            start, frames, samples, stated, trim = at, 0, 0, None, 0
        rate = frame.rate
        if xing:
            stated, trim = xing
        else:
            frames, samples = frames + 1, samples + frame.samples
        at += frame.size
    close(len(content))
    return parts


def led_in(content: Content, part: Part) -> tuple[bytes, int]:
    """Return a stream of MPEG audio behind short silent frames, and their samples.

    libsndfile guesses a length from the size of the first frames and drops what is beyond: behind frames of
    the lowest bit rate it guesses too much, which does no harm.
    """
    head = bytearray(content[part.start : part.start + 4])
    head[1] |= 1  # no checksum
    head[2] = 0x10 | head[2] & 0x0C
    frame = _frame(bytes(head), 0)
    assert frame is not None  # the stream's own first frame is one
    silent = bytes(head).ljust(frame.size, b"\0")
    return _LEAD * silent + bytes(content[part.start : part.stop]), _LEAD * frame.samples


def _frame(content: Content, at: int) -> _Frame | None:
    head = bytes(content[at : at + 4])
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or rate == 3 or bitrate in (0, 15):
        return None
    hertz, bits = _RATES[version][rate], 1000 * _BITRATES[version == 3, layer][bitrate]
    padding = head[2] >> 1 & 1
    if layer == 1:
        return _Frame(4 * (12 * bits // hertz + padding), 384, hertz, 0)
    samples = 576 if layer == 3 and version != 3 else 1152
    mono = head[3] >> 6 == 3
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return _Frame(samples // 8 * bits // hertz + padding, samples, hertz, side)


def _more(content: Content, at: int, count: int) -> bool:
    """Tell whether so many frames follow one another here."""
    for _ in range(count):
        frame = _frame(content, at)
        if frame is None:
            return False
        at += frame.size
    return at <= len(content)


def _next_frame(content: Content, at: int) -> int:
    """Return where frames go on behind something else: tags, or bytes that mean nothing."""
    if bytes(content[at : at + 3]) == b"ID3" and len(content) - at >= 10:
        size = bytes(content[at + 6 : at + 10])
        if all(byte < 128 for byte in size):
            return at + 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])
    while (at := _find(content, b"\xff", at + 1)) >= 0:
        if _more(content, at, 2):
            return at
    return len(content)


def _xing(content: Content, at: int, frame: _Frame) -> tuple[int | None, int] | None:
    """Return (frames, samples that are padding) of a frame that is a Xing or Info header; else None."""
    base = at + 4 + frame.side
    head = bytes(content[base : base + 160])
    if head[:4] not in (b"Xing", b"Info"):
        return None
    flags = int.from_bytes(head[4:8], "big")
    frames = int.from_bytes(head[8:12], "big") if flags & 1 else None
    lame = (
        8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    )
    extra = head[lame : lame + 24]
    trim = 0
    if len(extra) == 24 and extra[:4] in (b"LAME", b"Lavf", b"Lavc", b"GOGO"):
        both = int.from_bytes(extra[21:24], "big")
        trim = (both >> 12) + (both & 0xFFF)
    return frames, trim


def _find(content: Content, what: bytes, start: int) -> int:
    """Return where `what` is from `start` on, or -1; a memoryview has no `find`."""
    step = 1 << 16
    for at in range(start, len(content), step):
        found = bytes(content[at : at + step + len(what) - 1]).find(what)
        if found >= 0:
            return at + found
    return -1
