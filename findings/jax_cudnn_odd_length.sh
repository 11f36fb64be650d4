#!/usr/bin/env bash
# jax.nn.dot_product_attention with cuDNN: no gradient for an odd number of tokens, even without a bias.
#
# Expected: cuDNN's limit of even lengths is one of attention with a bias, which JAX's check says in its comment
#   ("patterns with bias"). Without a bias an odd length, such as 512 patches and a class token, has gradients.
# Happens: NotImplementedError "Unsupported sequence length Q 513, KV 513." as soon as a gradient is taken; the
#   forward pass alone is accepted. An absent bias becomes an array of length 0 before the check of the backward
#   rule asks `bias is not None`, so it always finds one.
# Matters: a ViT trains only without cuDNN's attention; code that falls back to another implementation where
#   cuDNN refuses gets slow in training alone. One more token and `query_seq_lengths`, `key_value_seq_lengths`
#   that leave it out is accepted.
# Versions: jax 0.10.2 and 0.11.2; Python 3.11 to 3.12. Only shapes are traced: no GPU is needed, and the version
#   of cuDNN, which JAX asks for, is given by hand.
# Source: jax/_src/cudnn/fused_attention_stablehlo.py, `check_is_flash_attention` and its calls.
# Output seen:
#   513, forward: accepted
#   513, gradient: NotImplementedError: Unsupported sequence length Q 513, KV 513.
#   514, gradient: accepted
#   514 of which 513 count, gradient: accepted
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as cudnn

cudnn.check_cudnn_version = lambda: 91200  # of an installed cuDNN 9.12
changed = []


def expect(label, call, wanted):
    try:
        call()
        seen = "accepted"
    except NotImplementedError as error:
        seen = f"NotImplementedError: {str(error).splitlines()[0]}"
    print(f"{label}: {seen}")
    if seen.partition(":")[0] != wanted:
        changed.append(label)


def attention(q, lengths=None):
    given = dict(query_seq_lengths=lengths, key_value_seq_lengths=lengths)
    y = jax.nn.dot_product_attention(q, q, q, implementation="cudnn", **given)
    return jnp.sum(y.astype(jnp.float32))


def tokens(count):
    return jax.ShapeDtypeStruct((2, count, 12, 64), jnp.bfloat16)


def gradient(count, *lengths):
    return lambda: jax.eval_shape(jax.grad(attention), tokens(count), *lengths)


expect("513, forward", lambda: jax.eval_shape(attention, tokens(513)), "accepted")
expect("513, gradient", gradient(513), "NotImplementedError")
expect("514, gradient", gradient(514), "accepted")
lengths = jax.ShapeDtypeStruct((2,), jnp.int32)
expect("514 of which 513 count, gradient", gradient(514, lengths), "accepted")
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python look.py 2> log || { status=$?; tail -n 5 log >&2; exit "$status"; }
