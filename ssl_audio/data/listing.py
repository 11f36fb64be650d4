"""Which files of a folder are sound, by their endings, and which were left out: for readers of folders.

Formats that only PyAV reads are left out where that is not installed, and named.
"""

import collections
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import soundfile

from ssl_audio.data import libsndfile, pyav
from ssl_audio.data.decode import printable

EXTENSIONS = libsndfile.ENDINGS | pyav.ENDINGS
# Often something else than sound: such a file is taken if libsndfile knows it.
_UNSURE = frozenset(".mat .iff .sf .xi .htk".split())
_SOUND = EXTENSIONS - _UNSURE
_NAMED = 12  # endings of other files that are named

log = logging.getLogger(__name__)


class AudioFiles(list[pathlib.Path]):
    """The audio files of a folder, sorted.

    Attributes:
      left_out: ending → number of files not taken.
    """

    def __init__(self, paths: list[pathlib.Path], left_out: Mapping[str, int]):
        super().__init__(paths)
        self.left_out = left_out

    def __add__(self, other: list) -> "AudioFiles":
        more = other.left_out if isinstance(other, AudioFiles) else {}
        left_out = collections.Counter(self.left_out) + collections.Counter(more)
        return AudioFiles([*self, *other], left_out)

    @property
    def summary(self) -> str:
        """What was left out, sound first: "12 .m4a, 3 .webm (install ssl_audio[av]); 7 .txt", or ""."""
        by_number = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        sound = [f"{n} {ending}" for ending, n in by_number if ending in _SOUND]
        others = [(ending, n) for ending, n in by_number if ending not in _SOUND]
        named = [f"{n} {ending}" for ending, n in others[:_NAMED]]
        if rest := sum(n for _, n in others[_NAMED:]):
            named.append(f"{rest} with other endings")
        hint = "" if pyav.installed() else f" ({pyav.INSTALL})"
        parts = [", ".join(sound) + hint] if sound else []
        return "; ".join([*parts, *([", ".join(named)] if named else [])])


def audio_files(root: pathlib.Path) -> AudioFiles:
    """Return the audio files under `root`, judged by extension in any case, sorted.

    Hidden files and folders do not count. Links are followed, but each real folder counts once.
    """
    names, none = audio_names(root)
    return AudioFiles([root / name for name in names], none.left_out)


def audio_names(root: pathlib.Path) -> tuple[list[str], AudioFiles]:
    """Return the names below `root` of what `audio_files` returns, and which others were left out."""
    readable = EXTENSIONS if pyav.installed() else libsndfile.ENDINGS
    found, left_out = [], collections.Counter()
    above = len(os.path.join(root, ""))
    for directory, names in _folders(root):
        begin = f"{directory[above:]}/" if directory[above:] else ""
        for name in names:
            ending = os.path.splitext(name)[1].lower()
            if ending in readable and (
                ending not in _UNSURE or _known(os.path.join(directory, name))
            ):
                found.append(begin + name)
            else:
                left_out[printable(ending) or "without ending"] += 1
    found.sort(key=lambda name: name.split("/"))  # folder by folder, as paths are sorted
    return found, AudioFiles([], left_out)


def _folders(root: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder below `root` once, with its visible files; those behind links after the others."""
    waiting, seen = [str(root)], set()
    while waiting:
        links = []
        for directory, folders, files in os.walk(waiting.pop(0), onerror=_warn):
            about = os.stat(directory)
            here = about.st_dev, about.st_ino
            if here in seen:
                folders[:] = []
                continue
            seen.add(here)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links += [p for name in folders if os.path.islink(p := os.path.join(directory, name))]
            yield directory, [name for name in files if not name.startswith(".")]
        waiting += links


def _warn(error: OSError) -> None:
    log.warning("left out: folder %s: %s", printable(error.filename), error.strerror)


def _known(path: str) -> bool:
    name: Any = os.fsencode(path)
    try:
        soundfile.info(name)
    except (soundfile.LibsndfileError, TypeError):
        return False
    return True
