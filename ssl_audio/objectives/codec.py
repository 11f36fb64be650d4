"""A neural codec: sound to codes and back (EnCodec, arXiv:2210.13438; DAC, arXiv:2306.06546)."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int
from ssl_audio.frontend.mel import Mel
from ssl_audio.frontend.raw import Raw
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params, Phase, Predictor, zeroed
from ssl_audio.objectives.reconstruction import (
    GANS,
    JUDGED,
    SPECTRAL,
    Losses,
    balanced,
    cost,
    judged,
    mono,
    spectral,
    weighted,
)
from ssl_audio.quantizers import codebooks
from ssl_audio.slots import Backbone, Head, Slot, Tokenizer
from ssl_audio.structs import Encoded, Loss

LEARNED = ("tokenizer", "encoder", "decoder")


@dataclasses.dataclass(frozen=True)
class Codec(Encoding):
    """Reconstruct sound from the sum of one entry of each codebook for every token.

    Sound is `batch["audio"]`, [B, S] or of several channels [B, S, C]. Sound of any length is one chunk, or
    chunks of a fixed length that overlap.

    Losses of the sound are balanced: each one's gradient at the decoder's output is divided by its
    moving-average norm, then weighted (EnCodec, section 3.4); or they are only weighted.

    Attributes:
      frontend: samples as they are.
      tokenizer: samples → vectors.
      encoder: any backbone on top of them; EnCodec has none: `identity`.
      quantizer: vectors → codes: `residual`, whose codebooks are moving averages, or `factorised`, whose
        codebooks gradients move.
      decoder: vectors → samples.
      normalise: divide each chunk by its root mean square, and multiply again after decoding.
      chunk: samples of a chunk; 0: all.
      step: samples between the begins of chunks.
      spectra: log-mels in which the sound is compared, beside its samples.
      spectral: how: "magnitudes_and_logs" or "logs".
      discriminator: one of `discriminators`, to learn from in a phase of its own; None: none.
      gan: what its scores cost: "hinge" or "least_squares".
      wave, mel, adversarial, matching: weights of the mean absolute error of samples, of the spectra's, of
        what the discriminator says, and of its inner layers' mean absolute difference. 0: leave it out.
      commitment: weight of the quantizer's loss, the squared distance of vectors and entries, which is not
        balanced.
      balance: decay of the gradients' norms; None: not balanced.
      judged_after: first steps, in which the discriminator learns and the codec does not hear it yet.
      zeroed: parameters that begin at 0, a regular expression of their paths; "": none.
    """

    frontend: Raw
    tokenizer: Tokenizer
    encoder: Backbone
    quantizer: Annotated[Any, Slot("quantizers", ("residual", "factorised"))]
    decoder: Head
    normalise: bool = False
    chunk: int = 0
    step: int = 0
    spectra: tuple[Mel, ...] = ()
    spectral: str = SPECTRAL[0]
    discriminator: Head = None
    gan: str = "hinge"
    wave: float = 0.1
    mel: float = 2.0
    adversarial: float = 4.0
    matching: float = 4.0
    commitment: float = 1.0
    balance: float | None = 0.999
    judged_after: int = 0
    zeroed: str = ""

    interface: ClassVar[str] = "ssl_audio.inference.codec:CodecModel"
    couples_examples: ClassVar[bool] = True  # codebooks and norms are of the whole batch

    def __post_init__(self):
        if self.chunk and not 0 < self.step <= self.chunk:
            raise ValueError(
                f"codec: step {self.step}: wanted 1 to chunk={self.chunk}, or sound between chunks is lost."
            )
        for name, known in (("gan", tuple(GANS)), ("spectral", SPECTRAL)):
            if (got := getattr(self, name)) not in known:
                raise ValueError(f"codec: {name} is {got!r}; wanted one of {', '.join(known)}.")
        learned = (*LEARNED, "quantizer") if self.quantizer.by_gradient else LEARNED
        phases = (Phase(trains=f"^({'|'.join(learned)})/"),)
        if self.discriminator is not None:
            phases = (Phase("discriminator", "^discriminator/", "discriminate"), *phases)
        object.__setattr__(self, "phases", phases)

    @property
    def channels(self) -> int:
        """Return the channels of sound."""
        return self.decoder.sounds

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and moving averages of nothing."""
        keys = jax.random.split(key, 5)
        samples, _ = self.samples(batch)
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], samples)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens)
        vectors = encoded.tokens.x
        quantizer = self.quantizer.init(keys[2], vectors)
        decoder = self.decoder.init(keys[3], vectors)
        made = {"tokenizer": tokenizer, "encoder": encoder, "quantizer": quantizer}
        made["decoder"] = decoder
        extra: dict[str, Any] = self.quantizer.begun()
        if self.balance is not None:
            extra["norms"] = {name: jnp.zeros(2) for name in self._weights}
        if self.discriminator is not None:
            made["discriminator"] = self.discriminator.init(keys[4], samples[..., 0])
        params = {name: variables.get("params", {}) for name, variables in made.items()}
        if self.judged_after:
            extra["steps"] = jnp.zeros((), jnp.int32)
        return zeroed(params, self.zeroed), extra

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return what descends the balanced gradients; in training, renew the codebooks."""
        x, _ = self.samples(batch)
        vectors: Any = self.vectors(params, x).tokens.x
        weights = {"params": params["quantizer"]}
        found: Any = self.quantizer.apply(weights, vectors, extra, key, train=train, method="learn")
        sound: Any = self.decoder.apply({"params": params["decoder"]}, found.vectors)
        sound, x = _as_long(sound, x)
        losses, after, weights = self._losses(params, x), dict(found.state), dict(self._weights)
        if self.judged_after:
            judged = extra["steps"] >= self.judged_after
            weights |= {name: weights[name] * judged for name in JUDGED if name in weights}
            after["steps"] = extra["steps"] + 1
        if self.balance is None:
            total, metrics = weighted(losses, weights, sound)
        else:
            total, norms, metrics = balanced(losses, weights, extra["norms"], sound, self.balance)
            after["norms"] = norms
        renewed = None if found.renewed is None else {"quantizer": found.renewed}
        extra = extra | after if train else extra
        codes = found.codes.reshape(-1, self.quantizer.books)
        used = jax.vmap(lambda code: codebooks.usage(code, self.quantizer.codes))(codes.T)
        metrics |= {name: (value, 1.0) for name, value in found.metrics.items()}
        metrics["codes_in_use"] = (jnp.mean(codebooks.perplexity(used)), 1.0)
        return Loss(total + self.commitment * found.loss, metrics, extra, renewed)

    def discriminate(
        self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool
    ) -> Loss:
        """Return the loss of telling recorded sound from decoded sound."""
        del key, train
        x, _ = self.samples(batch)
        vectors: Any = self.vectors(params, x).tokens.x
        quantizer = {"params": params["quantizer"]}
        codes = self.quantizer.apply(quantizer, vectors)
        heard = self.quantizer.apply(quantizer, codes, method="vectors")
        sound: Any = self.decoder.apply({"params": params["decoder"]}, heard)
        sound, x = _as_long(jax.lax.stop_gradient(sound), x)
        judge = {"params": params["discriminator"]}
        said = [self.discriminator.apply(judge, mono(some)) for some in (x, sound)]
        gan = GANS[self.gan]
        real, fake = (
            cost([s for s, _ in some], of)
            for some, of in zip(said, (gan.real, gan.fake), strict=True)
        )
        metrics = {"real": (real, 1.0), "fake": (fake, 1.0)}
        return Loss(total=real + fake, metrics=metrics, extra=extra)

    @property
    def _weights(self) -> dict[str, float]:
        names = ["wave"] + ["mel"] * bool(self.spectra)
        names += [] if self.discriminator is None else JUDGED
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def _losses(self, params: Params, x: Array) -> Losses:
        """Return the losses of decoded sound [B, S, C]."""
        found: dict[str, Any] = {"wave": lambda sound: jnp.mean(jnp.abs(sound - x))}
        if self.spectra:
            found["mel"] = lambda sound: spectral(self.spectra, mono(sound), mono(x), self.spectral)
        if self.discriminator is not None:
            judge = {"params": jax.lax.stop_gradient(params["discriminator"])}
            found |= judged(lambda some: self.discriminator.apply(judge, some), x, GANS[self.gan])
        return {name: found[name] for name in self._weights}

    def samples(self, batch: Batch) -> tuple[Float[Array, "B S C"], Float[Array, " B"]]:
        """Return sound [B, S, channels], and what it was divided by."""
        x = self.frontend.channels(batch["audio"], batch.get("length"))
        if not self.normalise:
            return x, jnp.ones(len(x))
        # Silence after the end is no part of it.
        count = jnp.clip(jnp.asarray(batch.get("length", x.shape[1])), 1, x.shape[1])
        scale = jnp.sqrt(jnp.sum(jnp.mean(x, -1) ** 2, -1) / count) + 1e-8
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
        """Return the sound of `batch["codes"]` [B, N, Q], of the first Q books, and `batch["scale"]` [B].

        Every token has its stride of samples; the last few that odd strides of a decoder leave out are 0.
        """
        del extra
        weights = {"params": params["quantizer"]}
        vectors = self.quantizer.apply(weights, batch["codes"], method="vectors")
        found: Any = self.decoder.apply({"params": params["decoder"]}, vectors)
        return self.filled(found, batch["codes"].shape[1]) * batch["scale"][:, None, None]

    def filled(self, sound: Float[Array, "B S C"], tokens: int) -> Float[Array, "B T C"]:
        """Return the sound of so many tokens with zeros for what odd strides leave out of the last."""
        missing = max(0, tokens * self.tokenizer.stride[1] - sound.shape[1])
        return jnp.pad(sound, ((0, 0), (0, missing), (0, 0)))


def _as_long(sound: Float[Array, "B S C"], x: Float[Array, "B T C"]) -> tuple[Array, Array]:
    """Return decoded and recorded sound cut to what both have: odd strides may lose a few samples."""
    size = min(sound.shape[1], x.shape[1])
    return sound[:, :size], x[:, :size]
