"""A codec in use: sound to codes and back, at any length, whole or piece by piece."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Float
from ssl_audio.backbones.identity import Identity
from ssl_audio.inference.encoder import Encoder
from ssl_audio.inference.model import Model
from ssl_audio.inference.windows import rung
from ssl_audio.objectives.features import Features


@dataclasses.dataclass(frozen=True, eq=False)
class Codes:
    """A sound as codes.

    Attributes:
      chunks: of each chunk of the sound int32 [N, Q]: N tokens in time, Q books.
      scales: of each chunk, what it is multiplied by after decoding.
      samples: length of the sound at the codec's rate.
    """

    chunks: tuple[np.ndarray, ...]
    scales: tuple[float, ...]
    samples: int


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CodecModel(Model):
    """Encode sound to codes and decode them; see `Model` for the fields.

    ```python
    codec = ssl_audio.load(FOLDER)
    codes = codec.encode(waveform, 24_000, kbps=6)
    sound = codec.decode(codes)
    ```
    """

    @property
    def channels(self) -> int:
        """Channels of sound."""
        return self.objective.channels

    @property
    def hop(self) -> int:
        """Samples of one token."""
        return self.objective.tokenizer.stride[1]

    @property
    def books(self) -> int:
        """Codebooks there are, Q."""
        return self.objective.quantizer.books

    @property
    def kbps(self) -> tuple[float, ...]:
        """Bit rates that can be chosen: of one book, of two, …; thousand bits a second."""
        bits = math.ceil(math.log2(self.objective.quantizer.codes)) * self.rate / self.hop
        return tuple(bits * (q + 1) / 1000 for q in range(self.books))

    @functools.cached_property
    def encoder(self) -> Encoder:
        """What is quantised, as the features of an encoder.

        Raises:
          ValueError: a codec of several channels or of normalised chunks, which an encoder knows nothing of.
        """
        made = self.objective
        if self.channels > 1 or made.normalise:
            raise ValueError(
                f"{self._name}: {self.channels} channels, normalise={made.normalise}: only codecs of one "
                "channel without normalised chunks are encoders, too; use encode and decode."
            )
        return Encoder(
            Features(made.frontend, made.tokenizer, made.encoder), self.params, self.config
        )

    def encode(
        self,
        waveform: Any,
        sample_rate: int,
        *,
        kbps: float | None = None,
        books: int | None = None,
    ) -> Codes:
        """Return the codes of a clip.

        Args:
          waveform: [S], or [S, channels] of a codec of several: floating point in [-1, 1] or int16.
          sample_rate: of it, Hz; it is resampled to `rate`.
          kbps: use as many books as that bit rate has room for; see `kbps`.
          books: use so many books. Neither: all.

        Raises:
          ValueError: unusable sound, other channels, or no such bit rate.
        """
        used = self.count(kbps, books)
        sound = self._sound(waveform, sample_rate)
        size, step = self.objective.chunk or len(sound), self.objective.step or len(sound)
        chunks, scales = [], []
        for begin in range(0, len(sound), step):
            codes, scale = self._coded(sound[begin : begin + size])
            chunks.append(codes[:, :used])
            scales.append(float(scale[0]))
        return Codes(tuple(chunks), tuple(scales), len(sound))

    def decode(self, codes: Codes | Any, samples: int | None = None) -> np.ndarray:
        """Return the sound of codes, float32 [S] or [S, channels], at `rate`.

        Args:
          codes: what `encode` returned, or an array [N, Q] of the first Q books.
          samples: length of the sound; None: that which was encoded, or of an array N * hop.

        Raises:
          ValueError: codes that are none, or more samples than they hold.
        """
        if not isinstance(codes, Codes):
            array = np.asarray(codes)
            codes = Codes((array,), (1.0,), len(array) * self.hop if array.ndim else 0)
        if not codes.chunks:
            raise ValueError("codes: no chunks.")
        parts = [
            self._sounded(self.checked(chunk), scale)
            for chunk, scale in zip(codes.chunks, codes.scales, strict=True)
        ]
        sound = np.asarray(overlapped(parts, self.objective.step)[0])
        wanted = codes.samples if samples is None else samples
        if not 0 < wanted <= len(sound):
            raise ValueError(f"samples: got {wanted}, wanted 1 to the {len(sound)} of these codes.")
        sound = sound[:wanted]
        return sound[:, 0] if self.channels == 1 else sound

    def stream(self, *, kbps: float | None = None, books: int | None = None) -> "Stream":
        """Return what encodes one sound and decodes one sequence of codes, piece by piece.

        Raises:
          ValueError: the codec looks ahead, or has chunks; no such bit rate.
        """
        made = self.objective
        if made.normalise or made.chunk or not made.tokenizer.causal or not made.decoder.causal:
            raise ValueError(
                f"stream: chunk={made.chunk}, causal={made.tokenizer.causal}: only a causal codec without "
                "chunks can begin before the sound ends; use encode and decode."
            )
        return Stream(self, self.count(kbps, books))

    def count(self, kbps: float | None, books: int | None) -> int:
        """Return how many books to use.

        Raises:
          ValueError: no such number, a bit rate below that of one book or above that of all, or both given.
        """
        if kbps is not None and books is not None:
            raise ValueError("kbps and books: wanted one of them.")
        if kbps is not None:
            rates = self.kbps
            if not rates[0] <= kbps <= rates[-1] * (1 + 1e-9):
                raise ValueError(f"kbps: got {kbps}, wanted {rates[0]:g} to {rates[-1]:g}.")
            return sum(rate <= kbps * (1 + 1e-9) for rate in rates)
        books = self.books if books is None else books
        if isinstance(books, bool) or not isinstance(books, int) or not 0 < books <= self.books:
            raise ValueError(f"books: got {books!r}, wanted 1 to {self.books}.")
        return books

    def checked(self, codes: Any) -> np.ndarray:
        """Return codes [N, Q] as int32.

        Raises:
          ValueError: of another shape or type, or a number that is no code.
        """
        codes, most = np.asarray(codes), self.objective.quantizer.codes
        if codes.ndim != 2 or not len(codes) or not 0 < codes.shape[1] <= self.books:
            raise ValueError(
                f"codes: got shape {codes.shape}, wanted [N, Q] with Q from 1 to {self.books}."
            )
        if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= most:
            raise ValueError(
                f"codes: got {codes.dtype} from {codes.min()} to {codes.max()}, wanted whole numbers from "
                f"0 to {most - 1}."
            )
        return codes.astype(np.int32)

    def _sound(self, waveform: Any, sample_rate: int) -> np.ndarray:
        sound, many = np.asarray(waveform), self.channels
        if many == 1:
            if sound.ndim != 1:
                raise ValueError(f"waveform: got shape {sound.shape}, wanted mono sound [S].")
            return self.clips([sound], sample_rate)[0][:, None]
        if sound.ndim != 2 or sound.shape[1] != many:
            raise ValueError(f"waveform: got shape {sound.shape}, wanted [S, {many}].")
        return np.stack(self.clips(list(sound.T), sample_rate), -1)

    @property
    def _takes_end(self) -> bool:
        """Whether the networks can be told where sound ends, so that few programs do for all lengths."""
        made = self.objective
        known = all(getattr(part, "takes_end", False) for part in (made.tokenizer, made.decoder))
        return known and isinstance(made.encoder, Identity)

    def _padded(self, tokens: int) -> int:
        """Return how many tokens a program takes that is for so many: those of a chunk at most."""
        whole = -(-self.objective.chunk // self.hop)
        return min(rung(tokens), whole) if tokens <= whole else rung(tokens)

    def _coded(self, sound: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return the codes [N, Q] of a chunk [S, channels], and its scale [1]."""
        if not self._takes_end:
            codes, scale = self._codes(self._on_device, sound[None])
            return np.asarray(codes[0]), scale
        tokens = -(-len(sound) // self.hop)
        padded = np.pad(sound, ((0, self._padded(tokens) * self.hop - len(sound)), (0, 0)))
        count = np.full(1, len(sound), np.int32)
        codes, scale = self._codes_of(self._on_device, padded[None], count)
        return np.asarray(codes[0, : self.objective.tokenizer.grid(len(sound))[1]]), scale

    def _sounded(self, codes: np.ndarray, scale: float) -> Any:
        """Return the sound [1, S, channels] of codes [N, Q]."""
        if not self._takes_end:
            return self._decoded(self._on_device, codes[None], jnp.full(1, scale))
        count = np.full(1, len(codes), np.int32)
        padded = np.pad(codes, ((0, self._padded(len(codes)) - len(codes)), (0, 0)))[None]
        return self._sound_of(self._on_device, padded, count)[:, : len(codes) * self.hop] * scale

    @functools.cached_property
    def _codes_of(self) -> Any:
        made = self.objective

        def codes(params, audio, count):
            x, scale = made.samples({"audio": audio, "length": count})
            vectors: Any = made.tokenizer.apply({"params": params["tokenizer"]}, x, count)
            return made.quantizer.apply({"params": params["quantizer"]}, vectors.x), scale

        return jax.jit(codes)

    @functools.cached_property
    def _sound_of(self) -> Any:
        made = self.objective

        def sound(params, codes, count):
            weights = {"params": params["quantizer"]}
            vectors = made.quantizer.apply(weights, codes, method="vectors")
            found: Any = made.decoder.apply({"params": params["decoder"]}, vectors, count)
            return made.filled(found, codes.shape[1])

        return jax.jit(sound)

    @functools.cached_property
    def _codes(self) -> Any:
        return jax.jit(lambda params, audio: self.objective.codes(params, {}, {"audio": audio}))

    @functools.cached_property
    def _decoded(self) -> Any:
        def decoded(params, codes, scale):
            return self.objective.sound(params, {}, {"codes": codes, "scale": scale})

        return jax.jit(decoded)

    @functools.cached_property
    def _piece(self) -> Any:
        made = self.objective

        def piece(params, x, memory, last):
            weights = {"params": params["tokenizer"]}
            x, memory = made.tokenizer.apply(weights, x, memory, last=last, method="piece")
            codes = made.quantizer.apply({"params": params["quantizer"]}, x)
            return codes, memory

        return jax.jit(piece, static_argnames="last")

    @functools.cached_property
    def _sound_piece(self) -> Any:
        made = self.objective

        def piece(params, codes, memory):
            weights = {"params": params["quantizer"]}
            x = made.quantizer.apply(weights, codes, method="vectors")
            return made.decoder.apply({"params": params["decoder"]}, x, memory, method="piece")

        return jax.jit(piece)


class Stream:
    """One sound on its way through a causal codec; together, pieces give what the whole does.

    One program is compiled for each length of piece: give pieces of one length.
    """

    def __init__(self, model: CodecModel, books: int):
        self._model, self._books = model, books
        self._waiting = np.zeros((0, model.channels), np.float32)
        self._coded = np.zeros((0, books), np.int32)
        self._heard: Any = None
        self._said: Any = None

    def encode(self, piece: Any, *, last: bool = False) -> np.ndarray:
        """Return the codes [N, Q] that another piece of sound completes.

        Args:
          piece: samples at the codec's rate [S] or [S, channels]; what does not fill a token waits.
          last: the sound ends with it; the next piece is that of another sound.
        """
        model = self._model
        sound = model._sound(piece, model.rate) if np.size(piece) else self._waiting[:0]
        sound = np.concatenate([self._waiting, sound])
        whole = len(sound) if last else len(sound) // model.hop * model.hop
        # What mirrors the begin needs to have heard it.
        first = model.objective.tokenizer.last_kernel * model.hop
        if not whole or (self._heard is None and whole < first and not last):
            self._waiting = sound
            whole = 0
        codes = np.zeros((0, self._books), np.int32)
        if whole:
            self._waiting = sound[whole:]
            if self._heard is None and last:
                found, _ = model._codes(model._on_device, sound[None])
            else:
                found, self._heard = model._piece(
                    model._on_device, sound[None, :whole], self._heard, last=last
                )
            codes = np.asarray(found[0, :, : self._books])
        if last:
            self._heard, self._waiting = None, self._waiting[:0]
        return codes

    def decode(self, codes: Any, *, last: bool = False) -> np.ndarray:
        """Return the samples [S] or [S, channels] that further codes complete.

        Args:
          codes: [N, Q].
          last: the sound ends with them; the next codes are those of another sound.
        """
        model = self._model
        codes = model.checked(codes) if np.size(codes) else self._coded[:0]
        if self._coded.shape[1] != codes.shape[1]:
            self._coded = self._coded[:0].reshape(0, codes.shape[1])
        codes = np.concatenate([self._coded, codes])
        short = self._said is None and len(codes) < model.objective.decoder.kernel
        sound = np.zeros((0, model.channels), np.float32)
        if not len(codes) or (short and not last):
            self._coded = codes
        else:
            self._coded = codes[:0]
            if short:
                found = model._decoded(model._on_device, codes[None], jnp.ones(1))
            else:
                found, self._said = model._sound_piece(model._on_device, codes[None], self._said)
            sound = np.asarray(found[0])
        if last:
            self._said = None
        return sound[:, 0] if model.channels == 1 else sound


def overlapped(parts: Sequence[Float[Array, "B S C"]], step: int) -> Float[Array, "B S C"]:
    """Return chunks as one sound; where they overlap, each counts by its distance to its ends.

    Args:
      parts: chunks as long as the first; the last ones may be shorter.
      step: samples between their begins.
    """
    if len(parts) == 1:
        return parts[0]
    size = parts[0].shape[1]
    place = (jnp.arange(size) + 1) / (size + 1)
    weight = 0.5 - jnp.abs(place - 0.5)
    count = max(i * step + part.shape[1] for i, part in enumerate(parts))
    total = jnp.zeros((len(parts[0]), count, parts[0].shape[2]), parts[0].dtype)
    share = jnp.zeros(count)
    for i, part in enumerate(parts):
        begin, end = i * step, i * step + part.shape[1]
        some = weight[: part.shape[1]]
        total = total.at[:, begin:end].add(some[None, :, None] * part)
        share = share.at[begin:end].add(some)
    return total / share[None, :, None]
