#!/usr/bin/env bash
# Everything of README.md on one GPU, at most 7 minutes; `--dry`: tiny and on a CPU, to test this script.
# OUT: folder of the results. WHEELS: folder of wheels to compare with, which are installed in a temporary place.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3}
out=${OUT:-experiments/gpu/results}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=2
# The step that a later part traces was compiled by an earlier one.
export JAX_COMPILATION_CACHE_DIR="$scratch/compiled" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=1
case " $* " in *" --dry "*) export JAX_PLATFORMS=cpu ;; esac

if ! "$python" -c 'import jax, flax, optax' 2>"$scratch/why"; then
  echo "run.sh: $python lacks jax, flax or optax; choose another with PYTHON=, or install 'jax[cuda13]' flax optax." >&2
  cat "$scratch/why" >&2
  exit 1
fi
if [[ -n ${WHEELS:-} ]]; then
  if "$python" -m pip install -q --no-index --no-deps --no-compile --target "$scratch/site" "$WHEELS"/*.whl; then
    export PYTHONPATH="$PYTHONPATH:$scratch/site"
  else
    echo "run.sh: the wheels in $WHEELS could not be installed: nothing to compare with." >&2
  fi
fi
# Where the package nvidia-cuda-nvcc is missing, jax 0.11.2 takes "None" for the folder of the compiler.
if [[ -z ${CUDA_ROOT:-} && -x /usr/local/cuda/bin/ptxas ]] && ! "$python" -m pip show -q nvidia-cuda-nvcc >/dev/null 2>&1; then
  export CUDA_ROOT=/usr/local/cuda
fi
mkdir -p "$out"
"$python" -m experiments.gpu.run --out "$out" "$@" 2>&1 | tee "$out/log.txt"
