"""Versions of this package and of those that compute a run. Kept beside every run."""

import hashlib
import pathlib
import sys

__version__ = "0.2.0"  # setup.py reads it here


def versions() -> dict[str, str]:
    """Return the versions of what computes a run."""
    from importlib.metadata import version

    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in names}


def code() -> dict[str, str]:
    """Return what computes a run: a digest of every file of the package, and the versions beside it."""
    root = pathlib.Path(__file__).parent
    digests = {
        f"code of {path.relative_to(root).as_posix()}": hashlib.sha256(
            path.read_bytes()
        ).hexdigest()[:8]
        for path in sorted(root.rglob("*.py"))
    }
    return digests | {f"version of {name}": version for name, version in versions().items()}
