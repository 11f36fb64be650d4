"""Bags of spectral codes: an encoder of clips without convolution, recurrence or attention.

After Verma 2021 (arXiv:2110.03183): bottlenecks of feed-forward autoencoders of the spectrum, at four scales,
are clustered, and a clip is how often each cluster occurs. Fitted by `eval/bag_of_codes.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Float, Int, Wave
from ssl_audio.frontend.mel import Mel
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.structs import Encoded, Loss, Tokens

HASH = 2_654_435_761  # Knuth's multiplier: 2^32 over the golden ratio


@dataclasses.dataclass(frozen=True)
class View:
    """Which parts of the spectrograms are coded, by what autoencoder, and into how many codes.

    Attributes:
      title: its name, and that of its parameters.
      windows: numbers of the spectrograms, of `BagOfCodes.windows`, that a part has side by side.
      size: of a part: bands, frames.
      step: from a part to the next: bands, frames.
      pooled: so many frames of a part become one, their mean.
      centred: subtract from each part its mean.
      hidden: widths of the encoder's ReLU layers; the decoder mirrors them.
      width: of the bottleneck.
      codes: number of clusters, K.
    """

    title: str
    windows: tuple[int, ...] = (1,)
    size: tuple[int, int] = (64, 1)
    step: tuple[int, int] = (64, 1)
    pooled: int = 1
    centred: bool = False
    hidden: tuple[int, ...] = (256, 256)
    width: int = 24
    codes: int = 512

    def __post_init__(self):
        if self.size[1] % self.pooled:
            raise ValueError(
                f"View: pooled is {self.pooled}; it must divide {self.size[1]} frames."
            )

    @property
    def values(self) -> int:
        """Numbers in a part."""
        return len(self.windows) * self.size[0] * (self.size[1] // self.pooled)

    def times(self, frames: Any) -> Any:
        """Return how many parts follow one another in so many frames: all that fit, at least one."""
        return 1 + jnp.maximum(frames - self.size[1], 0) // self.step[1]


# The paper names the four; their sizes are not known to us, and these are our own.
VIEWS = (
    View("envelope"),
    View("patch", size=(16, 16), step=(16, 8), centred=True, hidden=(512, 512)),
    View("slice", size=(64, 40), step=(64, 10), pooled=5, hidden=(512,), width=32, codes=256),
    View("resolutions", windows=(0, 1, 2), hidden=(512, 512), width=32),
)


@dataclasses.dataclass(frozen=True)
class BagOfCodes(Objective):
    """How often each code of each view occurs in a clip, as square roots of shares; fitted elsewhere.

    Attributes:
      rate: sampling rate, Hz.
      windows: samples of the analysis windows, one spectrogram each; their frames lie on one another.
      hop: samples between frames.
      bins: mel bands.
      views: what is coded.
      bigrams: also count pairs of successive codes of the first view, in so many buckets that a hash
        chooses; a power of two. 0: do not.
    """

    interface: ClassVar[str] = "ssl_audio.inference.bag_encoder:BagEncoder"

    rate: int = 16_000
    windows: tuple[int, ...] = (256, 1024, 4096)
    hop: int = 256
    bins: int = 64
    views: tuple[View, ...] = VIEWS
    bigrams: int = 0

    def __post_init__(self):
        names = [view.title for view in self.views]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"BagOfCodes: views: got {names}, wanted one or more, of different names."
            )
        for view in self.views:
            if not 0 <= min(view.windows) <= max(view.windows) < len(self.windows):
                raise ValueError(
                    f"BagOfCodes: view {view.title!r}: windows {view.windows}; there are {len(self.windows)}."
                )
            if view.size[0] > self.bins:
                raise ValueError(
                    f"BagOfCodes: view {view.title!r}: parts of {view.size[0]} of {self.bins} bands."
                )
        if self.bigrams & (self.bigrams - 1) or self.bigrams < 0:
            raise ValueError(
                f"BagOfCodes: bigrams is {self.bigrams}; it must be a power of two, or 0."
            )
        if self.bigrams and self.views[0].size[0] + self.views[0].step[0] <= self.bins:
            raise ValueError("BagOfCodes: bigrams: the first view has several parts at one time.")

    @property
    def sizes(self) -> dict[str, int]:
        """Values of a clip's vector by view, in their order; "bigrams" last."""
        found = {view.title: view.codes for view in self.views}
        return found | ({"bigrams": self.bigrams} if self.bigrams else {})

    @property
    def width(self) -> int:
        """Values of a clip's vector, D."""
        return sum(self.sizes.values())

    @property
    def least(self) -> int:
        """Frames that the largest part needs; shorter clips end in silence, and have one part."""
        return max(view.size[1] for view in self.views)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return random parameters; there is no other state."""
        del batch
        made = {}
        for view in self.views:
            key, *keys = jax.random.split(key, 4)
            still = dict(centre=jnp.zeros(view.values), gain=jnp.ones(view.values))
            book = jax.random.normal(keys[0], (view.codes, view.width))
            widths = (view.values, *view.hidden, view.width)
            made[view.title] = still | dict(encoder=perceptron(keys[1], widths), book=book)
        return made, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Raise ValueError."""
        raise ValueError("no loss: `ssl-audio evaluate --features statistics` fits bags of codes.")

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode"."""
        return {"encode": self.encode}

    def encode(self, params: Params, extra: Extra, batch: Batch) -> Encoded:
        """Return one token per clip: its bag."""
        del extra
        spectra = self.spectra(batch["audio"], batch["length"])
        x = self.bag(params, spectra, self.frames(batch["length"]))[:, None]
        return Encoded(Tokens(x, jnp.zeros(x.shape[:2], jnp.int32), (1, 1)))

    def spectra(self, audio: Wave, length: Int[Array, "B"]) -> Float[Array, "B T R F"]:
        """Return log-mel spectrograms, dB, of each of the R windows; centred on the same samples."""
        least = max((self.least - 1) * self.hop, max(self.windows))
        audio = jnp.pad(audio, ((0, 0), (0, max(0, least - audio.shape[1]))))
        made = [
            Mel(rate=self.rate, bins=self.bins, hop=self.hop, window=size, low=0.0, high=0.0)
            for size in self.windows
        ]
        return jnp.stack([mel.log_mel(audio, length) for mel in made], axis=2)

    def frames(self, length: Int[Array, "B"]) -> Int[Array, "B"]:
        """Return how many frames are centred before the end of so many samples, at least 1."""
        return jnp.maximum(1 + (length - 1) // self.hop, 1)

    def bag(
        self, params: Params, spectra: Float[Array, "B T R F"], frames: Int[Array, "B"]
    ) -> Float[Array, "B D"]:
        """Return the square roots of the codes' shares, view after view; of each their squares sum to 1."""
        found = []
        for view in self.views:
            codes = self.codes(params, view, spectra)  # [B, times, bands]
            times = view.times(frames)
            real = jnp.arange(codes.shape[1])[None] < times[:, None]
            real = jnp.broadcast_to(real[..., None], codes.shape).reshape(codes.shape[0], -1)
            found.append(_shares(codes.reshape(codes.shape[0], -1), real, view.codes))
            if self.bigrams and view is self.views[0]:
                pairs = _hashed(codes[:, :-1, 0] * view.codes + codes[:, 1:, 0], self.bigrams)
                bigrams = _shares(pairs, real[:, 1:], self.bigrams)
        return jnp.concatenate([*found, bigrams] if self.bigrams else found, axis=1)

    def parts(self, view: View, spectra: Float[Array, "B T R F"]) -> Float[Array, "B M Q V"]:
        """Return what a view codes: the V numbers of each part, at M times and Q places of the bands."""
        (bands, frames), (up, along) = view.size, view.step
        times = (
            np.arange(0, spectra.shape[1] - frames + 1, along)[:, None] + np.arange(frames)[None]
        )
        places = np.arange(0, self.bins - bands + 1, up)[:, None] + np.arange(bands)[None]
        x = spectra[:, :, np.array(view.windows)][:, times]  # [B, M, frames, R', F]
        x = x.reshape(*x.shape[:2], -1, view.pooled, *x.shape[3:]).mean(axis=3)
        x = jnp.moveaxis(x[..., places], -2, 2)  # [B, M, Q, frames, R', bands]
        x = x.reshape(*x.shape[:3], -1)
        return x - jnp.mean(x, axis=-1, keepdims=True) if view.centred else x

    def codes(
        self, params: Params, view: View, spectra: Float[Array, "B T R F"]
    ) -> Int[Array, "B M Q"]:
        """Return the number of each part's cluster: the nearest centre to its bottleneck."""
        own = params[view.title]
        parts = self.parts(view, spectra)
        x = (parts.reshape(-1, view.values) - own["centre"][None]) * own["gain"][None]
        return nearest(perceive(own["encoder"], x), own["book"]).reshape(parts.shape[:3])


def perceptron(key: Array, widths: tuple[int, ...]) -> dict[str, dict[str, Array]]:
    """Return the parameters of dense layers of these widths, the first that of what comes in."""
    start = nn.initializers.he_normal()
    keys = jax.random.split(key, len(widths) - 1)
    return {
        str(i): dict(kernel=start(keys[i], pair, jnp.float32), bias=jnp.zeros(pair[1]))
        for i, pair in enumerate(zip(widths[:-1], widths[1:], strict=True))
    }


def perceive(layers: Mapping[str, Any], x: Float[Array, "N I"]) -> Float[Array, "N O"]:
    """Return what dense layers, with ReLU between them, make of x."""
    for i in range(len(layers)):
        x = x @ layers[str(i)]["kernel"] + layers[str(i)]["bias"][None]
        x = nn.relu(x) if i + 1 < len(layers) else x
    return x


def nearest(x: Float[Array, "N O"], book: Float[Array, "K O"]) -> Int[Array, "N"]:
    """Return the number of the nearest row of a book; of equal ones the first."""
    return jnp.argmin(jnp.sum(book**2, axis=1)[None] - 2 * (x @ book.T), axis=-1)


def _shares(codes: Int[Array, "B N"], real: Array, count: int) -> Float[Array, "B K"]:
    """Return the square roots of the codes' shares among those that are real."""
    rows = jnp.arange(codes.shape[0])[:, None]
    found = jnp.zeros((codes.shape[0], count)).at[rows, codes].add(real.astype(jnp.float32))
    return jnp.sqrt(found / jnp.maximum(jnp.sum(found, axis=1, keepdims=True), 1))


def _hashed(values: Int[Array, "B N"], buckets: int) -> Int[Array, "B N"]:
    """Return a bucket for each number: the highest bits of its product with `HASH`."""
    product = values.astype(jnp.uint32) * jnp.uint32(HASH)
    return (product >> (33 - buckets.bit_length())).astype(jnp.int32)
