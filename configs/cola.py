"""COLA (Saeed et al. 2021, arXiv:2010.10915): which two crops are of the same clip, with SimCLR's loss.

Run:      ssl-audio train --config cola:data=DIR --workdir runs/cola
Try:      ssl-audio train --config cola:runlocal --workdir runs/try
Laptop:   ssl-audio train --config cola:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards (several times faster here); several with "+";
          default: synthetic sounds
Results:  experiments/cola/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import audio_ntt, runs
from ssl_audio.train.optim import Optim

# What AudioMosaic changes in a waveform and the device can: see frontend/waves.py.
WAVES: tuple[dict[str, Any], ...] = (
    dict(kind="waves:Noise", low=5.0, high=40.0, slope=(-6.0, 0.0), chance=0.5),
    dict(kind="waves:Gain", low=-12.0, high=12.0, chance=0.5),
    dict(
        kind="waves:Filters",
        members=(
            dict(kind="waves:HighPass", chance=0.3),
            dict(kind="waves:LowPass", chance=0.3),
            dict(kind="waves:BandStop", chance=0.5),
        ),
    ),
)


def get_config(arg=""):
    a = parse_arg(arg, data="synthetic", waves=False, laptop=False, runlocal=False)
    if a.laptop:
        a.refuse("runlocal", "laptop sets it")
        return runs.short(
            objective=objective(512, 32, 128, clips=512, waves=a.waves),
            places=a.data,
            batch=64,
            steps=1200,
            samples=80_000,
            optim=Optim(lr=1e-3, weight_decay=1e-2, warmup="10%", schedule="cosine", clip=1.0),
        )
    config: Any = runs.pretrain(
        places=a.data,
        objective=objective(2048, 64, 512, clips=2048, waves=a.waves),
        batch=512,
        steps="100ep",
        optim=Optim(lr=1e-3, weight_decay=1e-2, warmup="5%", schedule="cosine", clip=1.0),
    )
    config.data.entries.audio.crop = "random"
    return runlocal(config) if a.runlocal else config


def objective(width, channels, out, *, clips, waves) -> dict[str, Any]:
    """Return the objective; `out` is the width of what is compared, `clips` of the views' memory."""
    return audio_ntt.parts(width, channels) | dict(
        kind="crop_contrast",
        pool=dict(kind="pools:TimeMaxMean"),
        views=audio_ntt.views(clips),
        projector=dict(kind="projectors:Swav", hidden=width, out=out),
        crop=audio_ntt.SAMPLES,
        places=1,
        temperature=0.1,
        augment=WAVES if waves else (),
    )


def runlocal(config):
    """Shrink to four steps on synthetic sounds."""
    config = runs.few_steps(config, 2 * audio_ntt.SAMPLES)
    objective = config.objective
    objective.encoder.update(width=48, channels=8)
    objective.views.mixup.clips = 16
    objective.projector.update(hidden=32, out=24)
    return config
