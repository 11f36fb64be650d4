"""A diffusion model in use: texts, or other conditions, to sound."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import config as configs
from ssl_audio.inference.model import Model
from ssl_audio.inference.sampling import check_seeds
from ssl_audio.objectives import samplers
from ssl_audio.objectives.noise import guided
from ssl_audio.storage import written

SAMPLERS = {"ddim": samplers.Ddim, "dpm2m": samplers.Dpm2M, "dpm3m": samplers.Dpm3M}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DiffusionModel(Model):
    """A trained diffusion model.

    Attributes:
      batch_size: sounds that are made at the same time.
    """

    batch_size: int = dataclasses.field(default=32, kw_only=True)

    @property
    def rate(self) -> int:
        """Sampling rate of the sound, Hz."""
        coder = getattr(self.objective, "autoencoder", None)
        coder = getattr(coder, "objective", coder)
        frontend = getattr(coder, "frontend", None)
        return getattr(frontend, "rate", None) or super().rate

    @property
    def seconds(self) -> float:
        """Length of the sounds that it was trained on, s: the longest that it makes."""
        return written.samples(self.config) / self.rate

    @functools.cached_property
    def text(self) -> Any:
        """How words are cut.

        Raises:
          ValueError: the model has no words.
        """
        if self.objective.words is None or not (found := written.entry(self.config, "text")):
            raise ValueError(
                f"{self._name}: it takes no words; give conditions to predict('velocity')."
            )
        return configs.build(found, "data")

    def blank(self) -> dict[str, Any]:
        """Return a batch of one silent clip, with an empty text and a rejected clip where they are needed."""
        batch = dict(super().blank())
        if self.objective.words is not None:
            ids, lengths = self.text.encode([""])
            batch |= {"text": ids, "text_length": lengths}
        return batch

    def generate(
        self,
        texts: str | Sequence[str],
        seconds: float | None = None,
        seed: int = 0,
        *,
        guidance: float = 3.0,
        rescale: float = 0.0,
        steps: int = 50,
        sampler: str | samplers.Sampler = "dpm3m",
    ) -> Any:
        """Return sound [S] at `rate` of a text, or a list of it of several.

        Args:
          texts: words; "": without any. One string is one text.
          seconds: length; None: that of training, which is the longest.
          seed: of the first sound; the next has one more. But for rounding, a sound does not depend on the
            others.
          guidance: how much the words count; 1: as in training, 0: not.
          rescale: see `noise.guided`.
          steps: evaluations of the model.
          sampler: "ddim", "dpm2m", "dpm3m" (stochastic), or an object, to which `steps` is nothing.

        Raises:
          ValueError: no texts; a length, a number of steps, a seed or a sampler that there is not; a model
            without an autoencoder or words.
        """
        some = [texts] if isinstance(texts, str) else list(texts)
        if not some or not all(isinstance(text, str) for text in some):
            raise ValueError(f"texts: got {texts!r}, wanted a text, or a list of at least one.")
        self.check_offers("sound")
        check_seeds(seed, len(some) + self.batch_size)  # the last group is filled up
        seconds = self.seconds if seconds is None else seconds
        if not 0 < seconds <= self.seconds * (1 + 1e-9):
            raise ValueError(
                f"seconds: got {seconds:g}, wanted more than 0 and at most {self.seconds:g}, the length of "
                "the clips that the model was trained on."
            )
        chosen: Any = sampler
        if isinstance(sampler, str):
            if sampler not in SAMPLERS:
                raise ValueError(f"sampler: got {sampler!r}, wanted one of {', '.join(SAMPLERS)}.")
            chosen = SAMPLERS[sampler](steps=steps)
        size, found = round(seconds * self.rate), []
        for start in range(0, len(some), self.batch_size):
            group = some[start : start + self.batch_size]
            fill = self.batch_size - len(group) if len(some) > self.batch_size else 0
            filled = group + group[-1:] * fill
            ids, lengths = self.text.encode(filled)
            # Of "" it makes a word that nobody has trained; no words at all were.
            lengths = np.where([text.strip() == "" for text in filled], 0, lengths)
            seeds = np.arange(seed + start, seed + start + len(ids), dtype=np.uint32)
            scales = np.array([guidance, rescale], np.float32)
            sounds = self._sampled(chosen)(
                self._on_device, self._extra_on_device, ids, lengths, seeds, scales
            )
            found += list(np.asarray(sounds)[: len(group)])
        sounds = [_cut(sound, size) for sound in found]
        return sounds[0] if isinstance(texts, str) else sounds

    @functools.cached_property
    def _samplers(self) -> dict[Any, Any]:
        return {}

    def _sampled(self, sampler: samplers.Sampler) -> Any:
        """Return the program that makes sounds; one is compiled for each sampler and number of sounds."""
        if sampler in self._samplers:
            return self._samplers[sampler]
        made, blank = self.objective, jax.tree.map(jnp.asarray, self.blank())

        def program(params, extra, ids, lengths, seeds, scales):
            shapes = jax.eval_shape(lambda: made.latents(params, extra, blank, None)[0])
            keys = jax.vmap(jax.random.key)(seeds)
            noise = jax.vmap(lambda key: jax.random.normal(key, shapes.shape[1:]))(keys)
            condition = made.condition(params, {"text": ids, "text_length": lengths})
            nothing = jnp.zeros_like(condition)
            both = jnp.concatenate([condition, nothing])
            weights = {"params": params["model"]}

            def predict(x, time):
                times = jnp.full(2 * len(x), time)
                v = made.model.apply(weights, jnp.concatenate([x, x]), times, both, None)
                told, free = jnp.split(v, 2)
                return guided(told, free, scales[0], scales[1])

            x = samplers.sample(predict, made.schedule, noise, sampler, keys)
            return made.sound(params, extra, {"latents": x})

        return self._samplers.setdefault(sampler, jax.jit(program))


def _cut(sound: np.ndarray, size: int) -> np.ndarray:
    """Return the first channel of a sound, as long as asked, at most 1 loud."""
    sound = sound if sound.ndim == 1 else sound.mean(-1)
    sound = np.pad(sound[:size], (0, max(0, size - len(sound))))
    return (sound / max(1.0, float(np.max(np.abs(sound), initial=0.0)))).astype(np.float32)
