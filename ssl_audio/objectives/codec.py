"""A neural codec: sound to codes and back (EnCodec, Défossez et al. 2022, arXiv:2210.13438)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int
from ssl_audio.frontend.raw import Raw
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params, Predictor
from ssl_audio.quantizers.residual import Residual
from ssl_audio.slots import Backbone, Head, Tokenizer
from ssl_audio.structs import Encoded, Loss


@dataclasses.dataclass(frozen=True)
class Codec(Encoding):
    """Reconstruct sound from the sum of one entry of each codebook for every token.

    Sound is `batch["audio"]`, [B, S] or of several channels [B, S, C]. Sound of any length is one chunk, or
    chunks of a fixed length that overlap.

    Attributes:
      frontend: samples as they are.
      tokenizer: samples → vectors.
      encoder: any backbone on top of them; EnCodec has none: `identity`.
      quantizer: vectors → codes.
      decoder: vectors → samples.
      normalise: divide each chunk by its root mean square, and multiply again after decoding.
      chunk: samples of a chunk; 0: all.
      step: samples between the begins of chunks.
    """

    frontend: Raw
    tokenizer: Tokenizer
    encoder: Backbone
    quantizer: Residual
    decoder: Head
    normalise: bool = False
    chunk: int = 0
    step: int = 0

    interface: ClassVar[str] = "ssl_audio.inference.codec:CodecModel"

    def __post_init__(self):
        if self.chunk and not 0 < self.step <= self.chunk:
            raise ValueError(
                f"codec: step {self.step}: wanted 1 to chunk={self.chunk}, or sound between chunks is lost."
            )

    @property
    def channels(self) -> int:
        """Return the channels of sound."""
        return self.decoder.sounds

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters."""
        keys = jax.random.split(key, 4)
        samples, _ = self.samples(batch)
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], samples)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens)
        vectors = encoded.tokens.x
        quantizer = self.quantizer.init(keys[2], vectors)
        decoder = self.decoder.init(keys[3], vectors)
        made = {"tokenizer": tokenizer, "encoder": encoder, "quantizer": quantizer}
        params = {n: v.get("params", {}) for n, v in (made | {"decoder": decoder}).items()}
        return params, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Raise ValueError."""
        raise ValueError("objective 'codec' is not trained here yet: convert published weights.")

    def samples(self, batch: Batch) -> tuple[Float[Array, "B S C"], Float[Array, " B"]]:
        """Return sound [B, S, channels], and what it was divided by."""
        audio = batch["audio"]
        some = [audio] if audio.ndim == 2 else [audio[..., c] for c in range(audio.shape[-1])]
        x = jnp.concatenate([self.frontend(one, batch.get("length")) for one in some], -1)
        if not self.normalise:
            return x, jnp.ones(len(x))
        scale = jnp.sqrt(jnp.mean(jnp.mean(x, -1) ** 2, -1)) + 1e-8
        return x / scale[:, None, None], scale

    def vectors(self, params: Params, x: Float[Array, "B S C"]) -> Encoded:
        """Return what is quantised."""
        tokens: Any = self.tokenizer.apply({"params": params["tokenizer"]}, x)
        return self.encoder.apply({"params": params.get("encoder", {})}, tokens, layers=True)

    def encode(self, params: Params, extra: Extra, batch: Batch) -> Encoded:
        """Return the vectors before they are quantised, of the whole clip as one chunk."""
        del extra
        return self.vectors(params, self.samples(batch)[0])

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode", "codes" and "sound"."""
        return {"encode": self.encode, "codes": self.codes, "sound": self.sound}

    def codes(
        self, params: Params, extra: Extra, batch: Batch
    ) -> tuple[Int[Array, "B N Q"], Float[Array, " B"]]:
        """Return the codes of all books, and the scale of each clip (1: none), each clip as one chunk."""
        del extra
        x, scale = self.samples(batch)
        vectors = self.vectors(params, x).tokens.x
        codes: Any = self.quantizer.apply({"params": params["quantizer"]}, vectors)
        return codes, scale

    def sound(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B S C"]:
        """Return the sound of `batch["codes"]` [B, N, Q], of the first Q books, and `batch["scale"]` [B]."""
        del extra
        weights = {"params": params["quantizer"]}
        vectors = self.quantizer.apply(weights, batch["codes"], method="vectors")
        found = self.decoder.apply({"params": params["decoder"]}, vectors)
        return found * batch["scale"][:, None, None]
