"""Terrain from sound (Zürn et al. 2021, arXiv:1912.03227): pictures choose triplets, sounds label pixels.

Run:      ssl-audio train --config terrain:data=SOUNDS.csv --workdir runs/terrain
Then:     ssl-audio kmeans --checkpoint runs/terrain --data SOUNDS.csv --clips --pool special --out C.csv
          ssl-audio train --config terrain:stage=pixels,data=PICTURES.csv,classes=5 --workdir runs/pixels
Try:      ssl-audio train --config terrain:runlocal --workdir runs/try
Laptop:   ssl-audio train --config terrain:laptop,data=SOUNDS.csv --workdir runs/laptop
Data:     sound: a manifest with columns path, positive, cluster, of `ssl_audio.data.cross_modal.rows`;
          pixels: columns path, pixels (FILE.npy#ROW); default: synthetic sounds, triplets by their labels
Options:  stage=sound|pixels  triplet=1.0  reconstruct=1.0: weights; classes=5  side=40: of pixels;
          laptop: clips of spoken digits, 0.64 s at 8 kHz
Results:  experiments/terrain/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.data import entries
from ssl_audio.presets import runs
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

STAGES = ("sound", "pixels")
OPTIM = Optim(lr=1e-3, weight_decay=0.0)  # ours: neither is published


def get_config(arg=""):
    a = parse_arg(
        arg,
        stage="sound",
        data="synthetic",
        triplet=1.0,
        reconstruct=1.0,
        classes=5,
        side=40,
        laptop=False,
        runlocal=False,
    )
    if a.stage not in STAGES:
        raise ValueError(f"stage '{a.stage}': wanted one of {', '.join(STAGES)}.")
    if a.runlocal:
        a.refuse("data laptop", "runlocal is on synthetic data")
    if a.stage == "pixels":
        a.refuse("triplet reconstruct laptop", "there is no sound in that stage")
        return pixels(a)
    a.refuse("classes side", "it is for stage=pixels")
    config = sound(a)
    return runlocal(config) if a.runlocal else config


def sound(a):
    rate = 8000 if a.laptop else 16_000
    hop, frames, bins = rate // 50, *((32, 32) if a.laptop else (40, 40))
    frontend = dict(
        kind="mel", rate=rate, bins=bins, hop=hop, window=5 * hop // 2, low=0.0, high=0.0, frames=frames,
        mean=-40.0, std=20.0,
    )  # fmt: skip
    samples = hop * (frames - 1)
    cut = entries.audio(samples)
    if a.data == "synthetic":
        source: dict[str, Any] = dict(kind="synthetic") | (
            {} if rate == 16_000 else dict(rate=rate)
        )
        triplet = dict(kind="triplet", audio=dict(cut), by="labels")
    else:
        source = dict(kind="source:Manifest", path=a.data, rate=rate)
        triplet = dict(kind="cross_modal", audio=dict(cut))
    return runs.run(
        objective=dict(
            kind="triplet_reconstruction",
            frontend=frontend,
            tokenizer=dict(kind="bins", norm=None),
            encoder=dict(kind="cnn", channels=(16, 32, 32), convolutions=1),
            pool=dict(kind="pools:Flat"),
            projector=dict(kind="projectors:OneLayer", out=32),
            decoder=dict(
                kind="spectrogram:VectorToSpectrogram", channels=(16, 8) if a.laptop else (32, 16)
            ),
            margin=0.3,
            triplet=a.triplet,
            reconstruct=a.reconstruct,
        ),
        data=dict(
            sources=dict(clips=source),
            batch_size=32,
            entries=dict(audio=cut, triplet=triplet),
        )
        | ({} if rate == 16_000 else dict(rate=rate)),
        optim=OPTIM,
        steps="90ep" if not a.laptop else "900",
        checkpoint=Checkpoint(every="10%"),
        record=Record(every=50, figures="0"),
    )


def pixels(a):
    image = dict(kind="pictures:Image", size=a.side)
    entry: dict[str, Any]
    if a.data == "synthetic":
        source: dict[str, Any] = dict(
            kind="pixels:Drawn", size=64, side=a.side, classes=a.classes, labelled=0.05
        )
        image |= dict(channels=1, mean=(0.5,), std=(0.5,))
    else:
        source = dict(kind="pictures:Pictures", path=a.data)
    entry = dict(kind="pixels", image=image, classes=a.classes)
    config: Any = runs.run(
        objective=dict(
            kind="segmentation", model=dict(kind="unet:UNet", classes=a.classes), classes=a.classes
        ),
        data=dict(sources=dict(pictures=source), batch_size=16, entries=dict(pixels=entry)),
        optim=OPTIM,
        steps="90ep",
        checkpoint=Checkpoint(every="10%"),
        record=Record(every=50, figures="0"),
    )
    if a.runlocal:
        config.data.batch_size = 8
        config.steps = "4"
        config.record.update(every=1, figures="0", clips=1)
        config.checkpoint.every = "2"
    return config


def runlocal(config):
    """Shrink to four steps on synthetic sounds."""
    samples = config.data.entries.audio.samples
    config = runs.few_steps(config, samples)
    config.objective.encoder.channels = (8, 8)
    return config
