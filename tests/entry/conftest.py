"""What every test of a command in a process of its own needs."""

import os

import pytest
from reference import ROOT


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Return the environment of all runs here: one device, a compilation cache of their own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    cache = str(tmp_path_factory.mktemp("xla"))
    return inherited | {"JAX_PLATFORMS": "cpu", "SSL_AUDIO_CACHE": cache, "PYTHONPATH": str(ROOT)}
