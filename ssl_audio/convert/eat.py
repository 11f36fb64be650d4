"""EAT (Chen et al. 2024, arXiv:2401.03497): student and teacher, or a released encoder."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_audio.convert import vit
from ssl_audio.convert.base import (
    Converted,
    State,
    build_pair,
    clips,
    count,
    dense,
    need,
    norm,
    plain_names,
    samples,
)
from ssl_audio.convert.options import Options
from ssl_audio.convert.trace import join
from ssl_audio.frontend.fbank import STATS

MODALITY = "modality_encoders.IMAGE."
KEPT = ("_ema", f"{MODALITY}context_encoder.", "recon_proj.", "proj.")  # of other settings


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a state dict of EAT, with its teacher if the names begin with `student.`, `teacher.`.

    Options: heads (default: width / 64), target_length (frames; default: 1024), bins (128),
    clone_batch (16), decoder_groups (16), ln_eps (1e-6), mean, std; dim, depth, mlp_ratio, decoder_dim,
    decoder_layers, decoder_kernel are held against the arrays.

    `forward(spec=[B, 1, T, F], mask=[B clones, N], mask_noise=[B clones, M, D])` gives the student's
    encoding and predictions, the teacher's targets and what they are made of, and the losses; without
    a teacher, `forward(spec)` gives the encoding of the whole input.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    pair = any(name.startswith("student.") for name in state)
    student = {n.removeprefix("student."): v for n, v in state.items() if not _of_teacher(n)}
    student = {n.removeprefix("model."): v for n, v in student.items()}
    teacher = {n.removeprefix("teacher."): v for n, v in state.items() if _of_teacher(n)}
    place = f"{MODALITY}local_encoder.proj.weight"
    kernel, table = need(student, place, f"{MODALITY}fixed_positional_encoder.positions")
    patch = (kernel.shape[3], kernel.shape[2])
    frames, bins = asked.get("target_length", 1024), asked.get("bins", 128)
    rows, columns = bins // patch[0], frames // patch[1]
    if table.shape[1] % rows or table.shape[1] < rows * columns:
        raise ValueError(
            f"positions: a table of {table.shape[1]} rows; target_length={frames} and bins={bins} mean "
            f"{rows} x {columns} patches, of at most {table.shape[1] // rows} columns."
        )
    eps = asked.get("ln_eps", 1e-6)
    encoder = vit.blocks(student, asked, "blocks", heads="heads", eps=eps, kind="post_norm")
    width = asked.found("dim", encoder["width"], f"{place} {kernel.shape}")
    asked.found("depth", encoder["depth"], "blocks.*")
    asked.found("mlp_ratio", encoder["block"]["mlp"], "blocks.0.mlp.fc1.weight")
    grid = (rows, table.shape[1] // rows)
    encoder |= dict(
        special=1,
        positions=dict(
            kind="positions:Learned", grid=grid, start="sincos", cut="start", special=False
        ),
        first_norm=encoder["final_norm"],
        final_norm=None,
    )
    objective: dict[str, Any] = dict(
        kind="features",
        frontend=dict(
            kind="fbank",
            bins=bins,
            frames=frames,
            mean=asked.get("mean", STATS["audioset"]["mean"]),
            std=asked.get("std", STATS["audioset"]["std"]),
        ),
        tokenizer=dict(kind="patchify", width=width, patch=patch, stride=patch),
        encoder=encoder,
    )
    clones, groups = asked.get("clone_batch", 16), asked.get("decoder_groups", 16)
    if pair or f"{MODALITY}decoder.proj.weight" in student:
        objective |= dict(
            kind="latent_prediction",
            decoder=_decoder(student, asked, groups),
            masking=dict(kind="masking:InverseBlock"),
            clones=clones,
        )
    asked.finish()
    config = dict(objective=objective, data=clips(samples(frames)))
    built, params, ema, left = build_pair(
        config, lambda p: to_state_dict(p, config), student, teacher, unused=KEPT
    )
    order = vit.TimeMajor((rows, columns), patch)

    def whole(params, spec):
        tokens = built.tokenizer.apply({"params": params["tokenizer"]}, spec)
        return join(built.encoder.apply({"params": params["encoder"]}, tokens))

    def pretraining(params, spec, mask, mask_noise):
        spec, mask = spec[:, 0], jnp.asarray(mask, jnp.int32)
        ids = jnp.argsort(mask, stable=True)
        kept = mask.shape[1] - mask_noise.shape[1]
        shown, hidden = order.places(ids[:, :kept]), order.places(ids[:, kept:])
        clip = jnp.arange(len(mask))[:, None]
        noise = jnp.zeros((*mask.shape, width)).at[clip, hidden].set(mask_noise)
        encoded = built.visible(params, spec, shown)
        target, layers = built.targets({"teacher": ema}, spec)
        patch_loss, clip_loss = built.errors(params, encoded, target, hidden, noise)
        weight = float(
            hidden.size
        )  # each clip's loss is multiplied by the number of hidden patches
        found = {
            "encoder_visible": join(encoded),
            "decoder_out": order.tokens(built.reconstruct(params, encoded, noise)),
            "targets": order.tokens(target),
            "features_nomask": order.joined(whole(params, spec)),
            "loss_IMAGE_regression": jnp.mean(patch_loss) / width,
            "losssum_IMAGE_regression": jnp.sum(patch_loss),
            "loss_cls": jnp.mean(clip_loss) / width * weight,
            "losssum_cls": jnp.sum(clip_loss) * weight,
        }
        return found | {f"teacher_ffn_{i}": order.tokens(x) for i, x in enumerate(layers)}

    def encoding(params, spec):
        return {"features_nomask": order.joined(whole(params, spec[:, 0]))}

    return Converted(config, params, pretraining if pair else encoding, left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours, a student's or a teacher's, under EAT's names without prefix."""
    encoder, objective = params["encoder"], config["objective"]
    grid = tuple(objective["encoder"]["positions"]["grid"])
    order = vit.TimeMajor(grid, tuple(objective["tokenizer"]["patch"]))
    state = {
        f"{MODALITY}extra_tokens": encoder["special"][None],
        f"{MODALITY}fixed_positional_encoder.positions": order.table(encoder["positions"]["table"])[
            None
        ],
        f"{MODALITY}local_encoder.proj.weight": order.kernel(params["tokenizer"]["kernel"]),
        f"{MODALITY}local_encoder.proj.bias": params["tokenizer"]["bias"],
    }
    state |= norm(f"{MODALITY}context_encoder.norm", encoder["first_norm"])
    state |= vit.layers("blocks", encoder["layers"])
    if "decoder" in params:
        decoder = dict(params["decoder"])
        state |= dense(f"{MODALITY}decoder.proj", decoder.pop("predict"))
        for name, layer in decoder.items():
            at = f"{MODALITY}decoder.blocks.{name.removeprefix('conv_')}.0"
            state[f"{at}.weight"] = layer["kernel"].transpose(3, 2, 1, 0)
            state[f"{at}.bias"] = layer["bias"]
    return state


def _of_teacher(name: str) -> bool:
    return name.startswith("teacher.")


def _decoder(state: State, asked: Options, groups: int) -> dict[str, Any]:
    name = f"{MODALITY}decoder.blocks"
    (first,) = need(state, f"{name}.0.0.weight")
    where = f"{name}.0.0.weight {first.shape}"
    return dict(
        kind="decoders:ConvDecoder",
        width=asked.found("decoder_dim", len(first), where),
        layers=asked.found("decoder_layers", count(state, f"{name}."), f"{name}.*"),
        kernel=asked.found("decoder_kernel", first.shape[2], where),
        groups=groups,
    )
