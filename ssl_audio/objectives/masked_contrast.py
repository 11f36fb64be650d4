"""Tell which two masked views are of the same clip: one encoder, two maskings, no teacher and no decoder.

AudioMosaic (arXiv:2605.14231), where one view lacks time columns and the other one frequency rows.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float, Int
from ssl_audio.frontend.base import Frontend
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params
from ssl_audio.slots import Augment, Backbone, Masking, Pool, Projector
from ssl_audio.structs import Loss
from ssl_audio.tokens.masking import others
from ssl_audio.tokens.order import reorder
from ssl_audio.tokens.patchify import Patchify


@dataclasses.dataclass(frozen=True)
class MaskedContrast(Encoding):
    """Bring two differently masked and augmented views of a clip together, and all other clips apart.

    A batch may bring the second view itself, as `audio_second` and `length_second` (see
    `data/altered.py`); else both are made from `audio`.

    Attributes:
      frontend: waveform → normalised log-mel.
      tokenizer: log-mel → patch tokens.
      encoder: any backbone; it sees visible patches in the order of the grid.
      pool: what it makes of them → one vector a clip.
      projector: that vector → the space that is compared, where lengths do not matter.
      maskings: which patches to hide of the first view, and of the second; drawn for each clip alone.
      augment: what changes the waveform of each view in training, one after the other: (audio, length, key)
        → audio.
      temperature: divides the cosines.
    """

    couples_examples: ClassVar[bool] = True

    frontend: Frontend
    tokenizer: Patchify
    encoder: Backbone
    pool: Pool
    projector: Projector
    maskings: tuple[Masking, Masking]
    augment: tuple[Augment, ...] = ()
    temperature: float = 0.1

    def __post_init__(self):
        if len(self.maskings) != 2 or self.temperature <= 0:
            raise ValueError(
                f"MaskedContrast: {len(self.maskings)} maskings, temperature={self.temperature}; wanted two, "
                "one for each view, and a temperature above 0."
            )

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; there is no other state."""
        keys = jax.random.split(key, 4)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens)
        vector, pool = self.pool.init_with_output(keys[2], encoded)
        projector = self.projector.init(keys[3], vector)
        made = {"tokenizer": tokenizer, "encoder": encoder, "pool": pool, "projector": projector}
        return {name: part["params"] for name, part in made.items() if part.get("params")}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean over all views of the cross-entropy with the clip's other view."""
        ends = ("", "_second" if "audio_second" in batch else "")
        pair, vectors = [], []
        for number, (end, masking) in enumerate(zip(ends, self.maskings, strict=True)):
            wave_key, mask_key, drop_key = jax.random.split(jax.random.fold_in(key, number), 3)
            audio, length = batch[f"audio{end}"], batch[f"length{end}"]
            for order, change in enumerate(self.augment if train else ()):
                audio = change(audio, length, jax.random.fold_in(wave_key, order))
            spec = self.frontend(audio, length)
            grid = self.tokenizer.grid(*spec.shape[1:])
            shown = others(masking(mask_key, len(spec), grid), grid[0] * grid[1])
            vector = self.visible(params, spec, shown, drop_key if train else None)
            vectors.append(vector)
            pair.append(self.projected(params, vector))
        loss, hit = losses.nt_xent(pair[0], pair[1], self.temperature)
        weight = float(len(batch["audio"]))
        found = {"accuracy": jnp.mean(hit), "spread": losses.spread(jnp.concatenate(vectors))}
        metrics = {name: (weight * value, weight) for name, value in found.items()}
        return Loss(total=jnp.mean(loss), metrics=metrics, extra=extra)

    def visible(
        self,
        params: Params,
        spec: Float[Array, "B T F"],
        shown: Int[Array, "B K"],
        key: Array | None = None,
    ) -> Float[Array, "B D"]:
        """Return the vector of the patches at `shown` of each clip; nothing else is seen."""
        tokens: Any = self.tokenizer.apply({"params": params["tokenizer"]}, spec)
        encoded = self.encoder.apply(
            {"params": params["encoder"]},
            reorder(tokens, shown),
            train=key is not None,
            rngs=None if key is None else {"drop_path": key},
        )
        return self.pool.apply({"params": params.get("pool", {})}, encoded)

    def projected(self, params: Params, vector: Float[Array, "B D"]) -> Float[Array, "B O"]:
        """Return unit vectors in the space that is compared."""
        return losses.unit(self.projector.apply({"params": params["projector"]}, vector))
