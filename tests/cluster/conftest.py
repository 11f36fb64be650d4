"""What all processes here share."""

import os

import pytest
from reference import ROOT


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Return the environment of all processes: quick to compile, quick to give up."""
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_", "SSL_AUDIO_"))
    }
    return inherited | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        "PYTHONPATH": str(ROOT),
        "SSL_AUDIO_CACHE": str(tmp_path_factory.mktemp("xla")),
        "SSL_AUDIO_HEARTBEAT": "10",
        "SSL_AUDIO_CONNECT": "120",
    }
