"""Mel-frequency cepstral coefficients with their first and second differences: HuBERT's first targets."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Bool, Int, Spec, Wave
from ssl_audio.frontend.fbank import Fbank


@dataclasses.dataclass(frozen=True)
class Mfcc:
    """Turn log-mel energies into cepstra (Davis & Mermelstein 1980; Hsu et al. 2021, section IV-A).

    Attributes:
      rate, hop, window, frames: see `Fbank`.
      bands: mel bands that the cepstra are made of.
      coefficients: kept, the zeroth among them; with differences there are three times as many.
      lifter: of the coefficients, as Kaldi's; 0: none.
    """

    rate: int = 16_000
    hop: int = 160
    window: int = 400
    frames: int | None = None
    bands: int = 23
    coefficients: int = 13
    lifter: float = 22.0

    @property
    def bins(self) -> int:
        """Return the values per frame."""
        return 3 * self.coefficients

    def __call__(self, audio: Wave, length: Int[Array, "B"] | None = None) -> Spec:
        """Return cepstra and differences [B, T, 3 coefficients]."""
        cepstra = self._fbank.log_mel(audio, length) @ jnp.asarray(self._matrix)
        first = _difference(cepstra)
        return jnp.concatenate([cepstra, first, _difference(first)], axis=-1)

    def count(self, samples: int) -> int:
        """Return T for a batch that is `samples` long."""
        return self._fbank.count(samples)

    def valid(self, length: Int[Array, "B"], frames: int) -> Bool[Array, "B T"]:
        """Return which of `frames` frames hold nothing but samples before `length`."""
        return self._fbank.valid(length, frames)

    @property
    def centre(self) -> float:
        """Sample on which the first frame is centred."""
        return self.window / 2

    @property
    def _fbank(self) -> Fbank:
        return Fbank(
            rate=self.rate,
            bins=self.bands,
            hop=self.hop,
            window=self.window,
            frames=self.frames,
            taper=0.85,
            scale=32768.0,
            remove_mean=False,
        )

    @property
    def _matrix(self) -> np.ndarray:
        """Return the orthonormal cosine transform with the lifter, [bands, coefficients].

        librosa has neither: its cosine transform is a function of SciPy's, not a matrix for the
        device, and its lifter starts at the first coefficient where Kaldi's starts at the zeroth.
        """
        band, k = np.arange(self.bands)[:, None], np.arange(self.coefficients)[None]
        matrix = np.cos(np.pi * k * (band + 0.5) / self.bands) * np.sqrt(2 / self.bands)
        matrix[:, 0] *= np.sqrt(0.5)
        if self.lifter:
            matrix *= 1 + 0.5 * self.lifter * np.sin(np.pi * k / self.lifter)
        return matrix.astype(np.float32)


def _difference(x: Spec) -> Spec:
    """Return the slope over five frames, the ends repeated."""
    wide = jnp.pad(x, ((0, 0), (2, 2), (0, 0)), mode="edge")
    count = x.shape[1]

    def at(shift):
        return wide[:, 2 + shift : 2 + shift + count]

    return (at(1) - at(-1) + 2 * (at(2) - at(-2))) / 10
