"""Predict the codes of what is masked: BEATs and OpenBEATs, HuBERT, SPEAR.

Chen et al. 2023 (arXiv:2212.09058), Bharadwaj et al. 2025 (2507.14129), Hsu et al. 2021 (2106.07447),
Yang et al. 2025 (2510.25955). `targets` says where codes come from; `predictor` and `hide` say how
masking is shown to the encoder.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.frontend.base import Frontend
from ssl_audio.objectives import teacher
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params
from ssl_audio.quantizers.codebooks import perplexity, usage
from ssl_audio.slots import AnyObjective, Augment, Backbone, Head, Masking, Tokenizer
from ssl_audio.structs import Loss, Tokens
from ssl_audio.tokens import masking as masks
from ssl_audio.tokens.order import reorder, valid_tokens


@dataclasses.dataclass(frozen=True)
class TokenPredict(Encoding):
    """Predict discrete codes of masked tokens.

    Attributes:
      frontend: what the tokenizer takes.
      tokenizer: its features → tokens.
      encoder: any backbone.
      masking: which tokens (or frames) to hide; drawn anew for every clip.
      targets: name → an objective that offers "codes" [B, N, Q]; frozen, in `extra`.
      heads: name → tokens to logits [B, N, Q, V] of those codes.
      predictor: a backbone that sees the encoded visible tokens among mask tokens; the encoder then
        sees nothing but the visible ones. None: the encoder itself sees a mask token in each place.
      hide: without a predictor: "tokens", or "frames" of the frontend's features.
      weights: name → weight of its loss (1), or one per source of `batch["source"]`.
      unmasked: weight of a token that was not hidden, relative to one that was.
      smoothing: share of each label that is spread over all codes.
      spec_augment: hides a band of the features in training.
    """

    frontend: Frontend
    tokenizer: Tokenizer
    encoder: Backbone
    masking: Masking
    targets: Mapping[str, AnyObjective] = dataclasses.field(hash=False)
    heads: Mapping[str, Head] = dataclasses.field(hash=False)
    predictor: Backbone = None
    hide: str = "tokens"
    weights: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    unmasked: float = 0.0
    smoothing: float = 0.0
    spec_augment: Augment = None

    def __post_init__(self):
        if self.hide not in ("tokens", "frames"):
            raise ValueError(f"hide '{self.hide}': wanted tokens or frames.")
        if self.predictor is not None and self.hide == "frames":
            raise ValueError("hide 'frames': a predictor restores tokens, not frames.")
        if not self.targets or self.targets.keys() != self.heads.keys():
            raise ValueError(
                f"targets {', '.join(self.targets)} and heads {', '.join(self.heads)}: wanted a head "
                "for each target."
            )
        if unknown := self.weights.keys() - self.targets.keys():
            raise ValueError(f"weights: no target {', '.join(sorted(unknown))}.")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and the frozen makers of targets."""
        keys = iter(jax.random.split(key, 4 + 2 * len(self.targets)))
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(next(keys), spec)
        encoded, encoder = self.encoder.init_with_output(next(keys), tokens)
        params: dict[str, Any] = {"tokenizer": tokenizer["params"], "encoder": encoder["params"]}
        if self.predictor is not None:
            encoded, made = self.predictor.init_with_output(next(keys), encoded.tokens)
            params["predictor"] = made["params"]
        else:
            width = spec.shape[-1] if self.hide == "frames" else tokens.x.shape[-1]
            params["mask_token"] = jax.random.uniform(next(keys), (width,), jnp.float32)
        params["heads"], extra = {}, {}
        for name, target in self.targets.items():
            frozen, state = target.init(next(keys), batch)
            extra[name] = {"params": frozen, "extra": state}
            head = self.heads[name].init(next(keys), encoded.tokens.x)
            params["heads"][name] = head["params"]
        return params, {"targets": extra}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the weighted sum of the cross-entropies of all targets."""
        mask_key, band_key, drop_key = jax.random.split(key, 3)
        spec = self.frontend(batch["audio"], batch["length"])
        if train and self.spec_augment:
            spec = self.spec_augment(spec, band_key)
        rngs = {"drop_path": drop_key} if train else None
        tokens, hidden = self._seen(params, spec, batch, mask_key, train, rngs)
        counted = jnp.where(hidden, 1.0, self.unmasked)
        if tokens.valid is not None:
            counted = jnp.where(tokens.valid, counted, 0.0)
        total, metrics, means = jnp.zeros((), jnp.float32), {}, {}
        for name in self.targets:
            code = self.codes(name, extra, batch, tokens.grid)
            logits = self.heads[name].apply({"params": params["heads"][name]}, tokens.x)
            means[name], found = self._entropy(logits, code, counted, self._weight(name, batch))
            total = total + means[name][0]
            prefix = f"{name}/" if len(self.targets) > 1 else ""
            metrics |= {prefix + key: pair for key, pair in found.items()}
        return Loss(total=total, metrics=metrics, extra=extra, means=means)

    def codes(
        self, name: str, extra: Extra, batch: Batch, grid: tuple[int, int]
    ) -> Int[Array, "B N Q"]:
        """Return the codes of one target on the grid of the tokens: those heard at the middle of each.

        Raises:
          ValueError: its grid is another one, of more than one row; it hears shorter clips.
        """
        frozen = jax.lax.stop_gradient(extra["targets"][name])
        found = self.targets[name].predictors()["codes"](frozen["params"], frozen["extra"], batch)
        have, want = found.shape[1], grid[0] * grid[1]
        mine, theirs = teacher.spacing(self), teacher.spacing(teacher.heard_by(self.targets[name]))
        if have == want and mine == theirs:
            return found
        if grid[0] > 1:
            raise ValueError(
                f"target {name}: {have} codes for {want} tokens; wanted the same patches in both."
            )
        place, span, heard = jnp.arange(want), want * mine, have * theirs
        if abs(span - heard) <= 0.1 * max(span, heard) + 2 * max(mine, theirs):
            # Of the same clip, but for the ends that convolutions leave out.
            if abs(have - want) > 2:  # another frame rate, not merely another way to end
                place = (2 * place + 1) * have // (2 * want)
        elif heard < span:
            raise ValueError(
                f"target {name}: {have} codes, one every {theirs} samples, for {want} tokens, one every "
                f"{mine}; wanted clips no longer than it hears: lower data.entries.audio.samples."
            )
        else:
            place = (2 * place + 1) * mine // (2 * theirs)
        return found[:, jnp.minimum(place, have - 1)]

    def _seen(self, params, spec, batch, key, train, rngs) -> tuple[Tokens, Bool[Array, "B N"]]:
        """Return the tokens that codes are predicted from, and which were hidden."""
        encoder = {"params": params["encoder"]}
        if self.hide == "frames":
            mask = self.masking(key, len(spec), (1, spec.shape[1]))
            frames = masks.chosen(mask, spec.shape[1])
            spec = masks.hide(spec, mask, params["mask_token"])
        tokens: Any = self.tokenizer.apply({"params": params["tokenizer"]}, spec)
        step, size = self.tokenizer.stride[1], self.tokenizer.patch[1]
        frames_valid = self.frontend.valid(batch["length"], spec.shape[1])
        tokens = dataclasses.replace(tokens, valid=valid_tokens(frames_valid, tokens, step))
        count = tokens.x.shape[1]
        if self.hide == "frames":
            middle = tokens.index % tokens.grid[1] * step + size // 2
            hidden = jnp.take_along_axis(frames, middle, axis=1)
        else:
            mask = self.masking(key, len(spec), tokens.grid)
            hidden = masks.chosen(mask, count)
        if self.predictor is not None:
            visible = reorder(tokens, masks.others(mask, count))
            # Attention to nothing is not a number: of a clip too short to show anything, take silence.
            some = jnp.any(visible.valid, axis=1, keepdims=True)
            visible = dataclasses.replace(visible, valid=visible.valid | ~some)
            encoded = self.encoder.apply(encoder, visible, train=train, rngs=rngs)
            predictor = {"params": params["predictor"]}
            whole = self.predictor.apply(predictor, encoded.tokens, train=train, rngs=rngs)
            return dataclasses.replace(whole.tokens, valid=tokens.valid), hidden
        if self.hide == "tokens":
            tokens = dataclasses.replace(tokens, x=masks.hide(tokens.x, mask, params["mask_token"]))
        encoded = self.encoder.apply(encoder, tokens, train=train, rngs=rngs)
        return encoded.tokens, hidden

    def _weight(self, name: str, batch: Batch) -> Float[Array, " B"]:
        weight = self.weights.get(name, 1.0)
        size = batch["audio"].shape[0]
        if not isinstance(weight, tuple):
            return jnp.full(size, weight, jnp.float32)
        if "source" not in batch:
            raise ValueError(
                f"weights.{name}: one per source, but batches do not tell the source; "
                "add an entry of kind entries:SourceNumber to config.data.entries."
            )
        return jnp.asarray(weight, jnp.float32)[batch["source"]]

    def _entropy(self, logits, code, counted, weight) -> tuple[tuple[Array, Array], dict[str, Any]]:
        """Return the mean cross-entropy and of how many codes it is, and metrics."""
        known = code >= 0
        share = jnp.where(known, counted[..., None], 0.0)
        value = losses.code_cross_entropy(logits, jnp.maximum(code, 0), self.smoothing)
        clips = weight[:, None, None]
        total = jnp.sum(value * share * clips) / jnp.maximum(jnp.sum(share), 1e-6), jnp.sum(share)
        right = (jnp.argmax(logits, -1) == code).astype(jnp.float32)
        heard_share = share * (clips > 0)
        amount = jnp.sum(heard_share)
        used = usage(jnp.maximum(code[..., :1], 0), logits.shape[-1])
        return total, {
            "entropy": (jnp.sum(value * heard_share), amount),
            "accuracy": (jnp.sum(right * heard_share), amount),
            "majority": (jnp.max(used), 1.0),
            "codes_in_use": (perplexity(used), 1.0),
        }
