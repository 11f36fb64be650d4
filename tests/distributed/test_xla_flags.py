"""XLA's flags by recipe: the installed XLA knows each, and what is set already stays."""

import os
import subprocess
import sys

import pytest

from ssl_audio.distributed import processes, xla_flags


def parsed(flags):
    """Return the exit status and the errors of a process whose XLA reads such flags."""
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    code = "import jax; print(jax.jit(lambda x: x + 1)(1))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stderr


def test_the_installed_xla_knows_every_flag():
    every = {
        flag: value for recipe in xla_flags.RECIPES.values() for flag, (value, _) in recipe.items()
    }
    status, said = parsed(" ".join(f"--{flag}={value}" for flag, value in every.items()))
    assert status == 0, said
    status, said = parsed("--xla_gpu_no_such_flag=true")
    assert status != 0 and "xla_gpu_no_such_flag" in said, "an unknown flag would not be noticed"


def test_every_flag_has_a_reason():
    for recipe in xla_flags.RECIPES.values():
        for flag, (_, why) in recipe.items():
            assert flag.startswith("xla_") and len(why) > 20 or why.startswith("likewise"), flag


def test_recipes_add_to_what_is_set():
    environment = {
        "SSL_AUDIO_XLA": "fsdp, data",
        "XLA_FLAGS": "--xla_gpu_enable_pipelined_all_gather=false",
    }
    xla_flags.apply(environment)
    flags = environment["XLA_FLAGS"].split()
    assert flags[0] == "--xla_gpu_enable_pipelined_all_gather=false"
    names = [flag.partition("=")[0] for flag in flags]
    assert len(set(names)) == len(names), "each once"
    assert "--xla_gpu_enable_latency_hiding_scheduler=true" in flags
    once = dict(environment)
    xla_flags.apply(environment)
    assert environment == once
    untouched = {"XLA_FLAGS": "--a=b"}
    xla_flags.apply(untouched)
    assert untouched == {"XLA_FLAGS": "--a=b"}


def test_a_recipe_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("SSL_AUDIO_XLA", "fdsp")
    with pytest.raises(ValueError, match="got 'fdsp', wanted some of data, fsdp"):
        processes.start()
