"""The contract of a frontend: waveforms to spectrograms, on the device.

Frontends are frozen dataclasses without parameters, so they hash and may be closed over by `jit`.
Called by objectives and evaluators.
"""

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int, Spec, Wave


@runtime_checkable
class Frontend(Protocol):
    """Anything with these attributes and methods can feed a tokenizer.

    One whose features are bands of frequency also has, for pictures, `frequencies`, the centre of each
    band in Hz, [F], and `decibels(spec)`, which turns what it returned back into dB.
    """

    @property
    def rate(self) -> int:
        """Sampling rate of the audio it takes, Hz."""
        ...

    @property
    def hop(self) -> int:
        """Samples between two frames."""
        ...

    @property
    def centre(self) -> float:
        """Sample on which the first frame is centred."""
        ...

    @property
    def bins(self) -> int:
        """Features per frame."""
        ...

    def __call__(self, audio: Wave, length: Int[Array, "B"] | None = None) -> Spec:
        """Return the features; samples from `length` on are padding (None: there is none)."""
        ...

    def count(self, samples: int) -> int:
        """Return T, the frames of the features of a batch that is `samples` long."""
        ...

    def valid(self, length: Int[Array, "B"], frames: int) -> Bool[Array, "B T"]:
        """Return which of `frames` frames hold nothing but samples before `length`."""
        ...


def before(count: Int[Array, "B"], frames: int) -> Bool[Array, "B T"]:
    """Return a mask that is True on the first `count` of `frames` frames of each clip."""
    return jnp.arange(frames)[None, :] < count[:, None]


def counted(frontend: Frontend, spec: Spec, length: Int[Array, "B"]) -> Int[Array, "B"]:
    """Return the frames of each clip of `length` samples in its features, before the padding."""
    return jnp.sum(frontend.valid(length, spec.shape[1]), axis=1)


def sounding(frontend: Any, samples: int) -> int:
    """Return the frames of so much sound: as many as windows fit into it.

    Where frame t is centred on sample t * hop it stands for the samples from there to the next, so there are
    as many frames as hops fit.
    """
    size = frontend.window if frontend.centre else min(frontend.window, frontend.hop)
    return 1 + (samples - size) // frontend.hop


def framed(audio: Wave, frames: int, window: int, hop: int) -> Float[Array, "B T W"]:
    """Return overlapping frames, put together from slices one hop long: far faster than a gather."""
    parts = -(-window // hop)
    size = (frames + parts - 1) * hop
    audio = jnp.pad(audio[:, :size], ((0, 0), (0, max(0, size - audio.shape[1]))))
    hops = audio.reshape(audio.shape[0], -1, hop)
    joined = jnp.concatenate([hops[:, i : i + frames] for i in range(parts)], axis=2)
    return joined[:, :, :window]


# The largest that a frontend's sizes can mean; beyond, its tables alone would fill the memory.
MOST = dict(rate=2**20, bins=2**13, hop=2**20, window=2**20, taper=2**20, size=2**20, frames=2**24)


def check_sizes(frontend: Any) -> None:
    """Raise ValueError, naming the field, when a size is beyond MOST."""
    name = type(frontend).__name__
    for field, most in MOST.items():
        value = getattr(frontend, field, None)
        if value is not None and value > most:
            raise ValueError(f"{name}: {field} is {value}; wanted at most {most}.")
    if getattr(frontend, "window", 0) > 1024 * max(1, frontend.hop):
        raise ValueError(f"{name}: hop is {frontend.hop}; wanted at least a 1024th of the window.")
