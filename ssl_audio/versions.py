"""Versions of this package and of those that compute a run. Kept beside every run."""

import sys

__version__ = "0.2.0"  # setup.py reads it here


def versions() -> dict[str, str]:
    """Return the versions of what computes a run."""
    from importlib.metadata import version

    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in names}
