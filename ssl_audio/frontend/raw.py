"""The waveform itself as features, for tokenizers that learn their own filters."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int, Spec, Wave
from ssl_audio.frontend.base import before


@dataclasses.dataclass(frozen=True)
class Raw:
    """Give samples as frames of one value (wav2vec 2.0, Baevski et al. 2020, arXiv:2006.11477).

    Attributes:
      rate: sampling rate, Hz.
      frames: samples of a clip; shorter ones are padded at the end with 0, longer ones cut. None: as
        many as there are.
      standardise: subtract the mean of the valid samples and divide by their deviation first.
    """

    rate: int = 16_000
    frames: int | None = None
    standardise: bool = True

    hop: ClassVar[int] = 1
    window: ClassVar[int] = 1
    centre: ClassVar[float] = 0.0
    bins: ClassVar[int] = 1

    def __post_init__(self):
        if self.rate <= 0 or (self.frames is not None and self.frames <= 0):
            raise ValueError(f"Raw: rate {self.rate} and frames {self.frames} must be above 0.")

    def __call__(self, audio: Wave, length: Int[Array, "B"] | None = None) -> Spec:
        """Return [B, T, 1]; samples from `length` on are 0."""
        frames = self.count(audio.shape[1])
        audio = audio.astype(jnp.float32)[:, :frames]
        audio = jnp.pad(audio, ((0, 0), (0, frames - audio.shape[1])))
        if length is None:
            length = jnp.full(audio.shape[:1], frames, jnp.int32)
        inside = self.valid(length, frames)
        if self.standardise:
            count = jnp.clip(length, 1, frames)[:, None]
            mean = jnp.sum(jnp.where(inside, audio, 0), 1, keepdims=True) / count
            square = jnp.sum(jnp.where(inside, (audio - mean) ** 2, 0), 1, keepdims=True) / count
            audio = (audio - mean) * jax.lax.rsqrt(square + 1e-7)
        return jnp.where(inside, audio, 0)[:, :, None]

    def channels(
        self, audio: Float[Array, "B S *C"], length: Int[Array, "B"] | None = None
    ) -> Float[Array, "B T C"]:
        """Return the samples of mono sound [B, S], or of each of several channels [B, S, C]."""
        some = [audio] if audio.ndim == 2 else [audio[..., c] for c in range(audio.shape[-1])]
        return jnp.concatenate([self(one, length) for one in some], -1)

    def count(self, samples: int) -> int:
        """Return T for a batch that is `samples` long."""
        return self.frames or samples

    def valid(self, length: Int[Array, "B"], frames: int) -> Bool[Array, "B T"]:
        """Return which of `frames` samples come before `length`."""
        return before(length, frames)
