"""DeLoRes-S, DeLoRes-M and SLICER (LAPE; Ghosh et al. 2022, arXiv:2203.13628) on AudioNTT.

Run:      ssl-audio train --config lape:method=slicer,data=DIR --workdir runs/slicer
Try:      ssl-audio train --config lape:runlocal --workdir runs/try
Laptop:   ssl-audio train --config lape:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  method=delores_s|delores_m|slicer
Results:  experiments/lape/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import audio_ntt, runs
from ssl_audio.train.optim import Optim
from ssl_audio.train.sgd import Sgd

# Batch over four devices, and rate.
PUBLISHED = {"delores_s": (128, 0.03), "delores_m": (512, 3e-4), "slicer": (512, 3e-4)}


def get_config(arg=""):
    a = parse_arg(arg, method="delores_s", data="synthetic", laptop=False, runlocal=False)
    if a.method not in PUBLISHED:
        raise ValueError(f"method '{a.method}': wanted one of {', '.join(PUBLISHED)}.")
    if a.laptop:
        a.refuse("runlocal", "laptop sets it")
        return runs.short(
            objective=objective(a.method, 512, 16, 512, queue=1024, clips=256),
            places=a.data,
            batch=64,
            steps=400,
            samples=audio_ntt.SAMPLES,
            optim=Optim(lr=1e-3, weight_decay=1e-2, warmup="10%", schedule="cosine", clip=1.0),
        )
    batch, rate = PUBLISHED[a.method]
    config: Any = runs.pretrain(
        places=a.data,
        objective=objective(a.method, 2048, 64, 2048, queue=65_536, clips=2048),
        batch=batch,
        steps="50ep",
        # As PyTorch's: the decay goes through the momentum, and biases and norms decay too.
        optim=Sgd(
            lr=rate, momentum=0.9, weight_decay=1e-4, coupled=True, decay="(kernel|bias|scale)$"
        ),
        seconds=audio_ntt.SAMPLES / 16_000,
    )
    config.data.entries.audio.crop = "random"
    return runlocal(config) if a.runlocal else config


def objective(method, width, channels, out, *, queue, clips) -> dict[str, Any]:
    """Return the objective; `out` is the width of what is correlated, `clips` of the views' memory."""
    parts = audio_ntt.parts(width, channels)
    views = audio_ntt.views(clips, "KMix" if method == "slicer" else "LogMixup")
    parts |= dict(pool=dict(kind="pools:TimeMaxMean"), views=views)
    values = dict(kind="projectors:BarlowTwins", out=out)
    if method == "delores_s":
        return parts | dict(kind="decorrelate", projector=values, diagonal=1.0, cross=0.0051)
    parts |= dict(
        projector=dict(kind="projectors:OneLayer", out=128), queue=queue, temperature=0.07
    )
    if method == "delores_m":
        return parts | dict(
            kind="decorrelate_layers",
            momentum=0.999,
            shallow=values,
            layers=(0, 1, 2),
            diagonal=5e-5 / 32,
            cross=5e-5 / 32,
        )
    views["mixup"].update(clusters=4, fewest=128)
    return parts | dict(
        kind="instance_cluster",
        momentum=0.998,  # the released code moves the teacher by 0.999 twice a step
        clusters=dict(kind="projectors:Byol", hidden=width, out=128, norm=False),
        cluster_temperature=1.0,
    )


def runlocal(config):
    """Shrink to four steps on synthetic sounds."""
    config = runs.few_steps(config, audio_ntt.SAMPLES)
    objective = config.objective
    objective.encoder.update(width=48, channels=8)
    objective.views.mixup.clips = 16
    if "fewest" in objective.views.mixup:
        objective.views.mixup.fewest = 8
    for name in ("projector", "shallow", "clusters"):
        if name in objective:
            objective[name].out = 24
            if "hidden" in objective[name]:
                objective[name].hidden = 32
    if "queue" in objective:
        objective.queue = 32
    return config
