"""UnFuSeD's student (Seth et al. 2023, arXiv:2303.05668): AudioNTT2020 with a classifier at every tap."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.convert.base import (
    Converted,
    State,
    build,
    dense,
    image_conv,
    need,
    plain_names,
    stored_norm,
)
from ssl_audio.convert.options import Options
from ssl_audio.data.entries import clips
from ssl_audio.heads.pools import TimeMaxMean
from ssl_audio.presets import audio_ntt

ENCODER, BLOCK = "encoder.", "encoder.features_"
UNUSED = re.compile(r"num_batches_tracked$")


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a state dict to an objective of kind `layer_distill`; without classifiers, to an encoder.

    Names are those of AudioNTT2020Task6 under `encoder.`, with `p1.` to `p3.` and `classifier.` beside it.

    Options: alpha (0.7), beta (0.3), gamma (0.003), weights of the three sums over taps; n_mels, d, clusters
    and layer_dims are held against the arrays. The log-mel is LAPE's.

    `forward(x=[B, 1, F, T], labels=[B])` gives layer1, layer2, layer3, frames and clip_embedding; with
    classifiers logits, proj1 to proj3, and the terms of the loss ce_main, ce_shallow, kl, cosine and total.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state = plain_names(state_dict)
    kept = {name: value for name, value in state.items() if UNUSED.search(name)}
    state = {name: value for name, value in state.items() if name not in kept}
    asked = Options(options)
    blocks = len({n[len(BLOCK)] for n in state if n.startswith(BLOCK)})
    first, second = need(state, f"{BLOCK}1.0.weight", f"{ENCODER}fc.0.weight")
    (width, joined), channels = second.shape, len(first)
    bins = asked.found(
        "n_mels", joined // channels * 2**blocks, f"{ENCODER}fc.0.weight {second.shape}"
    )
    asked.found("d", width, f"{ENCODER}fc.0.weight {second.shape}")
    dims = tuple(channels * (bins >> block) for block in range(1, blocks + 1))
    asked.found("layer_dims", dims, f"{bins} mel bands and {BLOCK}*")
    weights = dict(own=0.7, follow=0.3, align=0.003)
    names = zip(weights, ("alpha", "beta", "gamma"), strict=True)
    weights = {ours: asked.get(theirs, weights[ours]) for ours, theirs in names}
    parts = audio_ntt.parts(width=width, channels=channels)
    parts["frontend"]["bins"] = bins
    parts["encoder"]["blocks"] = blocks
    objective = dict(kind="features", **parts)
    if tagger := "classifier.weight" in state:
        classes = asked.found("clusters", len(state["classifier.weight"]), "classifier.weight")
        head = dict(kind="classify:Pooled", classes=classes, pool=dict(kind="pools:TimeMaxMean"))
        shallow = dict(kind="projectors:BarlowTwins", out=classes)
        layers = tuple(range(blocks))
        objective |= dict(
            kind="layer_distill", head=head, shallow=shallow, layers=layers, **weights
        )
    asked.finish()
    config: dict[str, Any] = dict(
        objective=objective, data=clips(audio_ntt.SAMPLES, rate=parts["frontend"]["rate"])
    )
    built, params, left = build(config, lambda p: to_state_dict(p, config), state)

    def outputs(params, x, labels=None):
        spec = jnp.swapaxes(x[:, 0], 1, 2)
        tokens = built.tokenizer.apply({}, spec)
        encoded: Any = built.encoder.apply({"params": params["encoder"]}, tokens, layers=True)
        layers = {f"layer{i + 1}": jnp.mean(x, 1) for i, x in enumerate(encoded.layers)}
        found: dict[str, Any] = layers | {"frames": encoded.tokens.x}
        found["clip_embedding"] = TimeMaxMean().apply({}, encoded)
        if not tagger:
            return found
        found["logits"], shallow, _ = built.classified(params, spec)
        found |= {f"proj{i + 1}": value for i, value in enumerate(shallow)}
        if labels is None:
            return found
        terms = built.terms(found["logits"], shallow, jax.nn.one_hot(labels, classes))
        named = dict(entropy="ce_main", own="ce_shallow", follow="kl", align="cosine")
        found |= {theirs: terms[ours] for ours, theirs in named.items()}
        return found | {"total": built.total(terms)}

    return Converted(config, params, outputs, kept | left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under the names of the released code."""
    del config
    state = {}
    for name, part in params["encoder"].items():
        if found := re.fullmatch(r"block(\d+)_(conv|norm)", name):
            at = f"{BLOCK}{int(found[1]) + 1}"
            norm = found[2] == "norm"
            state |= stored_norm(f"{at}.1", part) if norm else image_conv(f"{at}.0", part)
        else:
            state |= dense(f"{ENCODER}fc.{3 * int(name[-1])}", part["dense"])
    for name, part in params.get("shallow", {}).items():
        at = f"p{int(name.removeprefix('layer_')) + 1}"
        for inner, value in part.items():
            number = int(inner[-1]) + 1
            if inner.startswith("norm"):
                state |= stored_norm(f"{at}.bn{number}", value)
            else:
                state |= dense(f"{at}.l{number}", value["dense"])
    if "head" in params:
        state |= dense("classifier", params["head"]["linear"])
    return state
