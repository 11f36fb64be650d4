"""What every test of a command in a process of its own needs."""

import os

import pytest
from reference import ROOT


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Return the environment of all runs here: one device, a cache of programs that they share.

    So do the workers of pytest-xdist, whose folders lie in one.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    shared = {
        "SSL_AUDIO_CACHE": str(folder / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    return inherited | shared | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def optimised(environment):
    """Return the environment of commands that compute more than they compile: XLA optimises."""
    return {name: value for name, value in environment.items() if name != "XLA_FLAGS"}
