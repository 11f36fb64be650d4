"""HEAR embeddings of windows: what PaSST does with clips longer than its input, and for moments.

Koutini et al. 2022 (arXiv:2211.13956). `eval/hear.py` offers it for any run.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.heads.readout import mean_tokens, special_tokens
from ssl_audio.inference.encoder import Encoder
from ssl_audio.inference.windows import centred, windows_per_call


@dataclasses.dataclass(frozen=True)
class Windows:
    """Lengths and distances of windows, ms.

    Attributes:
      scene: clips up to this length are embedded in one piece; longer ones as the mean of windows.
      scene_hop: between those.
      moment: length of the windows around timestamps.
      moment_hop: between timestamps.
    """

    scene: float = 10_000
    scene_hop: float = 2_500
    moment: float = 160
    moment_hop: float = 50

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if (value := getattr(self, field.name)) <= 0:
                raise ValueError(f"Windows: {field.name} is {value} ms; it must be above 0.")

    def scenes(self, encoder: Encoder, audio: np.ndarray) -> np.ndarray:
        """Return one vector per clip: [n, C + D] for [n, S] at the encoder's rate."""
        size, hop = (_samples(ms, encoder) for ms in (self.scene, self.scene_hop))
        if audio.shape[1] <= size:
            return vectors(encoder, audio)
        cut = np.asarray(centred(audio, size, hop))
        found = vectors(encoder, cut.reshape(-1, size))
        return found.reshape(*cut.shape[:2], -1).mean(axis=1)

    def timestamps(self, encoder: Encoder, audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors around every `moment_hop`, [n, t, C + D], and the times, ms [n, t]."""
        size, hop = (_samples(ms, encoder) for ms in (self.moment, self.moment_hop))
        cut = np.asarray(centred(audio, size, hop))
        found = vectors(encoder, cut.reshape(-1, size)).reshape(*cut.shape[:2], -1)
        times = np.arange(cut.shape[1]) * (hop * 1000 / encoder.rate)
        return found, np.tile(times, (len(audio), 1))

    def size(self, encoder: Encoder) -> int:
        """Return C + D."""
        blank = np.zeros((1, _samples(self.moment, encoder)), np.float32)
        return jax.eval_shape(_program(encoder.objective), encoder.params, blank).shape[1]


def vectors(encoder: Encoder, audio: np.ndarray) -> np.ndarray:
    """Return the logits, if there are any, and the mean of the special tokens: [n, C + D] of [n, S].

    An encoder without special tokens gives the mean of all.
    """
    program = _program(encoder.objective)
    size = windows_per_call(encoder.batch_size, audio.shape[1] / encoder.rate)
    found = []
    for start in range(0, len(audio), size):
        part = audio[start : start + size].astype(np.float32)
        filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        found.append(np.asarray(program(encoder.params, filled))[: len(part)])
    return np.concatenate(found)


def _samples(ms: float, encoder: Encoder) -> int:
    return round(ms * encoder.rate / 1000)


@functools.lru_cache(8)
def _program(objective: Any) -> Any:
    """Return the jitted pass (params, audio) → [n, C + D]."""
    free = dataclasses.replace(
        objective, frontend=dataclasses.replace(objective.frontend, frames=None)
    )
    offers = free.predictors()

    def program(params, audio):
        batch = {"audio": audio, "length": jnp.full(len(audio), audio.shape[1], jnp.int32)}
        encoded = offers["encode"](params, {}, batch)
        pool = mean_tokens if encoded.special is None else special_tokens
        logits = [offers["logits"](params, {}, batch)] if "logits" in offers else []
        return jnp.concatenate([*logits, pool(encoded)], axis=-1)

    return jax.jit(program)
