"""AudioMosaic (2026, arXiv:2605.14231): an encoder with its projector, or a fine-tuned or bare encoder."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_audio import losses
from ssl_audio.convert import vit
from ssl_audio.convert.base import Converted, State, build, need, norm, plain_names, samples
from ssl_audio.convert.options import Options
from ssl_audio.convert.trace import join
from ssl_audio.data.entries import clips
from ssl_audio.frontend.fbank import STATS

HEAD = ("fc_norm.", "head.")  # of a fine-tuned model, or of one without a projector
# Running statistics of the projector, which nothing uses after training; its last shift, which is 0.
KEPT = ("projector.1.", "projector.4.")


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a state dict of AudioMosaic, with the objective if it has the projector.

    The released code numbers positions as if tokens lay otherwise than they do, but trains them: the table
    is taken as it is, row by row for the tokens that it was added to. It resizes tables on that wrong grid;
    ours are resized on the right one, so clips of another length get other positions than there.

    Options: heads (default: width / 64), target_length (frames; default: as many as the table has), bins
    (128), ln_eps (1e-6), mean, std, temperature (0.1); dim, depth, mlp_ratio are held against the arrays.

    `forward(spec=[B, 1, T, F])` gives the tokens, special first; with the projector `forward(view_0,
    view_1=[B, 1, T, F], keep_0, keep_1=[B, K])` gives what the visible tokens become, and the loss.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`; a projector that ends with a shift.
    """
    state = {n.removeprefix("_orig_mod."): v for n, v in plain_names(state_dict).items()}
    asked = Options(options)
    kernel, table = need(state, "patch_embed.proj.weight", "pos_embed")
    where = f"patch_embed.proj.weight {kernel.shape}"
    patch = (kernel.shape[3], kernel.shape[2])
    bins = asked.get("bins", 128)
    rows = bins // patch[0]
    columns = (table.shape[1] - 1) // max(rows, 1)
    frames = asked.get("target_length", columns * patch[1])
    if rows * columns + 1 != table.shape[1] or frames // patch[1] != columns:
        raise ValueError(
            f"pos_embed has {table.shape[1]} rows; {frames} frames x {bins} bins mean {rows} x "
            f"{frames // patch[1]} patches and a cls token. Give the options target_length (frames) and bins."
        )
    eps = asked.get("ln_eps", 1e-6)
    encoder = vit.blocks(state, asked, "blocks", heads="heads", eps=eps)
    layer_norm = encoder["final_norm"]
    encoder |= dict(
        special=1,
        positions=dict(kind="positions:Learned", grid=(rows, columns)),
        first_norm=layer_norm,
        final_norm=None,
    )
    width = asked.found("dim", encoder["width"], where)
    asked.found("depth", encoder["depth"], "blocks.*")
    asked.found("mlp_ratio", encoder["block"]["mlp"], "blocks.0.mlp.fc1.weight")
    objective: dict[str, Any] = dict(
        kind="features",
        frontend=dict(
            kind="fbank",
            bins=bins,
            frames=frames,
            mean=asked.get("mean", STATS["audioset"]["mean"]),
            std=asked.get("std", STATS["audioset"]["std"]),
        ),
        tokenizer=dict(kind="patchify", width=width, patch=patch, stride=patch, norm=layer_norm),
        encoder=encoder,
    )
    temperature, pretrained = asked.get("temperature", 0.1), "projector.0.weight" in state
    if pretrained:
        first, second = need(state, "projector.0.weight", "projector.3.weight")
        if np.any(state.get("projector.4.bias", 0)):
            raise ValueError(
                "projector.4.bias: not 0; AudioMosaic's projector ends without a shift."
            )
        objective |= dict(
            kind="masked_contrast",
            pool=dict(kind="pools:MeanOfAll"),
            projector=dict(kind="projectors:AudioMosaic", hidden=len(first), out=len(second)),
            maskings=(
                dict(kind="masking:TimeFrequency", time=0.6),
                dict(kind="masking:TimeFrequency", freq=0.4),
            ),
            temperature=temperature,
        )
    asked.finish()
    config = dict(objective=objective, data=clips(samples(frames)))
    unused = KEPT if pretrained else HEAD
    built, params, left = build(config, lambda p: to_state_dict(p, config), state, unused=unused)
    order = vit.TimeMajor((rows, columns), patch)

    def pretraining(params, view_0, view_1, keep_0, keep_1):
        found, pair = {}, []
        for number, (view, keep) in enumerate(((view_0, keep_0), (view_1, keep_1))):
            shown = jnp.sort(order.places(keep), axis=1)
            vector = built.visible(params, view[:, 0], shown)
            pair.append(built.projected(params, vector))
            found |= {f"f_{number}": vector, f"z_{number}": pair[-1]}
        loss, hit = losses.nt_xent(pair[0], pair[1], temperature)
        return found | {"loss": jnp.mean(loss), "acc": jnp.mean(hit)}

    def encoding(params, spec):
        tokens = built.tokenizer.apply({"params": params["tokenizer"]}, spec[:, 0])
        encoded = built.encoder.apply({"params": params["encoder"]}, tokens)
        return {"tokens": order.joined(join(encoded))}

    def outputs(params, spec=None, **views):
        return encoding(params, spec) if spec is not None else pretraining(params, **views)

    return Converted(config, params, outputs if pretrained else encoding, left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under AudioMosaic's names, without prefix."""
    encoder, objective = params["encoder"], config["objective"]
    grid = tuple(objective["encoder"]["positions"]["grid"])
    order = vit.TimeMajor(grid, tuple(objective["tokenizer"]["patch"]))
    state = {
        "cls_token": encoder["special"][None],
        "pos_embed": vit.class_table(encoder["positions"], order),
        "patch_embed.proj.weight": order.kernel(params["tokenizer"]["kernel"]),
        "patch_embed.proj.bias": params["tokenizer"]["bias"],
    }
    state |= norm("patch_embed.norm", params["tokenizer"]["norm"])
    state |= norm("norm_pre", encoder["first_norm"])
    state |= vit.layers("blocks", encoder["layers"])
    if "projector" in params:
        head = params["projector"]
        state |= norm("fc_norm", head["norm"]) | norm("projector.1", head["norm_first"])
        state |= norm("projector.4", head["norm_second"])
        for number, name in ((0, "first"), (3, "second")):
            state[f"projector.{number}.weight"] = head[name]["dense"]["kernel"].T
    return state
