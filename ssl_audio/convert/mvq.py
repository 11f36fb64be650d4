"""Multi-codebook quantisers of k2-fsa/multi_quantization, and the head that predicts their codes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import config as configs
from ssl_audio.convert.base import Converted, State, dense, fill, need, plain_names
from ssl_audio.convert.options import Options

CENTERS = "quantizer.centers"
HEAD = "mvq_head."
FOLDERS = {"quantizer": "quantizers", "head": "heads"}


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a quantiser (`quantizer.*`) and, if there is one, a predictor of its codes.

    Options: dim, codebook_size, num_codebooks, held against the arrays; scale_speed (10).
    `forward(x=[*B, D])` gives the codes that the classifier guesses and those after 5 rounds of
    search, what these stand for, and the quantiser's losses with the former; h [*B, C] and targets
    [*B, Q] (negative: none) give the cross-entropy of each code.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    (centers,) = need(state, CENTERS)
    books, codes, width = centers.shape
    asked.found("dim", width, f"{CENTERS} {centers.shape}")
    asked.found("codebook_size", codes, f"{CENTERS} {centers.shape}")
    asked.found("num_codebooks", books, f"{CENTERS} {centers.shape}")
    asked.only("scale_speed", 10.0, 10)
    asked.only("is_joint", False)
    asked.finish()
    config: dict[str, Any] = dict(
        quantizer=dict(kind="multi_codebook", books=books, codes=codes, width=width)
    )
    inputs: dict[str, int] = dict(quantizer=width)
    weight = f"{HEAD}linear2b_weight"
    if weight in state:
        config["head"] = dict(kind="codes:Codes", books=books, codes=codes)
        inputs["head"] = state[weight].shape[-1]
    built = {name: configs.build(part, FOLDERS[name]) for name, part in config.items()}

    def fresh(key):
        return {
            name: part.init(key, jnp.zeros((1, 1, inputs[name])))["params"]
            for name, part in built.items()
        }

    shapes = jax.eval_shape(fresh, jax.random.key(0))
    params, left = fill(
        shapes, to_state_dict, state, unused=("quantizer.id_buf", HEAD, "quantizer.num_")
    )

    def outputs(params, x, h=None, targets=None):
        quantizer, weights = built["quantizer"], {"params": params["quantizer"]}

        def call(name, *arguments):
            return quantizer.apply(weights, *arguments, method=name)

        codes = call("encode", x, 5)
        relative, guess, _ = call("losses", x.reshape(-1, x.shape[-1]), 0)
        found = {
            "codes_argmax": call("encode", x, 0),
            "codes_refined5": codes,
            "decoded": call("decode", codes),
            "rel_reconstruction": relative,
            "logprob_loss": guess,
        }
        if h is not None and targets is not None:
            logits = built["head"].apply({"params": params["head"]}, h)
            logp = jax.nn.log_softmax(logits)
            chosen = jnp.take_along_axis(logp, jnp.maximum(targets, 0)[..., None], axis=-1)
            found["ce_none"] = jnp.where(targets < 0, 0.0, -chosen[..., 0])
        return found

    return Converted(config, params, outputs, left)


def to_state_dict(params: Any, config: Any = None) -> dict[str, np.ndarray]:
    """Return parameters of ours under the reference's names."""
    del config
    quantizer = params["quantizer"]
    state = {
        CENTERS: quantizer["centers"],
        "quantizer.centers_scale": quantizer["center_scale"],
        "quantizer.logits_scale": quantizer["guess_scale"],
    }
    state |= dense("quantizer.to_logits", quantizer["guess"])
    if "head" in params:
        state[f"{HEAD}linear2b_weight"] = params["head"]["kernel"].transpose(1, 2, 0)
        state[f"{HEAD}linear2_bias"] = params["head"]["bias"]
    return state
