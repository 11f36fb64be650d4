#!/usr/bin/env bash
# JAX: a program that came out of the compilation cache is serialised without its machine code.
#
# Expected: `serialize_executable.serialize` writes a compiled program so that `deserialize_and_load` gives one that
#   runs, wherever the program came from; where it cannot, it says so.
# Happens: on a CPU, a program that was found in the persistent compilation cache is serialised without an error, and
#   deserialised without an error; called, it fails with "NOT_FOUND: Function … not found". The same program compiled
#   anew is serialised well. Compiling under `jax_enable_compilation_cache=False` (and `reset_cache()`, which makes JAX
#   ask the setting again) avoids it.
# Why: presumably the object files are kept by what the compiler gave only; the executable out of the cache has
#   linked its functions and no longer holds them.
# Matters: programs that are compiled ahead of time and shipped: they work for who compiles first and break for who
#   had compiled the same program before.
# Versions: jax 0.10.2, jaxlib 0.10.2; Python 3.11; x86-64.
# Source: jax.experimental.serialize_executable, jax/_src/compilation_cache.py; XLA's CPU client.
# Output seen:
#   compiled anew: runs; out of the cache: JaxRuntimeError NOT_FOUND; cache switched off: runs
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH XLA_FLAGS
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 || exit 2
cat > look.py <<'PY'
import sys

import jax
import jax.numpy as jnp
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

jax.config.update("jax_compilation_cache_dir", "programs")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def compiled():
    """Compile one and the same program, as a new process would."""
    jax.clear_caches()

    def program(x):
        return jax.lax.fori_loop(0, 3, lambda i, y: jnp.tanh(y @ y) + jnp.arange(8.0), x).sum()

    return jax.jit(program).lower(jax.ShapeDtypeStruct((8, 8), jnp.float32)).compile()


def again(program):
    """Say what becomes of a program that is serialised, deserialised and called."""
    x = jnp.eye(8)
    wanted = float(program(x))
    loaded = serialize_executable.deserialize_and_load(*serialize_executable.serialize(program))
    try:
        return "runs" if float(loaded(x)) == wanted else "gives something else"
    except jax.errors.JaxRuntimeError as error:
        return f"JaxRuntimeError {str(error).split(':')[0]}"


found = [again(compiled()), again(compiled())]
jax.config.update("jax_enable_compilation_cache", False)
compilation_cache.reset_cache()
found.append(again(compiled()))
print("compiled anew: {}; out of the cache: {}; cache switched off: {}".format(*found))
sys.exit(found != ["runs", "JaxRuntimeError NOT_FOUND", "runs"])
PY
JAX_PLATFORMS=cpu venv/bin/python look.py
