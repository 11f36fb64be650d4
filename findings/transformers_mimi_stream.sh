#!/usr/bin/env bash
# transformers' Mimi: decoding in pieces with the cache gives other sound than decoding at once; encoding does not.
#
# Expected: Mimi is a causal codec made for streams, and both halves take caches. Encoding piece by piece with
#   `use_streaming=True` gives the codes of the whole, so decoding piece by piece, with the `decoder_cache` of each call
#   passed to the next, gives the sound of the whole.
# Happens: the codes are equal, each one. The decoded sound is not: every piece after the first is wrong from its first
#   sample for up to half a second. With pieces of 4 codes (0.32 s) the error is nearly as strong as the sound, and
#   with the cache no smaller than without. By default no cache comes back at all
#   (`decoder_cache` is None unless `use_cache=True`, which no signature names); passing that None on looks as if it
#   worked.
# Why: the cache is that of the decoder's transformer. The convolutions and transposed convolutions around it, the
#   upsampling before it included, have none: `padding_cache` exists in the encoder only, and each piece starts from
#   zeros. What the past should have added is lost at each border, through all layers' reach.
# Matters: speech models that speak as they generate. What to do: decode each piece with codes before it and drop the
#   sound of those (here 16 codes are enough; the attention of the published model looks 10 s back), or at the end.
# Versions: transformers 5.24.0, torch 2.13.0, numpy 2.4.6; Python 3.11. Random weights, codebooks filled by seed.
# Source: transformers/models/mimi/modeling_mimi.py: MimiDecoderModel.forward, whose `cache` is described as "used to
#   speed up streaming decoding"; MimiConv1d.forward against MimiConvTranspose1d.forward (no `padding_cache`).
# Output seen:
#   encoded in pieces of 1 code: share of equal codes 1.0
#   decoded in pieces of 4 codes: cache returned: no, error 0.71 of the sound
#   decoded in pieces of 4 codes, use_cache=True: cache returned: yes, error 0.71 of the sound
#   decoded in pieces of 12 codes, use_cache=True: cache returned: yes, error 0.33 of the sound
#   decoded in pieces of 4 codes after 16 codes of the past: error below 1e-5: yes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check transformers==5.24.0 torch==2.13.0 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys

import torch
from transformers import MimiConfig, MimiModel

CODES = 24
torch.set_num_threads(1)
torch.manual_seed(0)
model = MimiModel(
    MimiConfig(
        num_filters=8,
        hidden_size=64,
        codebook_size=64,
        codebook_dim=32,
        vector_quantization_hidden_dimension=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        intermediate_size=128,
        num_quantizers=4,
        upsample_groups=64,
    )
).eval()
for name, values in model.named_buffers():  # a fresh model's codebooks are all zeros
    if name.endswith("embed_sum"):
        values.copy_(torch.randn(values.shape))
frame = model.config.frame_size
sound = 0.1 * torch.randn(1, 1, CODES * frame)
changed = []


def expect(label, ok):
    print(label)
    if not ok:
        changed.append(label)


def encode(size):
    past, parts = {}, []
    for start in range(0, CODES, size):
        piece = sound[..., start * frame : (start + size) * frame]
        out = model.encode(piece, use_streaming=True, **past)
        past = {"encoder_cache": out.encoder_cache, "padding_cache": out.padding_cache}
        parts.append(out.audio_codes)
    return torch.cat(parts, -1)


def decode(size, **options):
    cache, parts = None, []
    for start in range(0, CODES, size):
        out = model.decode(codes[..., start : start + size], decoder_cache=cache, **options)
        cache = out.decoder_cache
        parts.append(out.audio_values)
    error = float((torch.cat(parts, -1) - whole).norm() / whole.norm())
    return cache is not None, error


def decode_with_past(size, past):
    parts = []
    for start in range(0, CODES, size):
        first = max(0, start - past)
        out = model.decode(codes[..., first : start + size]).audio_values
        parts.append(out[..., (start - first) * frame :])
    return float((torch.cat(parts, -1) - whole).norm() / whole.norm())


with torch.no_grad():
    codes = model.encode(sound).audio_codes
    whole = model.decode(codes).audio_values
    equal = float((encode(1) == codes).float().mean())
    expect(
        f"encoded in pieces of 1 code: share of equal codes {equal}",
        equal == 1 and codes.unique().numel() > 10,
    )
    kept, error = decode(4)
    expect(
        f"decoded in pieces of 4 codes: cache returned: {'yes' if kept else 'no'}, error {error:.2f} of the sound",
        not kept and error > 0.3,
    )
    for size, least in ((4, 0.3), (12, 0.1)):
        kept, error = decode(size, use_cache=True)
        expect(
            f"decoded in pieces of {size} codes, use_cache=True: cache returned: {'yes' if kept else 'no'}, "
            f"error {error:.2f} of the sound",
            kept and error > least,
        )
    error = decode_with_past(4, 16)
    expect(
        f"decoded in pieces of 4 codes after 16 codes of the past: error below 1e-5: {'yes' if error < 1e-5 else 'no'}",
        error < 1e-5,
    )
if changed:
    sys.exit("changed: " + "; ".join(changed))
PY
venv/bin/python -W ignore look.py
