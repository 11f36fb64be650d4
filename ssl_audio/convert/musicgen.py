"""Language models of codes: MusicGen of transformers, AudioGen and MusicGen of audiocraft; whole or alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import config as configs
from ssl_audio.convert import encodec, t5
from ssl_audio.convert.base import (
    Converted,
    State,
    build,
    count,
    dense,
    need,
    norm,
    plain_names,
    unstacked,
)
from ssl_audio.convert.options import Options
from ssl_audio.objectives.token_lm import TokenLm
from ssl_audio.presets.codec import LEARNING, is_codec, without_training
from ssl_audio.quantizers.patterns import NONE, Pattern
from ssl_audio.storage import checkpoint

# Of transformers: what stands before the decoder's names, and before those of its heads.
PREFIXES = (("decoder.model.decoder.", "decoder."), ("model.decoder.", ""))
AUDIOCRAFT = "transformer.layers."
PROJECTED = {"transformers": "enc_to_dec_proj"}
PROJECTED["audiocraft"] = "condition_provider.conditioners.description.output_proj"
PARTS = {"text": ("text_encoder.", t5), "codec": ("audio_encoder.", encodec)}
UNHEARD = """dropout attention_dropout activation_dropout layerdrop use_cache tie_word_embeddings
initializer_factor pad_token_id bos_token_id eos_token_id max_position_embeddings audio_channels
model_type""".split()
WANTED = {"text": "a text model", "codec": "a codec"}


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a language model, and the text encoder (T5) and codec (EnCodec) that are in the state dict.

    Options, under the names of transformers: num_attention_heads (the width / 64) and delays (0, 1, 2, …).
    Held against the arrays: vocab_size, hidden_size, num_hidden_layers, ffn_dim, num_codebooks. Those of a
    whole MusicGen stand under `decoder`, `text_encoder`, `audio_encoder`. For a language model alone:
    `text` and `codec`, folders of a text model and of a codec that were converted before.

    `forward(input_ids_BKxS=[B * K, S], encoder_hidden_states=[B, M, C], encoder_attention_mask=[B, M],
    delay_prompt_ids=[B * K, P])` gives what MusicgenForCausalLM does, codes in the order of the pattern:
    logits [B, K, S, V], last_hidden, logits_null_condition, and delay_ids_… and delay_mask_… of
    build_delay_pattern_mask, of the prompt and of no prompt, up to S columns. Without a prompt, not of that.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    given = plain_names(state_dict)
    parts = _parts(given, options)
    nested = options.pop("decoder", None) or {}
    asked = Options({k: v for k, v in options.items() if k not in PARTS} | nested)
    inside = tuple(prefix for prefix, _ in PARTS.values())
    style, prefix, state = _style({n: v for n, v in given.items() if not n.startswith(inside)})
    embed, head, layers, up = (
        ("emb.", "linears.", AUDIOCRAFT, "linear1")
        if style == "audiocraft"
        else (f"{prefix[0]}embed_tokens.", f"{prefix[1]}lm_heads.", f"{prefix[0]}layers.", "fc1")
    )
    table, heads, hidden = need(
        state, f"{embed}0.weight", f"{head}0.weight", f"{layers}0.{up}.weight"
    )
    books, depth = count(state, embed), count(state, layers)
    width, codes = table.shape[1], len(heads)
    for name, value in (
        ("vocab_size", codes),
        ("hidden_size", width),
        ("num_hidden_layers", depth),
        ("ffn_dim", len(hidden)),
        ("num_codebooks", books),
    ):
        asked.found(name, value, f"arrays of shape {table.shape}, {heads.shape}, {hidden.shape}")
    if len(table) != codes + 1:
        raise ValueError(
            f"state dict: {len(table)} embeddings, wanted one more than {codes} codes."
        )
    asked.only("activation_function", "gelu")
    asked.only("scale_embedding", False)
    count_heads = asked.heads("num_attention_heads", width)
    delays = asked.get("delays", ())
    projected = state.get(f"{PROJECTED[style]}.weight")
    for name in UNHEARD:
        asked.get(name)
    asked.finish()
    objective = dict(
        kind="token_lm",
        model=dict(
            kind="codes_lm", books=books, codes=codes, width=width, depth=depth, heads=count_heads,
            hidden=len(hidden), given=0 if projected is None else projected.shape[1],
        ),
        pattern=dict(kind="patterns:Delay", books=books, delays=delays),
    )  # fmt: skip
    config: dict[str, Any] = dict(
        objective=objective, reference=dict(names=style, prefix=list(prefix))
    )
    blank = {
        "codes": jax.ShapeDtypeStruct((1, 2, books), np.int32),
        "condition": jax.ShapeDtypeStruct(
            (1, 2, width if projected is None else projected.shape[1]), np.float32
        ),
        "condition_length": jax.ShapeDtypeStruct((1,), np.int32),
    }
    built, params, left = build(config, lambda p: _written(p, style, prefix), state, blank=blank)
    if parts:
        built = _joined(config, parts)
        for name, part in parts.items():
            own = part.params["text"] if name == "text" else part.params
            params[name] = {n: v for n, v in own.items() if n not in LEARNING}
            left |= {f"{PARTS[name][0]}{n}": v for n, v in part.unused.items()}
    return Converted(config, params, _outputs(built), left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the parameters under the names that were read; those of transformers, if none were."""
    known = config.get("reference", {})
    style, prefix = known.get("names", "transformers"), known.get("prefix", PREFIXES[1])
    state = _written(params, style, tuple(prefix))
    for name in known.get("parts", ()):
        start, family = PARTS[name]
        own = {"text": params[name]} if name == "text" else params[name]
        part = dict(objective=config["objective"][name], reference=known["parts"][name])
        state |= {f"{start}{n}": v for n, v in family.to_state_dict(own, part).items()}
    return state


def _parts(state: State, options: dict[str, Any]) -> dict[str, Converted]:
    """Return the text encoder and the codec, of the state dict or of folders of their own.

    Raises:
      ValueError: one is in both, or is no such model; several channels of sound.
    """
    found = {}
    for name, (start, family) in PARTS.items():
        own = {n.removeprefix(start): v for n, v in state.items() if n.startswith(start)}
        about = options.pop(start.rstrip("."), None) or {}
        folder = options.get(name)
        if own and folder:
            raise ValueError(
                f"option {name}={folder}: the state dict has one already; leave it out."
            )
        if own:
            more = {"tokenizer": options.get("tokenizer")} if name == "text" else {}
            found[name] = family.from_state_dict(own, **about, **more)
        elif folder:
            params, config = checkpoint.load_params(folder)
            made = config["objective"]
            towers = made.get("towers") or {}
            fits = "text" in towers if name == "text" else is_codec(made)
            if not fits:
                raise ValueError(
                    f"option {name}={folder}: got a {made.get('kind')}, wanted {WANTED[name]} that was "
                    "converted or trained."
                )
            found[name] = Converted(config, params, lambda *_, **__: {})
    codec = found.get("codec")
    if codec and codec.config["objective"]["decoder"].get("sounds", 1) > 1:
        raise ValueError(
            "audio_encoder: a codec of several channels: its books are split among them (stereo MusicGen), "
            "which is not supported; convert the language model alone."
        )
    return found


def _joined(config: dict[str, Any], parts: dict[str, Converted]) -> TokenLm:
    """Put the parts into a config; return its objective."""
    objective, data = config["objective"], {}
    for name, part in parts.items():
        made = part.config["objective"]
        objective[name] = (
            made["towers"]["text"] | dict(frozen=True) if name == "text" else without_training(made)
        )
        config["reference"].setdefault("parts", {})[name] = part.config.get("reference", {})
        if name == "text" and (text := part.config.get("data", {}).get("entries", {}).get("text")):
            data = dict(entries=dict(text=text))
    config["data"] = data
    config.pop("inputs", None)
    return configs.build(objective, "objectives")


def _outputs(built: TokenLm) -> Any:
    """Return the function that `Converted.outputs` is."""
    books, none = built.model.books, built.model.codes

    def columns(ids):
        return jnp.moveaxis(ids.reshape(-1, books, ids.shape[-1]), 1, 2)

    def outputs(
        params,
        input_ids_BKxS,
        encoder_hidden_states,
        encoder_attention_mask=None,
        delay_prompt_ids=None,
    ):
        weights, codes = {"params": params["model"]}, columns(input_ids_BKxS)
        valid = None if encoder_attention_mask is None else encoder_attention_mask > 0
        nothing = jnp.zeros(encoder_hidden_states.shape[:2], bool)
        found = {
            "logits": built.model.apply(weights, codes, encoder_hidden_states, valid),
            "logits_null_condition": built.model.apply(
                weights, codes, encoder_hidden_states, nothing
            ),
            "last_hidden": built.model.apply(
                weights, codes, encoder_hidden_states, valid, logits=False
            ),
        }
        found |= {n: jnp.moveaxis(x, 2, 1) for n, x in found.items() if n != "last_hidden"}
        length = codes.shape[1]
        for name, prompt in (("empty", codes[:, :1]), ("prompt", delay_prompt_ids)):
            if prompt is not None:
                prompt = prompt if name == "empty" else columns(prompt)
                mask, begun = _continued(built.pattern, prompt[:, 1:], length, none)
                for kind, x in (("mask", mask), ("ids", mask[:, :begun])):
                    found[f"delay_{kind}_{name}"] = jnp.moveaxis(x, 2, 1).reshape(-1, x.shape[1])
        return found

    return outputs


def _continued(pattern: Pattern, codes: Any, length: int, none: int) -> tuple[Any, int]:
    """Return columns with codes, `none` where the pattern has no code, NONE where one is to come; and how
    many columns come before the first of these.
    """  # noqa: D205
    steps = length - len(pattern.places(1)) + 1
    rest = jnp.full((codes.shape[0], steps - codes.shape[1], codes.shape[2]), NONE, codes.dtype)
    found = pattern.spread(jnp.concatenate([codes, rest], 1), none)
    table = pattern.places(steps)
    return found, int(np.argmax((table >= codes.shape[1]).any(1)))


def _style(state: State) -> tuple[str, tuple[str, str], dict[str, np.ndarray]]:
    """Return whose names a state dict has, and what stands before those of the decoder and of the heads.

    Raises:
      ValueError: nobody's.
    """
    if any(name.startswith(AUDIOCRAFT) for name in state):
        return "audiocraft", ("", ""), dict(state)
    for prefix in PREFIXES:
        if f"{prefix[0]}embed_tokens.0.weight" in state:
            return "transformers", prefix, dict(state)
    need(state, f"{PREFIXES[1][0]}embed_tokens.0.weight")
    raise AssertionError("need raises")


def _written(params: Any, style: str, prefix: tuple[str, str]) -> dict[str, np.ndarray]:
    """Return the parameters under somebody's names."""
    model, state = params["model"], {}
    ours = style == "transformers"
    inner, outer = prefix
    for q, table in enumerate(model["embed"]):
        state[f"{inner}embed_tokens.{q}.weight" if ours else f"emb.{q}.weight"] = table
    for q, kernel in enumerate(model["heads"]):
        state[f"{outer}lm_heads.{q}.weight" if ours else f"linears.{q}.weight"] = kernel.T
    state |= norm(f"{inner}layer_norm" if ours else "out_norm", model["final_norm"])
    if "condition" in model:
        state |= dense(PROJECTED[style], model["condition"])
    for i, layer in enumerate(unstacked(model["layers"])):
        at = f"{inner}layers.{i}." if ours else f"{AUDIOCRAFT}{i}."
        crossed = np.concatenate([layer["q"]["kernel"], layer["kv"]["kernel"]], -1)
        for fused, out, own, other in (
            (layer["qkv"]["kernel"], layer["out"], "self_attn", "self_attn"),
            (crossed, layer["cross_out"], "encoder_attn", "cross_attention"),
        ):
            if ours:
                for part, kernel in zip("qkv", np.split(fused, 3, -1), strict=True):
                    state[f"{at}{own}.{part}_proj.weight"] = kernel.T
            else:
                state[f"{at}{other}.in_proj_weight"] = fused.T
            state |= dense(f"{at}{own if ours else other}.out_proj", out)
        for name, own, other in (
            ("norm_self", "self_attn_layer_norm", "norm1"),
            ("norm_cross", "encoder_attn_layer_norm", "norm_cross"),
            ("norm_mlp", "final_layer_norm", "norm2"),
        ):
            state |= norm(at + (own if ours else other), layer[name])
        for name, own, other in (("up", "fc1", "linear1"), ("down", "fc2", "linear2")):
            state |= dense(at + (own if ours else other), layer[name])
    return state
