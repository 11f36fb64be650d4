"""Compile the selective scan in C++ for this machine's processor: ssl-audio compile-scan

Its first use does so by itself (SSL_AUDIO_SCAN=xla turns that off); this says more when it fails, and
tries again what has failed. With the compiler that the environment variable CXX names (c++, g++ or
clang++ if unset; GCC 11 or newer, or Clang); checked, and kept in ~/.cache/ssl_audio (or SSL_AUDIO_CACHE).
"""

import argparse
from collections.abc import Sequence

from ssl_audio import startup


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio compile-scan`, which has no options."""
    return startup.parser("compile-scan", __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Compile, check and say where it is.

    Raises:
      RuntimeError: no compiler, or one that fails; it does not agree with the other implementations.
    """
    parser().parse_args(argv)
    from ssl_audio.layers.scan import choose, cpp

    path = cpp.library().build()
    if reason := choose.trial("cpp"):
        path.unlink()
        raise RuntimeError(f"compiled, but of no use here: {reason}")
    print(f"{path}: agrees with 'xla'; 'auto' will use it on this machine")
