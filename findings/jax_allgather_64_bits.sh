#!/usr/bin/env bash
# JAX: what processes gather, broadcast or compare of 64-bit numpy numbers is cut to 32 bits; in one process it is not.
#
# Expected: `multihost_utils.process_allgather` returns the numpy arrays (or Python numbers) of all processes as they
#   are, as it does in one process; `assert_equal` passes where they are equal and only there.
# Happens: with two processes int64 comes back as int32 by its low bits and float64 as float32, without a warning.
#   3,000,000,000 samples of each process (52 hours at 16 kHz) are gathered as -1,294,967,296; 64-bit identities of
#   clips that differ above bit 32 become one; a time in seconds since 1970 is off by up to 64 s.
#   `broadcast_one_to_all` does the same. `assert_equal` compares the original with the cut copies: it raises where
#   all processes have 0.1 ("Expected: [0.1 0.1]; got: 0.1"), and where process 0 has 5 and process 1 has 2**32 + 5,
#   only process 1 raises and process 0 goes on. In one process all of them keep 64 bits, so no test on one machine
#   shows any of it.
# Why: the numbers travel as arrays of JAX, which have 32 bits unless jax_enable_x64 is set; in one process the
#   function returns before that. `jnp.asarray(x, dtype="int64")` warns of it, this path does not.
# Matters: hours, tokens and clips of a corpus, offsets in files and hashes are summed and compared over hosts this way,
#   and wrong sums decide steps and weights. Send two halves of 32 bits, or bytes: x.view(np.uint8) survives.
# Versions: jax 0.12.0.1, jaxlib 0.12.0.1, numpy 2.5.5; Python 3.12.
# Source: jax/experimental/multihost_utils.py (_handle_array_process_allgather, assert_equal); its documentation
#   says "pytrees of numpy arrays" and nothing of types.
# Output seen (process 0 of 1, then processes 0 and 1 of 2; the two mix):
#   0 of 1: count int64 [3000000000], identity int64 [5], time float64 [1795982400.25], broadcast int64 3000000000
#   0 of 1: equal: 0.1 everywhere True, identity True; sent as bytes [3000000000]
#   0 of 2: count int32 [-1294967296, -1294967296], identity int32 [5, 5],
#     time float32 [1795982464.0, 1795982464.0], broadcast int32 -1294967296   (1 of 2: the same)
#   0 of 2: equal: 0.1 everywhere False, identity True; sent as bytes [3000000000, 3000000000]
#   1 of 2: equal: 0.1 everywhere False, identity False; sent as bytes [3000000000, 3000000000]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH XLA_FLAGS JAX_ENABLE_X64
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.5.5 || exit 2
cat > look.py <<'PY'
import socket
import subprocess
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

COUNT, TIME = 3_000_000_000, 1_795_982_400.25


def equal(value):
    """Return whether JAX finds that `value` is the same in all processes."""
    try:
        multihost_utils.assert_equal(value)
    except AssertionError:
        return False
    return True


def look(rank, processes, port):
    """Print what one process hears of all; return whether it is as described."""
    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", processes, rank)
    identity = np.int64(rank * 2**32 + 5)
    heard = {
        "count": multihost_utils.process_allgather(np.int64(COUNT)),
        "identity": multihost_utils.process_allgather(identity),
        "time": multihost_utils.process_allgather(np.float64(TIME)),
        "broadcast": multihost_utils.broadcast_one_to_all(np.int64(COUNT)),
    }
    sent = np.array([COUNT]).view(np.uint8)
    back = multihost_utils.process_allgather(sent).view(np.int64).reshape(-1).tolist()
    tenth, same = equal(np.float64(0.1)), equal(identity)
    text = ", ".join(f"{name} {value.dtype} {value.tolist()}" for name, value in heard.items())
    print(
        f"{rank} of {processes}: {text}\n{rank} of {processes}: "
        f"equal: 0.1 everywhere {tenth}, identity {same}; sent as bytes {back}",
        flush=True,
    )
    cut = COUNT - 2**32
    wanted = {
        1: [[COUNT], [5], [TIME], COUNT, True, True],
        2: [[cut] * 2, [5, 5], [float(np.float32(TIME))] * 2, cut, False, rank == 0],
    }[processes]
    return [value.tolist() for value in heard.values()] + [tenth, same] == wanted and back == [COUNT] * processes


if len(sys.argv) > 1:
    sys.exit(not look(*map(int, sys.argv[1:])))
with socket.socket() as free:
    free.bind(("localhost", 0))
    port = str(free.getsockname()[1])
one = subprocess.run([sys.executable, __file__, "0", "1", port], timeout=300).returncode == 0
both = [subprocess.Popen([sys.executable, __file__, str(rank), "2", port]) for rank in range(2)]
two = [process.wait(timeout=300) == 0 for process in both]
print("as described" if one and all(two) else f"changed: one process {one}, two processes {two}")
sys.exit(not (one and all(two)))
PY
JAX_PLATFORMS=cpu venv/bin/python look.py
