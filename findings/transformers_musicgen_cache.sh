#!/usr/bin/env bash
# transformers: `MusicgenForCausalLM.generate` with its own cache says other codes than whole passes do, without a word.
#
# Expected: a cache changes how fast codes are generated, not which. Greedy codes of `generate()`, of
#   `generate(use_cache=False)` and of a loop of whole passes are the same.
# Happens: with the default cache most codes differ. With `cache=EncoderDecoderCache(DynamicCache(), DynamicCache())`,
#   or without any, they are those of whole passes, but only where `attention_mask=torch.ones(batch, 1)` is given, too.
# Why: `generate` makes a plain DynamicCache for this class. Layers attend to the codes and to the text, and write the
#   keys of both into it: after the first column it says that 1 + 16 columns were heard (16 words), after the second 34,
#   so positions are wrong and columns attend to words as if they were codes. The decoder itself would make the right
#   cache if it were given none. And the begin token is the padding token, so the mask that is inferred hides the first
#   column. `MusicgenForConditionalGeneration` does both right.
# Matters: to whoever drives a MusicGen decoder with vectors of text of their own, or measures its speed: sound is worse
#   for no visible reason, and slower, for the cache grows by 17 and not by 1.
# Versions: transformers 5.24.0, torch 2.13.0; Python 3.11.
# Source: transformers/models/musicgen/modeling_musicgen.py, MusicgenDecoder.forward (`if use_cache and cache is None`),
#   MusicgenAttention.forward and MusicgenForCausalLM.generate.
# Output seen:
#   its own cache: 0.025 of the codes are those of whole passes
#   no cache: 1.000; EncoderDecoderCache: 1.000; no cache, inferred mask: 0.988
#   columns in its own cache before each column: [0, 17, 34, 51, 68]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys

import torch
import transformers
from transformers import DynamicCache, EncoderDecoderCache

torch.manual_seed(0)
BOOKS, CODES, WIDTH, STEPS, WORDS = 4, 2048, 128, 20, 16
config = transformers.MusicgenDecoderConfig(
    vocab_size=CODES, hidden_size=WIDTH, num_hidden_layers=2, ffn_dim=4 * WIDTH, num_attention_heads=2,
    num_codebooks=BOOKS, pad_token_id=CODES, bos_token_id=CODES,
)
model = transformers.MusicgenForCausalLM(config).eval()
for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
    setattr(model.generation_config, name, CODES)
with torch.no_grad():
    for head in model.lm_heads:
        head.weight.mul_(30)  # else rounding decides which code is the likeliest
words = dict(encoder_hidden_states=torch.randn(1, WORDS, WIDTH), encoder_attention_mask=torch.ones(1, WORDS))


def generated(**options):
    with torch.no_grad():
        return model.generate(
            torch.full((BOOKS, 1), CODES), do_sample=False, guidance_scale=1.0, num_return_sequences=1,
            max_new_tokens=STEPS + BOOKS - 1, **words, **options,
        )[0]


@torch.no_grad()
def whole_passes():
    said = torch.full((BOOKS, 1), CODES)
    for at in range(1, STEPS + BOOKS):
        drawn = model(said, use_cache=False, **words).logits[:, -1].argmax(-1).reshape(BOOKS)
        for book in range(BOOKS):  # the delayed pattern: book b begins b columns later
            if not book < at <= STEPS + book:
                drawn[book] = CODES
        said = torch.cat([said, drawn[:, None]], 1)
    return torch.stack([said[book, 1 + book : 1 + book + STEPS] for book in range(BOOKS)])


lengths = []
inner = model.forward


def watched(*args, **kwargs):
    lengths.append(kwargs["cache"].get_seq_length() if kwargs.get("cache") is not None else None)
    return inner(*args, **kwargs)


wanted, ones = whole_passes(), torch.ones(1, 1)
model.forward = watched
own = generated(attention_mask=ones)
model.forward = inner
found = {
    "its own cache": own,
    "no cache": generated(attention_mask=ones, use_cache=False),
    "EncoderDecoderCache": generated(
        attention_mask=ones,
        cache=EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config)),
    ),
    "no cache, inferred mask": generated(use_cache=False),
}
same = {name: (codes == wanted).float().mean().item() for name, codes in found.items()}
for name, share in same.items():
    print(f"{name}: {share:.3f} of the codes are those of whole passes")
print("columns in its own cache before each column:", lengths[:5])
as_described = (
    same["no cache"] == 1
    and same["EncoderDecoderCache"] == 1
    and same["its own cache"] < 0.5
    and same["no cache, inferred mask"] < 1
    and lengths[:3] == [0, 17, 34]
)
sys.exit(0 if as_described else 1)
PY
venv/bin/python look.py
