"""Where reference data lies: a small committed subset, and all of it under SSL_AUDIO_SHARED."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SHARED = pathlib.Path(os.environ.get("SSL_AUDIO_SHARED", ROOT / ".." / "shared")).resolve()


def golden_files(pattern: str) -> list:
    """Return the golden files that match as pytest parameters; skipped loudly when there is none."""
    found = {p.name: p for p in (SHARED / "golden").glob(pattern)}
    found |= {p.name: p for p in (ROOT / "tests/parity/golden").glob(pattern)}
    if not found:
        skip = pytest.mark.skip(reason=f"no golden file {pattern}: set SSL_AUDIO_SHARED")
        return [pytest.param(None, marks=skip, id=pattern)]
    return [pytest.param(p, id=name.removesuffix(".npz")) for name, p in sorted(found.items())]
