"""Probes of Bird-MAE (Rauch et al. 2025, arXiv:2504.12880): prototypical and attentive heads.

They are heads of any encoder, so the config describes no objective: only the heads.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import config as configs
from ssl_audio import losses
from ssl_audio.convert.base import Converted, State, fill, need, plain_names
from ssl_audio.convert.options import Options
from ssl_audio.heads import probes
from ssl_audio.structs import Encoded, Tokens

UPSAMPLE = {"up": 2, "id": 1}  # name of a prototypical head → how much finer its map is made


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert the heads `up`, `id` (prototypical, with and without interpolation) and `attentive`.

    Options: heads (default: width / 64), asl: gamma_neg, gamma_pos, clip of the asymmetric loss
    (eps, if given: 1e-8);
    classes, protos_per_class, D, H, W are held against the arrays.
    `forward(tokens=[B, 1 + N, D], focal_map=[B, D, H, W], targets=[B, C])` gives for `up` and `id`
    logits, the greatest cosines [B, C J], the prototypes' Gram matrices less the identity [C, J, J]
    and the loss, `attentive_pool` [B, D], and how a fresh last layer starts.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    name = "up.last_layer.weight"
    last, query = need(state, name, "attentive.cls_token")
    classes = asked.found("classes", last.shape[0], f"{name} {last.shape}")
    count = asked.found("protos_per_class", last.shape[1], f"{name} {last.shape}")
    width = asked.found("D", query.shape[-1], f"attentive.cls_token {query.shape}")
    shape = asked.get("H"), asked.get("W")
    asl = dict(asked.get("asl", {}))
    if asl.pop("eps", 1e-8) != 1e-8:
        raise ValueError("option asl: only eps=1e-8 can be converted.")
    names = dict(gamma_neg="negative", gamma_pos="positive", clip="margin")
    if unknown := asl.keys() - names:
        raise ValueError(f"option asl: got {', '.join(unknown)}; wanted {', '.join(names)}, eps.")
    loss = {names[key]: float(value) for key, value in asl.items()}
    heads = asked.heads("heads", width)
    config = {
        key: dict(kind="probes:Prototypical", classes=classes, prototypes=count, upsample=factor)
        for key, factor in UPSAMPLE.items()
    } | {"attentive": dict(kind="probes:AttentivePool", heads=heads)}
    asked.finish()
    built = {key: configs.build(value, "heads") for key, value in config.items()}

    def fresh(key):
        blank = jnp.zeros((1, 1, width))
        encoded = Encoded(Tokens(blank, jnp.zeros((1, 1), jnp.int32), (1, 1)))
        return {name: head.init(key, encoded)["params"] for name, head in built.items()}

    params, _ = fill(jax.eval_shape(fresh, jax.random.key(0)), to_state_dict, state)

    def outputs(params, tokens, focal_map, targets):
        if None not in shape and focal_map.shape[2:] != shape:
            raise ValueError(f"focal_map: got shape {focal_map.shape}; options H, W say {shape}.")
        found = {}
        whole = _encoded(jnp.moveaxis(focal_map, 1, -1))
        for key in UPSAMPLE:
            head, values = built[key], params[key]
            logits = head.apply({"params": values}, whole)
            x, _ = probes.focal_map(whole, head.upsample)
            cosine = probes.strongest(x, values["prototypes"])
            unit = probes.directions(values["prototypes"])
            gram = jnp.einsum("cid,cjd->cij", unit, unit)
            found[f"{key}_logits"] = logits
            found[f"{key}_max_activations"] = cosine.reshape(len(logits), -1)
            found[f"{key}_orthogonalities"] = gram - jnp.eye(count)[None]
            found[f"{key}_loss_asl"] = jnp.mean(losses.asymmetric(logits, targets, **loss))
        patches = _encoded(tokens[:, None, 1:])
        found["attentive_pool"] = built["attentive"].apply({"params": params["attentive"]}, patches)
        start = fresh(jax.random.key(0))["up"]
        return found | {"init_last_bias": start["bias"], "init_last_weight": start["weights"]}

    return Converted(config, params, outputs)


def to_state_dict(params: Any, config: Any = None) -> dict[str, np.ndarray]:
    """Return parameters of ours under Bird-MAE's names."""
    del config
    state = {}
    for key in UPSAMPLE:
        vectors = params[key]["prototypes"]
        state |= {
            f"{key}.prototype_vectors": vectors.reshape(-1, vectors.shape[-1], 1, 1),
            f"{key}.last_layer.weight": params[key]["weights"],
            f"{key}.last_layer.bias": params[key]["bias"],
        }
    pool = params["attentive"]
    state["attentive.cls_token"] = pool["query"].reshape(1, 1, -1)
    for ours, theirs in (("key", "k"), ("value", "v")):
        kernel = pool[ours]
        state[f"attentive.{theirs}.weight"] = kernel.reshape(len(kernel), -1).T
    return state


def _encoded(x: jax.Array) -> Encoded:
    """Return a map [B, rows, columns, D] as what an encoder without special tokens returns."""
    b, rows, columns, width = x.shape
    index = jnp.broadcast_to(jnp.arange(rows * columns)[None], (b, rows * columns))
    return Encoded(Tokens(x.reshape(b, -1, width), index, (rows, columns)))
