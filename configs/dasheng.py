"""Dasheng (Dinkel et al. 2024, arXiv:2406.06992): a masked autoencoder of whole spectra, 25 tokens a second.

Run:      ssl-audio train --config dasheng:data=SOUNDS --workdir runs/dasheng
Try:      ssl-audio train --config dasheng:runlocal --workdir runs/try
Laptop:   ssl-audio train --config dasheng:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=base|0.6b|1.2b  encoder=vit|ssamba|ssamba_rms  group=2: tokens that are hidden together
Results:  experiments/dasheng/README.md; published weights: ssl-audio convert --from dasheng
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import runs
from ssl_audio.train.optim import Optim

PATCH = (64, 4)  # all mel bins, 40 ms
COLUMNS = 252  # of the table of positions
EPOCH = 15_000  # updates
NORM = dict(kind="norms:LayerNorm", eps=1e-6)
# Mean and deviation, dB, are those of ESC-10 and spoken digits, heard equally often.
FRONTEND: dict[str, Any] = dict(
    kind="mel", rate=16_000, bins=64, hop=160, window=512, low=0.0, high=8000.0, scale="htk", area=False,
    floor=1e-10, top_db=120.0, frames=1000, mean=-28.0, std=33.0,
)  # fmt: skip
# size: width, depth and heads of the encoder; width and heads of the decoder
SIZES = {
    "mini": (128, 4, 4, 64, 4),
    "base": (768, 12, 12, 512, 16),
    "0.6b": (1536, 24, 24, 512, 16),
    "1.2b": (1536, 40, 24, 768, 24),
}


def get_config(arg=""):
    a = parse_arg(
        arg,
        size="base",
        encoder="vit",
        group=2,
        data="synthetic",
        laptop=False,
        runlocal=False,
        pretrained="",
    )
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    if a.size not in SIZES:
        raise ValueError(f"size '{a.size}': wanted one of {', '.join(SIZES)}.")
    if a.laptop:
        a.refuse("size runlocal", "laptop sets it")
        made = objective(a, "mini", FRONTEND | dict(frames=496), depth=2)
        return runs.short(
            objective=made,
            places=a.data,
            batch=32,
            steps=1000,
            optim=optimizer(1.5e-3, "10%", 0.05),
        )
    config: Any = runs.pretrain(
        places=a.data,
        objective=objective(a, a.size, FRONTEND, depth=8),
        batch=256,
        steps=100 * EPOCH,
        optim=optimizer(3e-4, 3 * EPOCH, 0.01),
    )
    config.data.entries.audio.crop = "random"
    if not a.runlocal:
        return config
    a.refuse("size", "runlocal sets it")
    return runs.runlocal(config)


def objective(a, size, frontend, depth) -> dict[str, Any]:
    """Return the objective; `depth` is the decoder's."""
    width, layers, heads, inner, inner_heads = SIZES[size]
    named = "mini" if size == "mini" else "base"
    parts = runs.parts(frontend=dict(frontend), encoder=a.encoder, size=named, patch=PATCH)
    encoder = parts["encoder"]
    parts["tokenizer"]["width"] = encoder["width"] = width
    if encoder["block"]["mixer"]["kind"] == "attention":
        encoder["depth"], encoder["block"]["mixer"]["heads"] = layers, heads
    encoder["drop_path"] = 0.0
    # In time and frequency by themselves, though there is one row only; no special token.
    encoder |= dict(special=0, positions=dict(kind="positions:Separate", grid=(1, COLUMNS)))
    block = dict(
        kind="blocks:PreNorm", mixer=dict(kind="attention", heads=inner_heads), norm=NORM, mlp=4.0
    )
    return parts | dict(
        kind="mae",
        decoder=dict(
            kind="decoders:Decoder",
            trunk=dict(kind="stack", width=inner, depth=depth, block=block, final_norm=NORM),
            positions=dict(kind="positions:Learned", grid=(1, COLUMNS), cut="start"),
            special=0,
        ),
        masking=dict(kind="masking:Groups", count=0.75, size=a.group),
        standardise=True,
    )


def optimizer(lr, warmup, decay) -> Optim:
    return Optim(lr=lr, weight_decay=decay, warmup=warmup, schedule="cosine")
