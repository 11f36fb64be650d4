"""An objective from outside the package, with predictors and an interface that the package never heard of."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.inference.model import Model
from ssl_audio.objectives.base import Objective
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class Separate(Objective):
    """Split sound into sources by short learned filters, so that their sum is the sound again.

    Attributes:
      count: sources, M.
    """

    count: int = 2

    needs: ClassVar[tuple[str, ...]] = ("loudness",)

    def init(self, key: Any, batch: Any) -> tuple[Any, Any]:  # noqa: D102
        del batch
        filters = jax.random.normal(key, (self.count, 9)) / 3
        return {"filters": filters}, {"loudness": jnp.full(1, 2.0)}

    def loss(self, params, extra, batch, key, *, train) -> Loss:  # noqa: D102
        del key, train
        error = self.separate(params, extra, batch).sum(1) - batch["audio"]
        return Loss(total=jnp.mean(error**2), metrics={}, extra=extra)

    def predictors(self):  # noqa: D102
        return {"separate": self.separate, "level": self.level, "one": self.one, "tone": self.tone}

    def separate(self, params, extra, batch):
        """Return the sources [B, M, S]."""
        del extra

        def source(audio, taps):
            return jnp.convolve(audio, taps, mode="same")

        over = jax.vmap(jax.vmap(source, (None, 0)), (0, None))
        return over(batch["audio"], params["filters"])

    def level(self, params, extra, batch):
        """Return arrays of which one counts the examples last, and one not at all."""
        power = jnp.mean(batch["audio"] ** 2, axis=1)
        levels = jnp.stack([power, extra["loudness"] * power])
        return {"levels": levels, "filters": params["filters"], "samples": batch["length"]}

    def one(self, params, extra, batch):
        """Return the source that is asked for [B, S]."""
        found = self.separate(params, extra, batch)
        return jnp.take_along_axis(found, batch["which"][:, None, None], axis=1)[:, 0]

    def tone(self, params, extra, batch):
        """Return a tone of a pitch [B, 100], having heard nothing."""
        del params, extra
        return jnp.sin(batch["pitch"][:, None] * jnp.arange(100)[None])


class Separator(Model):
    """An interface of its own."""

    def separate(self, waveform: Any, sample_rate: int) -> np.ndarray:
        """Return the sources [M, S] of a clip [S]."""
        return self.predict("separate", waveform, sample_rate)


@dataclasses.dataclass(frozen=True)
class Own(Separate):
    """The same, which names its interface."""

    interface: ClassVar[str] = "separator:Separator"


@dataclasses.dataclass(frozen=True)
class Lost(Separate):
    """The same, whose interface is nowhere."""

    interface: ClassVar[str] = "separator:Nobody"
