"""BEATs' self-distilled tokenizer (Chen et al. 2023, arXiv:2212.09058): an encoder and a codebook."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_audio.convert import beats
from ssl_audio.convert.base import Converted, State, build, dense, need, plain_names, samples
from ssl_audio.convert.options import Options
from ssl_audio.data.entries import clips
from ssl_audio.quantizers import codebooks
from ssl_audio.tokens.order import in_time

BOOK = "quantize.embedding.weight"
LAYERS = {"into": "quantize_layer.0", "out": "quantize_layer.2"}


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a tokenizer; what only its training needs (cluster sizes, …) is kept as unused.

    Options: those of `beats`, quant_n and quant_dim, held against the arrays.
    `forward(fbank=[B, T, F])` takes normalised log-mel and gives `codes`, of all clips one after the
    other and with time as the slow axis; `ema_step_z` [B, N, E] adds what one training step makes of
    such vectors: their quantised values, the commitment loss, codes, and the codebook afterwards.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    book, hidden = need(state, BOOK, f"{LAYERS['into']}.weight")
    codes = asked.found("quant_n", len(book), f"{BOOK} {book.shape}")
    width = asked.found("quant_dim", book.shape[1], f"{BOOK} {book.shape}")
    objective: dict[str, Any] = dict(
        kind="features",
        frontend=beats.FRONTEND,
        **beats.encoder(state, asked),
        quantizer=dict(kind="codebooks:Cosine", hidden=len(hidden), codes=codes, width=width),
    )
    asked.finish()
    config = dict(
        objective=objective,
        data=clips(samples(beats.FRAMES)),
        inference=dict(pad="none"),
        reference=beats.style(state),
    )
    built, params, left = build(
        config, lambda p: to_state_dict(p, config), state, unused=("quantize.",)
    )

    def outputs(params, fbank, ema_step_z=None):
        tokens = built.tokenizer.apply({"params": params["tokenizer"]}, fbank)
        tokens, _ = in_time(tokens)
        encoded = built.encoder.apply({"params": params["encoder"]}, tokens)
        found = built.quantizer.apply({"params": params["quantizer"]}, encoded.tokens.x)
        found = {"codes": found.reshape(-1)}
        if ema_step_z is not None:
            book, z = params["quantizer"]["book"], codebooks.unit(ema_step_z)
            codes = codebooks.nearest(z, book)
            found |= {
                "ema_step_zq": codebooks.straight_through(z, book[codes]),
                "ema_step_loss": jnp.mean((book[codes] - z) ** 2),
                "ema_step_codes": codes.reshape(-1),
                "ema_step_codebook_after": codebooks.moved(
                    book, z.reshape(-1, z.shape[-1]), codes.reshape(-1)
                ),
            }
        return found

    return Converted(config, params, outputs, left)


def to_state_dict(params: Any, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under BEATs' names."""
    quantizer = params["quantizer"]
    state = beats.to_state_dict(params, config) | {BOOK: quantizer["book"]}
    for ours, theirs in LAYERS.items():
        state |= dense(theirs, quantizer[ours])
    return state
