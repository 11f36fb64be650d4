"""Latent diffusion: the run that the configs `diffusion` and `synthio` describe."""

from typing import Any

from ssl_audio.config import plain
from ssl_audio.data.entries import audio
from ssl_audio.presets import runs
from ssl_audio.storage import written
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

SIZES: dict[str, dict[str, int]] = {
    "tiny": dict(width=64, depth=1, heads=2, waves=8),
    "laptop": dict(width=128, depth=4, heads=4, waves=32),
    "base": dict(width=768, depth=12, heads=12, waves=128),
    "stable": dict(width=1536, depth=24, heads=24, waves=128),
}
OPTIM = Optim(lr=5e-5, weight_decay=1e-3, warmup=1000, clip=1.0, average=0.9999)
LAPTOP = Optim(lr=2e-3, b2=0.99, warmup="5%", schedule="cosine", clip=1.0)
LAPTOP_PREFERENCE = Optim(lr=3e-5, b2=0.99, warmup="10%", clip=1.0)


def model(place: str, *, size: str, autoencoder: str = "", small: bool = False) -> Any:
    """Return a run of the diffusion model.

    Args:
      place: of clips with captions, or with labels.
      size: of SIZES.
      autoencoder: the run of one; "": log-mels.
      small: for two cores, at 8 kHz.
    """
    rate = 8000 if small else 16_000
    made = objective(SIZES[size], rate, autoencoder, buckets=64 if size == "tiny" else 1024)
    if autoencoder:
        rate = written.trained(autoencoder)["frontend"]["rate"]
    return runs.run(
        objective=made,
        data=data(place, rate, round((0.8 if small else 10) * rate), made["words"]["vocab"] - 2)
        | dict(batch_size=64 if small else 256),
        optim=LAPTOP if small else OPTIM,
        steps=3000 if small else 200_000,
        checkpoint=Checkpoint(every="10%" if small else "2%"),
        record=Record(every=50, figures="0"),
    )


def oobleck(place: str, *, small: bool, channels: int = 0) -> Any:
    """Return a run of the autoencoder of Stable Audio, of one channel, without a discriminator."""
    rate = 8000 if small else 16_000
    multiples, strides = ((1, 2, 4), (4, 5, 8)) if small else ((1, 2, 4, 8, 16), (2, 4, 4, 5, 8))
    channels, width = (channels or 16, 32) if small else (128, 64)
    windows = (64, 128, 256, 512) if small else (64, 128, 256, 512, 1024, 2048)
    made = dict(
        kind="autoencoder",
        frontend=dict(kind="raw", rate=rate, standardise=False),
        tokenizer=dict(
            kind="oobleck", width=2 * width, channels=channels, multiples=multiples, strides=strides
        ),
        encoder=dict(kind="identity"),
        decoder=dict(
            kind="oobleck", sounds=1, channels=channels, multiples=(*multiples[::-1], 1),
            strides=strides[::-1],
        ),
        spectra=[
            dict(kind="mel", rate=rate, bins=min(32, w // 4), hop=w // 4, window=w, low=0.0, high=0.0,
                 floor=1e-10, scale="htk", area=False) for w in windows
        ],
    )  # fmt: skip
    optim = Optim(lr=1e-3 if small else 1e-4, b1=0.8, b2=0.99, clip=1.0)
    config: Any = runs.short(
        objective=made, places=place, samples=rate, batch=16, steps=2000, optim=optim
    )
    if not small:
        config.steps = "1000000"
        config.data.batch_size = 64
    return config


def objective(size, rate: int, autoencoder: str, buckets: int) -> dict[str, Any]:
    """Return the objective; without an autoencoder two frames of a log-mel are one latent vector."""
    scale = rate // 8000
    mel = dict(
        kind="mel", rate=rate, bins=64 * scale, hop=128 * scale, window=512 * scale, low=0.0, high=0.0,
        floor=1e-5,
    )  # fmt: skip
    coder = dict(kind="vocoder", frontend=mel, fold=2, rounds=60)
    if autoencoder:
        coder = dict(kind="ssl_audio.inference.frozen:Frozen", path=autoencoder)
    words = dict(kind="words:WordsPlaced", width=size["width"], vocab=buckets + 2, length=16)
    return dict(
        kind="diffusion",
        model=dict(kind="dit", given=size["width"], ratio=4.0, **size),
        schedule=dict(kind="noise:Cosine"),
        drop=0.1,
        autoencoder=coder,
        words=words,
    )


def data(place: str, rate: int, samples: int, buckets: int) -> dict[str, Any]:
    """Return batches of clips and their captions; clips without any are called by their labels."""
    from ssl_audio.data.places import TABLES, sources

    own = place.lower().endswith(TABLES)
    captions = dict(kind="captions:Own")
    if not own:
        captions = dict(kind="captions:Templates", templates=("Sound of a {}",))
    words = dict(kind="text:Words", words=(), buckets=buckets)
    found: dict[str, Any] = dict(
        sources=sources(place, rate),
        entries=dict(
            audio=audio(samples, crop="first"),
            text=dict(kind="text", words=words, length=16, captions=captions),
        ),
    )
    return found | ({} if rate == 16_000 else dict(rate=rate))


def preference(place: str, pretrained: str, *, small: bool) -> Any:
    """Return a run that goes on from another one, and prefers clips to those they were paired with.

    Raises:
      ValueError: the other one is not of a diffusion model.
    """
    before = written.trained(pretrained)
    if not before.get("words"):
        raise ValueError(
            f"pretrained={pretrained}: its objective is '{before.get('kind')}'; wanted 'diffusion'."
        )
    options = written.read(pretrained)
    samples, rate = written.samples(options), options.get("data", {}).get("rate", 16_000)
    given = data(place, rate, samples, before["words"]["vocab"] - 2)
    given["entries"]["rejected"] = dict(kind="rejected", audio=audio(samples, crop="first"))
    config = runs.run(
        objective=plain(before) | dict(kind="preference", beta=2000.0),
        data=given | dict(batch_size=32 if small else 64),
        optim=LAPTOP_PREFERENCE if small else OPTIM,
        steps=60 if small else 5000,
        checkpoint=Checkpoint(every="10%"),
        record=Record(every=20, figures="0"),
    )
    with config.unlocked():
        config.warm_start = dict(
            model=dict(
                path=pretrained, take="^(model|words|latents)/", leave="", out_of="", into=""
            )
        )
    return config
