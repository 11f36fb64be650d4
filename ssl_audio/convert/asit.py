"""ASiT (Atito et al. 2022, arXiv:2211.13189): student and teacher with their heads, or an encoder."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_audio.convert import vit
from ssl_audio.convert.base import (
    Converted,
    State,
    build_pair,
    clips,
    dense,
    need,
    norm,
    plain_names,
    samples,
)
from ssl_audio.convert.options import Options
from ssl_audio.convert.trace import join
from ssl_audio.frontend.fbank import STATS
from ssl_audio.tokens.patchify import grid as grid_of

LAYERS = (0, 2, 4)  # of a perceptron, by their place among the activations
RECONSTRUCTION = "head_recons."


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a state dict of ASiT, with its teacher if the names begin with `student.`, `teacher.`.

    Options: heads (default: width / 64), audio_size (frames, mel bins; default: as many frames as fit,
    of 128 bins), ln_eps (1e-6), student_temp (0.1), teacher_temp_at_epoch (0.07), center_momentum
    (0.9), rec_weight (2), mean, std; dim, depth, patch, mlp_ratio, out_dim_cls, out_dim_data,
    head_hidden, cls_bottleneck, rec_bottleneck are held against the arrays.

    `forward(clean_0, clean_1, corrupted_0, corrupted_1, mask_0, mask_1=[B, 1, T, F], center_cls=[1, C],
    center_data=[1, V])` gives tokens, scores, restored crops, losses and the centres after them;
    `forward(spec=[B, 1, T, F])` gives the tokens of an encoder alone.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    teacher = _under("teacher.", state)
    student = _under("student.", state) if teacher else state
    prefix = "backbone." if "backbone.pos_embed" in student else ""
    kernel, table = need(student, f"{prefix}patch_embed.proj.weight", f"{prefix}pos_embed")
    where = f"patch_embed.proj.weight {kernel.shape}"
    patch = (asked.found("patch", kernel.shape[3], where), kernel.shape[2])
    frames, bins = asked.get("audio_size", (None, 128))
    if frames is None:
        frames = (table.shape[1] - 1) // (bins // patch[0]) * patch[1]
    grid = grid_of(frames, bins, patch, patch)
    if grid[0] * grid[1] + 1 != table.shape[1]:
        raise ValueError(
            f"pos_embed has {table.shape[1]} rows; {frames} frames x {bins} bins mean {grid[0]} x "
            f"{grid[1]} patches and a cls token. Give the option audio_size (frames, bins)."
        )
    eps = asked.get("ln_eps", 1e-6)
    encoder = vit.blocks(student, asked, f"{prefix}blocks", heads="heads", eps=eps)
    encoder |= dict(special=1, positions=dict(kind="positions:Learned", grid=grid))
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
        tokenizer=dict(kind="patchify", width=width, patch=patch, stride=patch),
        encoder=encoder,
    )
    heat = asked.get("teacher_temp_at_epoch", 0.07)
    if teacher:
        objective |= _heads(student, asked)
        objective |= dict(
            kind="self_distill",
            crop=samples(frames),
            temperature=dict(start=heat, end=heat),
            student_temperature=asked.get("student_temp", 0.1),
            centring=asked.get("center_momentum", 0.9),
            restore=asked.get("rec_weight", 2.0),
        )
    asked.finish()
    config = dict(
        objective=objective,
        data=clips(samples(frames)),
        reference=dict(prefix=prefix),
    )
    unused = () if teacher else ("head", "fc")
    built, params, ema, left = build_pair(
        config, lambda p: to_state_dict(p, config), student, teacher, unused=unused
    )
    order = vit.TimeMajor(grid, patch)

    def pretraining(params, center_cls, center_data, **crops):
        clean, corrupted, mask = (
            jnp.concatenate([crops[f"{name}_{i}"] for i in range(2)])[:, 0]
            for name in ("clean", "corrupted", "mask")
        )
        centre = {"clip": center_cls[0], "patch": center_data[0]}
        extra = {"teacher": ema, "centre": centre, "temperature": heat}
        loss = built.loss_of(params, extra, clean, corrupted, mask)
        seen, taught = built.encoded(params, corrupted), built.encoded(ema, clean)
        scores, goal = built.scores(params, seen), built.scores(ema, taught)
        after = built.centred(centre, goal)
        mean = {name: total / weight for name, (total, weight) in loss.metrics.items()}
        return {
            "student_tokens": order.joined(join(seen)),
            "teacher_tokens": order.joined(join(taught)),
            "student_cls": scores[0],
            "student_data": order.tokens(scores[1]),
            "teacher_cls": goal[0],
            "teacher_data": order.tokens(goal[1]),
            "recons": built.restored(params, seen)[:, None],
            "loss_cls": mean["clip"],
            "loss_data": mean["patch"],
            "loss_rec": mean["restore"],
            "loss_total": loss.total,
            "center_cls_after": after["clip"][None],
            "center_data_after": after["patch"][None],
        }

    def encoding(params, spec):
        tokens = built.tokenizer.apply({"params": params["tokenizer"]}, spec[:, 0])
        encoded = built.encoder.apply({"params": params["encoder"]}, tokens)
        return {"tokens": order.joined(join(encoded))}

    return Converted(config, params, pretraining if teacher else encoding, left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours, a student's or a teacher's, under ASiT's names without `student.`."""
    encoder, objective = params["encoder"], config["objective"]
    prefix = config.get("reference", {}).get("prefix", "backbone.")
    patch = tuple(objective["tokenizer"]["patch"])
    order = vit.TimeMajor(tuple(objective["encoder"]["positions"]["grid"]), patch)
    state = {
        f"{prefix}cls_token": encoder["special"][None],
        f"{prefix}pos_embed": vit.class_table(encoder["positions"], order),
        f"{prefix}patch_embed.proj.weight": order.kernel(params["tokenizer"]["kernel"]),
        f"{prefix}patch_embed.proj.bias": params["tokenizer"]["bias"],
    }
    state |= vit.layers(f"{prefix}blocks", encoder["layers"])
    state |= norm(f"{prefix}norm", encoder["final_norm"])
    if "projector" in params:
        head = params["projector"]
        state |= _perceptron("head_cls.mlp", head)
        for ours, theirs in (("clip", "cls"), ("patch", "data")):
            layer = head[f"{ours}_prototypes"]
            state[f"head_cls.{theirs}_layer.weight_g"] = layer["gain"][:, None]
            state[f"head_cls.{theirs}_layer.weight_v"] = layer["kernel"].T
    if "decoder" in params:
        head = params["decoder"]
        state |= _perceptron(f"{RECONSTRUCTION}mlp", head)
        kernel = order.pixels(head["kernel"]).reshape(-1, 1, patch[1], patch[0])
        state[f"{RECONSTRUCTION}convTrans.weight"] = kernel
        state[f"{RECONSTRUCTION}convTrans.bias"] = head["bias"]
    return state


def _perceptron(name: str, head: Any) -> dict[str, np.ndarray]:
    state = {}
    for number, place in enumerate(LAYERS):
        state |= dense(f"{name}.{place}", head[f"layer_{number}"])
    return state


def _under(prefix: str, state: State) -> dict[str, np.ndarray]:
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}


def _heads(student: State, asked: Options) -> dict[str, Any]:
    """Return the configs of the projector and the decoder."""
    names = ("cls_layer.weight_v", "data_layer.weight_v", "mlp.0.weight")
    clip, patch, hidden = need(student, *(f"head_cls.{name}" for name in names))
    names = ("mlp.0.weight", "mlp.4.weight")
    first, last = need(student, *(f"{RECONSTRUCTION}{name}" for name in names))
    where = f"{RECONSTRUCTION}mlp.4.weight {last.shape}"
    return dict(
        projector=dict(
            kind="distill:DistillHead",
            clip=asked.found("out_dim_cls", len(clip), f"cls_layer {clip.shape}"),
            patch=asked.found("out_dim_data", len(patch), f"data_layer {patch.shape}"),
            hidden=asked.found("head_hidden", len(hidden), f"head_cls.mlp.0 {hidden.shape}"),
            bottleneck=asked.found("cls_bottleneck", clip.shape[1], f"cls_layer {clip.shape}"),
        ),
        decoder=dict(
            kind="distill:PixelHead",
            hidden=len(first),
            bottleneck=asked.found("rec_bottleneck", len(last), where),
        ),
    )
