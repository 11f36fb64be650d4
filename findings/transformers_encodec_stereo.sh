#!/usr/bin/env bash
# transformers' EnCodec, 48 kHz: its own feature extractor changes the codes of a clip's last second and adds a frame.
#
# Expected: `EncodecFeatureExtractor` prepares sound for `EncodecModel`; what comes out are the scales and codes of the
#   `encodec` package: the 48 kHz model cuts a clip in pieces of 1 s every 0.99 s, the last as long as what is left, and
#   divides each by its own root mean square (its "scale"). The model's docstring speaks of one frame per 0.99 s, and
#   says that the padding mask is needed for the right scale.
# Happens: the extractor fills the last piece up with zeros to 1 s, and the scale is taken over the zeros too, mask or
#   not. A last piece of 10 ms gets a tenth of its scale, so the network sees it ten times too loud (and the zeros as
#   well, while it normalises over time): its codes are others. That is so for nearly every length. Besides, the
#   encoder's loop takes the last 10 ms of the zeros for one more piece: 150 more codes, 2 of silence with the scale
#   1e-8 and 148 that fill up. The model without the extractor gives the scales and numbers of codes of `encodec`.
# Why: the extractor pads to (pieces - 1) x 0.99 + 1 s, which holds one start more for the encoder's loop over the
#   starts; the mask is multiplied into the sound and is not used for the mean.
# Matters: codes of stereo music made by the two libraries differ in the last piece of each clip (a third of a 1.5 s
#   clip), and a language model learns silence as every clip's end. Give the model the sound itself, one clip at a
#   time, and leave out the last `last_frame_pad_length` codes.
# Versions: transformers 5.24.0, encodec 0.1.1, torch 2.13.0, numpy 2.4.6; Python 3.11. Random weights: scales and
#   numbers of codes do not depend on them; the codes compared are those of one model.
# Source: transformers/models/encodec/feature_extraction_encodec.py (nb_step) and modeling_encodec.py (encode,
#   _encode_frame); encodec/model.py (encode).
# Output seen:
#   1.0 s, encodec:                    152 codes, scales [0.0706, 0.0656]
#   1.0 s, transformers, extractor:    302 codes, scales [0.0706, 0.00656, 1e-08]
#   1.0 s, transformers, no extractor: 152 codes, scales [0.0706, 0.0656]
#   1.0 s, equal codes with and without extractor: first piece 1.00, last 0.00
#   1.5 s, encodec:                    227 codes, scales [0.0706, 0.0706]
#   1.5 s, transformers, extractor:    302 codes, scales [0.0706, 0.0504, 1e-08]
#   1.5 s, transformers, no extractor: 227 codes, scales [0.0706, 0.0706]
#   1.5 s, equal codes with and without extractor: first piece 1.00, last 0.12
#   and 1.99 s in the same way
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  transformers==5.24.0 torch==2.13.0 numpy==2.4.6 einops==0.8.2 || exit 2
# encodec needs torchaudio for a function that is not used here.
venv/bin/pip install -qq --disable-pip-version-check --no-deps encodec==0.1.1 'setuptools<81' || exit 2
cat > look.py <<'PY'
import sys
import types

import torch
from transformers import EncodecConfig, EncodecFeatureExtractor, EncodecModel

sys.modules["torchaudio"] = types.ModuleType("torchaudio")
import encodec  # noqa: E402
from encodec.modules import SEANetDecoder, SEANetEncoder  # noqa: E402
from encodec.quantization import ResidualVectorQuantizer  # noqa: E402

RATE, WIDTH = 48_000, 16
torch.set_num_threads(1)
torch.manual_seed(0)
changed = []

extractor = EncodecFeatureExtractor(
    feature_size=2, sampling_rate=RATE, chunk_length_s=1.0, overlap=0.01
)
theirs = EncodecModel(
    EncodecConfig(
        sampling_rate=RATE,
        audio_channels=2,
        normalize=True,
        chunk_length_s=1.0,
        overlap=0.01,
        use_causal_conv=False,
        norm_type="time_group_norm",
        target_bandwidths=[3.0, 6.0, 12.0, 24.0],
        num_filters=4,
        hidden_size=WIDTH,
        codebook_dim=WIDTH,
    )
).eval()
small = {
    "channels": 2,
    "norm": "time_group_norm",
    "causal": False,
    "n_filters": 4,
    "dimension": WIDTH,
}
for name, values in theirs.named_buffers():  # a fresh model's codebooks are all zeros
    if name.endswith("codebook.embed"):
        values.copy_(torch.randn(values.shape))
first = encodec.EncodecModel(
    SEANetEncoder(**small),
    SEANetDecoder(**small),
    ResidualVectorQuantizer(dimension=WIDTH, n_q=16, bins=1024),
    [3.0, 6.0, 12.0, 24.0],
    RATE,
    2,
    normalize=True,
    segment=1.0,
).eval()
first.set_target_bandwidth(6.0)


def written(scales):
    return [float(f"{float(scale):.3g}") for scale in scales]


def same(one, other):
    return len(one) == len(other) and all(
        abs(a - b) < 1e-3 * b for a, b in zip(one, other, strict=True)
    )


for seconds in (1.0, 1.5, 1.99):
    sound = 0.1 * torch.randn(2, round(seconds * RATE))
    with torch.no_grad():
        frames = first.encode(sound[None])
        ready = extractor(sound.numpy(), sampling_rate=RATE, return_tensors="pt")
        padded = theirs.encode(ready["input_values"], ready["padding_mask"], 6.0)
        plain = theirs.encode(sound[None], None, 6.0)
    wanted, with_extractor, without = (
        written(scales)
        for scales in ([scale for _, scale in frames], padded.audio_scales, plain.audio_scales)
    )
    codes = sum(frame.shape[-1] for frame, _ in frames)
    counts = [
        out.audio_codes.shape[0] * out.audio_codes.shape[-1] - out.last_frame_pad_length
        for out in (padded, plain)
    ]
    print(f"{seconds} s, encodec:                    {codes} codes, scales {wanted}")
    print(f"{seconds} s, transformers, extractor:    {counts[0]} codes, scales {with_extractor}")
    print(f"{seconds} s, transformers, no extractor: {counts[1]} codes, scales {without}")
    last, real = len(frames) - 1, frames[-1][0].shape[-1]
    equal = [
        float((padded.audio_codes[i, ..., :n] == plain.audio_codes[i, ..., :n]).float().mean())
        for i, n in ((0, 150), (last, real))
    ]
    print(
        f"{seconds} s, equal codes with and without extractor: first piece {equal[0]:.2f}, last {equal[1]:.2f}"
    )
    left = (
        seconds - 0.99 * (len(wanted) - 1)
    ) ** 0.5  # what zeros up to 1 s leave of the last scale
    ok = (
        same(wanted, without)
        and counts[1] == codes
        and same(with_extractor[:-1], [*wanted[:-1], wanted[-1] * left])
        and with_extractor[-1] < 1e-6
        and counts[0] == 150 * len(wanted) + 2
        and equal[0] > 0.99
        and equal[1] < 0.9
    )
    if not ok:
        changed.append(f"{seconds} s")
if changed:
    sys.exit("changed: " + "; ".join(changed))
PY
venv/bin/python -W ignore look.py
