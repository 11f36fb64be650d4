"""Fit bags of spectral codes to training clips: the features "statistics" of `evaluate.py`.

Autoencoders of the views of `objectives/bag_of_codes.py`, then k-means on their bottlenecks. Everything is
fitted to the training clips of a fold alone, without labels.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_audio.data.entries import clips
from ssl_audio.data.reading import reading
from ssl_audio.data.source import Source
from ssl_audio.eval.base import Nested, Score, Split, statistics
from ssl_audio.inference.bag_encoder import BagEncoder
from ssl_audio.inference.kmeans import centroids
from ssl_audio.objectives.bag_of_codes import BagOfCodes, View, perceive, perceptron

RATE = 1e-3  # of Adam
BATCH = 256  # parts
WINDOW = (
    10  # s: the length that the saved model says its clips had, which has no effect on what it does
)


@dataclasses.dataclass(frozen=True)
class Fit:
    """How the codes are fitted.

    Attributes:
      parts: most of a view that are learned from, about equally many of each clip, drawn at random.
      epochs: of the autoencoders, over these.
      seed: of the draws, the autoencoders and k-means.
    """

    parts: int = 5_000
    epochs: int = 5
    seed: int = 0

    def __call__(self, model: BagOfCodes, spectra: Sequence["Heard"]) -> dict[str, Any]:
        """Return the parameters of a model fitted to clips."""
        return {
            view.title: self._view(model, view, spectra, number)
            for number, view in enumerate(model.views)
        }

    def _view(
        self, model: BagOfCodes, view: View, spectra: Sequence["Heard"], number: int
    ) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, number))
        x = self._drawn(model, view, spectra, rng)
        centre, gain = statistics(x)
        z = (x - centre) * gain
        layers, _ = autoencoder(z, view, epochs=self.epochs, seed=self.seed + number)
        found = np.asarray(jax.jit(perceive)(layers, z))
        book = centroids(found, min(view.codes, len(found)), self.seed)
        # Fewer parts than codes: the first centre again, which is never chosen for the second time.
        book = np.concatenate([book, np.repeat(book[:1], view.codes - len(book), axis=0)])
        return dict(centre=centre, gain=gain, encoder=jax.tree.map(np.asarray, layers), book=book)

    def _drawn(
        self, model: BagOfCodes, view: View, spectra: Sequence["Heard"], rng: np.random.Generator
    ) -> np.ndarray:
        """Return parts [N, V] of all clips, at most `parts`."""
        each = -(-self.parts // len(spectra))
        kept = []
        for heard in spectra:
            x = np.asarray(_parts(model, view)(heard.padded[None]))[0]
            x = x[: int(view.times(heard.frames))].reshape(-1, view.values)
            kept.append(x[rng.permutation(len(x))[:each]])
        x = np.concatenate(kept)
        return x[rng.permutation(len(x))[: self.parts]]


def autoencoder(
    x: np.ndarray, view: View, *, epochs: int, seed: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Return the encoder's layers, and the mean squared error in each epoch.

    Args:
      x: parts [N, V], standardised; with Adam, in batches of 256, in a new order each epoch.
      view: its hidden layers, mirrored in the decoder, and its bottleneck.
      epochs: number.
      seed: of initial parameters and order.
    """
    params, state = _start(jax.random.key(seed), (view.values, *view.hidden, view.width))
    rng, errors = np.random.default_rng(seed), []
    size = min(BATCH, len(x))
    there = jnp.asarray(x)
    for _ in range(epochs):
        order = rng.permutation(len(x))[: len(x) // size * size].reshape(-1, size)
        params, state, error = _epoch(params, state, there, order)
        errors.append(error)
    return params["encoder"], np.array(jax.device_get(errors))


@functools.partial(jax.jit, static_argnums=1)
def _start(key: jax.Array, widths: tuple[int, ...]) -> Any:
    """Return fresh parameters and optimizer state."""
    first, second = jax.random.split(key)
    params = dict(encoder=perceptron(first, widths), decoder=perceptron(second, widths[::-1]))
    return params, optax.adam(RATE).init(params)


@jax.jit
def _epoch(params: Any, state: Any, x: jax.Array, order: jax.Array) -> Any:
    """Return parameters and optimizer state after a pass over rows in this order, and the mean error."""

    def step(carry, rows):
        params, state = carry
        batch = x[rows]

        def error(params):
            made = perceive(params["decoder"], perceive(params["encoder"], batch))
            return jnp.mean((made - batch) ** 2)

        value, slope = jax.value_and_grad(error)(params)
        update, state = optax.adam(RATE).update(slope, state, params)
        return (optax.apply_updates(params, update), state), value

    (params, state), values = jax.lax.scan(step, (params, state), order)
    return params, state, jnp.mean(values)


class Heard(NamedTuple):
    """The spectra of a clip [T, R, F], see `BagOfCodes.spectra`, and how many of its frames count."""

    spectra: np.ndarray
    frames: int

    @property
    def padded(self) -> np.ndarray:
        """The spectra, filled up to a multiple of 64 frames: few programs to compile."""
        return np.pad(self.spectra, ((0, -len(self.spectra) % 64), (0, 0), (0, 0)), mode="edge")


class Bags:
    """The clips of a source, read once, as bags of codes that are fitted to any of them.

    An hour of sound takes 173 MB with the usual windows.

    Args:
      source: clips at the model's rate.
      model: windows and views; None: the usual ones, at the rate of the first clip.
      fit: how.
      max_bad_share: of clips that cannot be read.

    Attributes:
      numbers: of the clips that could be read [n].
      model: as given.
    """

    def __init__(
        self,
        source: Source,
        model: BagOfCodes | None = None,
        fit: Fit | None = None,
        *,
        max_bad_share: float = 0.01,
    ):
        self.model = model or BagOfCodes(rate=source.meta(0)["rate"])
        self._fit = fit or Fit()
        self._fitted: dict[bytes, tuple[dict[str, Any], np.ndarray]] = {}
        read: list[int] = []
        heard = reading(source, read, desc="statistics", bad={}, max_bad_share=max_bad_share)
        self._spectra = [self._heard(clip) for clip in heard]
        if not self._spectra:
            raise ValueError(f"{source.info.name}: no clip could be read.")
        self.numbers = np.array(read)

    def of(self, train: np.ndarray) -> np.ndarray:
        """Return the bags [n, D] of all clips, with codes fitted to the clips `train` [n]."""
        return self._of(train)[1]

    def encoder(self, train: np.ndarray) -> BagEncoder:
        """Return the codes fitted to the clips `train` [n], as what `load` returns."""
        data = clips(WINDOW * self.model.rate, rate=self.model.rate)
        config = dict(objective=described(self.model), data=data)
        return BagEncoder(self.model, self._of(train)[0], config)

    def nested(self, classifier: Any, y: np.ndarray, split: Split) -> "Refitted":
        """Return what `Nested` is for fixed features."""
        return Refitted(self, classifier, y, split)

    def _of(self, train: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
        key = np.packbits(train).tobytes()
        if key not in self._fitted:
            chosen = [spec for spec, taken in zip(self._spectra, train, strict=True) if taken]
            params = self._fit(self.model, chosen)
            program, found = _bag(self.model), []
            for heard in self._spectra:
                frames = np.array([heard.frames], np.int32)
                found.append(np.asarray(program(params, heard.padded[None], frames))[0])
            self._fitted[key] = params, np.stack(found)
        return self._fitted[key]

    def _heard(self, clip: Any) -> "Heard":
        """Return the spectra of a clip."""
        audio = clip if isinstance(clip, np.ndarray) else np.concatenate(list(clip))
        rate = self.model.rate
        length = np.array([len(audio)], np.int32)
        audio = np.pad(audio, (0, -(-len(audio) // rate) * rate - len(audio)))[None]
        spec, frames = _heard(self.model)(audio, length)
        count = int(frames[0])
        return Heard(np.asarray(spec)[0, : max(count, self.model.least)], count)


class Refitted:
    """As `base.Nested`, with features that are fitted anew to each fold's training clips.

    Within them, to choose an option, folds share the codes, which have seen the clips but no labels.
    """

    def __init__(self, bags: Bags, classifier: Any, y: np.ndarray, split: Split):
        self._bags, self._classifier, self._y, self._split = bags, classifier, y, split

    def scores(self) -> Iterator[Score]:
        """Yield the score of each outer fold."""
        for name, test in self._split.tests.items():
            alone = Split({name: test}, self._split.groups)
            yield from self._nested(~test, alone).scores()

    def choose(self, train: np.ndarray) -> tuple[int, int]:
        """Return 0, and the number of the choice that does best within the clips `train` [n]."""
        return self._nested(train, self._split).choose(train)

    def _nested(self, train: np.ndarray, split: Split) -> Nested:
        return Nested(self._classifier, self._bags.of(train)[:, None], self._y, split)


def described(model: BagOfCodes) -> dict[str, Any]:
    """Return the config of a model."""
    views = [dict(kind="bag_of_codes:View", **vars(view)) for view in model.views]
    fields: Mapping[str, Any] = vars(model) | dict(views=tuple(views))
    return dict(kind="bag_of_codes", **fields)


@functools.lru_cache(64)
def _heard(model: BagOfCodes) -> Any:
    """Return the jitted pass (audio, length) → spectra, frames that count."""
    return jax.jit(lambda audio, length: (model.spectra(audio, length), model.frames(length)))


@functools.lru_cache(64)
def _parts(model: BagOfCodes, view: View) -> Any:
    """Return the jitted pass (spectra) → parts."""
    return jax.jit(functools.partial(model.parts, view))


@functools.lru_cache(64)
def _bag(model: BagOfCodes) -> Any:
    """Return the jitted pass (parameters, spectra, frames) → bags."""
    return jax.jit(model.bag)
