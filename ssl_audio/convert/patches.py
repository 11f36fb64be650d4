"""What the checkpoints of SSAST and SSAMBA share: patches, position table, heads; outputs to compare.

Gong et al. 2022 (arXiv:2110.09784); Shams et al. 2024 (arXiv:2405.11831).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import config as configs
from ssl_audio.convert.base import Converted, State, build, clips, dense, need, norm, samples
from ssl_audio.convert.options import Options
from ssl_audio.convert.trace import join, streams
from ssl_audio.frontend.fbank import STATS, Fbank
from ssl_audio.heads import classify
from ssl_audio.tokens.patchify import grid as grid_of
from ssl_audio.tokens.patchify import patches
from ssl_audio.tokens.positions import transfer

PRETEXT = ("mask_embed", "cpredlayer.", "gpredlayer.")
UNUSED = ("v.head.", "v.head_dist.", "p_input_")  # heads of the image models, the grid's size
TASKS = {"discriminate": "cpredlayer", "reconstruct": "gpredlayer"}

# (encoder, its parameters, what `trace.streams` found) → reference name → array.
Insides = Callable[[Any, Any, list[Any], list[dict[str, Any]]], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a checkpoint cuts spectrograms: all pairs are (mel bins, frames) or (rows, columns)."""

    patch: tuple[int, int]
    stride: tuple[int, int]
    table: tuple[int, int]  # the grid of the position table
    bins: int
    frames: int

    @property
    def grid(self) -> tuple[int, int]:
        """Return the grid of an input of the length that is wanted."""
        return grid_of(self.frames, self.bins, self.patch, self.stride)


def layout(state: State, options: Options, specials: int) -> Layout:
    """Return the layout of a checkpoint.

    Options (as in the reference): fshape, tshape, fstride, tstride, input_fdim, input_tdim, grid (of
    the table), num_patches.

    Raises:
      ValueError: the size of the position table contradicts the options, or leaves its grid open.
    """
    kernel, table = need(state, "v.patch_embed.proj.weight", "v.pos_embed")
    where = f"v.patch_embed.proj.weight {kernel.shape}"
    patch = tuple(
        options.found(name, size, where)
        for name, size in zip(("fshape", "tshape"), kernel.shape[2:], strict=True)
    )
    count = table.shape[1] - specials
    trained = [int(state[f"p_input_{axis}dim"]) for axis in "ft" if f"p_input_{axis}dim" in state]
    if len(trained) == 2:
        bins = options.found("input_fdim", trained[0], "p_input_fdim")
    else:
        bins = options.get("input_fdim", 128)
    frames = options.get("input_tdim")
    stride = (options.get("fstride", bins if patch[0] == bins else None), options.get("tstride"))
    if None in stride and (len(trained) == 2 or any(n.startswith(PRETEXT) for n in state)):
        stride = patch

    named: dict[str, tuple[int, int]] = {}
    if len(trained) == 2:
        named["p_input_fdim, p_input_tdim"] = grid_of(trained[1], trained[0], patch, patch)
    if frames and None not in stride:
        named["fstride, tstride, input_tdim"] = grid_of(frames, bins, patch, stride)
    elif frames:
        named["input_fdim, input_tdim"] = grid_of(frames, bins, patch, patch)
    if given := options.get("grid"):
        named["grid"] = given
    fits = [grid for grid in named.values() if grid[0] * grid[1] == count]
    if len(trained) == 2 and fits and fits[0] == named["p_input_fdim, p_input_tdim"]:
        options.found("grid", fits[0], "p_input_fdim, p_input_tdim")
    rows = None if stride[0] is None else (bins - patch[0]) // stride[0] + 1
    if not fits and rows and stride[1] and not (frames or given) and count % rows == 0:
        fits = [(rows, count // rows)]
    if not fits and (frames or given or stride[1]):
        said = "; ".join(f"{names} mean {r} x {c} = {r * c}" for names, (r, c) in named.items())
        raise ValueError(
            f"v.pos_embed has {count} patches ({table.shape[1]} rows, {specials} of them special), "
            f"which no option explains: {said or f'fstride={stride[0]}, tstride={stride[1]}'}. "
            "Give the fstride, tstride and input_tdim that it was trained with."
        )
    if not fits or (None in stride and not frames):
        raise ValueError(
            f"v.pos_embed has {count} patches; the state dict does not tell in which grid, since it "
            "has no p_input_fdim and p_input_tdim, as in fine-tuned checkpoints. Give the options "
            "fstride, tstride and input_tdim."
        )
    if None in stride:
        stride = patch
    if not frames:
        columns = fits[0][1]
        frames = trained[1] if trained else (columns - 1) * stride[1] + patch[1]
    found = Layout(patch, stride, fits[0], bins, frames)
    rows, columns = found.grid
    if options.get("num_patches", rows * columns) != rows * columns:
        raise ValueError(
            f"option num_patches={options.get('num_patches')}: strides {stride} on {bins} bins x "
            f"{frames} frames mean {rows} x {columns} = {rows * columns}."
        )
    return found


def convert(
    state: State,
    options: Options,
    *,
    encoder: dict[str, Any],
    shape: Layout,
    encoder_state: Callable[[Any], dict[str, np.ndarray]],
    insides: Insides,
    finetuned: Callable[..., dict[str, Any]],
) -> Converted:
    """Return the model of a state dict whose encoder is known.

    Args:
      state: without prefixes.
      options: those of the heads are label_dim, head_norm_eps, segments, task ("ft_cls"), mask_patch,
        cluster, dataset_mean, dataset_std.
      encoder: its config, without positions.
      shape: see `layout`.
      encoder_state: our encoder parameters → state dict.
      insides: what to report of each layer in pretraining.
      finetuned: (encoder, params, tokens) → what to report beside tokens and logits.
    """
    width = encoder["width"]
    positions = dict(kind="positions:Learned", grid=shape.table)
    objective: dict[str, Any] = dict(
        frontend=dict(
            kind="fbank",
            bins=shape.bins,
            frames=shape.frames,
            mean=options.get("dataset_mean", STATS["audioset"]["mean"]),
            std=options.get("dataset_std", STATS["audioset"]["std"]),
        ),
        tokenizer=dict(kind="patchify", width=width, patch=shape.patch, stride=shape.stride),
        encoder=encoder | dict(positions=positions),
    )
    unused = UNUSED + PRETEXT
    segments = options.get("segments")
    hidden = options.get("mask_patch", 400)
    clusters = options.get("cluster", shape.patch[0] < shape.bins)
    eps = options.get("head_norm_eps", 1e-5)
    if "mlp_head.1.weight" in state or "mlp_head.0.weight" in state:
        (linear,) = need(state, "mlp_head.1.weight")
        classes = options.found("label_dim", len(linear), f"mlp_head.1.weight {linear.shape}")
        pool = "special" if options.get("task") == "ft_cls" else "mean"
        head = dict(kind="classify:Classifier", classes=classes, pool=pool, eps=eps)
        objective |= dict(kind="tagging", head=head)
    elif shape.stride == shape.patch and any(name.startswith(PRETEXT) for name in state):
        unused = UNUSED
        masking = "masking:Cluster" if clusters else "masking:Random"
        objective |= dict(kind="masked_spectrogram", masking=dict(kind=masking, count=hidden))
    else:
        objective |= dict(kind="features")
    options.finish()

    config = dict(
        objective=objective,
        data=clips(samples(shape.frames)),
        reference=dict(positions="as they were"),
    )
    built, params, left = build(
        config, lambda p: to_state(p, config, encoder_state), state, unused=unused
    )
    if _moved(params["encoder"]["positions"], shape):
        left["v.pos_embed"] = state["v.pos_embed"]
        objective["encoder"]["positions"]["grid"] = shape.grid
        built = configs.build(objective, "objectives")

    def pretrained(params, x, mpc_mask_index, mpg_mask_index):
        masks = {"discriminate": mpc_mask_index, "reconstruct": mpg_mask_index}
        return _pretraining(built, params, x, masks, insides)

    def embedded(params, x):
        tokens = built.tokenizer.apply({"params": params["tokenizer"]}, x)
        encoded = built.encoder.apply({"params": params["encoder"]}, tokens)
        found = {"tokens": join(encoded)} | finetuned(built.encoder, params["encoder"], tokens)
        if "head" in params:
            pools = {"ft_avgtok": ("mean", 0), "ft_cls": ("special", 0)}
            if segments:
                pools["ft_avgtok_1sec"] = ("grouped", segments)
            for name, (pool, groups) in pools.items():
                head = classify.Classifier(classes, pool, groups, eps)
                found[name] = head.apply({"params": params["head"]}, encoded)
        return found

    outputs = pretrained if "mask_token" in params else embedded
    return Converted(config, params, outputs, left)


def to_state(
    params: Any, config: dict[str, Any], encoder_state: Callable[[Any], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return parameters of ours under the reference's names; elements move, none is computed."""
    tokenizer, encoder = params["tokenizer"], params["encoder"]
    patch = config["objective"]["tokenizer"]["patch"]
    positions = encoder["positions"]
    table = np.concatenate([positions["special"], positions["table"]])
    state = {
        "v.pos_embed": table[None],
        "v.patch_embed.proj.weight": tokenizer["kernel"].T.reshape(-1, 1, *patch),
        "v.patch_embed.proj.bias": tokenizer["bias"],
    }
    for name, row in zip(("v.cls_token", "v.dist_token"), encoder["special"], strict=False):
        state[name] = row[None, None]
    state |= encoder_state(encoder)
    if "mask_token" in params:
        state["mask_embed"] = params["mask_token"][None, None]
    for ours, theirs in TASKS.items():
        if ours in params:
            for layer, number in (("first", 0), ("second", 2)):
                state |= dense(f"{theirs}.{number}", params[ours][layer]["dense"])
    if "head" in params:
        state |= norm("mlp_head.0", params["head"]["norm"])
        state |= dense("mlp_head.1", params["head"]["linear"]["dense"])
    return state


def to_state_dict(
    params: Any, config: dict[str, Any], encoder_state: Callable[[Any], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return parameters of ours as the published code wants to read them, without `module.`.

    A pretraining checkpoint names the size of its input. A fine-tuned one has its position table on
    the grid of its input; ours keep that of pretraining, unless they were converted from one.
    """
    tokenizer = config["objective"]["tokenizer"]
    patch, stride = tuple(tokenizer["patch"]), tuple(tokenizer["stride"])
    positions = params["encoder"]["positions"]
    table = tuple(config["objective"]["encoder"]["positions"]["grid"])
    scalars = {}
    if "mask_token" in params:
        for axis, rows, size in zip("ft", table, patch, strict=True):
            scalars[f"p_input_{axis}dim"] = np.array(rows * size, np.int64)
    elif "reference" not in config:
        options = {k: v for k, v in config["objective"]["frontend"].items() if k != "kind"}
        frontend = Fbank(**options)
        frames = frontend.count(config["data"]["entries"]["audio"]["samples"])
        grid = grid_of(frames, frontend.bins, patch, stride)
        moved = np.asarray(transfer(positions["table"], table, grid))
        encoder = params["encoder"] | dict(positions=positions | dict(table=moved))
        params = params | dict(encoder=encoder)
    return scalars | to_state(params, config, encoder_state)


def _moved(positions: dict[str, Any], shape: Layout) -> bool:
    """Move the table, in place, if the encoder moving it to its input would differ from the reference."""
    if shape.grid == shape.table:
        return False
    table = positions["table"]
    try:
        theirs = transfer(table, shape.table, shape.grid, rule="reference")
    except ValueError:  # the reference cannot do this one
        return False
    ours = transfer(table, shape.table, shape.grid)
    if np.allclose(ours, theirs, rtol=1e-5, atol=1e-6):
        return False
    positions["table"] = np.asarray(theirs)
    return True


def _pretraining(objective: Any, params: Any, x: Any, masks: dict[str, Any], insides: Insides):
    """Return losses, and for each task what leads to them."""
    masks = {name: jnp.asarray(mask, jnp.int32) for name, mask in masks.items()}
    key = jax.random.key(0)
    loss = objective.loss_of(params, {}, x, masks, key, train=False)
    mean = {name: total / weight for name, (total, weight) in loss.metrics.items()}
    found = {
        "mpc_nce": mean["nce"],
        "mpc_acc": mean["accuracy"],
        "mpg_mse": mean["mse"],
        "joint_loss": loss.total,
    }
    encoder, weights = objective.encoder, params["encoder"]
    tokens = objective.tokenizer.apply({"params": params["tokenizer"]}, x)
    target = patches(x, objective.tokenizer.patch, objective.tokenizer.stride)
    predictor = classify.PatchPredictor(target.shape[-1])
    for short, (task, mask) in zip(("mpc", "mpg"), masks.items(), strict=True):
        rows = jnp.arange(len(x))[:, None]
        hidden = dataclasses.replace(tokens, x=tokens.x.at[rows, mask].set(params["mask_token"]))
        encoded = encoder.apply({"params": weights}, hidden)
        picked = jnp.take_along_axis(encoded.tokens.x, mask[..., None], axis=1)
        found[f"{short}_pred"] = predictor.apply({"params": params[task]}, picked)
        found[f"{short}_target"] = jnp.take_along_axis(target, mask[..., None], axis=1)
        if short == "mpg":
            found["mpg_tokens"] = join(encoded)
            continue
        found["mpc_total"] = jnp.einsum("big,bjg->bij", found["mpc_target"], found["mpc_pred"])
        found["mpc_patch_embed"] = tokens.x
        inside = insides(encoder, weights, *streams(encoder, weights, hidden))
        final = {"norm_f" if "norm" in weights["final_norm"] else "norm": join(encoded)}
        found |= {f"mpc_{name}": value for name, value in (inside | final).items()}
    return found
